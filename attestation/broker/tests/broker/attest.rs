//! Sessions and evidence: each way in which an attestation is refused.

use axum::http::StatusCode;
use protocols::rcar::{ATTEST_PATH, AUTH_PATH, EphemeralKey, Jwk};
use protocols::refusal::Code;
use sealpod_broker::config::Limits;
use sealpod_emulator::snp::Fault;
use serde_json::json;

use crate::guest::{Machine, auth_request};
use crate::support::{World, post};

#[tokio::test]
async fn a_challenge_has_the_protocols_form() {
    let world = World::new().await;
    let answer = world.send(post(AUTH_PATH, &auth_request(), &[])).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["extra-params"], "");
    assert_eq!(answer.body["nonce"].as_str().unwrap().len(), 44);
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("kbs-session-id=") && cookie.contains("; Expires="), "{cookie}");
}

#[tokio::test]
async fn another_protocol_version_is_refused() {
    let world = World::new().await;
    for version in ["0.1.1", "0.4.1", ""] {
        let body = json!({ "version": version, "tee": "snp", "extra-params": {} });
        let answer = world.send(post(AUTH_PATH, &body, &[])).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Code::Session), "{version}");
    }
}

#[tokio::test]
async fn other_kinds_of_evidence_are_refused() {
    let world = World::new().await;
    for tee in ["sample", "tdx", "SNP", ""] {
        let body = json!({ "version": "0.4.0", "tee": tee, "extra-params": {} });
        let answer = world.send(post(AUTH_PATH, &body, &[])).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::TeeKind), "{tee}");
    }
}

#[tokio::test]
async fn a_challenge_keeps_nothing_and_takes_any_parameters() {
    let world = World::new().await;
    let big = json!({ "a": vec![json!({ "b": ["c", null, 1.5e300] }); 200] });
    for _ in 0..1000 {
        let body = json!({ "version": "0.4.0", "tee": "snp", "extra-params": big });
        assert_eq!(world.send(post(AUTH_PATH, &body, &[])).await.status, StatusCode::OK);
    }
    assert_eq!(world.broker.open_sessions(), 0);
}

#[tokio::test]
async fn attested_sessions_of_one_address_stay_in_its_share() {
    let limits = Limits { sessions: 8, sessions_per_address: 2, ..Limits::default() };
    let world = World::with(limits, true).await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let first = world.handshake(&guest).await;
    for _ in 0..4 {
        let last = world.handshake(&guest).await;
        assert_eq!(world.broker.open_sessions().min(3), world.broker.open_sessions());
        assert_eq!(world.resource(&last, pushed.key_id()).await.status, StatusCode::OK);
    }
    assert_eq!(world.broker.open_sessions(), 2);
    assert_eq!(world.resource(&first, pushed.key_id()).await.code(), Code::Session);
}

#[tokio::test]
async fn a_full_table_says_so() {
    let limits = Limits { sessions: 2, sessions_per_address: 2, ..Limits::default() };
    let world = World::with(limits, true).await;
    let guest = Machine::default().boot(None);
    let mut last = None;
    for n in 0..3 {
        let (cookie, nonce) = world.auth().await;
        let body = serde_json::to_value(guest.attest_request(&nonce)).unwrap();
        let address = std::net::IpAddr::from([10, 9, 0, n]);
        last = Some(world.send_from(address, post(ATTEST_PATH, &body, &[("cookie", &cookie)])).await);
    }
    let last = last.unwrap();
    assert_eq!((last.status, last.code()), (StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded));
    assert!(last.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn evidence_for_another_nonce_is_refused() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (_, old) = world.auth().await;
    let (cookie, nonce) = world.auth().await;
    let answer = world.attest(&cookie, &guest.attest_request(&old)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Code::Nonce));
    let answer = world.attest(&cookie, &guest.attest_request(&nonce)).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn evidence_that_was_refused_uses_its_challenge_up() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (cookie, nonce) = world.auth().await;
    let mut bad = guest.attest_request(&nonce);
    bad.tee_evidence.additional_evidence = "{}".into();
    assert_eq!(world.attest(&cookie, &bad).await.code(), Code::Binding);
    let answer = world.attest(&cookie, &guest.attest_request(&nonce)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Code::Session));
}

#[tokio::test]
async fn a_challenge_of_before_a_restart_is_refused() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (cookie, nonce) = world.auth().await;
    let world = world.restart().await;
    assert_eq!(world.attest(&cookie, &guest.attest_request(&nonce)).await.code(), Code::Nonce);
}

#[tokio::test]
async fn a_challenge_of_one_kind_takes_no_evidence_of_another() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    for tee in ["sev", "pef"] {
        let body = json!({ "version": "0.4.0", "tee": tee, "extra-params": {} });
        let answer = world.send(post(AUTH_PATH, &body, &[])).await;
        let (cookie, nonce) = (answer.cookie(), answer.body["nonce"].as_str().unwrap().to_owned());
        assert_eq!(world.attest(&cookie, &guest.attest_request(&nonce)).await.code(), Code::Evidence);
    }
}

#[tokio::test]
async fn refused_evidence_is_in_the_audit_log_with_its_checks_and_floods_it_not() {
    let world = World::new().await;
    let guest = Machine { faults: vec![Fault::signature()], ..Machine::default() }.boot(None);
    for _ in 0..100 {
        let (cookie, nonce) = world.auth().await;
        assert_eq!(world.attest(&cookie, &guest.attest_request(&nonce)).await.code(), Code::Signature);
    }
    // The clock goes on: the next one is recorded and tells of those left out.
    world.wait(std::time::Duration::from_secs(60));
    let (cookie, nonce) = world.auth().await;
    assert_eq!(world.attest(&cookie, &guest.attest_request(&nonce)).await.code(), Code::Signature);
    let (dir, config) = world.stop().await;
    let events = crate::support::events_of(&config).await;
    let refused: Vec<_> = events.iter().filter(|event| event["event"] == "attestation.refused").collect();
    assert!((2..64).contains(&refused.len()), "{}", refused.len());
    let first = &refused[0]["detail"];
    assert_eq!((&first["code"], &first["tee"]), (&json!("SIGNATURE"), &json!("snp")));
    let outcomes = |wanted: &str| {
        first["checks"].as_array().unwrap().iter().filter(|check| check["outcome"] == wanted).count()
    };
    assert_eq!(outcomes("failed"), 1);
    assert!(outcomes("passed") > 0 && outcomes("not_reached") > 0, "{first}");
    let left_out = refused.last().unwrap()["detail"]["left_out_before"]["SIGNATURE"].as_u64().unwrap();
    assert_eq!(left_out as usize + refused.len(), 101);
    drop(dir);
}

#[tokio::test]
async fn a_replayed_report_under_a_fresh_nonce_is_refused() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (_, old) = world.auth().await;
    let (cookie, nonce) = world.auth().await;
    let mut request = guest.attest_request(&old);
    request.runtime_data.nonce = nonce;
    let answer = world.attest(&cookie, &request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Binding));
}

#[tokio::test]
async fn evidence_with_another_sessions_key_is_refused() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (cookie, nonce) = world.auth().await;
    let mut request = guest.attest_request(&nonce);
    request.runtime_data.tee_pubkey = EphemeralKey::generate().unwrap().public_jwk();
    let answer = world.attest(&cookie, &request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Binding));
}

#[tokio::test]
async fn a_key_that_nothing_can_be_wrapped_to_is_refused() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let good = guest.key.public_jwk();
    let long = "A".repeat(100_000);
    for bad in [
        Jwk { alg: "RSA-OAEP-256".into(), ..good.clone() },
        Jwk { crv: "P-521".into(), ..good.clone() },
        Jwk { kty: "OKP".into(), ..good.clone() },
        Jwk { x: good.y.clone(), ..good.clone() },
        Jwk { y: format!("{}=", good.y), ..good.clone() },
        Jwk { x: long.clone(), ..good.clone() },
    ] {
        // The evidence is bound to that very key: nothing else is wrong.
        let (cookie, nonce) = world.auth().await;
        let answer = world.attest(&cookie, &guest.attest_request_as(&nonce, bad.clone())).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Code::Evidence), "{bad:?}");
    }
}

#[tokio::test]
async fn evidence_of_another_session_is_refused() {
    let world = World::new().await;
    let (ours, theirs) = (Machine::default().boot(None), Machine::default().boot(None));
    let (_, their_nonce) = world.auth().await;
    let (cookie, nonce) = world.auth().await;
    let mut request = ours.attest_request(&nonce);
    request.tee_evidence = theirs.attest_request(&their_nonce).tee_evidence;
    let answer = world.attest(&cookie, &request).await;
    assert_eq!(answer.code(), Code::Binding);
}

#[tokio::test]
async fn changed_additional_evidence_is_refused() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (cookie, nonce) = world.auth().await;
    let mut request = guest.attest_request(&nonce);
    request.tee_evidence.additional_evidence = "{}".into();
    assert_eq!(world.attest(&cookie, &request).await.code(), Code::Binding);
}

#[tokio::test]
async fn initdata_that_does_not_hash_to_host_data_is_refused() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let mut guest = pushed.guest();
    guest.init_data = guest.init_data.map(|body| body + "\n");
    let (cookie, nonce) = world.auth().await;
    let answer = world.attest(&cookie, &guest.attest_request(&nonce)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::HostData));
}

#[tokio::test]
async fn initdata_that_is_withheld_is_refused() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let mut guest = pushed.guest();
    guest.init_data = None;
    let (cookie, nonce) = world.auth().await;
    assert_eq!(world.attest(&cookie, &guest.attest_request(&nonce)).await.code(), Code::HostData);
}

#[tokio::test]
async fn initdata_of_a_launch_without_any_is_refused() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = Machine { host_data: Some([0; 32]), ..Machine::default() }.boot(Some(pushed.init_data()));
    let (cookie, nonce) = world.auth().await;
    assert_eq!(world.attest(&cookie, &guest.attest_request(&nonce)).await.code(), Code::HostData);
}

#[tokio::test]
async fn initdata_of_another_format_is_refused() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let (cookie, nonce) = world.auth().await;
    let mut request = guest.attest_request(&nonce);
    request.init_data.as_mut().unwrap().format = "json".into();
    let answer = world.attest(&cookie, &request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Code::InitdataInvalid));
}

#[tokio::test]
async fn a_wrong_signature_is_refused() {
    let world = World::new().await;
    let guest = Machine { faults: vec![Fault::signature()], ..Machine::default() }.boot(None);
    let (cookie, nonce) = world.auth().await;
    let answer = world.attest(&cookie, &guest.attest_request(&nonce)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Signature));
}

#[tokio::test]
async fn an_emulated_root_that_is_not_configured_is_refused() {
    let world = World::with(Limits::default(), false).await;
    let guest = Machine::default().boot(None);
    let (cookie, nonce) = world.auth().await;
    let answer = world.attest(&cookie, &guest.attest_request(&nonce)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::CertificateChain));
}

#[tokio::test]
async fn evidence_without_certificates_is_refused() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (cookie, nonce) = world.auth().await;
    let mut request = guest.attest_request(&nonce);
    request.tee_evidence.primary_evidence["cert_chain"] = serde_json::Value::Null;
    assert_eq!(world.attest(&cookie, &request).await.code(), Code::Collateral);
}

#[tokio::test]
async fn sample_evidence_is_refused() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (cookie, nonce) = world.auth().await;
    let mut request = guest.attest_request(&nonce);
    request.tee_evidence.primary_evidence = json!({ "svn": "1", "report_data": "" });
    let answer = world.attest(&cookie, &request).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, Code::Evidence));
}

#[tokio::test]
async fn an_attested_session_is_never_attested_again() {
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let (cookie, nonce) = world.auth().await;
    let request = guest.attest_request(&nonce);
    assert_eq!(world.attest(&cookie, &request).await.status, StatusCode::OK);
    let mut garbage = request.clone();
    garbage.tee_evidence.primary_evidence = json!({});
    for again in [&request, &garbage] {
        let answer = world.attest(&cookie, again).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Code::Session));
    }
    // What was attested stays so.
    assert_eq!(world.resource(&cookie, pushed.key_id()).await.open(&guest), pushed.key);
}

#[tokio::test]
async fn of_concurrent_attestations_one_wins() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (cookie, nonce) = world.auth().await;
    let request = guest.attest_request(&nonce);
    let attempts = (0..8).map(|_| world.attest(&cookie, &request));
    let mut codes = Vec::new();
    for answer in futures::future::join_all(attempts).await {
        codes.push(answer.status);
    }
    assert_eq!(codes.iter().filter(|status| **status == StatusCode::OK).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|status| **status == StatusCode::UNAUTHORIZED).count(), 7, "{codes:?}");
}

#[tokio::test]
async fn an_unknown_session_is_refused() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (_, nonce) = world.auth().await;
    for cookie in ["kbs-session-id=00000000000000000000000000000000", "kbs-session-id=x", "other=1"] {
        let answer = world.attest(cookie, &guest.attest_request(&nonce)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, Code::Session));
    }
}

#[tokio::test]
async fn a_token_tells_what_was_appraised() {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
    let world = World::new().await;
    let pushed = world.push(1).await;
    let guest = pushed.guest();
    let (cookie, nonce) = world.auth().await;
    let answer = world.attest(&cookie, &guest.attest_request(&nonce)).await;
    let token = answer.body["token"].as_str().unwrap();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    let cpu = &claims["submods"]["cpu0"];
    assert_eq!(cpu["ear.status"], "contraindicated");
    let evidence = &cpu["ear.veraison.annotated-evidence"];
    assert_eq!(evidence["runtime_data_claims"]["nonce"], nonce);
    assert_eq!(evidence["init_data_claims"]["key_id"], pushed.key_id());
    assert_eq!(evidence["snp"]["measurement"], hex::encode(crate::guest::MEASUREMENT));
}
