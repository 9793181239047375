//! What the tests share: a configuration, a layer's options, a peer's answers, and a service that gives them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use encrypted_image::{PrivateOptions, Scheme, Unwrap as _, UnwrapError, Wrap as _, WrapError, WrappedKey};
use owner_image::provider::server::{Handler, serve_tcp, serve_unix};
use owner_image::provider::{Operation, Providers};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

pub(crate) const WRAPPED: &[u8] = b"wrapped by acme";

pub(crate) fn options() -> PrivateOptions {
    PrivateOptions::from_parts(Zeroizing::new([1; 32]), [2; 16], [3; 32])
}

/// The spellings of bytes in replies: Go's and Rust's.
pub(crate) fn spellings(bytes: &[u8]) -> [Value; 2] {
    [STANDARD.encode(bytes).into(), json!(bytes)]
}

pub(crate) fn wrapped(annotation: &Value) -> Vec<u8> {
    json!({ "keywrapresults": { "annotation": annotation }, "keyunwrapresults": { "optsdata": null } })
        .to_string()
        .into_bytes()
}

pub(crate) fn unwrapped(optsdata: &Value) -> Vec<u8> {
    json!({ "keywrapresults": { "annotation": null }, "keyunwrapresults": { "optsdata": optsdata } })
        .to_string()
        .into_bytes()
}

/// Replies that must not pass, and a part of the reason.
pub(crate) fn hostile(operation: Operation) -> Vec<(Vec<u8>, &'static str)> {
    let large = || vec![b'x'; 300 * 1024];
    let mut all = vec![
        (b"{}".to_vec(), "holds no"),
        (b"null".to_vec(), "expected JSON"),
        (b"certainly".to_vec(), "expected JSON"),
        (b"{\"keywrapresults\":{\"annotation\":\"eA==\"},".to_vec(), "expected JSON"),
        (large(), ""),
    ];
    match operation {
        Operation::Wrap => all.extend([
            (wrapped(&json!("")), "holds no annotation"),
            (wrapped(&json!([])), "holds no annotation"),
            (wrapped(&Value::Null), "holds no annotation"),
            (wrapped(&json!("not base64!")), "expected JSON"),
            (wrapped(&json!([256])), "expected JSON"),
            (wrapped(&json!([-1])), "expected JSON"),
            (wrapped(&json!(["eA=="])), "expected JSON"),
            (unwrapped(&json!("eA==")), "holds no annotation"),
            // What it was given, in one way or another.
            (wrapped(&json!(options().to_json().to_vec())), "in clear"),
            (wrapped(&json!([&[0; 7][..], &[1; 32]].concat())), "in clear"),
            (wrapped(&json!(STANDARD.encode(options().to_json().as_slice()).as_bytes())), "in clear"),
        ]),
        Operation::Unwrap => all.extend([
            (unwrapped(&json!("")), "holds no optsdata"),
            (unwrapped(&json!([])), "holds no optsdata"),
            (unwrapped(&Value::Null), "holds no optsdata"),
            (unwrapped(&json!([256])), "expected JSON"),
            (wrapped(&json!("eA==")), "holds no optsdata"),
            (unwrapped(&json!(b"{}")), "opened, but refused"),
            (unwrapped(&json!(vec![1; 32])), "opened, but refused"),
        ]),
    }
    all
}

/// A configuration with the provider `acme`.
pub(crate) fn configured(directory: &Path, entry: &Value) -> Providers {
    let path = directory.join("providers.json");
    std::fs::write(&path, json!({ "key-providers": { "acme": entry } }).to_string()).unwrap();
    Providers::load(&path).unwrap()
}

pub(crate) fn wrap(providers: &Providers) -> Result<Vec<u8>, WrapError> {
    let wrapper = providers.wrapper("acme", vec!["first".into(), "second".into()]).unwrap();
    assert_eq!(wrapper.scheme(), Scheme::Provider("acme".into()));
    wrapper.wrap(&options())
}

pub(crate) fn unwrap(providers: &Providers) -> Result<PrivateOptions, UnwrapError> {
    let unwrapper = providers.unwrapper("acme", vec!["Enabled".into()]).unwrap();
    unwrapper.unwrap(&WrappedKey { scheme: Scheme::Provider("acme".into()), blob: WRAPPED.to_vec() })
}

/// The reason of whichever refusal.
pub(crate) fn refusal(providers: &Providers, operation: Operation) -> String {
    match operation {
        Operation::Wrap => wrap(providers).unwrap_err().to_string(),
        Operation::Unwrap => unwrap(providers).map(drop).unwrap_err().to_string(),
    }
}

/// Exactly what a provider may be sent.
pub(crate) fn expected(operation: Operation) -> Value {
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    match operation {
        Operation::Wrap => json!({
            "op": "keywrap",
            "keywrapparams": {
                "ec": {
                    "Parameters": { "acme": [base64(b"first"), base64(b"second")] },
                    "DecryptConfig": { "Parameters": {} },
                },
                "optsdata": base64(&options().to_json()),
            },
            "keyunwrapparams": {},
        }),
        Operation::Unwrap => json!({
            "op": "keyunwrap",
            "keywrapparams": {},
            "keyunwrapparams": {
                "dc": { "Parameters": { "acme": [base64(b"Enabled")] } },
                "annotation": base64(WRAPPED),
            },
        }),
    }
}

pub(crate) type Answer = Result<Vec<u8>, String>;

/// A provider that says what it is told to, and remembers what it was asked.
#[derive(Default)]
pub(crate) struct Scripted {
    pub(crate) answer: Mutex<Option<Answer>>,
    pub(crate) asked: Mutex<Vec<(Operation, Value)>>,
}

impl Scripted {
    pub(crate) fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = Some(answer);
    }

    /// What it was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<(Operation, Value)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Handler for Scripted {
    fn answer(&self, operation: Operation, request: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        self.asked.lock().unwrap().push((operation, serde_json::from_slice(request).unwrap()));
        self.answer.lock().unwrap().clone().unwrap().map(Zeroizing::new)
    }
}

/// A gRPC service until it is dropped.
pub(crate) struct Service {
    pub(crate) scripted: Arc<Scripted>,
    pub(crate) port: u16,
    _runtime: tokio::runtime::Runtime,
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl Service {
    pub(crate) fn tcp(tls: Option<TlsAcceptor>) -> Self {
        let (runtime, scripted) = (runtime(), Arc::new(Scripted::default()));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(serve_tcp(listener, tls, scripted.clone()));
        Self { scripted, port, _runtime: runtime }
    }

    pub(crate) fn unix(path: &Path) -> Self {
        let (runtime, scripted) = (runtime(), Arc::new(Scripted::default()));
        let listener = runtime.block_on(async { owner_image::provider::server::listen_unix(path) }).unwrap();
        runtime.spawn(serve_unix(listener, scripted.clone()));
        Self { scripted, port: 0, _runtime: runtime }
    }
}

/// Both operations in each spelling, with a peer that `says` an answer and tells what it was `asked`.
pub(crate) fn both_directions(providers: &Providers, says: impl Fn(Vec<u8>), asked: impl Fn() -> Vec<Value>) {
    for annotation in spellings(WRAPPED) {
        says(wrapped(&annotation));
        assert_eq!(wrap(providers).unwrap(), WRAPPED);
        assert_eq!(asked(), [expected(Operation::Wrap)]);
    }
    for optsdata in spellings(&options().to_json()) {
        says(unwrapped(&optsdata));
        assert_eq!(unwrap(providers).unwrap().to_json(), options().to_json());
        assert_eq!(asked(), [expected(Operation::Unwrap)]);
    }
    for operation in [Operation::Wrap, Operation::Unwrap] {
        for (reply, part) in hostile(operation) {
            let shown = String::from_utf8_lossy(&reply[..reply.len().min(80)]).into_owned();
            says(reply);
            let error = refusal(providers, operation);
            assert!(
                error.contains(part) && error.contains("acme") | (operation == Operation::Unwrap),
                "{shown}: {error}"
            );
            assert!(error.len() < 4096, "{}", error.len());
        }
    }
}

/// A file in `directory`.
pub(crate) fn file(directory: &tempfile::TempDir, name: &str) -> PathBuf {
    directory.path().join(name)
}
