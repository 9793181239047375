//! Launched guests that come back, and whoever says to be one.

use hyper::StatusCode;
use protocols::owner::SevSecret;
use protocols::rcar::EphemeralKey;
use protocols::refusal::Code;

use crate::host::{BOTH, Connected, connected, push, sev_policy, world};
use crate::support::World;

async fn refused(world: &World, guest: &Connected) -> Code {
    let (_, answer) = guest.attest(world).await;
    assert_ne!(answer.status, StatusCode::OK);
    answer.code()
}

#[tokio::test]
async fn a_connection_is_the_first_attested_keys() {
    let world = world(true).await;
    let pushed = push(&world, sev_policy(&BOTH, SevSecret::Connection)).await;
    let mut guest = connected(&world, &pushed, true).await;
    assert_eq!(guest.ask(&world, pushed.key_id()).await.status, StatusCode::OK);
    let own = std::mem::replace(&mut guest.key, EphemeralKey::generate().unwrap());
    assert_eq!(refused(&world, &guest).await, Code::Binding);
    guest.key = own;
    assert_eq!(guest.ask(&world, pushed.key_id()).await.status, StatusCode::OK);
    let world = world.restart().await;
    assert_eq!(guest.ask(&world, pushed.key_id()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn each_wrong_part_of_a_connections_evidence_is_refused() {
    let world = world(true).await;
    let pushed = push(&world, sev_policy(&BOTH, SevSecret::Connection)).await;
    let mut guest = connected(&world, &pushed, true).await;
    let other = connected(&world, &pushed, true).await;

    let own = guest.secret;
    guest.secret = other.secret;
    assert_eq!(refused(&world, &guest).await, Code::Binding, "another connection's key");
    guest.secret = own;

    let own = guest.sealed_spec;
    guest.sealed_spec = [0; 32];
    assert_eq!(refused(&world, &guest).await, Code::Binding, "another sealed spec");
    guest.sealed_spec = own;

    let own = guest.init_data.clone();
    guest.init_data = own.replace("broker.example", "broker.evil");
    assert_eq!(refused(&world, &guest).await, Code::HostData, "other initdata");
    let another = world.owner.sealed("web", 2);
    guest.init_data = another.init_data();
    assert_eq!(refused(&world, &guest).await, Code::HostData, "another registration's initdata");
    guest.init_data = "version = 1".into();
    assert_eq!(refused(&world, &guest).await, Code::InitdataInvalid);
    guest.init_data = own;

    let own = guest.id.clone();
    for id in ["", "x", &"0".repeat(32), &own.to_uppercase()] {
        if id != own {
            guest.id = id.to_owned();
            assert_eq!(refused(&world, &guest).await, Code::Evidence, "{id}");
        }
    }
    guest.id = other.id.clone();
    assert_eq!(refused(&world, &guest).await, Code::Binding);
    guest.id = own;
    assert_eq!(guest.ask(&world, pushed.key_id()).await.status, StatusCode::OK, "none of that bound it");
}

/// Evidence is for one session: taken from another's request, it is nothing.
#[tokio::test]
async fn evidence_of_another_session_is_refused() {
    let world = world(true).await;
    let pushed = push(&world, sev_policy(&BOTH, SevSecret::Connection)).await;
    let guest = connected(&world, &pushed, true).await;
    let auth = async || {
        let body = serde_json::json!({ "version": "0.4.0", "tee": "sev", "extra-params": "" });
        let answer = world.send(crate::support::post(protocols::rcar::AUTH_PATH, &body, &[])).await;
        (answer.cookie(), answer.body["nonce"].as_str().unwrap().to_owned())
    };
    let ((_, first), (cookie, second)) = (auth().await, auth().await);
    let mut request = guest.attest_request(&first);
    request.runtime_data.nonce = second;
    assert_eq!(world.attest(&cookie, &request).await.code(), Code::Binding);
}

#[tokio::test]
async fn another_owners_key_is_not_given_to_a_launched_guest() {
    let world = world(true).await;
    let pushed = push(&world, sev_policy(&BOTH, SevSecret::Connection)).await;
    let guest = connected(&world, &pushed, true).await;
    let stranger = world.another_owner("bank").await;
    let theirs = stranger.sealed("vault", 1);
    assert_eq!(world.register(&stranger, &theirs).await.status, StatusCode::OK);
    assert_eq!(guest.ask(&world, theirs.key_id()).await.code(), Code::Resource);
}
