//! Launch attestation of SEV and SEV-ES guests: between the host's relay and the broker, and what the
//! guest finds in its memory. Blobs are AMD's binary formats (SEV API, 55766), here in standard base64.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `POST`: a platform asks for a launch session.
pub const SESSIONS_PATH: &str = "/sealpod/v1/sev/sessions";
/// `POST`: the measurement of a session's launch.
pub const MEASUREMENTS_PATH: &str = "/sealpod/v1/sev/measurements";
/// The injected secret's entry, as `efi_secret` names its file.
pub const SECRET_GUID: &str = "a42dd9c0-5257-4689-8fe2-390a1cbb18c4";
/// Longest injected secret, in bytes: AMD's limit for the whole table is 16 KiB.
pub const MAX_SECRET: usize = 8 * 1024;
/// Bytes of a connection's key.
pub const CONNECTION_KEY: usize = 32;
/// The only version of [`LaunchSecret`].
pub const SECRET_VERSION: u32 = 1;

/// The body for [`SESSIONS_PATH`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRequest {
    /// The initdata document that the guest will get, byte for byte: names sealed spec and key.
    pub init_data: String,
    /// SEV-ES instead of SEV.
    pub es: bool,
    /// `query-sev-capabilities`: the platform's PDH certificate.
    pub pdh: String,
    /// `query-sev-capabilities`: PEK, OCA and CEK certificates.
    pub cert_chain: String,
    /// `query-sev-capabilities`: the first processor's id, for its CEK at AMD; empty where QEMU doesn't say.
    #[serde(default)]
    pub cpu0_id: String,
}

/// The answer: what LAUNCH_START needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionAnswer {
    /// Names the session: 32 hex digits.
    pub session: String,
    /// The guest policy that the guest has to be launched with.
    pub policy: u32,
    /// The broker's Diffie-Hellman certificate (QEMU: `dh-cert-file`).
    pub godh: String,
    /// The session blob (QEMU: `session-file`).
    pub session_blob: String,
}

/// The body for [`MEASUREMENTS_PATH`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasurementRequest {
    /// From [`SessionAnswer`]; good for one measurement.
    pub session: String,
    /// `query-sev`: API version of the firmware.
    pub api_major: u8,
    /// `query-sev`.
    pub api_minor: u8,
    /// `query-sev`: `build-id`.
    pub build: u8,
    /// `query-sev`: the guest's policy.
    pub policy: u32,
    /// `query-sev-launch-measure`: 32 bytes of MEASURE and 16 of MNONCE.
    pub measurement: String,
}

/// The answer: what LAUNCH_SECRET needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasurementAnswer {
    /// `sev-inject-launch-secret`: `packet-header`.
    pub packet_header: String,
    /// `sev-inject-launch-secret`: `secret`.
    pub secret: String,
}

/// What the broker injects into a guest, as JSON in the entry [`SECRET_GUID`].
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct LaunchSecret {
    /// [`SECRET_VERSION`].
    pub version: u32,
    /// `sha256:` digest of the initdata: what HOST_DATA is for SNP guests.
    pub init_data: String,
    /// `sha256:` digest of the one sealed spec that this guest may open.
    pub sealed_spec: String,
    /// How it gets the spec key.
    pub key: LaunchKey,
}

/// How the guest gets its spec key.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum LaunchKey {
    /// This is it.
    Bundle {
        /// Standard base64 of 32 bytes.
        key: String,
    },
    /// From the broker, by [`ConnectionEvidence`].
    Connection {
        /// Names the connection: 32 hex digits.
        id: String,
        /// Standard base64 of [`CONNECTION_KEY`] bytes.
        key: String,
    },
}

impl fmt::Debug for LaunchSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchSecret")
            .field("init_data", &self.init_data)
            .field("sealed_spec", &self.sealed_spec)
            .finish_non_exhaustive()
    }
}

/// `primary_evidence` of the TEE `sev`: the guest holds the key that was injected into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionEvidence {
    /// Which connection.
    pub connection: String,
    /// Standard base64 of [`connection_mac`].
    pub mac: String,
}

const CONTEXT: &[u8] = b"sealpod-sev-connection-v1";

fn message(report_data: &[u8; 64], sealed_spec: &[u8; 32]) -> Vec<u8> {
    [CONTEXT, report_data, sealed_spec].concat()
}

/// HMAC-SHA-384 with the connection's key over a context, what evidence of the session must be bound to
/// ([`crate::rcar::report_data`]) and the sealed spec's SHA-256.
pub fn connection_mac(key: &[u8; CONNECTION_KEY], report_data: &[u8; 64], sealed_spec: &[u8; 32]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA384, key);
    STANDARD.encode(hmac::sign(&key, &message(report_data, sealed_spec)))
}

/// Whether `mac` is [`connection_mac`] of the rest; in constant time.
pub fn verify_connection_mac(
    key: &[u8; CONNECTION_KEY],
    report_data: &[u8; 64],
    sealed_spec: &[u8; 32],
    mac: &str,
) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA384, key);
    STANDARD.decode(mac).is_ok_and(|mac| hmac::verify(&key, &message(report_data, sealed_spec), &mac).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_for_its_key_session_and_spec_alone() {
        let mac = connection_mac(&[1; 32], &[2; 64], &[3; 32]);
        assert!(verify_connection_mac(&[1; 32], &[2; 64], &[3; 32], &mac));
        assert!(!verify_connection_mac(&[0; 32], &[2; 64], &[3; 32], &mac));
        assert!(!verify_connection_mac(&[1; 32], &[0; 64], &[3; 32], &mac));
        assert!(!verify_connection_mac(&[1; 32], &[2; 64], &[0; 32], &mac));
        assert!(!verify_connection_mac(&[1; 32], &[2; 64], &[3; 32], &mac[..60]));
        assert!(!verify_connection_mac(&[1; 32], &[2; 64], &[3; 32], ""));
    }

    #[test]
    fn a_launch_secret_says_how_its_key_comes() {
        let text = r#"{"version":1,"init_data":"sha256:00","sealed_spec":"sha256:01","key":{"connection":{"id":"ab","key":"cd"}}}"#;
        let secret: LaunchSecret = serde_json::from_str(text).unwrap();
        assert!(matches!(&secret.key, LaunchKey::Connection { id, .. } if id == "ab"));
        assert_eq!(serde_json::to_string(&secret).unwrap(), text);
        assert!(!format!("{secret:?}").contains("cd"));
        let more = text.replace("\"version\":1", "\"version\":1,\"x\":1");
        assert!(serde_json::from_str::<LaunchSecret>(&more).is_err());
    }
}
