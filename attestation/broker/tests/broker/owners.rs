//! What owners write: signed, create-only, each below its own repository.

use axum::http::StatusCode;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use protocols::audit::Checkpoint;
use protocols::broker::{POLICIES_PATH, REGISTRATIONS_PATH, RETIREMENTS_PATH};
use protocols::owner::{OwnerKey, ReleasePolicy};
use protocols::refusal::Code;
use serde_json::json;

use crate::support::{World, policy, policy_statement, post};

#[tokio::test]
async fn each_write_is_answered_with_a_checkpoint_of_the_audit_log() {
    let world = World::new().await;
    let pushed = world.owner.sealed("web", 1);
    let registered = world.register(&world.owner, &pushed).await;
    let set = world.set_policy(policy_statement(&world.owner, 1, policy())).await;
    let retired = world.retire(&world.owner, "web", 1).await;
    let checkpoints: Vec<Checkpoint> = [registered, set, retired]
        .iter()
        .map(|answer| serde_json::from_value(answer.body["checkpoint"].clone()).unwrap())
        .collect();
    assert!(checkpoints.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    let events = world.events().await;
    for (checkpoint, event) in checkpoints.iter().zip(["key.registered", "policy.set", "revision.retired"]) {
        checkpoint.verify().unwrap();
        let record = events.iter().find(|record| record["hash"] == checkpoint.hash).unwrap();
        assert_eq!(record["event"], event);
    }
}

#[tokio::test]
async fn a_statement_by_another_key_is_refused() {
    let world = World::new().await;
    let pushed = world.owner.sealed("web", 1);
    let thief = OwnerKey::generate().unwrap();
    let registration = thief.sign_statement(&pushed.registration).unwrap();
    let answer = world.register_raw(&registration, &pushed.key).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::OwnerSignature));
    let policy = thief.sign_statement(&policy_statement(&world.owner, 1, policy())).unwrap();
    let answer = world.send(post(POLICIES_PATH, &json!({ "policy": policy }), &[])).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::OwnerSignature));
    assert_eq!(world.register(&world.owner, &pushed).await.status, StatusCode::OK);
    let thief = crate::support::Owner { repository: "shop".into(), key: thief };
    let answer = world.retire(&thief, "web", 1).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::OwnerSignature));
}

#[tokio::test]
async fn one_owner_can_not_write_below_anothers_repository() {
    let world = World::new().await;
    let other = world.another_owner("other").await;
    let pushed = world.owner.sealed("web", 1);
    // Signed by an enrolled owner, about somebody else's repository.
    let registration = other.key.sign_statement(&pushed.registration).unwrap();
    let answer = world.register_raw(&registration, &pushed.key).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::OwnerSignature));
}

#[tokio::test]
async fn an_owner_that_is_not_enrolled_is_refused() {
    let world = World::new().await;
    let key = OwnerKey::generate().unwrap();
    let stranger = crate::support::Owner { repository: "stranger".into(), key };
    let answer = world.register(&stranger, &stranger.sealed("web", 1)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::OwnerUnknown));
}

#[tokio::test]
async fn a_version_is_never_overwritten() {
    let world = World::new().await;
    let first = world.push(1).await;
    let mut second = world.owner.sealed("web", 1);
    let answer = world.register(&world.owner, &second).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, Code::VersionExists), "same revision");

    second = world.owner.sealed("web", 2);
    second.registration.spec_digest = first.registration.spec_digest.clone();
    let answer = world.register(&world.owner, &second).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::CONFLICT, Code::VersionExists),
        "same sealed spec"
    );

    let guest = first.guest();
    assert_eq!(world.ask(&guest, first.key_id()).await.open(&guest), first.key);
}

#[tokio::test]
async fn a_key_id_is_never_overwritten() {
    let world = World::new().await;
    let first = world.push(1).await;
    let mut again = world.owner.sealed("web", 1);
    again.registration.key_id = first.registration.key_id.clone();
    let answer = world.register(&world.owner, &again).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, Code::VersionExists));
}

#[tokio::test]
async fn the_same_push_again_is_accepted_and_changes_nothing() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let before = world.events().await.len();
    assert_eq!(world.register(&world.owner, &pushed).await.status, StatusCode::OK);
    assert_eq!(world.set_policy(policy_statement(&world.owner, 1, policy())).await.status, StatusCode::OK);
    assert_eq!(world.events().await.len(), before);
    assert_eq!(world.retire(&world.owner, "web", 1).await.status, StatusCode::OK);
    assert_eq!(world.retire(&world.owner, "web", 1).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_retired_revision_can_not_be_registered_again() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    world.retire(&world.owner, "web", 1).await;
    let answer = world.register(&world.owner, &world.owner.sealed("web", 1)).await;
    assert_eq!(answer.code(), Code::VersionExists);
    // The same registration is still there, and still retired.
    assert_eq!(world.register(&world.owner, &pushed).await.status, StatusCode::OK);
    assert_eq!(world.ask(&pushed.guest(), pushed.key_id()).await.code(), Code::RevisionRetired);
}

#[tokio::test]
async fn a_revision_that_does_not_exist_can_not_be_retired() {
    let world = World::new().await;
    let answer = world.retire(&world.owner, "web", 9).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Code::Statement));
}

#[tokio::test]
async fn an_old_policy_serial_is_refused() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let strict = ReleasePolicy { minimum_revision: 2, ..policy() };
    assert_eq!(world.set_policy(policy_statement(&world.owner, 5, strict)).await.status, StatusCode::OK);
    for serial in [1, 4, 5] {
        let answer = world.set_policy(policy_statement(&world.owner, serial, policy())).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::CONFLICT, Code::PolicySerial), "{serial}");
    }
    assert_eq!(world.ask(&pushed.guest(), pushed.key_id()).await.code(), Code::RevisionMinimum);
}

#[tokio::test]
async fn a_key_that_the_registration_does_not_name_is_refused() {
    let world = World::new().await;
    let pushed = world.owner.sealed("web", 1);
    let registration = world.owner.sign(&pushed.registration);
    let answer = world.register_raw(&registration, &[7; 32]).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Code::Statement));
    for key in [&pushed.key[..31], &[]] {
        let answer = world.register_raw(&registration, key).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Code::Statement));
    }
}

#[tokio::test]
async fn a_statement_of_another_kind_is_refused() {
    let world = World::new().await;
    let pushed = world.owner.sealed("web", 1);
    let policy = world.owner.sign(&policy_statement(&world.owner, 1, policy()));
    let answer = world.register_raw(&policy, &pushed.key).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Code::Statement));
}

#[tokio::test]
async fn refusals_never_repeat_the_key() {
    let world = World::new().await;
    let key = BASE64_URL_SAFE_NO_PAD.encode([0x5a; 32]);
    for body in [
        json!({ "registration": "a.b.c", "key": key }),
        json!({ "registration": 1, "key": key }),
        json!({ "registration": "a.b.c", "key": key, "extra": key }),
        json!([key]),
    ] {
        let answer = world.send(post(REGISTRATIONS_PATH, &body, &[])).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Code::Statement));
        assert!(!answer.body.to_string().contains(&key), "{answer:?}");
    }
}

#[tokio::test]
async fn an_oversize_statement_is_refused() {
    let world = World::new().await;
    for path in [REGISTRATIONS_PATH, POLICIES_PATH, RETIREMENTS_PATH] {
        let body = json!({ "policy": "a".repeat(1 << 20) });
        let answer = world.send(post(path, &body, &[])).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, Code::Statement));
    }
}
