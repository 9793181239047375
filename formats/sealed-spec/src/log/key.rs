//! The owner's log key: P-256, made once for an identity. What the guest needs of it is in the sealed spec.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

const PREFIX: &str = "p256:";
const SENDER: &[u8] = b"sealpod log sender 1";

/// Why a log key can't be used.
#[derive(Debug, Error)]
pub enum LogKeyError {
    /// The system's randomness failed.
    #[error("log key: no randomness from the kernel")]
    Random(#[source] getrandom::Error),
    /// Not a recipient in text form.
    #[error(
        "log key: a recipient is 'p256:', 44 base64url characters (a compressed point), '.', and 43 more"
    )]
    Recipient,
    /// Not a private key.
    #[error("log key: a private key is 32 bytes that are a scalar of P-256")]
    Private,
}

/// What proves that a line comes from a guest that opened one of the owner's sealed specs.
pub(super) type Sender = Zeroizing<[u8; 32]>;

/// What a guest seals its logs with: the public half of the owner's log key, and the sender secret that
/// keeps the host from making lines of its own. `p256:<33-byte compressed point>.<32 bytes>`, base64url.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogRecipient {
    pub(super) public: PublicKey,
    pub(super) sender: Sender,
}

pub(super) fn compressed(key: &PublicKey) -> [u8; 33] {
    let mut bytes = [0; 33];
    bytes.copy_from_slice(key.to_sec1_point(true).as_bytes());
    bytes
}

impl fmt::Debug for LogRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogRecipient(..)")
    }
}

impl FromStr for LogRecipient {
    type Err = LogKeyError;

    fn from_str(text: &str) -> Result<Self, LogKeyError> {
        let parse = || {
            let (point, sender) = text.strip_prefix(PREFIX)?.split_once('.')?;
            if point.len() != 44 || sender.len() != 43 {
                return None;
            }
            let point = URL_SAFE_NO_PAD.decode(point).ok()?;
            let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(sender).ok()?);
            let mut sender = Sender::default();
            sender.copy_from_slice(&bytes);
            Some(Self { public: PublicKey::from_sec1_bytes(&point).ok()?, sender })
        };
        parse().ok_or(LogKeyError::Recipient)
    }
}

impl TryFrom<String> for LogRecipient {
    type Error = LogKeyError;

    fn try_from(text: String) -> Result<Self, LogKeyError> {
        Zeroizing::new(text).parse()
    }
}

impl From<LogRecipient> for String {
    fn from(recipient: LogRecipient) -> Self {
        let point = URL_SAFE_NO_PAD.encode(compressed(&recipient.public));
        format!("{PREFIX}{point}.{}", URL_SAFE_NO_PAD.encode(recipient.sender.as_slice()))
    }
}

/// The owner's log key, private half. Wiped on drop.
pub struct LogKey(pub(super) SecretKey);

impl LogKey {
    /// A new key.
    pub fn generate() -> Result<Self, LogKeyError> {
        fresh().map(Self)
    }

    /// From its 32-byte scalar, big-endian.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, LogKeyError> {
        SecretKey::from_slice(bytes).map(Self).map_err(|_| LogKeyError::Private)
    }

    /// Its 32-byte scalar, big-endian.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// What guests get of it.
    pub fn recipient(&self) -> LogRecipient {
        LogRecipient { public: self.0.public_key(), sender: self.sender() }
    }

    pub(super) fn sender(&self) -> Sender {
        let digest = Sha256::new().chain_update(SENDER).chain_update(self.to_bytes().as_slice()).finalize();
        Zeroizing::new(digest.into())
    }
}

/// A private key from the kernel's randomness.
pub(super) fn fresh() -> Result<SecretKey, LogKeyError> {
    loop {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut()).map_err(LogKeyError::Random)?;
        // Zero and values above the group's order are refused; once in 2^32 tries.
        if let Ok(key) = SecretKey::from_slice(bytes.as_ref()) {
            return Ok(key);
        }
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey(..)")
    }
}
