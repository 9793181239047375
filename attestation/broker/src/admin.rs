//! Who may write resources of the compat repository over the protocol's admin endpoint: whoever has a token
//! (JWT, EdDSA or ES256) signed by a key that the operator's configuration names. It may do nothing else.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use protocols::refusal::Code;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::clock;
use crate::refused::Refused;
use crate::token::{Audience, MAX_BYTES, P256_SPKI};

/// Longest life of a token that is taken, and how far the administrator's clock may be ahead; in seconds.
const LONGEST: u64 = 24 * 3600;
const SKEW: u64 = 60;

/// An SPKI of Ed25519 (RFC 8410) is this and the key.
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why an administrator's key can't be used.
#[derive(Debug, thiserror::Error)]
#[error("compat.admin_keys {path}: {problem}")]
pub struct AdminKeyError {
    path: PathBuf,
    problem: String,
}

/// The keys.
pub(crate) struct AdminKeys(Vec<Key>);

struct Key {
    alg: &'static str,
    public: UnparsedPublicKey<Vec<u8>>,
}

impl AdminKeys {
    /// Reads a public key from each PEM file.
    ///
    /// # Errors
    /// [`AdminKeyError`].
    pub(crate) fn load(files: &[PathBuf]) -> Result<Self, AdminKeyError> {
        let failed = |path: &Path, problem| AdminKeyError { path: path.to_owned(), problem };
        files
            .iter()
            .map(|path| key(path).map_err(|problem| failed(path, problem)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether there is nobody.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks an administrator's token for `audience`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn admit(&self, token: &str, audience: &str, now: SystemTime) -> Result<(), Refused> {
        let parts = token.rsplit_once('.').filter(|_| token.len() <= MAX_BYTES);
        let (signed, signature) = parts.ok_or_else(|| refused("it is no JWT"))?;
        let (header, payload) = signed.split_once('.').ok_or_else(|| refused("it is no JWT"))?;
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| refused("its header has other members"))?;
        let signature = decode(signature)?;
        // A key has one algorithm: the header chooses none.
        let signer = self
            .0
            .iter()
            .filter(|key| key.alg == header.alg)
            .find(|key| key.public.verify(signed.as_bytes(), &signature).is_ok());
        signer.ok_or_else(|| refused("no administrator's key signed it"))?;
        let claims: Claims =
            serde_json::from_slice(&decode(payload)?).map_err(|_| refused("it needs aud, iat and exp"))?;
        let now = clock::unix(now);
        if !claims.aud.names(audience) {
            return Err(refused("it is for another audience than this broker, its token.issuer"));
        }
        if claims.exp <= now || claims.exp > claims.iat.saturating_add(LONGEST) {
            return Err(refused("it has expired, or lives longer than a day"));
        }
        if claims.nbf.unwrap_or(0).max(claims.iat) > now + SKEW {
            return Err(refused("it is not valid yet"));
        }
        Ok(())
    }
}

fn refused(problem: &str) -> Refused {
    Refused::new(Code::Session, format!("the administrator's token is not taken: {problem}"))
}

fn decode(part: &str) -> Result<Vec<u8>, Refused> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| refused("it is no JWT"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    #[serde(rename = "typ")]
    _typ: Option<String>,
    #[serde(rename = "kid")]
    _kid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    aud: Audience,
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
}

fn key(path: &Path) -> Result<Key, String> {
    let der = SubjectPublicKeyInfoDer::from_pem_file(path).map_err(|error| error.to_string())?;
    let of = |alg, algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]| Key {
        alg,
        public: UnparsedPublicKey::new(algorithm, bytes.to_vec()),
    };
    if let Some(bytes) = der.as_ref().strip_prefix(ED25519_SPKI).filter(|bytes| bytes.len() == 32) {
        return Ok(of("EdDSA", &ED25519, bytes));
    }
    if let Some(bytes) = der.as_ref().strip_prefix(P256_SPKI).filter(|bytes| bytes.len() == 65) {
        return Ok(of("ES256", &ECDSA_P256_SHA256_FIXED, bytes));
    }
    Err("it must hold one public key (SPKI), of Ed25519 or P-256".into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::prelude::BASE64_STANDARD;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::{Value, json};

    use super::*;

    const AUDIENCE: &str = "https://broker.example";
    const NOW: u64 = 1_795_300_140;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn signer(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn keys(spki: &[u8]) -> Result<AdminKeys, AdminKeyError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let body = BASE64_STANDARD.encode(spki);
        std::fs::write(
            file.path(),
            format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"),
        )
        .unwrap();
        AdminKeys::load(&[file.path().to_owned()])
    }

    fn trusted() -> AdminKeys {
        keys(&[ED25519_SPKI, signer(1).public_key().as_ref()].concat()).unwrap()
    }

    fn token(seed: u8, header: &Value, payload: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(payload));
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signer(seed).sign(signed.as_bytes())))
    }

    fn header() -> Value {
        json!({ "alg": "EdDSA", "typ": "JWT" })
    }

    fn payload() -> Value {
        json!({ "aud": AUDIENCE, "iat": NOW, "exp": NOW + 60 })
    }

    #[test]
    fn an_administrators_token_is_taken_and_anothers_is_not() {
        assert!(trusted().admit(&token(1, &header(), &payload()), AUDIENCE, now()).is_ok());
        assert!(trusted().admit(&token(2, &header(), &payload()), AUDIENCE, now()).is_err());
        let none = AdminKeys::load(&[]).unwrap();
        assert!(none.is_empty() && none.admit(&token(1, &header(), &payload()), AUDIENCE, now()).is_err());
    }

    #[test]
    fn headers_that_choose_are_refused() {
        for header in [
            json!({ "alg": "none" }),
            json!({ "alg": "ES256" }),
            json!({ "alg": "HS256" }),
            json!({ "alg": "EdDSA", "jwk": {} }),
            json!({ "alg": "EdDSA", "crit": [] }),
            json!({ "typ": "JWT" }),
        ] {
            assert!(trusted().admit(&token(1, &header, &payload()), AUDIENCE, now()).is_err(), "{header}");
        }
    }

    #[test]
    fn claims_that_are_missing_or_wrong_are_refused() {
        for name in ["aud", "iat", "exp"] {
            let mut payload = payload();
            payload.as_object_mut().unwrap().remove(name);
            assert!(trusted().admit(&token(1, &header(), &payload), AUDIENCE, now()).is_err(), "{name}");
        }
        for (name, value) in [
            ("aud", json!("https://other.example")),
            ("exp", json!(NOW)),
            ("exp", json!(NOW + LONGEST + 1)),
            ("iat", json!(NOW + SKEW + 1)),
            ("nbf", json!(NOW + SKEW + 1)),
            ("exp", json!(-1)),
        ] {
            let mut payload = payload();
            payload[name] = value;
            assert!(trusted().admit(&token(1, &header(), &payload), AUDIENCE, now()).is_err(), "{name}");
        }
    }

    #[test]
    fn other_kinds_of_keys_are_refused() {
        assert!(keys(&[0x30; 44]).is_err());
        assert!(keys(&[ED25519_SPKI, &[0; 31]].concat()).is_err());
    }
}
