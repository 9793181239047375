//! The fuzz targets' bodies on what real clients send, and on that with bytes changed.

#[path = "../../../../fuzz/bodies/broker.rs"]
mod bodies;

use sealpod_broker::appraise::read_evidence;

use crate::guest::Machine;
use crate::support::World;

#[tokio::test]
async fn attest_bodies() {
    let world = World::new().await;
    let (_, nonce) = world.auth().await;
    let pushed = world.owner.sealed("web", 1);
    let request = Machine::default().boot(Some(pushed.init_data())).attest_request(&nonce);
    let body = serde_json::to_vec(&request).unwrap();
    assert!(read_evidence(&body));
    for at in (0..body.len()).step_by(97) {
        let mut changed = body.clone();
        changed[at] ^= 0x15;
        bodies::broker_attest(&changed);
        bodies::broker_attest(&body[..at]);
    }
}

#[tokio::test]
async fn passports() {
    let world = World::new().await;
    let guest = Machine::default().boot(None);
    let (cookie, nonce) = world.auth().await;
    let answer = world.attest(&cookie, &guest.attest_request(&nonce)).await;
    let token = answer.body["token"].as_str().unwrap();
    for at in (0..token.len()).step_by(31) {
        bodies::broker_passport(&token.as_bytes()[..at]);
        let mut changed = token.as_bytes().to_vec();
        changed[at] ^= 1;
        bodies::broker_passport(&changed);
    }
}

#[tokio::test]
async fn relays_bodies() {
    let world = crate::host::world(true).await;
    let pushed = world.owner.sealed("web", 1);
    let request = crate::host::session_request(&crate::host::platform(&[]), &pushed, true);
    let body = serde_json::to_vec(&request).unwrap();
    assert!(sealpod_broker::sev::read_session(&body));
    for at in (0..body.len()).step_by(61) {
        let mut changed = body.clone();
        changed[at] ^= 0x15;
        bodies::sev_requests(&changed);
        bodies::sev_requests(&body[..at]);
    }
    let body = br#"{"session":"00112233445566778899aabbccddeeff","api_major":1,"api_minor":55,"build":29,"policy":63,"measurement":""#;
    let body = [body.as_slice(), "A".repeat(64).as_bytes(), b"\"}"].concat();
    assert!(sealpod_broker::sev::read_measurement(&body));
    for at in 0..body.len() {
        let mut changed = body.clone();
        changed[at] ^= 0x15;
        bodies::sev_requests(&changed);
        bodies::sev_requests(&body[..at]);
    }
}
