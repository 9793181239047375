//! The audit log against whoever holds the database, and the database against itself failing.

use axum::http::StatusCode;
use protocols::audit::{self, AuditError, Checkpoint, Record};
use protocols::owner::PolicyTee;
use protocols::refusal::Code;
use sealpod_broker::broker::{Broker, BrokerError, open_store};
use sealpod_broker::clock::Clock;
use sealpod_broker::store::{Exported, StoreError};
use serde_json::Value;
use sqlx::{Connection, Executor};

use crate::blobs::{self, BLOB, MACHINE, OTHER_MACHINE};
use crate::support::{World, policy, policy_statement};

async fn start_again(world: World) -> Result<(), BrokerError> {
    let (_dir, config) = world.stop().await;
    Broker::start(&config, Clock::system(), sealpod_broker::log::silent()).await.map(|_| ())
}

/// Changes the database as its owner could, triggers or not.
async fn tamper(world: &World, statements: &'static [&'static str]) {
    let mut database = world.database().await;
    for statement in ["DROP TRIGGER IF EXISTS audit_is_append_only", "DROP TRIGGER IF EXISTS audit_keeps_all"]
        .iter()
        .chain(statements)
    {
        database.execute(*statement).await.unwrap();
    }
    database.close().await.unwrap();
}

#[tokio::test]
async fn an_export_verifies_with_the_public_code() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    world.ask(&pushed.guest(), pushed.key_id()).await;
    let (mut records, mut checkpoints): (Vec<Record>, Vec<Checkpoint>) = Default::default();
    for line in world.events().await {
        match serde_json::from_value(line).unwrap() {
            Exported::Record(record) => records.push(record),
            Exported::Checkpoint { checkpoint } => checkpoints.push(checkpoint),
        }
    }
    let summary = audit::verify(records.clone(), &checkpoints).unwrap();
    assert_eq!(summary.head.seq, records.len() as u64);
    assert!(checkpoints.len() >= 4, "enrolment, start, push and a fresh one: {}", checkpoints.len());
    let events: Vec<_> = records.iter().map(|record| record.event.as_str()).collect();
    assert_eq!(events, ["owner.enrolled", "broker.started", "key.registered", "policy.set", "key.released"]);
}

#[tokio::test]
async fn the_log_holds_no_secret() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    world.ask(&pushed.guest(), pushed.key_id()).await;
    let (dir, config) = world.stop().await;
    // What leaves the write-ahead log while this reads is in the database by then.
    let mut database = std::fs::read(config.state.join("broker.sqlite-wal")).unwrap_or_default();
    database.extend(std::fs::read(config.state.join("broker.sqlite")).unwrap());
    let has = |needle: &[u8]| database.windows(needle.len()).any(|window| window == needle);
    assert!(has(pushed.key_id().as_bytes()), "the search itself works");
    assert!(!has(&pushed.key));
    assert!(!has(hex::encode(pushed.key).as_bytes()));
    drop(dir);
}

#[tokio::test]
async fn a_changed_record_is_detected() {
    let world = World::new().await;
    world.push(1).await;
    tamper(&world, &["UPDATE audit SET record = replace(record, 'guest-1', 'guest-2') WHERE seq = 4"]).await;
    let error = start_again(world).await.unwrap_err();
    assert!(matches!(error, BrokerError::Store(StoreError::Audit(AuditError::Hash(4)))), "{error}");
}

#[tokio::test]
async fn a_removed_record_is_detected() {
    let world = World::new().await;
    world.push(1).await;
    tamper(&world, &["DELETE FROM audit WHERE seq = 3"]).await;
    let error = start_again(world).await.unwrap_err();
    assert!(
        matches!(
            error,
            BrokerError::Store(StoreError::Audit(AuditError::Sequence { expected: 3, found: 4 }))
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_truncated_log_is_detected_by_its_checkpoints() {
    let world = World::new().await;
    world.push(1).await;
    tamper(&world, &["DELETE FROM audit WHERE seq = 4"]).await;
    let error = start_again(world).await.unwrap_err();
    assert!(
        matches!(
            error,
            BrokerError::Store(StoreError::Audit(AuditError::Truncated { end: 3, checkpoint: 4 }))
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_log_cut_with_its_checkpoints_is_detected_by_an_owners() {
    let world = World::new().await;
    let pushed = world.owner.sealed("web", 1);
    world.register(&world.owner, &pushed).await;
    let answer = world.set_policy(policy_statement(&world.owner, 1, policy())).await;
    let kept: Checkpoint = serde_json::from_value(answer.body["checkpoint"].clone()).unwrap();
    tamper(&world, &["DELETE FROM audit WHERE seq >= 4", "DELETE FROM checkpoints WHERE seq >= 4"]).await;
    let (_dir, config) = world.stop().await;
    let (_, store) = open_store(&config.state, Clock::system()).await.unwrap();
    store.verify_audit(&[]).await.unwrap();
    let error = store.verify_audit(&[kept]).await.unwrap_err();
    assert!(matches!(error, StoreError::Audit(AuditError::Truncated { end: 3, checkpoint: 4 })), "{error}");
}

#[tokio::test]
async fn a_checkpoint_by_another_key_is_detected() {
    let world = World::new().await;
    world.push(1).await;
    let forged = Checkpoint::sign(&audit::Head::default(), &audit::AuditKey::generate().unwrap());
    let text = serde_json::to_string(&forged).unwrap();
    let mut database = world.database().await;
    sqlx::query("UPDATE checkpoints SET checkpoint = ? WHERE seq = 4")
        .bind(text)
        .execute(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();
    let error = start_again(world).await.unwrap_err();
    assert!(matches!(error, BrokerError::Store(StoreError::Audit(AuditError::CheckpointKey(0)))), "{error}");
}

/// A world with two policies and a retirement, after `statement`: what the next start says.
async fn start_after(statement: &'static [&'static str]) -> Result<(), BrokerError> {
    let world = World::new().await;
    world.push(1).await;
    world.push(2).await;
    assert_eq!(world.retire(&world.owner, "web", 1).await.status, StatusCode::OK);
    tamper(&world, statement).await;
    start_again(world).await
}

#[tokio::test]
async fn what_an_owner_ended_can_not_be_brought_back_by_deleting_rows() {
    start_after(&[]).await.unwrap();
    let gone: [(&'static [&'static str], &str); 6] = [
        (&["DELETE FROM retirements"], "a retirement of 'shop/web'"),
        (&["UPDATE retirements SET revision = 2"], "a retirement of 'shop/web'"),
        (&["UPDATE retirements SET lineage = 'other'"], "a retirement of 'shop/web'"),
        (&["DELETE FROM policies WHERE serial = 2"], "a policy of 'shop/web'"),
        (&["PRAGMA foreign_keys = OFF", "DELETE FROM registrations WHERE revision = 2"], "a registration of"),
        (&["PRAGMA foreign_keys = OFF", "DELETE FROM owners"], "an owner of 'shop'"),
    ];
    for (statements, what) in gone {
        let error = start_after(statements).await.unwrap_err();
        let BrokerError::Store(error @ StoreError::Damaged { .. }) = error else { panic!("{error}") };
        assert!(error.to_string().contains(what), "{error}");
    }
}

/// A world with a blob whose machine was taken out and that was denied, after `statements`: what the next start
/// says.
async fn start_without_blobs(statements: &'static [&'static str]) -> Result<(), BrokerError> {
    let (world, pushed, guest) = blobs::launched(PolicyTee::Pef, &[MACHINE, OTHER_MACHINE]).await;
    let mut revoked = guest.statement(&world.owner, &pushed, &[MACHINE]);
    revoked.serial = 2;
    assert_eq!(blobs::enrol(&world, &world.owner, &revoked).await.status, StatusCode::OK);
    assert_eq!(blobs::deny(&world, &world.owner, BLOB).await.status, StatusCode::OK);
    tamper(&world, statements).await;
    start_again(world).await
}

#[tokio::test]
async fn denied_blobs_and_revoked_machines_can_not_be_brought_back_by_deleting_rows() {
    start_without_blobs(&[]).await.unwrap();
    let gone: [(&'static [&'static str], &str); 5] = [
        (&["DELETE FROM blob_denials"], "a denial"),
        (&["UPDATE blob_denials SET blob = 'other'"], "a denial"),
        (&["DELETE FROM blobs WHERE serial = 2"], "an enrolment"),
        (&["UPDATE blobs SET serial = 3 WHERE serial = 2"], "an enrolment"),
        // No owner, no row: the statement before would be found.
        (
            &["PRAGMA foreign_keys = OFF", "UPDATE blobs SET repository = 'nobody' WHERE serial = 2"],
            "an enrolment",
        ),
    ];
    for (statements, what) in gone {
        let error = start_without_blobs(statements).await.unwrap_err();
        let BrokerError::Store(error @ StoreError::Damaged { .. }) = error else { panic!("{error}") };
        assert!(error.to_string().contains(&format!("{what} of '{BLOB}'")), "{error}");
    }
}

#[tokio::test]
async fn an_operators_denial_can_not_be_deleted() {
    let (world, ..) = blobs::launched(PolicyTee::Pef, &[MACHINE]).await;
    let (_, store) = open_store(&world.config.state, Clock::system()).await.unwrap();
    assert!(store.deny_blob(BLOB).await.unwrap());
    store.close().await;
    tamper(&world, &["DELETE FROM blob_denials"]).await;
    let error = start_again(world).await.unwrap_err();
    assert!(matches!(error, BrokerError::Store(StoreError::Damaged { .. })), "{error}");
}

#[tokio::test]
async fn accidents_do_not_reach_the_log() {
    let world = World::new().await;
    let mut database = world.database().await;
    for statement in ["UPDATE audit SET record = ''", "DELETE FROM audit"] {
        let error = database.execute(statement).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    database.close().await.unwrap();
}

/// Asks for a key after `statements` ran on the database behind the broker's back.
async fn ask_after(statements: &'static [&'static str]) -> (World, StatusCode, Code) {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let cookie = world.handshake(&guest).await;
    tamper(&world, statements).await;
    let answer = world.resource(&cookie, pushed.key_id()).await;
    assert!(answer.body.get("ciphertext").is_none(), "{answer:?}");
    (world, answer.status, answer.code())
}

#[tokio::test]
async fn a_release_whose_record_can_not_be_written_does_not_happen() {
    let (world, status, code) = ask_after(&[
        "CREATE TRIGGER disk_full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END",
    ])
    .await;
    assert_eq!((status, code), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
    let mut database = world.database().await;
    let row = database.fetch_one("SELECT COUNT(*) FROM releases").await.unwrap();
    assert_eq!(sqlx::Row::get::<i64, _>(&row, 0), 0, "the release was rolled back with its record");
    database.close().await.unwrap();
}

#[tokio::test]
async fn a_policy_table_that_is_gone_is_not_a_missing_policy() {
    let (_, status, code) = ask_after(&["DROP TABLE policies"]).await;
    assert_eq!((status, code), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
}

#[tokio::test]
async fn a_retirement_table_that_is_gone_releases_nothing() {
    let (_, status, code) = ask_after(&["DROP TABLE retirements"]).await;
    assert_eq!((status, code), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
}

#[tokio::test]
async fn a_policy_written_past_its_owner_is_not_used() {
    // The statement of an older policy under a newer serial.
    let (_, status, code) = ask_after(&[
        "INSERT INTO policies SELECT repository, lineage, 99, statement, created_at FROM policies",
    ])
    .await;
    assert_eq!((status, code), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
}

#[tokio::test]
async fn an_owner_key_written_past_the_operator_is_not_used() {
    let (_, status, code) =
        ask_after(&["UPDATE owners SET public_key = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'"]).await;
    assert_eq!((status, code), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
}

#[tokio::test]
async fn a_stored_key_that_was_changed_is_not_released() {
    let (_, status, code) = ask_after(&["UPDATE registrations SET sealed_key = zeroblob(60)"]).await;
    assert_eq!((status, code), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
}

#[tokio::test]
async fn one_damaged_key_among_many_asked_for_at_once_fails_alone() {
    let world = World::new().await;
    let (damaged, whole) = (world.push(1).await, world.push(2).await);
    let mut database = world.database().await;
    database.execute("UPDATE registrations SET sealed_key = zeroblob(60) WHERE revision = 1").await.unwrap();
    database.close().await.unwrap();
    let mut asks = Vec::new();
    for at in 0..24 {
        let pushed = if at % 4 == 1 { &damaged } else { &whole };
        let guest = pushed.guest();
        let cookie = world.handshake(&guest).await;
        asks.push((pushed, guest, cookie));
    }
    let answers = asks.iter().map(|(pushed, _, cookie)| world.resource(cookie, pushed.key_id()));
    let answers = futures::future::join_all(answers).await;
    for ((pushed, guest, _), answer) in asks.iter().zip(&answers) {
        if std::ptr::eq(*pushed, &damaged) {
            assert_eq!((answer.status, answer.code()), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
        } else {
            assert_eq!(answer.open(guest), whole.key);
        }
    }
    let released = world.events().await.iter().filter(|event| event["event"] == "key.released").count();
    assert_eq!(released, 18, "each release has its record, and nothing else has");
}

#[tokio::test]
async fn a_spec_digest_written_past_its_owner_is_not_used() {
    let world = World::new().await;
    let first = world.push(1).await;
    let second = world.push(2).await;
    let mut database = world.database().await;
    // The column says what the thief's guest can prove; the owner's statement doesn't.
    sqlx::query("UPDATE registrations SET spec_digest = spec_digest || 'x' WHERE revision = 2")
        .execute(&mut database)
        .await
        .unwrap();
    sqlx::query("UPDATE registrations SET spec_digest = ? WHERE revision = 1")
        .bind(&second.registration.spec_digest)
        .execute(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();
    let answer = world.ask(&second.guest(), first.key_id()).await;
    assert_eq!(answer.code(), Code::SpecDigest);
}

#[tokio::test]
async fn a_locked_database_refuses_and_recovers() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let cookie = world.handshake(&guest).await;
    let mut database = world.database().await;
    database.execute("BEGIN IMMEDIATE").await.unwrap();
    let answer = world.resource(&cookie, pushed.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
    database.execute("ROLLBACK").await.unwrap();
    database.close().await.unwrap();
    assert_eq!(world.resource(&cookie, pushed.key_id()).await.open(&guest), pushed.key);
}

#[tokio::test]
async fn the_wrong_master_key_is_noticed_at_once() {
    let world = World::new().await;
    let (_dir, config) = world.stop().await;
    std::fs::write(config.state.join("master.key"), "A".repeat(43) + "=\n").unwrap();
    let error = Broker::start(&config, Clock::system(), sealpod_broker::log::silent()).await.err().unwrap();
    assert!(matches!(error, BrokerError::Store(StoreError::MasterKey)), "{error}");
}

#[tokio::test]
async fn each_start_is_recorded_with_whom_it_trusts() {
    let world = World::new().await;
    let events = world.events().await;
    let started = events.iter().find(|event| event["event"] == "broker.started").unwrap();
    let trust: Vec<_> = started["detail"]["trust"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert!(trust[0].contains("amd") && trust[1].contains("EMULATED"), "{trust:?}");
}
