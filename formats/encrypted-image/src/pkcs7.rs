//! The PKCS7 wrapper: CMS envelopedData (RFC 5652 section 6) with RSA PKCS #1 v1.5 key transport and AES-GCM.
//!
//! Written exactly as ocicrypt writes it, whose AES-GCM parameters are not DER. Read: that, the parameters
//! as RFC 5084 has them, and AuthEnvelopedData (RFC 5083) as `openssl cms` makes it. AES-CBC is refused, though
//! ocicrypt's library would read it: it authenticates nothing, so whoever can change the image and watch whether
//! a guest accepts it would learn the layer's key, a byte at a time.

mod message;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use aes::cipher::consts::{U12, U16};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AeadInOut, AesGcm, KeyInit, Nonce, Tag};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keys::{Certificate, PrivateKey, PublicKey, RsaPrivate};
use crate::{PrivateOptions, Scheme, Unwrap, UnwrapError, Wrap, WrapError, WrappedKey};
use message::{Message, Recipient, Transport};

/// Largest message read, in bytes.
pub const MAX_MESSAGE: usize = 128 << 10;
/// Most recipients of one message.
pub const MAX_RECIPIENTS: usize = 64;
/// Largest plaintext in bytes; private options take 193.
pub const MAX_PLAINTEXT: usize = 4096;

/// Why a message was refused. Nothing says how far decryption got.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Pkcs7Error {
    /// No recipient is this key, or a bit was changed.
    #[error("no recipient of the message is this key, or the message was changed")]
    NotRecipient,
    /// Not the structure that it should be.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// Something that is not read.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Larger than [`MAX_MESSAGE`].
    #[error("the message is larger than {MAX_MESSAGE} bytes")]
    TooLarge,
    /// More than [`MAX_RECIPIENTS`].
    #[error("the message has more than {MAX_RECIPIENTS} recipients")]
    TooManyRecipients,
    /// Nobody to wrap to.
    #[error("no recipient")]
    NoRecipient,
    /// A key that can't take part.
    #[error("pkcs7 needs an RSA key; wrap to an EC key with jwe")]
    NotRsa,
    /// The two don't belong together.
    #[error("the certificate is of another key than the private key given with it")]
    OtherCertificate,
    /// No randomness from the system.
    #[error("encryption failed: no randomness from the system")]
    Seal,
}

impl From<Pkcs7Error> for UnwrapError {
    fn from(error: Pkcs7Error) -> Self {
        match error {
            Pkcs7Error::NotRecipient => Self::NotRecipient,
            Pkcs7Error::Unsupported(what) => Self::Unsupported(what.to_owned()),
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// Wraps for the holders of certificates in one message.
#[derive(Debug)]
pub struct Pkcs7Wrap(Vec<Certificate>);

impl Pkcs7Wrap {
    /// At least one recipient, at most [`MAX_RECIPIENTS`], each with an RSA key.
    pub fn new(recipients: Vec<Certificate>) -> Result<Self, Pkcs7Error> {
        match recipients.len() {
            0 => Err(Pkcs7Error::NoRecipient),
            1..=MAX_RECIPIENTS
                if recipients.iter().any(|each| !matches!(each.public_key(), PublicKey::Rsa(_))) =>
            {
                Err(Pkcs7Error::NotRsa)
            }
            1..=MAX_RECIPIENTS => Ok(Self(recipients)),
            _ => Err(Pkcs7Error::TooManyRecipients),
        }
    }
}

impl Wrap for Pkcs7Wrap {
    fn scheme(&self) -> Scheme {
        Scheme::Pkcs7
    }

    fn wrap(&self, private: &PrivateOptions) -> Result<Vec<u8>, WrapError> {
        seal(&self.0, &private.to_json())
            .map_err(|error| WrapError::Failed { by: "pkcs7".to_owned(), reason: error.to_string() })
    }
}

/// Opens messages with one RSA key.
#[derive(Debug)]
pub struct Pkcs7Unwrap {
    name: String,
    key: Arc<PrivateKey>,
    certificate: Option<Certificate>,
}

impl Pkcs7Unwrap {
    /// Tries every recipient whose encrypted key has the size of this key; `name` is what errors call it.
    pub fn new(name: impl Into<String>, key: impl Into<Arc<PrivateKey>>) -> Self {
        Self { name: name.into(), key: key.into(), certificate: None }
    }

    /// Tries only the recipient that the certificate names.
    pub fn with_certificate(self, certificate: Certificate) -> Result<Self, Pkcs7Error> {
        match self.key.public() {
            Some(key @ PublicKey::Rsa(_)) if key == *certificate.public_key() => {
                Ok(Self { certificate: Some(certificate), ..self })
            }
            Some(PublicKey::Rsa(_)) => Err(Pkcs7Error::OtherCertificate),
            _ => Err(Pkcs7Error::NotRsa),
        }
    }
}

impl Unwrap for Pkcs7Unwrap {
    fn opens(&self, scheme: &Scheme) -> bool {
        *scheme == Scheme::Pkcs7 && matches!(*self.key, PrivateKey::Rsa(_))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<PrivateOptions, UnwrapError> {
        let plain = open(&wrapped.blob, &self.key, self.certificate.as_ref())?;
        Ok(PrivateOptions::from_json(&plain)?)
    }
}

/// Opens a message; without a certificate, any recipient may be the key.
pub fn open(
    bytes: &[u8],
    key: &PrivateKey,
    certificate: Option<&Certificate>,
) -> Result<Zeroizing<Vec<u8>>, Pkcs7Error> {
    let PrivateKey::Rsa(key) = key else { return Err(Pkcs7Error::NotRsa) };
    let message = Message::parse(bytes)?;
    let ours = |recipient: &&Recipient<'_>| {
        recipient.encrypted_key.len() == key.size()
            && certificate.is_none_or(|certificate| recipient.is(certificate))
    };
    for recipient in message.recipients.iter().filter(ours) {
        let cek = content_key(key, recipient, message.cipher.key_size()).ok_or(Pkcs7Error::Seal)?;
        if let Some(plain) = message.decrypt(&cek) {
            return Ok(plain);
        }
    }
    Err(Pkcs7Error::NotRecipient)
}

/// Seals to the certificates' holders, as ocicrypt writes it.
pub fn seal(recipients: &[Certificate], plain: &[u8]) -> Result<Vec<u8>, Pkcs7Error> {
    if recipients.is_empty() {
        return Err(Pkcs7Error::NoRecipient);
    }
    if recipients.len() > MAX_RECIPIENTS {
        return Err(Pkcs7Error::TooManyRecipients);
    }
    if plain.len() > MAX_PLAINTEXT {
        return Err(Pkcs7Error::TooLarge);
    }
    let mut cek = Zeroizing::new([0; 16]);
    let mut nonce = [0; 12];
    for bytes in [cek.as_mut_slice(), nonce.as_mut_slice()] {
        getrandom::fill(bytes).map_err(|_| Pkcs7Error::Seal)?;
    }
    let mut wrapped = Vec::with_capacity(recipients.len());
    for recipient in recipients {
        let PublicKey::Rsa(key) = recipient.public_key() else { return Err(Pkcs7Error::NotRsa) };
        wrapped.push((recipient, key.encrypt_v15(cek.as_ref()).ok_or(Pkcs7Error::Seal)?));
    }
    let cipher = AesGcm::<Aes128, U12>::new((&*cek).into());
    let mut buffer = Zeroizing::new(plain.to_vec());
    let tag = cipher
        .encrypt_inout_detached(&Nonce::from(nonce), &[], buffer.as_mut_slice().into())
        .map_err(|_| Pkcs7Error::Seal)?;
    buffer.extend_from_slice(&tag);
    Ok(write::enveloped_data(&wrapped, &nonce, &buffer))
}

/// AES in GCM, by the size of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cipher {
    Aes128,
    Aes192,
    Aes256,
}

impl Cipher {
    const fn key_size(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 => 32,
        }
    }
}

/// The content key, or random bytes in its place: wrong padding and a wrong length are not told from a
/// wrong tag, neither by an error nor by what is computed (Bleichenbacher's oracle). None if the system has
/// no randomness.
fn content_key(key: &RsaPrivate, recipient: &Recipient<'_>, size: usize) -> Option<Zeroizing<Vec<u8>>> {
    let mut random = Zeroizing::new(vec![0; size]);
    getrandom::fill(&mut random).ok()?;
    let found = match recipient.transport {
        Transport::V15 => key.decrypt_v15(recipient.encrypted_key),
        Transport::Oaep(hash) => key.decrypt_oaep(hash, recipient.encrypted_key),
    };
    Some(found.filter(|found| found.len() == size).unwrap_or(random))
}

impl Message<'_> {
    fn decrypt(&self, key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self.cipher {
            Cipher::Aes128 => self.decrypt_with::<AesGcm<Aes128, U12>>(key),
            Cipher::Aes192 => self.decrypt_with::<AesGcm<Aes192, U12>>(key),
            Cipher::Aes256 => self.decrypt_with::<AesGcm<Aes256, U12>>(key),
        }
    }

    fn decrypt_with<C>(&self, key: &[u8]) -> Option<Zeroizing<Vec<u8>>>
    where
        C: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit,
    {
        let mut plain = Zeroizing::new(self.ciphertext.to_vec());
        C::new_from_slice(key)
            .ok()?
            .decrypt_inout_detached(
                &Nonce::from(self.nonce),
                &self.aad,
                plain.as_mut_slice().into(),
                &Tag::from(self.tag),
            )
            .ok()?;
        Some(plain)
    }
}
