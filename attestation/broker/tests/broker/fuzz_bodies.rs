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
