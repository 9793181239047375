//! A fake broker and a fake registry on loopback, and the built program.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// A server that answers by a function, until it is dropped.
pub(crate) struct Fake {
    pub(crate) port: u16,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    _runtime: tokio::runtime::Runtime,
}

pub(crate) type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

pub(crate) fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    (status, Vec::new(), body.into())
}

impl Fake {
    pub(crate) fn start(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, answer) = (seen.clone(), Arc::new(answer));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer, tls) = (log.clone(), answer.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| handle(request, log.clone(), answer.clone()));
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Self { port, seen, _runtime: runtime }
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn handle(
    request: Request<hyper::body::Incoming>,
    log: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<impl Fn(&Seen) -> Reply>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    let authorization = parts.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let seen = Seen { line: format!("{} {}", parts.method, parts.uri), authorization, body };
    log.lock().unwrap().push(seen.clone());
    let (status, headers, body) = answer(&seen);
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(body.into())).unwrap())
}

/// A CA and a server certificate for 127.0.0.1.
pub(crate) fn certificates() -> (String, TlsAcceptor) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test broker CA");
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf =
        rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let configuration = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (ca_pem, TlsAcceptor::from(Arc::new(configuration)))
}

/// What a run of the program ended with.
pub(crate) struct Outcome {
    pub(crate) good: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A directory with an identity.
pub(crate) struct Owner {
    dir: tempfile::TempDir,
    pub(crate) ca: String,
}

impl Owner {
    /// Pins `ca` at `port`.
    pub(crate) fn new(ca: &str, port: u16) -> Self {
        Self::with(ca, port, &[])
    }

    /// The same with further options of `init`.
    pub(crate) fn with(ca: &str, port: u16, more: &[&str]) -> Self {
        let owner = Self { dir: tempfile::tempdir().unwrap(), ca: ca.to_owned() };
        std::fs::write(owner.path("ca.pem"), ca).unwrap();
        let broker = format!("https://127.0.0.1:{port}");
        let init = ["init", "--repository", "acme", "--broker", &broker, "--broker-ca", "ca.pem"];
        owner.good(&[&init, more].concat());
        owner
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_sealpod"))
            .args(args)
            .args(["--identity", "id"])
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        Outcome {
            good: output.status.success(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn good(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert!(outcome.good, "{args:?}: {}{}", outcome.out, outcome.err);
        outcome.out
    }

    /// What it says on standard error when it fails.
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let outcome = self.run(args);
        assert!(!outcome.good, "{args:?} was accepted: {}", outcome.out);
        outcome.err
    }
}

/// The documentation's example, with every image at `host`.
pub(crate) fn example_pod(host: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/pod.yaml");
    std::fs::read_to_string(path).unwrap().replace("registry.example/", &format!("{host}/"))
}

pub(crate) const MANIFEST: &str =
    r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}"#;

/// A registry that has `busybox:v1`.
pub(crate) fn registry() -> Fake {
    Fake::start(None, |seen| {
        if seen.line == "GET /v2/busybox/manifests/v1" { reply(200, MANIFEST) } else { reply(404, "{}") }
    })
}
