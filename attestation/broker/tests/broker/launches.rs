//! SEV and SEV-ES launches: the good ways, and each thing that ends one.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use hyper::StatusCode;
use protocols::owner::{PolicyTee, Releases, SevSecret};
use protocols::rcar::JweFlattened;
use protocols::refusal::Code;
use protocols::sev::{LaunchKey, MEASUREMENTS_PATH, SESSIONS_PATH};
use sealpod_emulator::sev::Fault;
use serde_json::{Value, json};

use crate::host::{
    BOTH, IMAGE, connected, inject, launch, launched, measure, open, platform, push, session_request,
    sev_policy, world,
};
use crate::support::{Answer, World, get, policy_statement, post};

fn allowed() -> protocols::owner::ReleasePolicy {
    sev_policy(&BOTH, SevSecret::Connection)
}

fn event<'a>(events: &'a [Value], name: &str) -> &'a Value {
    events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name}: {events:?}"))
}

fn checks(event: &Value) -> Vec<&str> {
    let checks = event["detail"]["verdict"]["checks"].as_array().unwrap();
    checks.iter().map(|check| check["check"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_launched_guest_comes_back_for_its_key() {
    for (es, kind) in [(false, "sev-emulated"), (true, "sev-es-emulated")] {
        let world = world(true).await;
        let pushed = push(&world, allowed()).await;
        let guest = connected(&world, &pushed, es).await;
        for _ in 0..2 {
            let answer = guest.ask(&world, pushed.key_id()).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let jwe: JweFlattened = serde_json::from_value(answer.body).unwrap();
            assert_eq!(*guest.key.open(&jwe).unwrap(), pushed.key);
        }
        let events = world.events().await;
        let granted = event(&events, "launch.granted");
        assert_eq!(granted["detail"]["verdict"]["tee"], kind);
        assert_eq!(granted["detail"]["launch"], "guest-1");
        for check in
            ["certificate_chain", "launch_measure", "minimum_firmware", "guest_policy", "launch_digest"]
        {
            assert!(checks(granted).contains(&check), "{check}");
        }
        let released = event(&events, "key.released");
        assert_eq!(released["detail"]["verdict"]["tee"], kind);
        assert!(
            ["launch_measure", "connection", "launch_digest"].iter().all(|c| checks(released).contains(c))
        );
        assert_eq!(events.iter().filter(|event| event["event"] == "key.released").count(), 1);
    }
}

#[tokio::test]
async fn a_bundle_is_the_key_and_counts_as_a_release() {
    let world = world(true).await;
    let pushed = push(&world, sev_policy(&BOTH, SevSecret::Bundle)).await;
    let mut guest = launched(&world, &pushed, true).await;
    let session = guest.request["session"].as_str().unwrap().to_owned();
    let answer = measure(&world, &guest.request).await;
    let secret = inject(&mut guest, &answer);
    let LaunchKey::Bundle { key } = &secret.key else { panic!("no bundle") };
    assert_eq!(BASE64_STANDARD.decode(key).unwrap(), pushed.key);
    let events = world.events().await;
    let released = event(&events, "key.released");
    assert_eq!(released["detail"]["attested_key"], format!("sev:{session}"));
    assert_eq!(released["detail"]["verdict"]["tee"], "sev-es-emulated");
}

#[tokio::test]
async fn limited_releases_count_launches_and_guests() {
    for secret in [SevSecret::Bundle, SevSecret::Connection] {
        let world = world(true).await;
        let policy = sev_policy(&BOTH, secret);
        let pushed =
            push(&world, protocols::owner::ReleasePolicy { releases: Releases::Once, ..policy }).await;
        if secret == SevSecret::Bundle {
            let first = launched(&world, &pushed, true).await;
            assert_eq!(measure(&world, &first.request).await.status, StatusCode::OK);
            let second = launched(&world, &pushed, true).await;
            assert_eq!(measure(&world, &second.request).await.code(), Code::ReleaseLimit);
        } else {
            let (first, second) =
                (connected(&world, &pushed, true).await, connected(&world, &pushed, true).await);
            assert_eq!(first.ask(&world, pushed.key_id()).await.status, StatusCode::OK);
            assert_eq!(second.ask(&world, pushed.key_id()).await.code(), Code::ReleaseLimit);
            assert_eq!(first.ask(&world, pushed.key_id()).await.status, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_session_is_for_one_measurement() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let first = launched(&world, &pushed, true).await;
    assert_eq!(measure(&world, &first.request).await.status, StatusCode::OK);
    assert_eq!(measure(&world, &first.request).await.code(), Code::LaunchSession);
    // A refused one was one too.
    let second = launched(&world, &pushed, true).await;
    let mut wrong = second.request.clone();
    wrong["build"] = json!(30);
    assert_eq!(measure(&world, &wrong).await.code(), Code::LaunchDigest);
    assert_eq!(measure(&world, &second.request).await.code(), Code::LaunchSession);
    let third = launched(&world, &pushed, true).await;
    let world = world.restart().await;
    assert_eq!(measure(&world, &third.request).await.status, StatusCode::OK, "sessions outlive the broker");
}

#[tokio::test]
async fn unknown_and_old_sessions_are_refused() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let launched = launched(&world, &pushed, true).await;
    for session in ["", "x", &"0".repeat(32), &"A".repeat(32), &"0".repeat(33), "' OR 1=1 --"] {
        let mut request = launched.request.clone();
        request["session"] = json!(session);
        assert_eq!(measure(&world, &request).await.code(), Code::LaunchSession, "{session}");
    }
    world.wait(Duration::from_secs(601));
    assert_eq!(measure(&world, &launched.request).await.code(), Code::LaunchSession);
}

/// The firmware doesn't compare policies, the host says what it launched, and the measurement is right for that.
#[tokio::test]
async fn a_launch_under_another_policy_than_its_session_gets_nothing() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let platform = platform(&[]);
    let session = open(&world, &session_request(&platform, &pushed, true)).await;
    let policy = u32::try_from(session.body["policy"].as_u64().unwrap()).unwrap();
    let launched = launch(&platform, &session, IMAGE, &[Fault::Policy(policy & !4)]);
    assert_eq!(measure(&world, &launched.request).await.code(), Code::GuestPolicy);
    // The same, and the host says what the session is for.
    let session = open(&world, &session_request(&platform, &pushed, true)).await;
    let mut launched = launch(&platform, &session, IMAGE, &[Fault::Policy(policy & !1)]);
    launched.request["policy"] = json!(policy);
    assert_eq!(measure(&world, &launched.request).await.code(), Code::LaunchDigest);
}

#[tokio::test]
async fn another_image_or_measurement_gets_nothing_and_is_recorded_whole() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let platform = platform(&[]);
    let session = open(&world, &session_request(&platform, &pushed, true)).await;
    let other = launch(&platform, &session, b"another initrd", &[]);
    assert_eq!(measure(&world, &other.request).await.code(), Code::LaunchDigest);
    let (one, two) = (launched(&world, &pushed, true).await, launched(&world, &pushed, true).await);
    let mut swapped = one.request.clone();
    swapped["measurement"] = two.request["measurement"].clone();
    assert_eq!(measure(&world, &swapped).await.code(), Code::LaunchDigest);
    let (_dir, config) = world.stop().await;
    let events = crate::support::events_of(&config).await;
    let refused = event(&events, "attestation.refused");
    let checks = refused["detail"]["checks"].as_array().unwrap();
    let outcome = |name: &str| checks.iter().find(|check| check["check"] == name).unwrap()["outcome"].clone();
    assert_eq!((outcome("certificate_chain"), outcome("launch_measure")), (json!("passed"), json!("failed")));
}

#[tokio::test]
async fn firmware_below_the_minimum_gets_nothing() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let old = platform(&[Fault::Build(28)]);
    let session = open(&world, &session_request(&old, &pushed, true)).await;
    let launched = launch(&old, &session, IMAGE, &[]);
    assert_eq!(measure(&world, &launched.request).await.code(), Code::Tcb);
}

/// A chip's SEV keys are its keys for good: one that leaked is denied by name.
#[tokio::test]
async fn a_denied_chip_gets_nothing() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let back = connected(&world, &pushed, true).await;
    assert_eq!(back.ask(&world, pushed.key_id()).await.status, StatusCode::OK);
    let chip = event(&world.events().await, "launch.granted")["detail"]["verdict"]["chip"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut denying = allowed();
    denying.sev.as_mut().unwrap().denied_chips = vec![chip];
    assert_eq!(world.set_policy(policy_statement(&world.owner, 2, denying)).await.status, StatusCode::OK);
    let launched = launched(&world, &pushed, true).await;
    assert_eq!(measure(&world, &launched.request).await.code(), Code::CertificateChain);
    assert_eq!(back.ask(&world, pushed.key_id()).await.code(), Code::CertificateChain);
}

#[tokio::test]
async fn a_kind_that_the_policy_does_not_name_gets_no_session() {
    for (tee, es) in
        [(PolicyTee::SevEmulated, true), (PolicyTee::SevEsEmulated, false), (PolicyTee::SevEs, true)]
    {
        let world = world(true).await;
        let pushed = push(&world, sev_policy(&[tee], SevSecret::Connection)).await;
        let answer = open(&world, &session_request(&platform(&[]), &pushed, es)).await;
        assert_eq!(answer.code(), Code::TeeKind);
        assert!(answer.body["detail"].as_str().unwrap().contains("CVE-2021-26311"), "{answer:?}");
    }
    let world = World::new().await;
    let pushed = world.push(1).await;
    let answer = open(&world, &session_request(&platform(&[]), &pushed, true)).await;
    assert_eq!(answer.code(), Code::CertificateChain, "SNP's roots are not SEV's");
}

#[tokio::test]
async fn a_production_broker_refuses_emulated_platforms() {
    let world = world(false).await;
    let pushed = push(&world, allowed()).await;
    let answer = open(&world, &session_request(&platform(&[]), &pushed, true)).await;
    assert_eq!(answer.code(), Code::CertificateChain);
}

#[tokio::test]
async fn a_platform_with_a_broken_chain_gets_no_session() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    for (fault, code) in [
        ("pdh-off-curve", Code::CertificateChain),
        ("pdh-p256", Code::Evidence),
        ("pdh-identity", Code::CertificateChain),
        ("unsigned-pdh", Code::CertificateChain),
        ("unsigned-pek", Code::CertificateChain),
        ("unsigned-oca", Code::CertificateChain),
        ("oca-only", Code::CertificateChain),
        ("unsigned-cek", Code::Collateral),
    ] {
        let platform = platform(&[fault.parse().unwrap()]);
        let answer = open(&world, &session_request(&platform, &pushed, true)).await;
        assert_eq!(answer.code(), code, "{fault}");
    }
}

#[tokio::test]
async fn a_guest_that_its_owner_does_not_let_go_gets_no_session() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let platform = platform(&[]);
    // Registered by nobody.
    let stranger = world.owner.sealed("web", 7);
    let answer = open(&world, &session_request(&platform, &stranger, true)).await;
    assert_eq!(answer.code(), Code::Resource);
    // The right spec and key in other initdata.
    let mut request = session_request(&platform, &pushed, true);
    let other = pushed.init_data().replace("broker.example", "broker.evil");
    request["init_data"] = json!(other);
    assert_eq!(open(&world, &request).await.code(), Code::HostData);
    let late = launched(&world, &pushed, true).await;
    let back = connected(&world, &pushed, true).await;
    assert_eq!(world.retire(&world.owner, "web", 1).await.status, StatusCode::OK);
    assert_eq!(open(&world, &session_request(&platform, &pushed, true)).await.code(), Code::RevisionRetired);
    assert_eq!(measure(&world, &late.request).await.code(), Code::RevisionRetired);
    assert_eq!(back.ask(&world, pushed.key_id()).await.code(), Code::RevisionRetired);
}

#[tokio::test]
async fn a_policy_that_changed_after_the_session_decides() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let late = launched(&world, &pushed, false).await;
    let back = connected(&world, &pushed, false).await;
    let strict = sev_policy(&[PolicyTee::SevEsEmulated], SevSecret::Connection);
    let answer = world.set_policy(policy_statement(&world.owner, 2, strict)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(measure(&world, &late.request).await.code(), Code::TeeKind);
    assert_eq!(back.ask(&world, pushed.key_id()).await.code(), Code::TeeKind);
}

/// A database that fails is no policy that is missing.
#[tokio::test]
async fn a_failing_database_is_no_answer() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let launched = launched(&world, &pushed, true).await;
    let mut database = world.database().await;
    sqlx::query("ALTER TABLE policies RENAME TO gone").execute(&mut database).await.unwrap();
    let session = open(&world, &session_request(&platform(&[]), &pushed, true)).await;
    assert_eq!((session.status, session.code()), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
    let answer = measure(&world, &launched.request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal));
}

#[tokio::test]
async fn a_stored_session_is_for_its_own_row() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let (one, two) = (launched(&world, &pushed, true).await, launched(&world, &pushed, true).await);
    let id = |launched: &crate::host::Launched| launched.request["session"].as_str().unwrap().to_owned();
    let mut database = world.database().await;
    sqlx::query(
        "UPDATE launch_sessions SET sealed = (SELECT sealed FROM launch_sessions WHERE id = ?) WHERE id = ?",
    )
    .bind(id(&two))
    .bind(id(&one))
    .execute(&mut database)
    .await
    .unwrap();
    assert_eq!(measure(&world, &one.request).await.code(), Code::Internal);
    assert_eq!(measure(&world, &two.request).await.status, StatusCode::OK);
}

async fn open_from(world: &World, address: [u8; 4], request: &Value) -> Answer {
    let address = IpAddr::V4(Ipv4Addr::from(address));
    world.send_from(address, post(SESSIONS_PATH, request, &[])).await
}

/// As many sessions of others as a host could have, by whoever has shown their certificates.
async fn others(world: &World, key_id: &str, address: &str, count: u64) {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut database = world.database().await;
    for n in 0..count {
        sqlx::query("INSERT INTO launch_sessions VALUES (?, ?, ?, ?, ?, x'00')")
            .bind(format!("other-{n}"))
            .bind(key_id)
            .bind(format!("chip-{n}"))
            .bind(address)
            .bind(i64::try_from(now).unwrap() - 60)
            .execute(&mut database)
            .await
            .unwrap();
    }
}

async fn waiting(world: &World) -> i64 {
    let mut database = world.database().await;
    sqlx::query_scalar("SELECT COUNT(*) FROM launch_sessions").fetch_one(&mut database).await.unwrap()
}

/// Whoever floods a key and a platform with sessions ends the oldest of those, and nobody else's.
#[tokio::test]
async fn a_flood_of_sessions_ends_its_own_oldest() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    others(&world, pushed.key_id(), "10.9.9.9", 20).await;
    let first = launched(&world, &pushed, true).await;
    let second = launched(&world, &pushed, true).await;
    let request = session_request(&platform(&[]), &pushed, true);
    for n in 0..15 {
        assert_eq!(open_from(&world, [10, 0, 1, n], &request).await.status, StatusCode::OK);
    }
    assert_eq!(waiting(&world).await, 20 + 16, "the others' are there");
    assert_eq!(measure(&world, &first.request).await.code(), Code::LaunchSession);
    assert_eq!(measure(&world, &second.request).await.status, StatusCode::OK);
}

#[tokio::test]
async fn sessions_are_bounded_and_forgotten() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let request = session_request(&platform(&[]), &pushed, true);
    others(&world, pushed.key_id(), "10.0.0.1", 128).await;
    assert_eq!(open_from(&world, [10, 0, 0, 1], &request).await.code(), Code::Overloaded);
    assert_eq!(open_from(&world, [10, 0, 0, 2], &request).await.status, StatusCode::OK);
    assert_eq!(waiting(&world).await, 128, "in the place of the key's oldest");
    world.wait(Duration::from_secs(601));
    assert_eq!(open_from(&world, [10, 0, 0, 1], &request).await.status, StatusCode::OK);
    assert_eq!(waiting(&world).await, 1);
}

/// AMD's service is asked for nobody who comes without a guest that is registered for such platforms.
#[tokio::test]
async fn an_exported_cek_is_looked_for_only_for_registered_guests() {
    let world = world(true).await;
    push(&world, allowed()).await;
    let exported = platform(&["unsigned-cek".parse().unwrap()]);
    let stranger = world.owner.sealed("web", 7);
    assert_eq!(open(&world, &session_request(&exported, &stranger, true)).await.code(), Code::Resource);
    let snp = World::new().await;
    let pushed = snp.push(1).await;
    assert_eq!(open(&snp, &session_request(&exported, &pushed, true)).await.code(), Code::TeeKind);
}

/// Nothing that a host sends ends anything but its own request.
#[tokio::test]
async fn hostile_bodies_are_refused() {
    let world = world(true).await;
    let pushed = push(&world, allowed()).await;
    let good = session_request(&platform(&[]), &pushed, true);
    let long = "A".repeat(20_000);
    for (field, value) in [
        ("pdh", json!("")),
        ("pdh", json!("AAAA")),
        ("pdh", json!("no base64!")),
        ("pdh", json!(long)),
        ("pdh", good["cert_chain"].clone()),
        ("cert_chain", good["pdh"].clone()),
        ("cert_chain", json!(BASE64_STANDARD.encode([0xff; 6252]))),
        ("cpu0_id", json!("AAAA")),
        ("init_data", json!("")),
        ("init_data", json!("version = 1")),
        ("es", json!("yes")),
        ("more", json!(1)),
    ] {
        let mut request = good.clone();
        request[field] = value;
        let answer = open(&world, &request).await;
        assert!(answer.status.is_client_error(), "{field}: {answer:?}");
    }
    let launched = launched(&world, &pushed, true).await;
    for (field, value) in [
        ("measurement", json!("")),
        ("measurement", json!(BASE64_STANDARD.encode([0; 47]))),
        ("measurement", json!(BASE64_STANDARD.encode([0; 49]))),
        ("measurement", json!("no base64!")),
        ("measurement", json!(long)),
        ("policy", json!(-1)),
        ("policy", json!(u64::MAX)),
        ("api_major", json!(256)),
        ("build", json!(1.5)),
        ("more", json!(1)),
    ] {
        let mut request = launched.request.clone();
        request[field] = value;
        let answer = measure(&world, &request).await;
        assert!(answer.status.is_client_error(), "{field}: {answer:?}");
    }
    for path in [SESSIONS_PATH, MEASUREMENTS_PATH] {
        for body in [json!(null), json!([]), json!("x"), json!({})] {
            assert_eq!(world.send(post(path, &body, &[])).await.status, StatusCode::BAD_REQUEST);
        }
        assert_eq!(world.send(get(path, &[])).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    assert_eq!(
        measure(&world, &launched.request).await.status,
        StatusCode::OK,
        "none of that used the session up"
    );
}
