//! Recipients with RSA keys: public keys from PEM are used here, those on tokens by the helper.

use encrypted_image::pkcs11::token::{Operation, Refusal, Secret};
use encrypted_image::pkcs11::{MAX_RECIPIENTS, OaepHash, Pkcs11Blob, Pkcs11Recipient};
use encrypted_image::{PrivateOptions, Scheme, Wrap, WrapError};
use getrandom::SysRng;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::pkcs8::DecodePublicKey;
use rsa::rand_core::UnwrapErr;
use rsa::traits::PublicKeyParts;
use rsa::{Oaep, RsaPublicKey};

use super::keys::with_cause;
use super::{Configuration, Helper, HelperError, KeyFile};

/// Bits of the shortest and the longest RSA key that is encrypted to.
const BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A recipient that can't be wrapped for.
#[derive(Debug, thiserror::Error)]
pub enum RecipientError {
    /// Neither PEM nor DER of an RSA public key.
    #[error("{file}: not an RSA public key (PEM or DER) nor a PKCS #11 key file")]
    NotRsa {
        /// The file.
        file: String,
    },
    /// Too short or too long.
    #[error("{file}: an RSA key of {bits} bits: 2048 to 8192 are used")]
    Length {
        /// The file.
        file: String,
        /// Of the modulus.
        bits: usize,
    },
    /// More than a wrapped key may have.
    #[error("more than {MAX_RECIPIENTS} recipients for pkcs11")]
    TooMany,
    /// Of `OCICRYPT_OAEP_HASHALG`.
    #[error("OAEP hash '{0}': sha1 and sha256 are known")]
    Hash(String),
}

/// Everybody whom one layer's key is wrapped for by RSA-OAEP.
#[derive(Debug)]
pub struct Pkcs11Recipients {
    recipients: Vec<Recipient>,
    hash: OaepHash,
    helper: Helper,
    configuration: Configuration,
}

#[derive(Debug)]
enum Recipient {
    Key { file: String, key: RsaPublicKey },
    Token(KeyFile),
}

impl Pkcs11Recipients {
    /// Nobody yet. The helper is only needed for keys on tokens.
    pub fn new(hash: OaepHash, helper: Helper, configuration: Configuration) -> Self {
        Self { recipients: Vec::new(), hash, helper, configuration }
    }

    /// The hash that `OCICRYPT_OAEP_HASHALG` names: SHA-1 when it is unset or empty.
    ///
    /// # Errors
    /// When it is neither `sha1` nor `sha256`.
    pub fn hash_named(name: Option<&str>) -> Result<OaepHash, RecipientError> {
        match name.unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "sha1" => Ok(OaepHash::Sha1),
            "sha256" => Ok(OaepHash::Sha256),
            _ => Err(RecipientError::Hash(name.unwrap_or_default().to_owned())),
        }
    }

    /// Adds a public key, as PEM or DER.
    ///
    /// # Errors
    /// When it isn't an RSA public key of a usable length.
    pub fn add_public_key(&mut self, file: &str, bytes: &[u8]) -> Result<(), RecipientError> {
        let key = rsa_public_key(bytes).ok_or_else(|| RecipientError::NotRsa { file: file.to_owned() })?;
        let bits = key.n().bits() as usize;
        if !BITS.contains(&bits) {
            return Err(RecipientError::Length { file: file.to_owned(), bits });
        }
        self.add(Recipient::Key { file: file.to_owned(), key })
    }

    /// Adds a public key on a token.
    ///
    /// # Errors
    /// When there are too many recipients.
    pub fn add_token(&mut self, key: KeyFile) -> Result<(), RecipientError> {
        self.add(Recipient::Token(key))
    }

    fn add(&mut self, recipient: Recipient) -> Result<(), RecipientError> {
        if self.recipients.len() == MAX_RECIPIENTS {
            return Err(RecipientError::TooMany);
        }
        self.recipients.push(recipient);
        Ok(())
    }

    fn encrypt(&self, recipient: &Recipient, plain: &Secret) -> Result<Vec<u8>, WrapError> {
        let refused = |recipient: String, reason: String| WrapError::Recipient { recipient, reason };
        match recipient {
            Recipient::Key { file, key } => {
                let (bits, length) = (key.n().bits() as usize, plain.0.len());
                if length > self.hash.capacity(key.size()) {
                    let refusal = Refusal::TooLong { length, bits, hash: self.hash };
                    return Err(refused(file.clone(), refusal.to_string()));
                }
                let encrypted = match self.hash {
                    OaepHash::Sha1 => {
                        key.encrypt(&mut UnwrapErr(SysRng), Oaep::<sha1::Sha1>::new(), &plain.0)
                    }
                    OaepHash::Sha256 => {
                        key.encrypt(&mut UnwrapErr(SysRng), Oaep::<sha2::Sha256>::new(), &plain.0)
                    }
                };
                encrypted.map_err(|error| refused(file.clone(), error.to_string()))
            }
            Recipient::Token(key) => {
                let operation = Operation::Encrypt { hash: self.hash, plain: plain.clone() };
                let request = key.request(&self.configuration, operation);
                match self.helper.ask(&request, &key.environment) {
                    Ok(encrypted) => Ok(encrypted.0.to_vec()),
                    Err(HelperError::Refused(refusal)) => Err(refused(key.name(), refusal.to_string())),
                    Err(other) => Err(WrapError::Failed { by: key.name(), reason: with_cause(&other) }),
                }
            }
        }
    }
}

fn rsa_public_key(bytes: &[u8]) -> Option<RsaPublicKey> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let spki = RsaPublicKey::from_public_key_pem(text).ok();
        return spki.or_else(|| RsaPublicKey::from_pkcs1_pem(text).ok());
    }
    RsaPublicKey::from_public_key_der(bytes).ok().or_else(|| RsaPublicKey::from_pkcs1_der(bytes).ok())
}

impl Wrap for Pkcs11Recipients {
    fn scheme(&self) -> Scheme {
        Scheme::Pkcs11
    }

    fn wrap(&self, private: &PrivateOptions) -> Result<Vec<u8>, WrapError> {
        let plain = Secret(private.to_json());
        let wrapped =
            |recipient| Ok(Pkcs11Recipient { wrapped: self.encrypt(recipient, &plain)?, hash: self.hash });
        let recipients = self.recipients.iter().map(wrapped).collect::<Result<Vec<_>, WrapError>>()?;
        if recipients.is_empty() {
            return Err(WrapError::Failed { by: "pkcs11".into(), reason: "no recipient given".into() });
        }
        Ok(Pkcs11Blob { recipients }.to_json())
    }
}
