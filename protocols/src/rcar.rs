//! The key broker protocol (RCAR, version 0.4.0) as Trustee and its clients speak it: request,
//! challenge, attestation, response. Sizes of whole bodies are for the HTTP side to bound.

mod jwe;
mod tee;
mod uri;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha384};

pub use jwe::{EphemeralKey, JweError, JweFlattened, Jwk, MAX_PLAINTEXT, wrap};
pub use tee::TeeKind;
pub use uri::{ResourceUri, UriError};

/// The only version spoken; peers refuse every other.
pub const VERSION: &str = "0.4.0";
/// Name of the cookie that carries the session.
pub const SESSION_COOKIE: &str = "kbs-session-id";
/// Where a handshake starts.
pub const AUTH_PATH: &str = "/kbs/v0/auth";
/// Where evidence goes.
pub const ATTEST_PATH: &str = "/kbs/v0/attest";
/// Resources live below this path.
pub const RESOURCE_PATH: &str = "/kbs/v0/resource";
/// Bytes in a nonce before base64.
pub const NONCE_LENGTH: usize = 32;

/// `POST /kbs/v0/auth`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthRequest {
    /// Must be [`VERSION`].
    pub version: String,
    /// What the guest will attest with.
    pub tee: TeeKind,
    /// Free form; the stock client lists hash algorithms here.
    #[serde(rename = "extra-params", default)]
    pub extra_params: Value,
}

impl AuthRequest {
    /// What the agent sends.
    pub fn new(tee: TeeKind) -> Self {
        Self {
            version: VERSION.to_owned(),
            tee,
            extra_params: serde_json::json!({ "supported-hash-algorithms": ["sha384"] }),
        }
    }
}

/// The answer to [`AuthRequest`], beside the session cookie.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Challenge {
    /// Standard base64 of [`NONCE_LENGTH`] bytes.
    pub nonce: String,
    /// The stock broker sends an empty string.
    #[serde(rename = "extra-params", default)]
    pub extra_params: Value,
}

/// `POST /kbs/v0/attest`. `Evidence` is JSON in the form that suits the reader.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AttestRequest<Evidence = Value> {
    /// The initdata document, in clear.
    pub init_data: Option<InitData>,
    /// What the evidence is bound to.
    pub runtime_data: RuntimeData,
    /// The evidence.
    pub tee_evidence: TeeEvidence<Evidence>,
}

/// Initdata on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitData {
    /// `toml`.
    pub format: String,
    /// The whole document, byte for byte as measured.
    pub body: String,
}

/// Nonce and key of one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RuntimeData {
    /// The challenge's nonce, as it came.
    pub nonce: String,
    /// The guest's ephemeral public key.
    pub tee_pubkey: Jwk,
}

/// Evidence of one TEE, and what further devices add.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TeeEvidence<Evidence = Value> {
    /// TEE-specific JSON.
    pub primary_evidence: Evidence,
    /// JSON text; empty when there is none.
    #[serde(default)]
    pub additional_evidence: String,
}

/// The answer to [`AttestRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttestResponse {
    /// A JWT that names what was appraised; lives five minutes.
    pub token: String,
}

/// An error body of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KbsError {
    /// An address whose last part is the error's variant.
    #[serde(rename = "type")]
    pub kind: String,
    /// Text for people; ours is a [refusal](crate::refusal::Refusal) line.
    pub detail: String,
}

impl KbsError {
    const PREFIX: &str = "https://github.com/confidential-containers/kbs/errors/";

    /// An error of `variant`, for example `AttestationVerification`.
    pub fn new(variant: &str, detail: impl Into<String>) -> Self {
        Self { kind: format!("{}{variant}", Self::PREFIX), detail: detail.into() }
    }
}

/// What evidence of a session must be bound to: SHA-384 over the canonical JSON (RFC 8785) of
/// `{"additional-evidence", "nonce", "tee-pubkey"}`.
pub fn binding(nonce_b64: &str, tee_pubkey: &Jwk, additional_evidence: &str) -> [u8; 48] {
    // Names in canonical order; a string's JSON form is the same in RFC 8785 and serde_json.
    let mut hash = Sha384::new();
    let quoted = |text: &str| Value::String(text.to_owned()).to_string();
    hash.update(format!(
        "{{\"additional-evidence\":{},\"nonce\":{},\"tee-pubkey\":{{\"alg\":{},\"crv\":{},\"kty\":{},\"x\":{},\"y\":{}}}}}",
        quoted(additional_evidence),
        quoted(nonce_b64),
        quoted(&tee_pubkey.alg),
        quoted(&tee_pubkey.crv),
        quoted(&tee_pubkey.kty),
        quoted(&tee_pubkey.x),
        quoted(&tee_pubkey.y),
    ));
    hash.finalize().into()
}

/// SNP's report_data for a binding: zeros after it.
pub fn report_data(binding: &[u8; 48]) -> [u8; 64] {
    let mut data = [0; 64];
    data[..48].copy_from_slice(binding);
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical;
    use serde_json::json;

    fn jwk() -> Jwk {
        EphemeralKey::generate().unwrap().public_jwk()
    }

    #[test]
    fn binding_is_the_hash_of_the_canonical_document() {
        let (jwk, nonce) = (jwk(), "q\"\\+/=\u{e9}\n");
        let document = json!({"tee-pubkey": jwk, "nonce": nonce, "additional-evidence": "{\"a\":1}"});
        let want: [u8; 48] = Sha384::digest(canonical::to_string(&document).unwrap()).into();
        assert_eq!(binding(nonce, &jwk, "{\"a\":1}"), want);
        let data = report_data(&want);
        assert_eq!(data[..48], want);
        assert_eq!(data[48..], [0; 16]);
    }

    #[test]
    fn binding_changes_with_each_part() {
        let jwk_a = jwk();
        let base = binding("n", &jwk_a, "");
        assert_ne!(base, binding("m", &jwk_a, ""));
        assert_ne!(base, binding("n", &jwk(), ""));
        assert_ne!(base, binding("n", &jwk_a, "{}"));
    }

    #[test]
    fn names_on_the_wire() {
        let request = AttestRequest {
            init_data: None,
            runtime_data: RuntimeData { nonce: "n".into(), tee_pubkey: jwk() },
            tee_evidence: TeeEvidence { primary_evidence: json!({}), additional_evidence: String::new() },
        };
        let value = serde_json::to_value(&request).unwrap();
        assert!(value["init-data"].is_null());
        assert_eq!(value["runtime-data"]["tee-pubkey"]["kty"], "EC");
        assert!(value["tee-evidence"]["primary_evidence"].is_object());
        let auth = serde_json::to_value(AuthRequest::new(TeeKind::Snp)).unwrap();
        assert_eq!(auth["tee"], "snp");
        assert!(auth["extra-params"].is_object());
        let challenge: Challenge = serde_json::from_value(json!({"nonce": "x", "extra-params": ""})).unwrap();
        assert_eq!(challenge.nonce, "x");
    }
}
