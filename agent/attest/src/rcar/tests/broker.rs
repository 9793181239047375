//! A broker in this process: TLS with certificates made on the spot, RCAR to the letter, and one fault
//! at a time.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use protocols::broker::{CONFIRM_PATH, Confirmation};
use protocols::rcar::{
    AttestRequest, AuthRequest, EphemeralKey, JweFlattened, KbsError, VERSION, binding, report_data, wrap,
};
use protocols::refusal::{Code, Refusal};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) const KEY: [u8; 32] = [0x5a; 32];

/// What the broker does wrong, or is made to say.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Fault {
    None,
    /// Refuses on a path that contains this, the first n times.
    Refuses(&'static str, Code, usize),
    /// An error body without a refusal line.
    Unexplained,
    /// Answers on this path with this status and these bytes.
    Answers(&'static str, u16, Vec<u8>),
    /// Says it will be or is larger than any answer.
    Oversize(&'static str),
    Nonce(String),
    Cookie(&'static str),
    /// The key, for another guest.
    ForeignKey,
    /// The JWE of the handshake before.
    OldJwe,
    ShortKey,
    /// Ends the connection after each answer.
    HangsUp,
    /// Does what is asked on this path and hangs up instead of answering, the first n times.
    Loses(&'static str, usize),
    /// Releases, and is another process before the answer is out.
    Restarts,
    Token(String),
    Silent,
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn server(&self, name: &str, expired: bool) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
}

pub(crate) struct State {
    fault: Fault,
    initdata: String,
    faults_left: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    pub(crate) handshakes: AtomicUsize,
    session: Mutex<Session>,
}

#[derive(Default)]
struct Session {
    number: usize,
    nonce: String,
    attested: Option<AttestRequest>,
    last: Option<JweFlattened>,
    /// The keys that it was released to, and what was confirmed.
    released: Vec<String>,
    confirmed: Vec<String>,
}

impl Broker {
    pub(crate) async fn start(tls: TlsAcceptor, initdata: &str, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let times = match &fault {
            Fault::Refuses(_, _, times) | Fault::Loses(_, times) => *times,
            Fault::Restarts => 1,
            _ => usize::MAX,
        };
        let state = Arc::new(State {
            fault,
            initdata: initdata.to_owned(),
            faults_left: AtomicUsize::new(times),
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            session: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (tls, state) = (tls.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(|request| answer(Arc::clone(&state), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, state }
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(state: Arc<State>, request: Request<Incoming>) -> io::Result<Answer> {
    let path = request.uri().path().to_owned();
    let cookie = request.headers().get("cookie").map(|value| value.to_str().unwrap().to_owned());
    let token = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut response = match &state.fault {
        Fault::Silent => std::future::pending().await,
        Fault::Answers(at, status, bytes) if path.contains(at) => respond(*status, bytes.clone()),
        Fault::Oversize(at) if path.contains(at) => respond(200, vec![b' '; 9 << 20]),
        Fault::Unexplained if path.contains("attest") => error("no\nreason"),
        Fault::Refuses(at, code, _) if path.contains(at) && state.faults_left.load(Ordering::SeqCst) > 0 => {
            state.faults_left.fetch_sub(1, Ordering::SeqCst);
            error(&Refusal::new(*code, "because").to_string())
        }
        _ => serve(&state, &path, cookie.as_deref(), token.as_deref(), &body),
    };
    let lost = match state.fault {
        Fault::Loses(at, _) => path.contains(at),
        Fault::Restarts => path.contains("resource"),
        _ => false,
    };
    if lost && state.faults_left.load(Ordering::SeqCst) > 0 {
        state.faults_left.fetch_sub(1, Ordering::SeqCst);
        if state.fault == Fault::Restarts {
            state.session.lock().unwrap().attested = None;
        }
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    if state.fault == Fault::HangsUp {
        response.headers_mut().insert("connection", "close".parse().unwrap());
    }
    Ok(response)
}

/// RCAR as a strict broker does it; what isn't right is refused.
fn serve(state: &State, path: &str, cookie: Option<&str>, token: Option<&str>, body: &[u8]) -> Answer {
    let mut session = state.session.lock().unwrap();
    let expected_cookie = format!("kbs-session-id=s{}", session.number);
    match path {
        "/kbs/v0/auth" => {
            let request: AuthRequest = serde_json::from_slice(body).unwrap();
            assert_eq!((request.version.as_str(), request.tee.name()), (VERSION, "snp"));
            state.handshakes.fetch_add(1, Ordering::SeqCst);
            session.number += 1;
            session.nonce = match &state.fault {
                Fault::Nonce(nonce) => nonce.clone(),
                _ => STANDARD.encode([session.number as u8; 32]),
            };
            let cookie = match state.fault {
                Fault::Cookie(cookie) => cookie.to_owned(),
                _ => format!("kbs-session-id=s{}; Expires=Thu, 01 Jan 2099 00:00:00 GMT", session.number),
            };
            let mut response = respond(200, json!({"nonce": session.nonce, "extra-params": ""}).to_string());
            response.headers_mut().insert("set-cookie", cookie.parse().unwrap());
            response
        }
        "/kbs/v0/attest" => {
            let request: AttestRequest = serde_json::from_slice(body).unwrap();
            let init_data = request.init_data.as_ref().unwrap();
            assert_eq!(
                (init_data.format.as_str(), init_data.body.as_str()),
                ("toml", state.initdata.as_str())
            );
            assert_eq!(cookie, Some(expected_cookie.as_str()));
            assert_eq!(request.runtime_data.nonce, session.nonce);
            let bound = report_data(&binding(
                &session.nonce,
                &request.runtime_data.tee_pubkey,
                &request.tee_evidence.additional_evidence,
            ));
            assert_eq!(request.tee_evidence.primary_evidence, json!({"report_data": bound.as_slice()}));
            session.attested = Some(request);
            let token = if let Fault::Token(token) = &state.fault { token } else { "a.b.c" };
            respond(200, json!({"token": token}).to_string())
        }
        "/kbs/v0/resource/team-a/sealed-spec/web.r1.0a1b2c3d" => {
            assert_eq!(cookie, Some(expected_cookie.as_str()));
            let Some(attested) = &session.attested else { return no_session() };
            let guest = attested.runtime_data.tee_pubkey.clone();
            session.released.push(guest.x.clone());
            let jwe = match (&state.fault, &session.last) {
                (Fault::ForeignKey, _) => {
                    wrap(&EphemeralKey::generate().unwrap().public_jwk(), &KEY).unwrap()
                }
                (Fault::OldJwe, Some(last)) => last.clone(),
                (Fault::ShortKey, _) => wrap(&guest, &KEY[..31]).unwrap(),
                _ => wrap(&guest, &KEY).unwrap(),
            };
            session.last = Some(jwe.clone());
            respond(200, serde_json::to_vec(&jwe).unwrap())
        }
        // Any number of resources of an attested guest, by its cookie or its token.
        "/kbs/v0/resource/team/db/password" => {
            assert!(cookie == Some(expected_cookie.as_str()) || token == Some("Bearer a.b.c"));
            let Some(attested) = &session.attested else { return error("no such session") };
            let guest = &attested.runtime_data.tee_pubkey;
            let foreign = EphemeralKey::generate().unwrap().public_jwk();
            let to = if state.fault == Fault::ForeignKey { &foreign } else { guest };
            respond(200, serde_json::to_vec(&wrap(to, b"hunter2").unwrap()).unwrap())
        }
        CONFIRM_PATH => {
            assert_eq!(cookie, Some(expected_cookie.as_str()));
            if session.attested.is_none() {
                return no_session();
            }
            let Confirmation { uri } = serde_json::from_slice(body).unwrap();
            session.confirmed.push(uri);
            respond(204, "")
        }
        _ => respond(404, "{}"),
    }
}

impl State {
    /// The broker knows nobody any more.
    pub(crate) fn forget(&self) {
        self.session.lock().unwrap().attested = None;
    }

    /// The keys of all releases, by one coordinate.
    pub(crate) fn released(&self) -> Vec<String> {
        self.session.lock().unwrap().released.clone()
    }

    pub(crate) fn confirmed(&self) -> Vec<String> {
        self.session.lock().unwrap().confirmed.clone()
    }
}

fn no_session() -> Answer {
    error(&Refusal::new(Code::Session, "no such session").to_string())
}

fn error(detail: &str) -> Answer {
    respond(401, serde_json::to_vec(&KbsError::new("PolicyDeny", detail)).unwrap())
}

fn respond(status: u16, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status.try_into().unwrap();
    response
}
