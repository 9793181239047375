//! The handshake against brokers that lie, one lie at a time.

pub(crate) mod broker;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker::{Authority, Broker, Fault, KEY};
use sealed_spec::SpecKey;
use sealed_spec::initdata::Via;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::transport::Target;
use super::*;
use crate::initdata::{VerifiedInitdata, verified_for_tests};
use crate::tee::Tee;
use crate::testing::{FakeTee, document};

pub(crate) const URL: &str = "https://broker.example:8443";

pub(crate) fn patience() -> Patience {
    Patience {
        attempts: 3,
        pause: Duration::from_millis(1),
        connect: Duration::from_secs(20),
        answer: Duration::from_secs(20),
    }
}

/// Initdata that pins `ca`, and the launch that bound it.
pub(crate) fn guest(ca: &str) -> (VerifiedInitdata, Arc<dyn Tee>) {
    let text = document(URL, Via::Relay, ca);
    let host_data = sealed_spec::initdata::digest(text.as_bytes());
    (verified_for_tests(text.as_bytes(), &host_data), Arc::new(FakeTee { host_data, sealed_spec: None }))
}

pub(crate) fn tcp(address: std::net::SocketAddr) -> Transport {
    Transport::Tcp { host: address.ip().to_string(), port: address.port() }
}

/// A release of a guest that has just been started.
async fn release_key_with(
    initdata: &VerifiedInitdata,
    tee: &Arc<dyn Tee>,
    transport: Transport,
    patience: &Patience,
) -> Result<SpecKey, Refusal> {
    let target = Target::new(initdata.config()?, transport)?;
    Session::with(initdata, Arc::clone(tee), target, patience.clone())?.spec_key().await
}

/// A whole release against a broker with one fault.
async fn release(fault: Fault) -> (Result<SpecKey, Refusal>, Broker) {
    let authority = Authority::new();
    let (initdata, tee) = guest(&authority.pem);
    let broker = Broker::start(authority.server("broker.example", false), initdata.body(), fault).await;
    let result = release_key_with(&initdata, &tee, tcp(broker.address), &patience()).await;
    (result, broker)
}

async fn refused(fault: Fault) -> Refusal {
    let shown = format!("{fault:?}").chars().take(60).collect::<String>();
    match release(fault).await.0 {
        Err(refusal) => refusal,
        Ok(_) => panic!("released in spite of {shown}"),
    }
}

#[tokio::test]
async fn the_key_comes_over_one_connection() {
    let (key, broker) = release(Fault::None).await;
    assert_eq!(*key.unwrap().as_bytes(), KEY);
    assert_eq!(broker.state.connections.load(Ordering::SeqCst), 1);
    assert_eq!(broker.state.handshakes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_broker_that_hangs_up_after_each_answer_is_called_again() {
    let (key, broker) = release(Fault::HangsUp).await;
    assert_eq!(*key.unwrap().as_bytes(), KEY);
    assert_eq!(broker.state.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn the_brokers_refusals_are_passed_on() {
    for (at, code) in [
        ("attest", Code::LaunchDigest),
        ("attest", Code::HostData),
        ("resource", Code::SpecDigest),
        ("resource", Code::Resource),
        ("auth", Code::Overloaded),
    ] {
        let refusal = refused(Fault::Refuses(at, code, usize::MAX)).await;
        assert_eq!(refusal, Refusal::new(code, "because"));
    }
    let refusal = refused(Fault::Unexplained).await;
    assert_eq!(refusal.code, Code::BrokerProtocol);
    assert!(
        refusal.to_string().contains("401") && refusal.to_string().contains("no\u{fffd}reason"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_dead_session_is_replaced_once() {
    let (key, broker) = release(Fault::Refuses("attest", Code::Session, 1)).await;
    assert_eq!(*key.unwrap().as_bytes(), KEY);
    assert_eq!(broker.state.handshakes.load(Ordering::SeqCst), 2);

    let (result, broker) = release(Fault::Refuses("attest", Code::Nonce, usize::MAX)).await;
    assert_eq!(result.err().unwrap().code, Code::Nonce);
    assert_eq!(broker.state.handshakes.load(Ordering::SeqCst), 2);

    let (result, broker) = release(Fault::Refuses("attest", Code::LaunchDigest, 1)).await;
    assert_eq!(result.err().unwrap().code, Code::LaunchDigest);
    assert_eq!(broker.state.handshakes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn answers_that_make_no_sense() {
    for fault in [
        Fault::Answers("auth", 200, b"[]".to_vec()),
        Fault::Answers("attest", 200, b"{}".to_vec()),
        Fault::Answers("resource", 200, b"{\"protected\":\"\"}".to_vec()),
        Fault::Answers("auth", 302, Vec::new()),
        Fault::Answers("resource", 204, Vec::new()),
        Fault::Answers("attest", 500, b"<html>".to_vec()),
        Fault::Oversize("auth"),
        Fault::Oversize("attest"),
        Fault::Oversize("resource"),
        Fault::Nonce(String::new()),
        Fault::Nonce("AAAA".to_owned()),
        Fault::Nonce("!".repeat(44)),
        Fault::Cookie("kbs-session-id=a b"),
        Fault::Cookie("kbs-session-id=; Path=/"),
    ] {
        let shown = format!("{fault:?}").chars().take(60).collect::<String>();
        assert_eq!(refused(fault).await.code, Code::BrokerProtocol, "{shown}");
    }
}

#[tokio::test]
async fn keys_that_are_not_this_guests() {
    let refusal = refused(Fault::ForeignKey).await;
    assert_eq!(refusal.code, Code::BrokerProtocol);
    assert!(refusal.detail.contains("made for another key"), "{refusal}");
    assert!(refused(Fault::ShortKey).await.detail.contains("31 bytes"));
}

#[tokio::test]
async fn a_key_replayed_from_an_earlier_handshake() {
    let authority = Authority::new();
    let (initdata, tee) = guest(&authority.pem);
    let server = authority.server("broker.example", false);
    let broker = Broker::start(server, initdata.body(), Fault::OldJwe).await;
    release_key_with(&initdata, &tee, tcp(broker.address), &patience()).await.unwrap();
    let again = release_key_with(&initdata, &tee, tcp(broker.address), &patience()).await;
    assert_eq!(again.err().unwrap().code, Code::BrokerProtocol);
}

#[tokio::test]
async fn a_silent_broker_ends_the_wait() {
    let authority = Authority::new();
    let (initdata, tee) = guest(&authority.pem);
    let server = authority.server("broker.example", false);
    let broker = Broker::start(server, initdata.body(), Fault::Silent).await;
    let patience = Patience { answer: Duration::from_millis(50), ..patience() };
    let refusal = release_key_with(&initdata, &tee, tcp(broker.address), &patience).await.err().unwrap();
    assert_eq!(refusal.code, Code::BrokerProtocol);
    assert!(refusal.detail.contains("in time"), "{refusal}");
}

#[tokio::test]
async fn only_the_pinned_certificate_for_the_pinned_name() {
    let (pinned, other) = (Authority::new(), Authority::new());
    let (initdata, tee) = guest(&pinned.pem);
    for (server, what) in [
        (other.server("broker.example", false), "another authority of the same name"),
        (pinned.server("other.example", false), "another name"),
        (pinned.server("broker.example", true), "expired"),
    ] {
        let broker = Broker::start(server, initdata.body(), Fault::None).await;
        let result = release_key_with(&initdata, &tee, tcp(broker.address), &patience()).await;
        let refusal = result.err().unwrap();
        assert_eq!(refusal.code, Code::BrokerPin, "{what}: {refusal}");
        // Nothing was said to it, and it wasn't asked again.
        assert_eq!(broker.state.handshakes.load(Ordering::SeqCst), 0, "{what}");
        assert_eq!(broker.state.connections.load(Ordering::SeqCst), 1, "{what}");
    }
}

#[tokio::test]
async fn a_server_certificate_can_be_pinned_itself() {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["broker.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
    let (initdata, tee) = guest(&certificate.pem());
    let broker = Broker::start(Arc::new(config).into(), initdata.body(), Fault::None).await;
    release_key_with(&initdata, &tee, tcp(broker.address), &patience()).await.unwrap();
}

#[tokio::test]
async fn whoever_does_not_speak_tls_is_not_the_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 1024];
        drop(stream.read(&mut hello).await);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    });
    let (initdata, tee) = guest(&Authority::new().pem);
    let refusal = release_key_with(&initdata, &tee, tcp(address), &patience()).await.err().unwrap();
    assert_eq!(refusal.code, Code::BrokerProtocol);
}

#[tokio::test]
async fn nobody_there_is_tried_a_bounded_number_of_times() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (initdata, tee) = guest(&Authority::new().pem);
    // A relay without a broker: it accepts and hangs up.
    let hanging_up = tokio::spawn(async move {
        for _ in 0..3 {
            drop(listener.accept().await.unwrap());
        }
        listener
    });
    let refusal = release_key_with(&initdata, &tee, tcp(address), &patience()).await.err().unwrap();
    assert_eq!(refusal.code, Code::BrokerUnreachable, "{refusal}");
    assert!(refusal.detail.contains(&address.to_string()) && refusal.detail.contains("3 tries"), "{refusal}");
    // And nobody at all.
    drop(hanging_up.await.unwrap());
    let refusal = release_key_with(&initdata, &tee, tcp(address), &patience()).await.err().unwrap();
    assert_eq!(refusal.code, Code::BrokerUnreachable);
}

#[tokio::test]
async fn pins_that_cannot_be_used() {
    let begin = "-----BEGIN CERTIFICATE-----";
    let end = "-----END CERTIFICATE-----";
    for ca in
        [format!("{begin}\nAAAA\n{end}\n"), format!("{begin}\n!!!!\n{end}\n"), format!("{end}\n{begin}\n")]
    {
        let (initdata, tee) = guest(&ca);
        let nowhere = Transport::Tcp { host: "127.0.0.1".to_owned(), port: 1 };
        let refusal = release_key_with(&initdata, &tee, nowhere, &patience()).await.err().unwrap();
        assert_eq!(refusal.code, Code::InitdataInvalid, "{refusal}");
    }
}

#[test]
fn the_way_that_initdata_asks_for() {
    let ca = Authority::new().pem;
    let transport = |url: &str, via| {
        let text = document(url, via, &ca);
        let digest = sealed_spec::initdata::digest(text.as_bytes());
        Transport::of(verified_for_tests(text.as_bytes(), &digest).config().unwrap()).unwrap()
    };
    assert_eq!(transport(URL, Via::Relay), Transport::Vsock { cid: 2, port: 4050 });
    let tcp = |host: &str, port| Transport::Tcp { host: host.to_owned(), port };
    assert_eq!(transport(URL, Via::Direct), tcp("broker.example", 8443));
    assert_eq!(transport("https://broker.example", Via::Direct), tcp("broker.example", 443));
    assert_eq!(transport("https://192.0.2.1:1", Via::Direct), tcp("192.0.2.1", 1));
}

/// The agent's RPC handlers have to be able to hold it.
#[test]
fn the_future_can_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let (initdata, tee) = guest(&Authority::new().pem);
    let session = Session::new(&initdata, tee).unwrap().unwrap();
    is_send(&session.spec_key());
    is_send(&session.confirm());
}
