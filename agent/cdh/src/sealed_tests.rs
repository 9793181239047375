//! Sealed secrets as CoCo writes them, and one thing wrong at a time.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

use super::*;

const SIGNER: &str = "kbs:///team/keys/signer";
const SECRET: &str = "kbs:///team/db/password";
const KEK: &str = "kbs:///team/keys/kek";

/// A container's broker.
#[derive(Default)]
pub(crate) struct Vault {
    resources: HashMap<String, Vec<u8>>,
    names: HashMap<String, String>,
    asked: Mutex<Vec<String>>,
}

impl Vault {
    pub(crate) fn with(mut self, uri: &str, bytes: &[u8]) -> Self {
        self.resources.insert(uri.to_owned(), bytes.to_vec());
        self
    }
}

#[async_trait]
impl Identity for Vault {
    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let uri = uri.to_string();
        self.asked.lock().unwrap().push(uri.clone());
        let found = self.resources.get(&uri).cloned().map(Zeroizing::new);
        found.ok_or_else(|| Refusal::new(Code::ResourceDenied, format!("{uri} is not for this container")))
    }

    fn named_key(&self, name: &str) -> Option<ResourceUri> {
        self.names.get(name).map(|uri| uri.parse().unwrap())
    }
}

/// Somebody who signs secrets.
pub(crate) struct Signer(EcdsaKeyPair);

impl Signer {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self(key.unwrap())
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y })
    }

    pub(crate) fn vault(&self) -> Vault {
        Vault::default().with(SIGNER, self.jwk().to_string().as_bytes())
    }

    fn sign(&self, header: &Value, payload: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(payload));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("sealed.{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(crate) fn seal(&self, payload: &Value) -> String {
        self.sign(&json!({ "alg": "ES256", "kid": SIGNER }), payload)
    }
}

pub(crate) fn pointer(uri: &str) -> Value {
    json!({
        "version": "0.1.0", "type": "vault", "provider": "kbs", "name": uri,
        "provider_settings": {}, "annotations": {},
    })
}

fn envelope(kek: [u8; 32], secret: &[u8]) -> Value {
    let (key, iv) = ([7; 32], [9; 12]);
    let mut wrapped = [0; WRAPPED_KEY];
    KwAes256::new((&kek).into()).wrap_key(&key, &mut wrapped).unwrap();
    let mut data = secret.to_vec();
    let tag = Aes256Gcm::new((&key).into())
        .encrypt_inout_detached(&Nonce::from(iv), &[], data.as_mut_slice().into())
        .unwrap();
    data.extend_from_slice(&tag);
    json!({
        "version": "0.1.0", "type": "envelope", "provider": "kbs", "key_id": KEK,
        "encrypted_key": STANDARD.encode(wrapped), "encrypted_data": STANDARD.encode(data),
        "wrap_type": "A256GCM", "iv": STANDARD.encode(iv), "provider_settings": {},
    })
}

#[tokio::test]
async fn both_types_open() {
    let signer = Signer::new();
    let vault = signer.vault().with(SECRET, b"hunter2").with(KEK, &[1; 32]);
    let pointer = signer.seal(&pointer(SECRET));
    assert_eq!(*unseal(&pointer, &vault).await.unwrap(), b"hunter2");
    assert_eq!(*unseal(&format!("{pointer}\n"), &vault).await.unwrap(), b"hunter2", "as a file ends");
    let envelope = signer.seal(&envelope([1; 32], b"wrapped"));
    assert_eq!(*unseal(&envelope, &vault).await.unwrap(), b"wrapped");
}

#[tokio::test]
async fn a_key_can_have_a_name_in_the_guests_configuration() {
    let signer = Signer::new();
    let mut vault = signer.vault().with(SECRET, b"hunter2");
    let text = signer.sign(&json!({ "alg": "ES256", "kid": "signer" }), &pointer(SECRET));
    let refusal = unseal(&text, &vault).await.unwrap_err();
    assert_eq!(refusal.code, Code::SecretUnseal);
    vault.names.insert("signer".to_owned(), SIGNER.to_owned());
    assert_eq!(*unseal(&text, &vault).await.unwrap(), b"hunter2");
}

#[tokio::test]
async fn one_thing_wrong_at_a_time() {
    let (signer, other) = (Signer::new(), Signer::new());
    let vault = signer.vault().with(SECRET, b"hunter2").with(KEK, &[1; 32]);
    let header = json!({ "alg": "ES256", "kid": SIGNER });
    let good = pointer(SECRET);
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        changed[key] = value;
        signer.seal(&changed)
    };
    let sealed = envelope([1; 32], b"wrapped");
    let enveloped = |key: &str, value: Value| {
        let mut changed = sealed.clone();
        changed[key] = value;
        signer.seal(&changed)
    };
    let valid = signer.seal(&good);
    let parts: Vec<&str> = valid.split('.').collect();
    let swapped = URL_SAFE_NO_PAD.encode(pointer("kbs:///team/db/other").to_string());
    for (text, what) in [
        (other.seal(&good), "signature is wrong"),
        (format!("sealed.{}.{swapped}.{}", parts[1], parts[3]), "signature is wrong"),
        (
            format!("sealed.{}.{}.{}", parts[1], parts[2], URL_SAFE_NO_PAD.encode([0; 64])),
            "signature is wrong",
        ),
        (format!("sealed.fakejwsheader.{}.fakesignature", parts[2]), "without a signature"),
        (format!("sealed.{}.{}", parts[1], parts[2]), "payload part"),
        (format!("{valid}.x"), "four parts"),
        (valid["sealed.".len()..].to_owned(), "sealed."),
        (signer.sign(&json!({ "alg": "none", "kid": SIGNER }), &good), "ES256"),
        (signer.sign(&json!({ "alg": "HS256", "kid": SIGNER }), &good), "ES256"),
        (signer.sign(&json!({ "alg": "ES256" }), &good), "kid"),
        (signer.sign(&json!({ "alg": "ES256", "kid": SIGNER, "crit": ["b64"] }), &good), "critical"),
        (signer.sign(&json!({ "alg": "ES256", "kid": "../signer" }), &good), "neither"),
        (signer.sign(&json!({ "alg": "ES256", "kid": KEK }), &good), "no P-256 public key"),
        (signer.sign(&header, &json!([])), "of either type"),
        (with("version", json!("0.2.0")), "version"),
        (with("type", json!("other")), "of either type"),
        (with("provider", json!("aliyun")), "provider"),
        (with("provider_settings", json!({ "region": "x" })), "provider"),
        (with("name", json!("http://x")), "kbs:///"),
        (enveloped("wrap_type", json!("A256CTR")), "A256GCM"),
        (enveloped("iv", json!(STANDARD.encode([9; 16]))), "12 bytes"),
        (enveloped("iv", json!(STANDARD.encode([8; 12]))), "open"),
        (enveloped("encrypted_key", json!(STANDARD.encode([0; WRAPPED_KEY]))), "open"),
        (enveloped("encrypted_key", json!(STANDARD.encode([0; 32]))), "wrapped"),
        (enveloped("encrypted_data", json!("AAAA")), "open"),
        (enveloped("encrypted_data", json!("!")), "base64"),
        (enveloped("key_id", json!(SIGNER)), "32 bytes"),
        (format!("sealed.{}", "A".repeat(MAX_SEALED)), "too long"),
    ] {
        let refusal = unseal(&text, &vault).await.unwrap_err();
        assert_eq!(refusal.code, Code::SecretUnseal, "{what}");
        assert!(refusal.detail.contains(what), "{what}: {refusal}");
    }
}

#[tokio::test]
async fn nothing_is_fetched_for_a_secret_whose_signature_is_wrong() {
    let (signer, other) = (Signer::new(), Signer::new());
    let vault = signer.vault().with(SECRET, b"hunter2");
    unseal(&other.seal(&pointer(SECRET)), &vault).await.unwrap_err();
    assert_eq!(*vault.asked.lock().unwrap(), [SIGNER]);
    // And what the container may not have stays refused as that.
    let refusal = unseal(&signer.seal(&pointer("kbs:///team/db/other")), &vault).await.unwrap_err();
    assert_eq!(refusal.code, Code::ResourceDenied);
}
