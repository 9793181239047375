//! Keys of an issuer of passports: P-256, from a JWK set or a PEM file.

use std::path::Path;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::token::{P256_SPKI, thumbprint};

/// Longest key file, in bytes, and most keys in it.
const MAX_FILE: u64 = 64 * 1024;
const MAX_KEYS: usize = 16;

/// A key that verifies ES256.
pub(super) struct Key {
    pub(super) kid: String,
    /// 04 ‖ x ‖ y.
    pub(super) point: Vec<u8>,
}

/// The P-256 keys of a JWK set, or the one of a PEM file.
pub(super) fn load(path: &Path) -> Result<Vec<Key>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE {
        return Err(format!("it is longer than {MAX_FILE} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    if text.contains("-----BEGIN") {
        return pem(&text).map(|key| vec![key]);
    }
    let set: JwkSet = serde_json::from_str(&text).map_err(|error| format!("it is no JWK set: {error}"))?;
    let keys: Vec<_> = set.keys.iter().filter_map(SetKey::usable).collect();
    if keys.is_empty() || keys.len() > MAX_KEYS {
        return Err(format!("it must hold 1 to {MAX_KEYS} EC keys of P-256 for ES256 signatures"));
    }
    Ok(keys)
}

/// A JWK set (RFC 7517 section 5).
#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<SetKey>,
}

#[derive(Deserialize)]
struct SetKey {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
}

fn pem(text: &str) -> Result<Key, String> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).map_err(|error| error.to_string())?;
    let point = der.as_ref().strip_prefix(P256_SPKI).ok_or("its key is not of P-256")?;
    let (x, y) = coordinates(point).ok_or("its key is not of P-256")?;
    let kid = thumbprint("P-256", &BASE64_URL_SAFE_NO_PAD.encode(x), &BASE64_URL_SAFE_NO_PAD.encode(y));
    Ok(Key { kid, point: point.to_vec() })
}

pub(super) fn coordinates(point: &[u8]) -> Option<(&[u8], &[u8])> {
    let xy = point.strip_prefix(&[4])?;
    (xy.len() == 64).then(|| xy.split_at(32))
}

impl SetKey {
    fn usable(&self) -> Option<Key> {
        let is = |value: &Option<String>, wanted: &str| value.as_ref().is_none_or(|value| value == wanted);
        if self.kty != "EC" || !is(&self.purpose, "sig") || !is(&self.alg, "ES256") {
            return None;
        }
        let (x, y) = (self.x.as_ref()?, self.y.as_ref()?);
        let point = [vec![4], BASE64_URL_SAFE_NO_PAD.decode(x).ok()?, BASE64_URL_SAFE_NO_PAD.decode(y).ok()?];
        let point = point.concat();
        coordinates(&point).filter(|_| self.crv.as_deref() == Some("P-256"))?;
        let kid = self.kid.clone().unwrap_or_else(|| thumbprint("P-256", x, y));
        Some(Key { kid, point })
    }
}
