//! Resources: one attestation for all, another one when the broker has forgotten it, and no end to it
//! by a broker that never remembers.

use std::sync::atomic::Ordering;

use protocols::rcar::wrap;

use super::super::tests::broker::{Authority, Broker, Fault, KEY};
use super::super::tests::{URL, guest, patience, tcp};
use super::*;

async fn session(fault: Fault) -> (Session, Broker) {
    let authority = Authority::new();
    let (initdata, tee) = guest(&authority.pem);
    let broker = Broker::start(authority.server("broker.example", false), initdata.body(), fault).await;
    let target = Target::at(URL, Some(&authority.pem), tcp(broker.address)).unwrap();
    (Session::with(&initdata, tee, target, patience()).unwrap(), broker)
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

/// The same key each time, so that the broker knows its release again.
fn one_key(broker: &Broker, releases: usize) {
    let released = broker.state.released();
    assert_eq!(released.len(), releases);
    assert!(released.iter().all(|key| *key == released[0]), "{released:?}");
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again() {
    for (lost, handshakes_made, releases) in [("auth", 2, 1), ("attest", 2, 1), ("resource", 1, 2)] {
        let (session, broker) = session(Fault::Loses(lost, 1)).await;
        assert_eq!(*session.spec_key().await.unwrap().as_bytes(), KEY, "{lost}");
        assert_eq!(handshakes(&broker), handshakes_made, "{lost}");
        one_key(&broker, releases);
    }
}

#[tokio::test]
async fn answers_that_are_always_lost_are_asked_for_a_bounded_number_of_times() {
    for lost in ["auth", "attest", "resource"] {
        let (session, broker) = session(Fault::Loses(lost, usize::MAX)).await;
        let refusal = session.spec_key().await.unwrap_err();
        assert_eq!(refusal.code, Code::BrokerProtocol, "{lost}");
        assert!(refusal.detail.contains("connection ended"), "{refusal}");
        let asked = if lost == "resource" { broker.state.released().len() } else { handshakes(&broker) };
        assert_eq!(asked, 4, "{lost}");
    }
}

#[tokio::test]
async fn a_broker_that_restarts_between_release_and_answer_meets_the_same_key() {
    let (session, broker) = session(Fault::Restarts).await;
    assert_eq!(*session.spec_key().await.unwrap().as_bytes(), KEY);
    assert_eq!(handshakes(&broker), 2);
    one_key(&broker, 2);
}

#[tokio::test]
async fn a_guest_that_asks_again_has_the_same_key_and_another_guest_has_not() {
    let (first, broker) = session(Fault::None).await;
    first.spec_key().await.unwrap();
    broker.state.forget();
    first.spec_key().await.unwrap();
    one_key(&broker, 2);
    let (second, other) = session(Fault::None).await;
    second.spec_key().await.unwrap();
    assert_ne!(broker.state.released()[0], other.state.released()[0]);
}

#[tokio::test]
async fn a_release_is_confirmed_by_the_session_that_it_came_by() {
    let (session, broker) = session(Fault::None).await;
    session.spec_key().await.unwrap();
    session.confirm().await.unwrap();
    assert_eq!(broker.state.confirmed(), ["kbs:///team-a/sealed-spec/web.r1.0a1b2c3d"]);
    assert_eq!(handshakes(&broker), 1);
    // Or by a new one, where the broker has forgotten it.
    broker.state.forget();
    session.confirm().await.unwrap();
    assert_eq!((broker.state.confirmed().len(), handshakes(&broker)), (2, 2));
}

#[tokio::test]
async fn a_confirmation_that_is_lost_or_refused() {
    let (lossy, broker) = session(Fault::Loses("confirmations", 1)).await;
    lossy.spec_key().await.unwrap();
    lossy.confirm().await.unwrap();
    assert_eq!(broker.state.confirmed().len(), 2);

    // A stock broker has no such path.
    let (stock, broker) = session(Fault::Answers("confirmations", 404, Vec::new())).await;
    stock.spec_key().await.unwrap();
    assert!(stock.confirm().await.unwrap_err().detail.contains("404"));
    assert_eq!(handshakes(&broker), 1);
}

fn token(claims: &str) -> Fault {
    use base64::Engine;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
    Fault::Token(format!("e30.{claims}.c2ln"))
}

#[tokio::test]
async fn the_brokers_time_is_in_its_token() {
    let (timed, _broker) = session(token(r#"{"iss":"x","iat":1800000000,"exp":1800000300}"#)).await;
    assert_eq!(timed.broker_time(), None);
    timed.spec_key().await.unwrap();
    assert!((1_800_000_000..1_800_000_100).contains(&timed.broker_time().unwrap()));

    for silent in [token("{}"), token(r#"{"iat":"soon"}"#), Fault::Token("x".into()), Fault::None] {
        let (session, _broker) = session(silent).await;
        session.spec_key().await.unwrap();
        assert_eq!(session.broker_time(), None);
    }
}
