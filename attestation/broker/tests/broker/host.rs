//! A host with an emulated SEV platform and its relay: launches guests, as honestly as a test wants.

use std::sync::OnceLock;

use base64::prelude::{BASE64_STANDARD, Engine};
use hyper::StatusCode;
use protocols::owner::{ApiVersion, LaunchDigest, PolicyTee, ReleasePolicy, Releases, SevPolicy, SevSecret};
use protocols::rcar::{
    AUTH_PATH, AttestRequest, AuthRequest, EphemeralKey, InitData, RuntimeData, TeeEvidence, TeeKind,
    binding, report_data,
};
use protocols::sev::{
    ConnectionEvidence, LaunchKey, LaunchSecret, MEASUREMENTS_PATH, SECRET_GUID, SESSIONS_PATH,
    SessionAnswer, connection_mac,
};
use sealpod_broker::config::{Collateral, Compat, Config, Limits, Token, Trust};
use sealpod_emulator::sev::platform::Published;
use sealpod_emulator::sev::{Fault, Guest, Platform};
use sealpod_emulator::snp::{Chip, Product};
use serde_json::{Value, json};
use tee_evidence::guid::Guid;
use tee_evidence::sev::SecretTable;

use crate::support::{Answer, Pushed, World, policy_statement, post};

/// What the emulated QEMU loads into a guest that nobody changed.
pub(crate) const IMAGE: &[u8] = b"guest firmware and hash table";
/// SHA-256 of [`IMAGE`].
pub(crate) fn image_digest() -> String {
    protocols::name::sha256(IMAGE).replace("sha256:", "")
}

fn chip() -> Chip {
    Chip::new(Product::Milan, [9; 48])
}

/// What the emulated AMD publishes, made once: that takes a moment.
pub(crate) fn published() -> Published {
    static PUBLISHED: OnceLock<Published> = OnceLock::new();
    PUBLISHED.get_or_init(|| Published::issue(&chip(), 2048).unwrap()).clone()
}

/// A platform with these faults.
pub(crate) fn platform(faults: &[Fault]) -> Platform {
    let mut platform = Platform::new(&chip(), published());
    sealpod_emulator::sev::faults::apply(&mut platform, faults);
    platform
}

/// A broker that trusts [`published`], or only AMD.
pub(crate) async fn world(trusted: bool) -> World {
    let dir = tempfile::tempdir().unwrap();
    let ark = dir.path().join("sev-ask-ark.cert");
    std::fs::write(&ark, published().ask_ark).unwrap();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state: dir.path().join("state"),
        server_names: vec!["broker.example".into()],
        trust: Trust { emulated_sev_arks: if trusted { vec![ark] } else { Vec::new() }, ..Trust::default() },
        token: Token::default(),
        compat: Compat::default(),
        collateral: Collateral::default(),
        limits: Limits::default(),
    };
    World::configured(dir, config).await
}

/// A policy that allows launches of [`IMAGE`] on [`platform`].
pub(crate) fn sev_policy(tee: &[PolicyTee], secret: SevSecret) -> ReleasePolicy {
    ReleasePolicy {
        minimum_revision: 1,
        tee: tee.to_vec(),
        launch_digest: vec![LaunchDigest { name: "guest-1".into(), digest: image_digest() }],
        snp: None,
        sev: Some(SevPolicy { secret, ..SevPolicy::new(ApiVersion { major: 1, minor: 55 }, 29) }),
        pef: None,
        releases: Releases::Unlimited,
    }
}

pub(crate) const BOTH: [PolicyTee; 2] = [PolicyTee::SevEmulated, PolicyTee::SevEsEmulated];

/// A registered sealed spec with that policy.
pub(crate) async fn push(world: &World, policy: ReleasePolicy) -> Pushed {
    let pushed = world.owner.sealed("web", 1);
    assert_eq!(world.register(&world.owner, &pushed).await.status, StatusCode::OK);
    let answer = world.set_policy(policy_statement(&world.owner, 1, policy)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    pushed
}

/// The body of a session's request.
pub(crate) fn session_request(platform: &Platform, pushed: &Pushed, es: bool) -> Value {
    json!({
        "init_data": pushed.init_data(),
        "es": es,
        "pdh": BASE64_STANDARD.encode(platform.pdh),
        "cert_chain": BASE64_STANDARD.encode(&platform.chain),
        "cpu0_id": BASE64_STANDARD.encode(platform.id),
    })
}

pub(crate) async fn open(world: &World, request: &Value) -> Answer {
    world.send(post(SESSIONS_PATH, request, &[])).await
}

pub(crate) async fn measure(world: &World, request: &Value) -> Answer {
    world.send(post(MEASUREMENTS_PATH, request, &[])).await
}

/// A guest between LAUNCH_MEASURE and LAUNCH_SECRET, and what its host can tell.
pub(crate) struct Launched {
    pub(crate) guest: Guest,
    pub(crate) request: Value,
}

/// Launches `image` in a session that the broker opened.
pub(crate) fn launch(platform: &Platform, session: &Answer, image: &[u8], faults: &[Fault]) -> Launched {
    assert_eq!(session.status, StatusCode::OK, "{session:?}");
    let answer: SessionAnswer = serde_json::from_value(session.body.clone()).unwrap();
    let decode = |text: &str| BASE64_STANDARD.decode(text).unwrap();
    let (godh, blob) = (decode(&answer.godh), decode(&answer.session_blob));
    let mut guest = Guest::start(platform, answer.policy, &godh, &blob, faults).unwrap();
    guest.update_data(image).unwrap();
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).unwrap();
    let measurement = guest.measure(nonce).unwrap();
    let request = json!({
        "session": answer.session,
        "api_major": platform.api.0,
        "api_minor": platform.api.1,
        "build": platform.build,
        "policy": guest.policy(),
        "measurement": BASE64_STANDARD.encode(measurement),
    });
    Launched { guest, request }
}

/// Session and launch of an honest host.
pub(crate) async fn launched(world: &World, pushed: &Pushed, es: bool) -> Launched {
    let platform = platform(&[]);
    let session = open(world, &session_request(&platform, pushed, es)).await;
    launch(&platform, &session, IMAGE, &[])
}

/// Injects what the broker answered and reads it as the guest does.
pub(crate) fn inject(launched: &mut Launched, answer: &Answer) -> LaunchSecret {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let decode = |field: &str| BASE64_STANDARD.decode(answer.body[field].as_str().unwrap()).unwrap();
    launched.guest.inject(&decode("packet_header"), &decode("secret")).unwrap();
    let table = launched.guest.finish().unwrap().unwrap();
    let entries = SecretTable::parse(&table).unwrap();
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(entry.guid, Guid::parse(SECRET_GUID).unwrap());
    serde_json::from_slice(entry.data).unwrap()
}

/// A guest that holds a connection's key.
pub(crate) struct Connected {
    pub(crate) id: String,
    pub(crate) secret: [u8; 32],
    pub(crate) key: EphemeralKey,
    pub(crate) init_data: String,
    pub(crate) sealed_spec: [u8; 32],
}

/// A whole launch: its guest with the connection's key.
pub(crate) async fn connected(world: &World, pushed: &Pushed, es: bool) -> Connected {
    let mut launched = launched(world, pushed, es).await;
    let answer = measure(world, &launched.request).await;
    let secret = inject(&mut launched, &answer);
    assert_eq!(secret.sealed_spec, pushed.registration.spec_digest);
    assert_eq!(Some(&secret.init_data), pushed.registration.init_data.as_ref());
    let LaunchKey::Connection { id, key } = &secret.key else { panic!("no connection") };
    let spec = hex::decode(pushed.registration.spec_digest.strip_prefix("sha256:").unwrap()).unwrap();
    Connected {
        id: id.clone(),
        secret: BASE64_STANDARD.decode(key).unwrap().try_into().unwrap(),
        key: EphemeralKey::generate().unwrap(),
        init_data: pushed.init_data(),
        sealed_spec: spec.try_into().unwrap(),
    }
}

impl Connected {
    pub(crate) fn attest_request(&self, nonce: &str) -> AttestRequest {
        let key = self.key.public_jwk();
        let mac = connection_mac(&self.secret, &report_data(&binding(nonce, &key, "")), &self.sealed_spec);
        let evidence = ConnectionEvidence { connection: self.id.clone(), mac };
        AttestRequest {
            init_data: Some(InitData { format: "toml".into(), body: self.init_data.clone() }),
            runtime_data: RuntimeData { nonce: nonce.to_owned(), tee_pubkey: key },
            tee_evidence: TeeEvidence {
                primary_evidence: serde_json::to_value(evidence).unwrap(),
                additional_evidence: String::new(),
            },
        }
    }

    /// A handshake: cookie and answer.
    pub(crate) async fn attest(&self, world: &World) -> (String, Answer) {
        let body = serde_json::to_value(AuthRequest::new(TeeKind::Sev)).unwrap();
        let auth = world.send(post(AUTH_PATH, &body, &[])).await;
        let nonce = auth.body["nonce"].as_str().unwrap();
        let cookie = auth.cookie();
        let answer = world.attest(&cookie, &self.attest_request(nonce)).await;
        (cookie, answer)
    }

    /// Handshake and request for a key.
    pub(crate) async fn ask(&self, world: &World, key_id: &str) -> Answer {
        let (cookie, answer) = self.attest(world).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        world.resource(&cookie, key_id).await
    }
}
