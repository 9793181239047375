//! The owner's log key: P-256, made once for an identity. Its public half is in the sealed spec.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

const PREFIX: &str = "p256:";

/// Why a log key can't be used.
#[derive(Debug, Error)]
pub enum LogKeyError {
    /// The system's randomness failed.
    #[error("log key: no randomness from the kernel")]
    Random(#[source] getrandom::Error),
    /// Not a public key in text form.
    #[error("log key: a recipient is 'p256:' and 44 base64url characters: a compressed point of P-256")]
    Recipient,
    /// Not a private key.
    #[error("log key: a private key is 32 bytes that are a scalar of P-256")]
    Private,
}

/// The owner's log key, public half: `p256:` and base64url of the 33-byte compressed point.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogRecipient(PublicKey);

impl LogRecipient {
    #[expect(dead_code, reason = "the sealer comes with the next change")]
    pub(super) fn public(&self) -> &PublicKey {
        &self.0
    }

    /// SEC 1 compressed point.
    pub(super) fn compressed(&self) -> [u8; 33] {
        compressed(&self.0)
    }
}

pub(super) fn compressed(key: &PublicKey) -> [u8; 33] {
    let mut bytes = [0; 33];
    bytes.copy_from_slice(key.to_sec1_point(true).as_bytes());
    bytes
}

impl fmt::Display for LogRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.compressed()))
    }
}

impl fmt::Debug for LogRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LogRecipient {
    type Err = LogKeyError;

    fn from_str(text: &str) -> Result<Self, LogKeyError> {
        let point = text.strip_prefix(PREFIX).filter(|point| point.len() == 44);
        let point = point.and_then(|point| URL_SAFE_NO_PAD.decode(point).ok());
        let key = point.and_then(|point| PublicKey::from_sec1_bytes(&point).ok());
        key.map(Self).ok_or(LogKeyError::Recipient)
    }
}

impl TryFrom<String> for LogRecipient {
    type Error = LogKeyError;

    fn try_from(text: String) -> Result<Self, LogKeyError> {
        text.parse()
    }
}

impl From<LogRecipient> for String {
    fn from(recipient: LogRecipient) -> Self {
        recipient.to_string()
    }
}

/// The owner's log key, private half. Wiped on drop.
pub struct LogKey(SecretKey);

impl LogKey {
    /// A new key.
    pub fn generate() -> Result<Self, LogKeyError> {
        loop {
            let mut bytes = Zeroizing::new([0; 32]);
            getrandom::fill(bytes.as_mut()).map_err(LogKeyError::Random)?;
            // Zero and values above the group's order are refused; once in 2^32 tries.
            if let Ok(key) = Self::from_bytes(&bytes) {
                return Ok(key);
            }
        }
    }

    /// From its 32-byte scalar, big-endian.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, LogKeyError> {
        SecretKey::from_slice(bytes).map(Self).map_err(|_| LogKeyError::Private)
    }

    /// Its 32-byte scalar, big-endian.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// Its public half.
    pub fn recipient(&self) -> LogRecipient {
        LogRecipient(self.0.public_key())
    }

    #[expect(dead_code, reason = "the opener comes with the next change")]
    pub(super) fn secret(&self) -> &SecretKey {
        &self.0
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey(..)")
    }
}
