//! Recipients with RSA keys: public keys from PEM are used here, those on tokens by the helper.

use encrypted_image::keys::{KeyError, PublicKey, RsaPublic};
use encrypted_image::pkcs11::token::{Operation, Refusal, Secret};
use encrypted_image::pkcs11::{MAX_RECIPIENTS, OaepHash, Pkcs11Blob, Pkcs11Recipient};
use encrypted_image::{PrivateOptions, Scheme, Wrap, WrapError};

use super::keys::with_cause;
use super::{Configuration, Helper, HelperError, KeyFile};

/// A recipient that can't be wrapped for.
#[derive(Debug, thiserror::Error)]
pub enum RecipientError {
    /// Not a public key, or not one that can be used.
    #[error("{file}: {source}")]
    Key {
        /// The file.
        file: String,
        /// Why not.
        #[source]
        source: KeyError,
    },
    /// A key for something else.
    #[error("{file}: pkcs11 wraps for RSA keys only")]
    NotRsa {
        /// The file.
        file: String,
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
    Key { file: String, key: RsaPublic },
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

    /// Adds a public key: PEM, DER, JWK, or that of a certificate.
    ///
    /// # Errors
    /// When it isn't an RSA public key of a usable length.
    pub fn add_public_key(&mut self, file: &str, bytes: &[u8]) -> Result<(), RecipientError> {
        let file = file.to_owned();
        match PublicKey::parse(bytes) {
            Ok(PublicKey::Rsa(key)) => self.add(Recipient::Key { file, key }),
            Ok(_) => Err(RecipientError::NotRsa { file }),
            Err(source) => Err(RecipientError::Key { file, source }),
        }
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
                let (bits, length) = (key.size() * 8, plain.0.len());
                if length > self.hash.capacity(key.size()) {
                    let refusal = Refusal::TooLong { length, bits, hash: self.hash };
                    return Err(refused(file.clone(), refusal.to_string()));
                }
                let encrypted = key.encrypt_oaep(self.hash, &plain.0);
                encrypted.ok_or_else(|| WrapError::Random("the system gives none".into()))
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
