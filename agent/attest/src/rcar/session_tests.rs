//! Resources: one attestation for all, another one when the broker has forgotten it, and no end to it
//! by a broker that never remembers.

use std::sync::atomic::Ordering;

use protocols::rcar::wrap;

use super::super::tests::broker::{Authority, Broker, Fault};
use super::super::tests::{URL, guest, patience, tcp};
use super::*;

async fn session(fault: Fault) -> (Session, Broker) {
    let authority = Authority::new();
    let (initdata, tee) = guest(&authority.pem);
    let broker = Broker::start(authority.server("broker.example", false), initdata.body(), fault).await;
    let target = Target::at(URL, Some(&authority.pem), tcp(broker.address)).unwrap();
    (Session::with(&initdata, tee, target, patience()), broker)
}

fn password() -> ResourceUri {
    "kbs:///team/db/password".parse().unwrap()
}

fn handshakes(broker: &Broker) -> usize {
    broker.state.handshakes.load(Ordering::SeqCst)
}

#[tokio::test]
async fn all_resources_come_with_one_attestation() {
    let (session, broker) = session(Fault::None).await;
    assert_eq!(handshakes(&broker), 0, "not before something is asked for");
    let uri = password();
    let (a, b) = tokio::join!(session.resource(&uri), session.resource(&uri));
    assert_eq!((&**a.unwrap(), &**b.unwrap()), (&b"hunter2"[..], &b"hunter2"[..]));
    assert_eq!(*session.resource(&uri).await.unwrap(), b"hunter2");
    assert_eq!(handshakes(&broker), 1);
}

#[tokio::test]
async fn a_forgotten_session_is_made_again_once() {
    for (fault, expected) in [
        (Fault::Refuses("resource", Code::Session, 1), 2),
        // What isn't about the session isn't asked twice.
        (Fault::Refuses("resource", Code::Resource, 1), 1),
    ] {
        let (session, broker) = session(fault).await;
        assert_eq!(session.resource(&password()).await.is_ok(), expected == 2);
        assert_eq!(handshakes(&broker), expected);
    }
}

#[tokio::test]
async fn the_stock_broker_answers_401_to_everything() {
    let body =
        br#"{"type":"https://github.com/confidential-containers/kbs/errors/PolicyDeny","detail":"denied"}"#;
    let (session, broker) = session(Fault::Answers("resource", 401, body.to_vec())).await;
    let refusal = session.resource(&password()).await.unwrap_err();
    assert!(refusal.detail.contains("401") && refusal.detail.contains("denied"), "{refusal}");
    assert_eq!(handshakes(&broker), 2, "one try more, and no third");
}

#[tokio::test(start_paused = true)]
async fn an_old_attestation_is_renewed_before_it_is_refused() {
    tokio::time::resume();
    let (session, broker) = session(Fault::None).await;
    session.resource(&password()).await.unwrap();
    let until = session.attested.lock().await.as_ref().unwrap().until;
    tokio::time::pause();
    tokio::time::advance(until - Instant::now() + Duration::from_secs(1)).await;
    tokio::time::resume();
    session.resource(&password()).await.unwrap();
    assert_eq!(handshakes(&broker), 2);
}

#[tokio::test]
async fn what_is_wrapped_for_another_guest_does_not_open() {
    let (session, _broker) = session(Fault::ForeignKey).await;
    let refusal = session.resource(&password()).await.unwrap_err();
    assert_eq!(refusal.code, Code::BrokerProtocol);
}

#[tokio::test]
async fn an_answer_has_a_bound() {
    let (session, _broker) = session(Fault::Oversize("resource")).await;
    assert_eq!(session.resource(&password()).await.unwrap_err().code, Code::BrokerProtocol);
    // The largest resource fits.
    let key = EphemeralKey::generate().unwrap();
    let largest = serde_json::to_vec(&wrap(&key.public_jwk(), &vec![0; MAX_PLAINTEXT]).unwrap()).unwrap();
    assert!(largest.len() <= MAX_ANSWER);
}
