//! A stock client of the key broker protocol (version 0.4.0), written from what it sends and expects on the
//! wire: sample evidence, accepted only where the operator says so, for resources of the compat repository.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use protocols::rcar::{EphemeralKey, JweFlattened};
use protocols::refusal::Code;
use ring::signature::{Ed25519KeyPair, KeyPair};
use sealpod_broker::broker::open_store;
use sealpod_broker::clock::Clock;
use sealpod_broker::config::{Collateral, Compat, Config, Limits, Token, Trust};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha384};

use crate::guest::Machine;
use crate::support::{Answer, World, get};

const URI: &str = "kbs:///compat/keys/first.pem";
const CONTENT: &[u8] = b"what stock clients get";

async fn world(sample: bool, compat: &[&str]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ark.pem");
    std::fs::write(&root, crate::guest::root_pem()).unwrap();
    let administrator = administrator();
    let prefix = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    let spki = [&prefix, administrator.public_key().as_ref()];
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        BASE64_STANDARD.encode(spki.concat())
    );
    let admin = dir.path().join("admin.pem");
    std::fs::write(&admin, pem).unwrap();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state: dir.path().join("state"),
        server_names: vec!["broker.example".into()],
        trust: Trust { emulated_roots: vec![root], sample, ..Trust::default() },
        token: Token::default(),
        compat: Compat { tee: compat.iter().map(|&kind| kind.to_owned()).collect(), admin_keys: vec![admin] },
        collateral: Collateral::default(),
        limits: Limits::default(),
    };
    let world = World::configured(dir, config).await;
    let (_, store) = open_store(&world.config.state, Clock::system()).await.unwrap();
    store.write_compat(&URI.parse().unwrap(), CONTENT).await.unwrap();
    store.close().await;
    world
}

fn administrator() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap()
}

/// An administrator's token.
fn admin_token(audience: &str) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let payload = json!({ "aud": audience, "iat": now, "exp": now + 60 });
    let signed = format!("{}.{}", part(json!({ "alg": "EdDSA", "typ": "JWT" })), part(payload));
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(administrator().sign(signed.as_bytes())))
}

/// The client: one session, as its library has it.
struct Client {
    key: EphemeralKey,
    cookie: String,
    nonce: String,
}

fn send(method: &str, path: &str, cookie: Option<&str>, body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

impl Client {
    async fn auth(world: &World) -> Result<Self, Answer> {
        let body = r#"{"version":"0.4.0","tee":"sample","extra-params":{"supported-hash-algorithms":["sha256","sha384","sha512","sm3"]}}"#;
        let answer = world.send(send("POST", "/kbs/v0/auth", None, body)).await;
        if answer.status != StatusCode::OK {
            return Err(answer);
        }
        let cookie = answer.cookie();
        let (name, id) = cookie.split_once('=').unwrap();
        assert_eq!((name, id.len()), ("kbs-session-id", 32));
        assert!(id.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(answer.body["extra-params"], "");
        let nonce = answer.body["nonce"].as_str().unwrap().to_owned();
        assert_eq!(BASE64_STANDARD.decode(&nonce).unwrap().len(), 32);
        Ok(Self { key: EphemeralKey::generate().unwrap(), cookie, nonce })
    }

    /// SHA-384 over the canonical JSON of the runtime data.
    fn report_data(&self) -> Vec<u8> {
        let jwk = self.key.public_jwk();
        // Members in canonical order, by hand.
        let text = format!(
            r#"{{"additional-evidence":"","nonce":"{}","tee-pubkey":{{"alg":"{}","crv":"{}","kty":"{}","x":"{}","y":"{}"}}}}"#,
            self.nonce, jwk.alg, jwk.crv, jwk.kty, jwk.x, jwk.y
        );
        Sha384::digest(text).to_vec()
    }

    fn evidence(&self, report_data: &[u8]) -> Value {
        json!({
            "init-data": null,
            "runtime-data": { "nonce": self.nonce, "tee-pubkey": self.key.public_jwk() },
            "tee-evidence": {
                "primary_evidence": { "svn": "1", "report_data": BASE64_STANDARD.encode(report_data) },
                "additional_evidence": "",
            },
        })
    }

    async fn attest(&self, world: &World, evidence: &Value) -> Answer {
        world.send(send("POST", "/kbs/v0/attest", Some(&self.cookie), &evidence.to_string())).await
    }

    /// A whole handshake: the token.
    async fn handshake(world: &World) -> (Self, String) {
        let client = Self::auth(world).await.unwrap();
        let answer = client.attest(world, &client.evidence(&client.report_data())).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let token = answer.body["token"].as_str().unwrap().to_owned();
        (client, token)
    }

    /// Opens an answer as the client's library does: it writes the header again to have its bytes.
    fn open(&self, answer: &Answer) -> Vec<u8> {
        #[derive(Serialize, Deserialize)]
        struct Header {
            alg: String,
            enc: String,
            epk: Epk,
        }
        #[derive(Serialize, Deserialize)]
        struct Epk {
            crv: String,
            kty: String,
            x: String,
            y: String,
        }
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let mut jwe: JweFlattened = serde_json::from_value(answer.body.clone()).unwrap();
        let header: Header =
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(&jwe.protected).unwrap()).unwrap();
        assert_eq!((header.alg.as_str(), header.enc.as_str()), ("ECDH-ES+A256KW", "A256GCM"));
        jwe.protected = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_string(&header).unwrap());
        self.key.open(&jwe).unwrap().to_vec()
    }
}

#[tokio::test]
async fn a_stock_client_gets_a_resource_by_cookie_and_by_token() {
    let world = world(true, &["sample"]).await;
    let (client, token) = Client::handshake(&world).await;
    let path = "/kbs/v0/resource/compat/keys/first.pem";
    let answer = world.send(get(path, &[("cookie", &client.cookie)])).await;
    assert_eq!(client.open(&answer), CONTENT);
    let answer = world.send(get(path, &[("authorization", &format!("Bearer {token}"))])).await;
    assert_eq!(client.open(&answer), CONTENT);

    // The token says what it was.
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    let cpu = &payload["submods"]["cpu0"];
    assert_eq!(cpu["ear.status"], "contraindicated");
    assert_eq!(cpu["ear.veraison.annotated-evidence"]["sample"]["tee"], "sample");
    let events = world.events().await;
    let released = events.iter().find(|event| event["event"] == "resource.released").unwrap();
    assert_eq!(released["detail"]["verdict"]["tee"], "sample");
}

#[tokio::test]
async fn sample_evidence_is_refused_where_the_operator_does_not_accept_it() {
    let world = world(false, &["snp-emulated"]).await;
    let refused = Client::auth(&world).await.err().unwrap();
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, Code::TeeKind));
}

#[tokio::test]
async fn sample_evidence_gets_nothing_where_the_compat_repository_is_not_open_to_it() {
    let world = world(true, &["snp-emulated"]).await;
    let (client, _) = Client::handshake(&world).await;
    let answer = world.resource(&client.cookie, URI).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Resource));
    // Genuine kinds that the operator named get it.
    let guest = Machine::default().boot(None);
    assert_eq!(world.ask(&guest, URI).await.open(&guest), CONTENT);
}

#[tokio::test]
async fn sample_evidence_for_another_session_is_refused() {
    let world = world(true, &["sample"]).await;
    let other = Client::auth(&world).await.unwrap();
    let client = Client::auth(&world).await.unwrap();
    let answer = client.attest(&world, &client.evidence(&other.report_data())).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Binding));
    for report_data in [&b""[..], &[0; 65]] {
        let client = Client::auth(&world).await.unwrap();
        let answer = client.attest(&world, &client.evidence(report_data)).await;
        assert_eq!(answer.code(), Code::Evidence);
    }
}

#[tokio::test]
async fn sample_evidence_never_gets_an_owners_key_or_resource() {
    let world = world(true, &["sample"]).await;
    let pushed = world.push(1).await;
    let client = Client::auth(&world).await.unwrap();
    // The initdata of a pushed pod, which nothing binds to the evidence.
    let mut evidence = client.evidence(&client.report_data());
    evidence["init-data"] = json!({ "format": "toml", "body": pushed.init_data() });
    assert_eq!(client.attest(&world, &evidence).await.status, StatusCode::OK);
    let answer = world.resource(&client.cookie, pushed.key_id()).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Resource));
}

#[tokio::test]
async fn the_compat_repository_has_no_owner() {
    let world = world(true, &["sample"]).await;
    let key = protocols::owner::OwnerKey::generate().unwrap().public();
    let (_, store) = open_store(&world.config.state, Clock::system()).await.unwrap();
    let enrolment = store.enrol("compat", &key).await.unwrap();
    store.close().await;
    assert_eq!(enrolment, sealpod_broker::store::Enrolment::OtherKey);
}

#[tokio::test]
async fn a_resource_of_the_compat_repository_that_is_not_there_is_refused() {
    let world = world(true, &["sample"]).await;
    let (client, _) = Client::handshake(&world).await;
    for uri in ["kbs:///compat/keys/second.pem", "kbs:///compat/sealed-spec/first.pem"] {
        let answer = world.resource(&client.cookie, uri).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, Code::Resource), "{uri}");
    }
}

#[tokio::test]
async fn an_administrator_writes_resources_of_the_compat_repository_alone() {
    let world = world(true, &["sample"]).await;
    let write = |path: &str, authorization: String, body: Vec<u8>| {
        let request = Request::builder().method("POST").uri(path).header("authorization", authorization);
        world.send(request.body(Body::from(body)).unwrap())
    };
    let bearer = |audience: &str| format!("Bearer {}", admin_token(audience));
    let path = "/kbs/v0/resource/compat/keys/second.pem";
    let good = write(path, bearer("https://broker.example"), b"new".to_vec()).await;
    assert_eq!(good.status, StatusCode::OK, "{good:?}");
    let (client, token) = Client::handshake(&world).await;
    assert_eq!(client.open(&world.resource(&client.cookie, "kbs:///compat/keys/second.pem").await), b"new");
    let events = world.events().await;
    for written in events.iter().filter(|event| event["event"] == "compat.written") {
        assert_eq!(written["detail"], json!({}), "nothing by which the content could be guessed");
    }
    assert!(events.iter().any(|event| event["subject"] == "kbs:///compat/keys/second.pem"));

    for (path, authorization, code) in [
        (path, bearer("https://other.example"), Code::Session),
        (path, String::new(), Code::Session),
        // A guest's token is no administrator's.
        (path, format!("Bearer {token}"), Code::Session),
        ("/kbs/v0/resource/shop/keys/second.pem", bearer("https://broker.example"), Code::Resource),
        ("/kbs/v0/resource/compat/sealed-spec/x", bearer("https://broker.example"), Code::Resource),
        ("/kbs/v0/resource/compat/../shop/x", bearer("https://broker.example"), Code::Resource),
        ("/kbs/v0/resource/compat/keys/%2e%2e", bearer("https://broker.example"), Code::Resource),
    ] {
        let answer = write(path, authorization, b"x".to_vec()).await;
        assert_eq!(answer.code(), code, "{path}");
    }
    let big = write(path, bearer("https://broker.example"), vec![0; 256 * 1024 + 1]).await;
    assert_eq!(big.status, StatusCode::PAYLOAD_TOO_LARGE);
}
