//! The broker on a real socket: TLS, and strangers who send too much, too slowly, or something else.

use std::time::Duration;

use axum::http::StatusCode;
use protocols::rcar::{ATTEST_PATH, AUTH_PATH};
use protocols::refusal::{Code, Refusal};
use sealpod_broker::broker::Broker;
use sealpod_broker::clock::Clock;
use sealpod_broker::config::Limits;
use sealpod_broker::server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use crate::client::{self, request};
use crate::support::{World, get, post};

struct Served {
    world: World,
    address: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

async fn serve(limits: Limits) -> Served {
    let world = World::with(limits, true).await;
    let ca_key = std::fs::read_to_string(world.config.state.join("ca.key")).unwrap();
    let tls = sealpod_broker::tls::server_config(&ca_key, &world.config.server_names).unwrap();
    let listener = server::bind(world.config.listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(server::serve(world.broker.clone(), tls, listener, stopped));
    Served { world, address, stop, serving }
}

impl Served {
    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        client::connect(&self.world.config.state.join("ca.pem"), self.address).await
    }

    /// Sends `request` and returns everything that comes back until the broker closes.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await.unwrap();
        // The broker may answer and close before it took all of it.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

const AUTH: &str = r#"{"version":"0.4.0","tee":"snp","extra-params":{}}"#;

#[tokio::test]
async fn a_pinned_client_gets_a_challenge() {
    let served = serve(Limits::default()).await;
    let answer = served.exchange(&request("POST", AUTH_PATH, "", AUTH)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("kbs-session-id="), "{answer}");
}

#[tokio::test]
async fn health_names_whom_the_broker_trusts() {
    let served = serve(Limits::default()).await;
    let answer = served.exchange(&request("GET", "/sealpod/v1/health", "", "")).await;
    assert!(answer.contains(r#""status":"ok""#) && answer.contains("emulated ("), "{answer}");
}

#[tokio::test]
async fn an_oversize_auth_body_is_refused() {
    let served = serve(Limits::default()).await;
    let body = format!(r#"{{"version":"0.4.0","tee":"snp","extra-params":"{}"}}"#, "x".repeat(100_000));
    let answer = served.exchange(&request("POST", AUTH_PATH, "", &body)).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(served.world.broker.counters().auth.count() == 1);
}

#[tokio::test]
async fn an_oversize_body_without_a_length_is_refused() {
    let served = serve(Limits::default()).await;
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let body = chunk.repeat(4) + "0\r\n\r\n";
    let head = format!(
        "POST {AUTH_PATH} HTTP/1.1\r\nhost: b\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let answer = served.exchange((head + &body).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn oversize_evidence_is_refused() {
    let world = World::with(Limits { attest_bytes: 64 * 1024, ..Limits::default() }, true).await;
    let (cookie, _) = world.auth().await;
    let body = serde_json::json!({ "init-data": "x".repeat(100_000) });
    let answer = world.send(post(ATTEST_PATH, &body, &[("cookie", &cookie)])).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, Code::Evidence));
}

#[tokio::test]
async fn an_oversize_header_is_refused() {
    let served = serve(Limits::default()).await;
    let big = format!("cookie: {}\r\n", "x".repeat(200_000));
    let answer = served.exchange(&request("GET", "/sealpod/v1/health", &big, "")).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let answer = served.exchange(&request("GET", "/sealpod/v1/health", &many, "")).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off() {
    let served = serve(Limits { request_seconds: 1, ..Limits::default() }).await;
    let mut stream = served.connect().await.unwrap();
    let head = format!("POST {AUTH_PATH} HTTP/1.1\r\nhost: b\r\ncontent-length: 50\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let limits = Limits { handshake_seconds: 1, ..Limits::default() };
    let served = serve(limits).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap_or(0), 0);
    let mut idle = served.connect().await.unwrap();
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed() {
    let served = serve(Limits { connections: 4, connections_per_address: 2, ..Limits::default() }).await;
    let held = [served.connect().await.unwrap(), served.connect().await.unwrap()];
    assert!(served.connect().await.is_err());
    drop(held);
    // Their places come back.
    for _ in 0..200 {
        if served.connect().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no place came back");
}

#[tokio::test]
async fn what_is_not_tls_is_closed() {
    let served = serve(Limits::default()).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&request("POST", AUTH_PATH, "", AUTH)).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_the_server() {
    let served = serve(Limits::default()).await;
    let mut idle = served.connect().await.unwrap();
    served.stop.send_replace(true);
    served.serving.await.unwrap();
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn the_protocols_admin_interface_is_not_there() {
    let world = World::new().await;
    for path in
        ["/kbs/v0/resource-policy", "/kbs/v0/attestation-policy", "/kbs/v0/reference-value", "/metrics", "/"]
    {
        let answer = world.send(post(path, &serde_json::json!({}), &[])).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.body["type"].as_str().unwrap().ends_with("/PluginNotFound"));
    }
    let answer = world.send(post("/kbs/v0/resource/shop/sealed-spec/x", &serde_json::json!({}), &[])).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    let answer = world.send(get("/sealpod/v1/registrations", &[])).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_second_broker_on_the_same_state_is_refused() {
    let world = World::new().await;
    let error =
        Broker::start(&world.config, Clock::system(), sealpod_broker::log::silent()).await.err().unwrap();
    assert!(error.to_string().contains("in use by another sealpod-broker"), "{error}");
}

#[tokio::test]
async fn refusal_lines_are_safe_to_show() {
    let world = World::new().await;
    let body = serde_json::json!({ "version": "0.4.0\u{1b}[31m\n", "tee": "snp" });
    let answer = world.send(post(AUTH_PATH, &body, &[])).await;
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(Refusal::parse(detail).is_some() && !detail.contains(['\u{1b}', '\n']), "{detail:?}");
}
