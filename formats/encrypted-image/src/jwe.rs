//! The JWE wrapper (RFC 7516): what ocicrypt's `jwe` scheme writes, and everything its readers take.
//!
//! Writes RSA-OAEP (SHA-1 as all peers read it, SHA-256 on request) and ECDH-ES+A256KW with A256GCM:
//! flattened JSON for one recipient, general JSON for several. Reads flattened, general and compact.

mod algorithm;
mod content;
mod header;
mod message;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::encoding::shown;
use crate::keys::{PrivateKey, PublicKey};
use crate::{PrivateOptions, Scheme, Unwrap, UnwrapError, Wrap, WrapError, WrappedKey};
use algorithm::{Algorithm, Candidate};
use content::Encryption;
use header::Header;
use message::Message;

/// Largest JWE read, in bytes.
pub const MAX_MESSAGE: usize = 128 << 10;
/// Most recipients of one JWE.
pub const MAX_RECIPIENTS: usize = 64;
/// Largest plaintext in bytes; private options take 193.
pub const MAX_PLAINTEXT: usize = 4096;

/// Why a JWE was refused. Nothing says how far decryption got.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum JweError {
    /// No recipient has an algorithm and, for EC, a curve of this key; or none opens; or a bit was changed.
    #[error("no recipient of the JWE is this key, or the JWE was changed")]
    NotRecipient,
    /// Something this reader doesn't do, on purpose or not.
    #[error("{what} '{name}'")]
    Unsupported {
        /// What kind of thing.
        what: &'static str,
        /// Its name in the JWE.
        name: String,
    },
    /// Not a JWE of any of the three serializations.
    #[error("{0}")]
    Malformed(&'static str),
    /// A header that is given twice, in one part or in two.
    #[error("the header '{0}' is given twice")]
    Twice(String),
    /// Larger than [`MAX_MESSAGE`].
    #[error("the JWE is larger than {MAX_MESSAGE} bytes")]
    TooLarge,
    /// More than [`MAX_RECIPIENTS`].
    #[error("the JWE has more than {MAX_RECIPIENTS} recipients")]
    TooManyRecipients,
    /// Nobody to wrap to.
    #[error("no recipient")]
    NoRecipient,
    /// No randomness from the system, or a primitive that refused its input.
    #[error("encryption failed: no randomness from the system")]
    Seal,
}

impl From<JweError> for UnwrapError {
    fn from(error: JweError) -> Self {
        match error {
            JweError::NotRecipient => Self::NotRecipient,
            JweError::Unsupported { .. } => Self::Unsupported(error.to_string()),
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// The hash of RSA-OAEP when writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RsaOaep {
    /// `RSA-OAEP`: every peer reads it.
    #[default]
    Sha1,
    /// `RSA-OAEP-256`.
    Sha256,
}

/// Wraps for all its recipients in one JWE.
#[derive(Debug)]
pub struct JweWrap {
    recipients: Vec<PublicKey>,
    rsa: RsaOaep,
}

impl JweWrap {
    /// At least one recipient, at most [`MAX_RECIPIENTS`]. A JWK's `alg` is obeyed.
    pub fn new(recipients: Vec<PublicKey>) -> Result<Self, JweError> {
        match recipients.len() {
            0 => Err(JweError::NoRecipient),
            1..=MAX_RECIPIENTS => Ok(Self { recipients, rsa: RsaOaep::default() }),
            _ => Err(JweError::TooManyRecipients),
        }
    }

    /// What to use for RSA keys that don't say.
    #[must_use]
    pub fn rsa_oaep(self, rsa: RsaOaep) -> Self {
        Self { rsa, ..self }
    }
}

impl Wrap for JweWrap {
    fn scheme(&self) -> Scheme {
        Scheme::Jwe
    }

    fn wrap(&self, private: &PrivateOptions) -> Result<Vec<u8>, WrapError> {
        seal(&self.recipients, self.rsa, &private.to_json())
            .map_err(|error| WrapError::Failed { by: "jwe".to_owned(), reason: error.to_string() })
    }
}

/// Opens JWEs with one private key.
#[derive(Debug)]
pub struct JweUnwrap {
    name: String,
    key: Arc<PrivateKey>,
}

impl JweUnwrap {
    /// `name` is what errors call the key.
    pub fn new(name: impl Into<String>, key: impl Into<Arc<PrivateKey>>) -> Self {
        Self { name: name.into(), key: key.into() }
    }
}

impl Unwrap for JweUnwrap {
    fn opens(&self, scheme: &Scheme) -> bool {
        *scheme == Scheme::Jwe && !matches!(*self.key, PrivateKey::Symmetric(_))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<PrivateOptions, UnwrapError> {
        let plain = open(&wrapped.blob, &self.key)?;
        Ok(PrivateOptions::from_json(&plain)?)
    }
}

/// Opens a JWE of any serialization.
pub fn open(bytes: &[u8], key: &PrivateKey) -> Result<Zeroizing<Vec<u8>>, JweError> {
    let message = Message::parse(bytes)?;
    let encryption = message.encryption()?;
    encryption.check_sizes(&message)?;
    // All of the message is checked before any of it is decrypted.
    let mut candidates = Vec::new();
    let mut unknown = None;
    for recipient in &message.recipients {
        let header = message.header_of(recipient)?;
        let name = header.alg()?;
        let Some(algorithm) = Algorithm::from_name(name)? else {
            unknown = Some(name.to_owned());
            continue;
        };
        let candidate = Candidate::new(algorithm, &header, &recipient.encrypted_key, encryption, key)?;
        candidates.extend(candidate);
    }
    if candidates.is_empty()
        && let Some(name) = unknown
    {
        return Err(JweError::Unsupported { what: "key algorithm", name: shown(&name) });
    }
    let aad = message.aad();
    for candidate in candidates {
        let cek = candidate.content_key(encryption).ok_or(JweError::Seal)?;
        if let Some(plain) = encryption.open(&cek, &message, aad.as_bytes()) {
            return Ok(plain);
        }
    }
    Err(JweError::NotRecipient)
}

/// Seals to the recipients, as ocicrypt writes it.
pub fn seal(recipients: &[PublicKey], rsa: RsaOaep, plain: &[u8]) -> Result<Vec<u8>, JweError> {
    if plain.len() > MAX_PLAINTEXT {
        return Err(JweError::TooLarge);
    }
    if recipients.len() > MAX_RECIPIENTS {
        return Err(JweError::TooManyRecipients);
    }
    let encryption = Encryption::A256Gcm;
    let cek = content::random(encryption.key_size()).ok_or(JweError::Seal)?;
    let mut wrapped = Vec::with_capacity(recipients.len());
    for recipient in recipients {
        wrapped.push(algorithm::wrap(recipient, rsa, &cek).ok_or(JweError::Seal)?);
    }
    let (header, first, several) = match wrapped.as_slice() {
        [] => return Err(JweError::NoRecipient),
        [(header, key)] => (Header::for_one(header, encryption), key, None),
        several @ [(_, first), ..] => {
            let each = |(header, key): &(serde_json::Value, Vec<u8>)| json!({ "header": header, "encrypted_key": URL_SAFE_NO_PAD.encode(key) });
            (Header::for_several(encryption), first, Some(several.iter().map(each).collect::<Vec<_>>()))
        }
    };
    let protected = URL_SAFE_NO_PAD.encode(header.to_string());
    let sealed = encryption.seal(&cek, protected.as_bytes(), plain).ok_or(JweError::Seal)?;
    let mut message = json!({
        "protected": protected,
        // Of several recipients, the first one's once more: so ocicrypt's library writes it.
        "encrypted_key": URL_SAFE_NO_PAD.encode(first),
        "iv": URL_SAFE_NO_PAD.encode(sealed.iv),
        "ciphertext": URL_SAFE_NO_PAD.encode(sealed.ciphertext),
        "tag": URL_SAFE_NO_PAD.encode(sealed.tag),
    });
    if let Some(several) = several {
        message["recipients"] = several.into();
    }
    Ok(message.to_string().into_bytes())
}
