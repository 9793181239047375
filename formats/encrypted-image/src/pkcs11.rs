//! The blob of `keys.pkcs11`: the private options under RSA-OAEP, once for each recipient, as JSON. The RSA is the token's.

pub mod token;
pub mod uri;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::encoding::{self, shown};

/// The longest blob that is read, in bytes.
pub const MAX_BLOB: usize = 256 * 1024;
/// How many recipients a blob may have.
pub const MAX_RECIPIENTS: usize = 128;

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Blob {
    /// The recipients. Nothing says whose is whose: try each.
    pub recipients: Vec<Pkcs11Recipient>,
}

/// The private options for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Recipient {
    /// What RSA-OAEP made: as long as the modulus.
    pub wrapped: Vec<u8>,
    /// Hash of OAEP and of its mask.
    pub hash: OaepHash,
}

/// Hash of RSA-OAEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OaepHash {
    /// What an absent `hash` means, and all that leaves RSA-2048 room for 193 bytes.
    Sha1,
    /// Needs more than 2048 bits.
    Sha256,
}

/// Why a blob is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Pkcs11Error {
    /// Too long.
    #[error("pkcs11 blob of {0} bytes: at most {MAX_BLOB} are read")]
    TooLong(usize),
    /// Not the expected JSON.
    #[error("pkcs11 blob is not the expected JSON (line {0}, column {1})")]
    Json(usize, usize),
    /// Another version than 0, of the blob or of a recipient.
    #[error("version {0} of pkcs11 blobs is not supported: only 0 is")]
    Version(u64),
    /// Nobody can open it.
    #[error("pkcs11 blob has no recipients")]
    NoRecipients,
    /// Too many to try.
    #[error("pkcs11 blob has {0} recipients: at most {MAX_RECIPIENTS} are tried")]
    TooManyRecipients(usize),
    /// Not base64, or empty.
    #[error("recipient {0} of the pkcs11 blob is not standard base64")]
    Base64(usize),
    /// A hash that is not known.
    #[error("hash {0:?} of a pkcs11 blob is not supported: sha1 and sha256 are")]
    Hash(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlob {
    version: u64,
    recipients: Option<Vec<RawRecipient>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecipient {
    version: u64,
    blob: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    hash: String,
}

impl Pkcs11Blob {
    /// Reads a blob.
    ///
    /// # Errors
    /// See [`Pkcs11Error`].
    pub fn from_json(json: &[u8]) -> Result<Self, Pkcs11Error> {
        if json.len() > MAX_BLOB {
            return Err(Pkcs11Error::TooLong(json.len()));
        }
        let raw: RawBlob =
            serde_json::from_slice(json).map_err(|error| Pkcs11Error::Json(error.line(), error.column()))?;
        if raw.version != 0 {
            return Err(Pkcs11Error::Version(raw.version));
        }
        let raw = raw.recipients.unwrap_or_default();
        match raw.len() {
            0 => return Err(Pkcs11Error::NoRecipients),
            1..=MAX_RECIPIENTS => {}
            many => return Err(Pkcs11Error::TooManyRecipients(many)),
        }
        let recipients = raw.iter().enumerate().map(|(at, raw)| raw.read(at)).collect::<Result<_, _>>()?;
        Ok(Self { recipients })
    }

    /// The JSON as ocicrypt writes it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let recipients = self.recipients.iter().map(|recipient| RawRecipient {
            version: 0,
            blob: encoding::encode(&recipient.wrapped),
            hash: recipient.hash.name().to_owned(),
        });
        let raw = RawBlob { version: 0, recipients: Some(recipients.collect()) };
        serde_json::to_vec(&raw).unwrap_or_default() // Strings and numbers always serialize.
    }
}

impl RawRecipient {
    fn read(&self, at: usize) -> Result<Pkcs11Recipient, Pkcs11Error> {
        if self.version != 0 {
            return Err(Pkcs11Error::Version(self.version));
        }
        let hash = match self.hash.as_str() {
            "" | "sha1" => OaepHash::Sha1,
            "sha256" => OaepHash::Sha256,
            other => return Err(Pkcs11Error::Hash(shown(other))),
        };
        let wrapped = encoding::decode(&self.blob).filter(|bytes| !bytes.is_empty());
        Ok(Pkcs11Recipient { wrapped: wrapped.ok_or(Pkcs11Error::Base64(at))?.to_vec(), hash })
    }
}

impl OaepHash {
    /// The name in the blob.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// The longest text that RSA-OAEP with this hash encrypts under a modulus of `modulus` bytes.
    #[must_use]
    pub const fn capacity(self, modulus: usize) -> usize {
        let hash = match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        };
        modulus.saturating_sub(2 * hash + 2)
    }
}

impl fmt::Display for OaepHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn value() -> Value {
        json!({ "version": 0, "recipients": [{ "version": 0, "blob": "b25l", "hash": "sha256" }, { "version": 0, "blob": "dHdv" }] })
    }

    fn refused(change: impl FnOnce(&mut Value)) -> Pkcs11Error {
        let mut value = value();
        change(&mut value);
        Pkcs11Blob::from_json(value.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn both_ways() {
        let blob = Pkcs11Blob::from_json(value().to_string().as_bytes()).unwrap();
        let recipient = |wrapped: &[u8], hash| Pkcs11Recipient { wrapped: wrapped.to_vec(), hash };
        assert_eq!(blob.recipients, [recipient(b"one", OaepHash::Sha256), recipient(b"two", OaepHash::Sha1)]);
        assert_eq!(
            String::from_utf8(blob.to_json()).unwrap(),
            r#"{"version":0,"recipients":[{"version":0,"blob":"b25l","hash":"sha256"},{"version":0,"blob":"dHdv","hash":"sha1"}]}"#,
        );
        assert_eq!(Pkcs11Blob::from_json(&blob.to_json()), Ok(blob));
    }

    #[test]
    fn what_fits_an_rsa_key() {
        assert_eq!(OaepHash::Sha256.capacity(256), 190);
        assert_eq!(OaepHash::Sha1.capacity(256), 214);
        assert_eq!(OaepHash::Sha256.capacity(10), 0);
    }

    #[test]
    fn refusals() {
        assert_eq!(refused(|value| value["version"] = json!(1)), Pkcs11Error::Version(1));
        assert_eq!(refused(|value| value["recipients"][1]["version"] = json!(2)), Pkcs11Error::Version(2));
        assert_eq!(refused(|value| value["recipients"] = json!([])), Pkcs11Error::NoRecipients);
        assert_eq!(refused(|value| value["recipients"] = Value::Null), Pkcs11Error::NoRecipients);
        let many = vec![value()["recipients"][0].clone(); MAX_RECIPIENTS + 1];
        assert_eq!(
            refused(|value| value["recipients"] = json!(many)),
            Pkcs11Error::TooManyRecipients(MAX_RECIPIENTS + 1)
        );
        for blob in ["", "b25", "b25l\n"] {
            assert_eq!(refused(|value| value["recipients"][1]["blob"] = json!(blob)), Pkcs11Error::Base64(1));
        }
        let hash = |name: &str| refused(|value| value["recipients"][0]["hash"] = json!(name));
        assert_eq!(hash("md5"), Pkcs11Error::Hash("md5".to_owned()));
        assert!(matches!(refused(|value| value["x"] = json!(1)), Pkcs11Error::Json(..)));
        assert!(matches!(refused(|value| value["recipients"][0]["x"] = json!(1)), Pkcs11Error::Json(..)));
        let long = vec![b' '; MAX_BLOB + 1];
        assert_eq!(Pkcs11Blob::from_json(&long), Err(Pkcs11Error::TooLong(long.len())));
        assert!(matches!(Pkcs11Blob::from_json(&vec![b'['; MAX_BLOB]), Err(Pkcs11Error::Json(..))));
    }
}
