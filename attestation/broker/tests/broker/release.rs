//! Key released or not: the good way, and each check with only that thing wrong.

use axum::http::StatusCode;
use protocols::audit::Checkpoint;
use protocols::owner::{PolicyTee, ReleasePolicy};
use protocols::refusal::Code;
use sealpod_broker::http::CHECKPOINT_HEADER;
use sealpod_emulator::snp::Tcb;
use sealpod_emulator::snp::processor::DEFAULT_POLICY;

use crate::guest::{Machine, init_data};
use crate::support::{World, get, policy, policy_statement, resource_path};

#[tokio::test]
async fn a_guest_that_matches_gets_its_key() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let answer = world.ask(&guest, pushed.key_id()).await;
    assert_eq!(answer.open(&guest), pushed.key);
    let checkpoint: Checkpoint =
        serde_json::from_str(answer.headers[CHECKPOINT_HEADER].to_str().unwrap()).unwrap();
    checkpoint.verify().unwrap();

    let events = world.events().await;
    let released = events.iter().find(|event| event["event"] == "key.released").unwrap();
    assert_eq!(released["subject"], pushed.key_id());
    assert_eq!(released["seq"], checkpoint.seq);
    assert_eq!(released["detail"]["launch"], "guest-1");
    assert!(released["detail"]["verdict"]["trust"].as_str().unwrap().contains("emulated"), "{released}");
}

#[tokio::test]
async fn a_bearer_token_stands_for_its_session() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let (cookie, nonce) = world.auth().await;
    let answer = world.attest(&cookie, &guest.attest_request(&nonce)).await;
    let bearer = format!("Bearer {}", answer.body["token"].as_str().unwrap());
    let path = resource_path(pushed.key_id());
    let answer = world.send(get(&path, &[("authorization", &bearer)])).await;
    assert_eq!(answer.open(&guest), pushed.key);

    // The last character of 64 bytes is A, Q, g or w.
    let (rest, last) = bearer.split_at(bearer.len() - 1);
    let changed = format!("{rest}{}", if last == "A" { "Q" } else { "A" });
    let answer = world.send(get(&path, &[("authorization", &changed)])).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Code::Session));
}

#[tokio::test]
async fn without_a_session_there_is_no_key() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let path = resource_path(pushed.key_id());
    let answer = world.send(get(&path, &[])).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Code::Session));
    let (cookie, _) = world.auth().await;
    let answer = world.resource(&cookie, pushed.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Code::Session));
}

#[tokio::test]
async fn an_expired_session_gets_nothing() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let cookie = world.handshake(&pushed.guest()).await;
    world.wait(world.config.limits.session_lifetime());
    let answer = world.resource(&cookie, pushed.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Code::Session));
}

#[tokio::test]
async fn asking_again_with_the_same_key_is_the_same_release() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let cookie = world.handshake(&guest).await;
    for _ in 0..3 {
        let answer = world.resource(&cookie, pushed.key_id()).await;
        assert_eq!(answer.open(&guest), pushed.key);
    }
    // A new session, the same attested key.
    assert_eq!(world.ask(&guest, pushed.key_id()).await.open(&guest), pushed.key);
    let released =
        |events: &[serde_json::Value]| events.iter().filter(|event| event["event"] == "key.released").count();
    assert_eq!(released(&world.events().await), 1);

    let other = pushed.guest();
    assert_eq!(world.ask(&other, pushed.key_id()).await.open(&other), pushed.key);
    assert_eq!(released(&world.events().await), 2);

    let (dir, config) = world.stop().await;
    let (_, store) =
        sealpod_broker::broker::open_store(&config.state, sealpod_broker::clock::Clock::system())
            .await
            .unwrap();
    let counts = store.release_counts().await.unwrap();
    assert_eq!((counts.reserved, counts.delivered), (0, 2), "each release was delivered");
    drop(dir);
}

async fn refused(machine: Machine, allow: impl FnOnce(&mut ReleasePolicy), code: Code) {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let mut changed = policy();
    allow(&mut changed);
    let answer = world.set_policy(policy_statement(&world.owner, 2, changed)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let guest = machine.boot(Some(pushed.init_data()));
    let answer = world.ask(&guest, pushed.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, code));
    let events = world.events().await;
    let denied = events.iter().find(|event| event["event"] == "release.denied").unwrap();
    assert_eq!(denied["detail"]["code"], code.name());
    assert!(!events.iter().any(|event| event["event"] == "key.released"));
}

#[tokio::test]
async fn another_launch_digest_is_refused() {
    let mut measurement = crate::guest::MEASUREMENT;
    measurement[47] ^= 1;
    refused(Machine { measurement, ..Machine::default() }, |_| {}, Code::LaunchDigest).await;
}

#[tokio::test]
async fn emulated_evidence_never_matches_a_production_policy() {
    refused(Machine::default(), |policy| policy.tee = vec![PolicyTee::Snp], Code::TeeKind).await;
}

#[tokio::test]
async fn a_tcb_below_the_minimum_is_refused() {
    refused(Machine::default(), |policy| policy.snp.as_mut().unwrap().minimum_tcb.microcode = 220, Code::Tcb)
        .await;
    let tcb = Tcb { bootloader: 3, ..Tcb::default() };
    refused(Machine { tcb, ..Machine::default() }, |_| {}, Code::Tcb).await;
}

#[tokio::test]
async fn a_guest_that_the_host_may_debug_is_refused() {
    let policy = DEFAULT_POLICY | 1 << 19;
    refused(Machine { policy, ..Machine::default() }, |_| {}, Code::GuestPolicy).await;
}

#[tokio::test]
async fn a_guest_with_a_migration_agent_is_refused() {
    let policy = DEFAULT_POLICY | 1 << 18;
    refused(Machine { policy, ..Machine::default() }, |_| {}, Code::GuestPolicy).await;
}

#[tokio::test]
async fn another_privilege_level_is_refused() {
    refused(Machine { vmpl: 1, ..Machine::default() }, |_| {}, Code::Vmpl).await;
}

#[tokio::test]
async fn the_key_of_another_sealed_spec_is_refused() {
    let world = World::new().await;
    let first = world.push(1).await;
    let second = world.push(2).await;
    let answer = world.ask(&second.guest(), first.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::SpecDigest));
    // Initdata that names the right key beside the wrong spec changes nothing.
    let mixed = init_data(&second.registration.spec_digest, first.key_id());
    let answer = world.ask(&Machine::default().boot(Some(mixed)), first.key_id()).await;
    assert_eq!(answer.code(), Code::SpecDigest);
}

#[tokio::test]
async fn a_guest_with_another_broker_pinned_is_refused() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    // Spec and key are the right ones; the host put a certificate of its own beside them.
    let pinned = pushed.init_data().replacen("AA==", "AQ==", 1);
    assert_ne!(pinned, pushed.init_data());
    let answer = world.ask(&Machine::default().boot(Some(pinned.clone())), pushed.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::HostData));

    // A registration that doesn't say leaves it to the spec's digest.
    let mut open = world.owner.sealed("web", 2);
    open.registration.init_data = None;
    assert_eq!(world.register(&world.owner, &open).await.status, StatusCode::OK);
    let guest = Machine::default().boot(Some(open.init_data().replacen("AA==", "AQ==", 1)));
    assert_eq!(world.ask(&guest, open.key_id()).await.open(&guest), open.key);
}

#[tokio::test]
async fn another_owners_key_and_a_missing_one_are_the_same_answer() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let stranger = world.another_owner("stranger").await;
    let theirs = stranger.sealed("web", 1);
    assert_eq!(world.register(&stranger, &theirs).await.status, StatusCode::OK);

    // A genuine guest of another tenant, whose initdata even names the key that it wants.
    let greedy = init_data(&theirs.registration.spec_digest, pushed.key_id());
    let guest = Machine::default().boot(Some(greedy));
    let foreign = world.ask(&guest, pushed.key_id()).await;
    let missing = world.ask(&guest, "kbs:///shop/sealed-spec/web.r1.00000000").await;
    let nowhere = world.ask(&guest, "kbs:///nobody/sealed-spec/web.r1.00000000").await;
    assert_eq!((foreign.status, foreign.code()), (StatusCode::FORBIDDEN, Code::Resource));
    assert_eq!((foreign.status, &foreign.body), (missing.status, &missing.body));
    assert_eq!((foreign.status, &foreign.body), (nowhere.status, &nowhere.body));
    let reasons: Vec<_> = world
        .events()
        .await
        .iter()
        .filter(|event| event["event"] == "release.denied")
        .map(|event| event["detail"]["reason"].as_str().unwrap().to_owned())
        .collect();
    assert!(reasons[0].contains("the key is for sealed spec"), "{reasons:?}");
    assert!(reasons[1].contains("no such key"), "{reasons:?}");
}

#[tokio::test]
async fn a_guest_without_initdata_gets_nothing() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let answer = world.ask(&Machine::default().boot(None), pushed.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Resource));
}

#[tokio::test]
async fn a_retired_revision_is_refused_and_the_next_is_not() {
    let world = World::new().await;
    let first = world.push(1).await;
    let second = world.push(2).await;
    // During a rolling update both work.
    for pushed in [&first, &second] {
        let guest = pushed.guest();
        assert_eq!(world.ask(&guest, pushed.key_id()).await.open(&guest), pushed.key);
    }
    assert_eq!(world.retire(&world.owner, "web", 1).await.status, StatusCode::OK);
    let answer = world.ask(&first.guest(), first.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::RevisionRetired));
    let guest = second.guest();
    assert_eq!(world.ask(&guest, second.key_id()).await.open(&guest), second.key);
}

#[tokio::test]
async fn a_retired_revision_is_refused_to_a_guest_that_had_it() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let cookie = world.handshake(&guest).await;
    world.resource(&cookie, pushed.key_id()).await.open(&guest);
    world.retire(&world.owner, "web", 1).await;
    let answer = world.resource(&cookie, pushed.key_id()).await;
    assert_eq!(answer.code(), Code::RevisionRetired);
}

#[tokio::test]
async fn a_revision_below_the_minimum_is_refused() {
    let world = World::new().await;
    let first = world.push(1).await;
    let second = world.push(2).await;
    let minimum = ReleasePolicy { minimum_revision: 2, ..policy() };
    assert_eq!(world.set_policy(policy_statement(&world.owner, 3, minimum)).await.status, StatusCode::OK);
    let answer = world.ask(&first.guest(), first.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::RevisionMinimum));
    let guest = second.guest();
    assert_eq!(world.ask(&guest, second.key_id()).await.open(&guest), second.key);
}

#[tokio::test]
async fn a_lineage_without_a_policy_is_refused() {
    let world = World::new().await;
    let pushed = world.owner.sealed("other", 1);
    world.register(&world.owner, &pushed).await;
    let answer = world.ask(&pushed.guest(), pushed.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::PolicyMissing));
}

#[tokio::test]
async fn a_key_survives_a_restart_of_the_broker() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let cookie = world.handshake(&guest).await;
    let world = world.restart().await;
    assert_eq!(world.resource(&cookie, pushed.key_id()).await.code(), Code::Session);
    assert_eq!(world.ask(&guest, pushed.key_id()).await.open(&guest), pushed.key);
}

#[tokio::test]
async fn other_spellings_of_an_address_are_no_address() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let cookie = world.handshake(&pushed.guest()).await;
    let path = resource_path(pushed.key_id());
    for other in [
        format!("{path}?x=1"),
        format!("{path}/"),
        format!("{path}/more"),
        path.replace("/shop/", "/shop/../shop/"),
        path.replace("shop", "%73hop"),
        path.replace("/shop/", "//shop/"),
        path.replace("shop", "Shop"),
    ] {
        let answer = world.send(get(&other, &[("cookie", &cookie)])).await;
        assert_ne!(answer.status, StatusCode::OK, "{other}");
        assert_eq!(answer.code(), Code::Resource, "{other}");
    }
}

#[tokio::test]
async fn denials_of_one_chip_do_not_flood_the_audit_log() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let cookie = world.handshake(&pushed.guest()).await;
    for _ in 0..100 {
        let answer = world.resource(&cookie, "kbs:///shop/sealed-spec/web.r1.00000000").await;
        assert_eq!(answer.code(), Code::Resource);
    }
    let denied = world.events().await.iter().filter(|event| event["event"] == "release.denied").count();
    assert!((32..64).contains(&denied), "{denied}");
}
