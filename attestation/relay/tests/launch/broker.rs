//! A broker of two answers behind TLS, and what it was asked.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

pub const SESSIONS: &str = "/sealpod/v1/sev/sessions";
pub const MEASUREMENTS: &str = "/sealpod/v1/sev/measurements";

/// What is answered to a path.
#[derive(Clone)]
pub enum Answer {
    /// With 200.
    Json(Value),
    /// With 200, made from the request.
    Made(Arc<dyn Fn(&Value) -> Value + Send + Sync>),
    /// With this status and body.
    Raw(u16, String),
    /// Never.
    Silence,
}

pub struct Broker {
    pub port: u16,
    /// PEM.
    pub ca: String,
    pub asked: Receiver<(String, Value)>,
    answers: Arc<Mutex<[Answer; 2]>>,
    /// Ends the server's thread with the test.
    _runtime: tokio::runtime::Runtime,
}

impl Broker {
    pub fn start() -> Self {
        let (acceptor, ca) = tls();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = sync_channel(64);
        let answers = Arc::new(Mutex::new([Answer::Json(session(5)), Answer::Json(packet())]));
        let shared = answers.clone();
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, shared, sender) = (acceptor.clone(), shared.clone(), sender.clone());
                tokio::spawn(async move {
                    // A client that doesn't trust the certificate hangs up.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &shared, &sender).await;
                    }
                });
            }
        });
        Self { port, ca, asked, answers, _runtime: runtime }
    }

    pub fn session(&self, answer: Answer) {
        self.answers.lock().unwrap()[0] = answer;
    }

    pub fn measurement(&self, answer: Answer) {
        self.answers.lock().unwrap()[1] = answer;
    }

    /// The paths that were asked so far.
    pub fn paths(&self) -> Vec<String> {
        self.asked.try_iter().map(|(path, _)| path).collect()
    }
}

/// A refusal as the broker words it.
pub fn refusal(line: &str) -> Answer {
    Answer::Raw(403, json!({ "type": "x", "detail": line }).to_string())
}

pub fn session(policy: u32) -> Value {
    json!({
        "session": "00112233445566778899aabbccddeeff", "policy": policy, "godh": "Z29kaA==",
        "session_blob": "YmxvYg==",
    })
}

pub fn packet() -> Value {
    json!({ "packet_header": "aGVhZGVy", "secret": "c2VjcmV0" })
}

async fn serve(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    answers: &Mutex<[Answer; 2]>,
    asked: &SyncSender<(String, Value)>,
) {
    let mut request = Vec::new();
    let (path, body) = loop {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
        });
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        break (path, serde_json::from_str::<Value>(body).unwrap());
    };
    let answer = answers.lock().unwrap()[usize::from(path == MEASUREMENTS)].clone();
    let request = body.clone();
    asked.send((path, body)).unwrap();
    let (status, body) = match answer {
        Answer::Json(body) => (200, body.to_string()),
        Answer::Made(make) => (200, make(&request).to_string()),
        Answer::Raw(status, body) => (status, body),
        Answer::Silence => return std::future::pending().await,
    };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    drop(stream.write_all((head + &body).as_bytes()).await);
    drop(stream.shutdown().await);
}

/// A server for `localhost`, and its CA.
fn tls() -> (TlsAcceptor, String) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let pem = ca.self_signed(&ca_key).unwrap().pem();
    let ca = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), pem)
}
