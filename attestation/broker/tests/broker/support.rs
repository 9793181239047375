//! A broker in a temporary directory, an owner, and a client without a network.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use protocols::broker::{POLICIES_PATH, REGISTRATIONS_PATH, RETIREMENTS_PATH};
use protocols::name::sha256;
use protocols::owner::{
    LaunchDigest, MinimumTcb, OwnerKey, PolicyStatement, PolicyTee, Registration, ReleasePolicy, Releases,
    Retirement, SnpPolicy, Statement,
};
use protocols::rcar::{ATTEST_PATH, AUTH_PATH, AttestRequest, JweFlattened};
use protocols::refusal::{Code, Refusal};
use sealpod_broker::broker::{Broker, init, open_store};
use sealpod_broker::clock::Clock;
use sealpod_broker::config::{Collateral, Compat, Config, Limits, Token, Trust};
use sealpod_broker::http::{Peer, router};
use sealpod_broker::store::Enrolment;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::guest::{Guest, MEASUREMENT, Machine, auth_request, init_data, root_pem};

pub(crate) const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

/// A broker and everything around it.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) config: Config,
    pub(crate) broker: Arc<Broker>,
    pub(crate) owner: Owner,
    service: TowerToHyperService<Router>,
    ahead: Arc<AtomicU64>,
    deliveries: JoinHandle<()>,
}

/// An enrolled owner.
pub(crate) struct Owner {
    pub(crate) repository: String,
    pub(crate) key: OwnerKey,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// A sealed spec that was pushed.
#[derive(Clone)]
pub(crate) struct Pushed {
    pub(crate) registration: Registration,
    pub(crate) key: [u8; 32],
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default(), true).await
    }

    pub(crate) async fn with(limits: Limits, trust_emulated: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("ark.pem");
        std::fs::write(&root, root_pem()).unwrap();
        let tpm = dir.path().join("tpm.pem");
        std::fs::write(&tpm, include_str!("../../../verifier/testdata/pef/software.pem")).unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            state: dir.path().join("state"),
            server_names: vec!["broker.example".into(), "127.0.0.1".into()],
            trust: Trust {
                emulated_roots: if trust_emulated { vec![root] } else { Vec::new() },
                emulated_tpm_keys: if trust_emulated { vec![tpm] } else { Vec::new() },
                ..Trust::default()
            },
            token: Token::default(),
            compat: Compat::default(),
            collateral: Collateral::default(),
            limits,
        };
        Self::configured(dir, config).await
    }

    /// A broker with this configuration.
    pub(crate) async fn configured(dir: TempDir, config: Config) -> Self {
        init(&config).await.unwrap();
        let owner = enrol(&config, "shop").await;
        let ahead = Arc::new(AtomicU64::new(0));
        let (broker, deliveries) = start(&config, &ahead).await;
        let service = TowerToHyperService::new(router(broker.clone()));
        Self { dir, config, broker, owner, service, ahead, deliveries }
    }

    /// Stops the broker and starts it again on the same state.
    pub(crate) async fn restart(self) -> Self {
        let Self { dir, config, broker, owner, service, ahead, deliveries } = self;
        drop((broker, service));
        deliveries.await.unwrap();
        let (broker, deliveries) = start(&config, &ahead).await;
        let service = TowerToHyperService::new(router(broker.clone()));
        Self { dir, config, broker, owner, service, ahead, deliveries }
    }

    /// Stops the broker; the state directory stays.
    pub(crate) async fn stop(self) -> (TempDir, Config) {
        drop((self.broker, self.service));
        self.deliveries.await.unwrap();
        (self.dir, self.config)
    }

    /// Moves the broker's clock.
    pub(crate) fn wait(&self, time: Duration) {
        self.ahead.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    pub(crate) async fn another_owner(&self, repository: &str) -> Owner {
        enrol(&self.config, repository).await
    }

    /// Sends a request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        self.send_from(ADDRESS, request).await
    }

    pub(crate) async fn send_from(&self, address: IpAddr, mut request: Request<Body>) -> Answer {
        request.extensions_mut().insert(Peer(address));
        let response = self.service.call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Opens a session: cookie and nonce.
    pub(crate) async fn auth(&self) -> (String, String) {
        let answer = self.send(post(AUTH_PATH, &auth_request(), &[])).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        (answer.cookie(), answer.body["nonce"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn attest(&self, cookie: &str, request: &AttestRequest) -> Answer {
        let body = serde_json::to_value(request).unwrap();
        self.send(post(ATTEST_PATH, &body, &[("cookie", cookie)])).await
    }

    /// A whole handshake of a guest: the session's cookie.
    pub(crate) async fn handshake(&self, guest: &Guest) -> String {
        let (cookie, nonce) = self.auth().await;
        let answer = self.attest(&cookie, &guest.attest_request(&nonce)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        cookie
    }

    pub(crate) async fn resource(&self, cookie: &str, key_id: &str) -> Answer {
        self.send(get(&resource_path(key_id), &[("cookie", cookie)])).await
    }

    /// Handshake and request by a guest for a key.
    pub(crate) async fn ask(&self, guest: &Guest, key_id: &str) -> Answer {
        let cookie = self.handshake(guest).await;
        self.resource(&cookie, key_id).await
    }

    /// Pushes a sealed spec of the lineage `web` with a policy.
    pub(crate) async fn push(&self, revision: u64) -> Pushed {
        let pushed = self.owner.sealed("web", revision);
        let answer = self.register(&self.owner, &pushed).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let answer = self.set_policy(policy_statement(&self.owner, revision, policy())).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        pushed
    }

    pub(crate) async fn register(&self, owner: &Owner, pushed: &Pushed) -> Answer {
        let registration = owner.key.sign_statement(&pushed.registration).unwrap();
        self.register_raw(&registration, &pushed.key).await
    }

    pub(crate) async fn register_raw(&self, registration: &str, key: &[u8]) -> Answer {
        let body = json!({ "registration": registration, "key": BASE64_URL_SAFE_NO_PAD.encode(key) });
        self.send(post(REGISTRATIONS_PATH, &body, &[])).await
    }

    pub(crate) async fn set_policy(&self, statement: PolicyStatement) -> Answer {
        let policy = self.owner.key.sign_statement(&statement).unwrap();
        self.send(post(POLICIES_PATH, &json!({ "policy": policy }), &[])).await
    }

    pub(crate) async fn retire(&self, owner: &Owner, lineage: &str, revision: u64) -> Answer {
        let statement =
            Retirement { repository: owner.repository.clone(), lineage: lineage.into(), revision };
        let retirement = owner.key.sign_statement(&statement).unwrap();
        self.send(post(RETIREMENTS_PATH, &json!({ "retirement": retirement }), &[])).await
    }

    /// The events of the audit log, in order, with their details.
    pub(crate) async fn events(&self) -> Vec<Value> {
        events_of(&self.config).await
    }

    /// A connection to the database past the broker, as whoever holds the file has it.
    pub(crate) async fn database(&self) -> sqlx::SqliteConnection {
        use sqlx::Connection;
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(self.config.state.join("broker.sqlite"))
            .busy_timeout(Duration::from_secs(5));
        sqlx::SqliteConnection::connect_with(&options).await.unwrap()
    }
}

/// The events of a broker's audit log.
pub(crate) async fn events_of(config: &Config) -> Vec<Value> {
    let (_, store) = open_store(&config.state, Clock::system()).await.unwrap();
    let mut text = Vec::new();
    store.export_audit(&mut text, &[]).await.unwrap();
    store.close().await;
    let lines = String::from_utf8(text).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn start(config: &Config, ahead: &Arc<AtomicU64>) -> (Arc<Broker>, JoinHandle<()>) {
    let ahead = ahead.clone();
    let clock = Clock::new(move || SystemTime::now() + Duration::from_secs(ahead.load(Ordering::Relaxed)));
    let started = Broker::start(config, clock, sealpod_broker::log::silent()).await.unwrap();
    (started.broker, started.work)
}

async fn enrol(config: &Config, repository: &str) -> Owner {
    let key = OwnerKey::generate().unwrap();
    let (_, store) = open_store(&config.state, Clock::system()).await.unwrap();
    assert_eq!(store.enrol(repository, &key.public()).await.unwrap(), Enrolment::New);
    store.close().await;
    Owner { repository: repository.to_owned(), key }
}

impl Owner {
    /// A sealing of `lineage`: its registration and key.
    pub(crate) fn sealed(&self, lineage: &str, revision: u64) -> Pushed {
        let mut key = [0; 32];
        getrandom::fill(&mut key).unwrap();
        let tag = hex::encode(&key[..4]);
        let repository = &self.repository;
        let registration = Registration {
            repository: repository.clone(),
            lineage: lineage.into(),
            revision,
            spec_digest: sha256(&[key.as_slice(), b"document"].concat()),
            key_id: format!("kbs:///{repository}/sealed-spec/{lineage}.r{revision}.{tag}"),
            key_sha256: sha256(&key),
            namespace: "default".into(),
            workload_kind: "Deployment".into(),
            workload_name: "web".into(),
            images: vec![sha256(b"image")],
            init_data: None,
            image_keys: Vec::new(),
        };
        let init_data = init_data(&registration.spec_digest, &registration.key_id);
        let registration = Registration { init_data: Some(sha256(init_data.as_bytes())), ..registration };
        Pushed { registration, key }
    }

    pub(crate) fn sign<S: Statement>(&self, statement: &S) -> String {
        self.key.sign_statement(statement).unwrap()
    }
}

impl Pushed {
    pub(crate) fn key_id(&self) -> &str {
        &self.registration.key_id
    }

    pub(crate) fn init_data(&self) -> String {
        init_data(&self.registration.spec_digest, &self.registration.key_id)
    }

    /// A guest that was launched as it should be, for this sealed spec.
    pub(crate) fn guest(&self) -> Guest {
        Machine::default().boot(Some(self.init_data()))
    }
}

impl Answer {
    pub(crate) fn cookie(&self) -> String {
        let cookie = self.headers["set-cookie"].to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    }

    /// The code of a refusal.
    pub(crate) fn code(&self) -> Code {
        let detail = self.body["detail"].as_str().unwrap_or_else(|| panic!("no refusal: {self:?}"));
        Refusal::parse(detail).unwrap_or_else(|| panic!("no refusal line: {detail}")).code
    }

    /// Opens the key in a granted answer.
    pub(crate) fn open(&self, guest: &Guest) -> Vec<u8> {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        let jwe: JweFlattened = serde_json::from_value(self.body.clone()).unwrap();
        guest.key.open(&jwe).unwrap().to_vec()
    }
}

/// A policy that allows the guests of [`Machine::default`].
pub(crate) fn policy() -> ReleasePolicy {
    ReleasePolicy {
        minimum_revision: 1,
        tee: vec![PolicyTee::SnpEmulated],
        launch_digest: vec![LaunchDigest { name: "guest-1".into(), digest: hex::encode(MEASUREMENT) }],
        snp: Some(SnpPolicy::new(MinimumTcb { bootloader: 4, tee: 0, snp: 24, microcode: 219, fmc: None })),
        sev: None,
        pef: None,
        releases: Releases::Unlimited,
    }
}

pub(crate) fn policy_statement(owner: &Owner, serial: u64, policy: ReleasePolicy) -> PolicyStatement {
    PolicyStatement { repository: owner.repository.clone(), lineage: "web".into(), serial, policy }
}

pub(crate) fn resource_path(key_id: &str) -> String {
    key_id.replace("kbs:///", "/kbs/v0/resource/")
}

pub(crate) fn post(path: &str, body: &Value, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request =
        Request::builder().method(Method::POST).uri(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_string())).unwrap()
}

pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}
