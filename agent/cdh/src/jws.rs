//! The signature of a sealed secret: JWS compact serialisation (RFC 7515) with ES256 and a P-256 public
//! key as a JWK (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Deserialize;

/// Longest header, in base64url.
const MAX_HEADER: usize = 4096;
/// Longest key, as JSON.
const MAX_KEY: usize = 16 * 1024;

/// A JWS whose signature nobody has checked yet.
pub(crate) struct Signed<'a> {
    signed: &'a str,
    payload: &'a str,
    signature: Vec<u8>,
    /// Which key is said to have signed it.
    pub(crate) key_id: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    crv: String,
    x: String,
    y: String,
    #[serde(default)]
    alg: Option<String>,
}

impl<'a> Signed<'a> {
    /// `header.payload.signature`, each base64url without padding.
    pub(crate) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let (signed, signature) = text.rsplit_once('.').ok_or("it has no signature part")?;
        let (header, payload) = signed.split_once('.').ok_or("it has no payload part")?;
        if payload.contains('.') {
            return Err("it has more than four parts");
        }
        if header.len() > MAX_HEADER {
            return Err("its header is too long");
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Header = decode(header)
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or("its header is no JWS header; secrets without a signature are not taken")?;
        if header.alg != "ES256" {
            return Err("its signature is not ES256");
        }
        if header.crit.is_some() {
            return Err("its header has critical extensions");
        }
        let key_id = header.kid.ok_or("its header names no key (kid)")?;
        let signature = decode(signature).ok_or("its signature is not base64url")?;
        Ok(Self { signed, payload, signature, key_id })
    }

    /// The payload, signed by that key.
    pub(crate) fn verify(&self, key: &[u8]) -> Result<Vec<u8>, &'static str> {
        const NO_KEY: &str = "the key that its header names is no P-256 public key (JWK)";
        if key.len() > MAX_KEY {
            return Err(NO_KEY);
        }
        let key: Key = serde_json::from_slice(key).map_err(|_| NO_KEY)?;
        let usable = key.kty == "EC" && key.crv == "P-256" && key.alg.is_none_or(|alg| alg == "ES256");
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().filter(|bytes| bytes.len() == 32);
        let (true, Some(x), Some(y)) = (usable, decode(&key.x), decode(&key.y)) else { return Err(NO_KEY) };
        let point = [&[4], x.as_slice(), y.as_slice()].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(self.signed.as_bytes(), &self.signature)
            .map_err(|_| "its signature is wrong")?;
        URL_SAFE_NO_PAD.decode(self.payload).map_err(|_| "its payload is not base64url")
    }
}
