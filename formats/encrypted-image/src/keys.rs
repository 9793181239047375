//! Keys as their owners keep them: PEM (PKCS #1, PKCS #8, encrypted PKCS #8, SEC 1, certificates), DER of
//! each, and JWK (RFC 7517). What is read is checked: sizes, points on their curve, private and public
//! half of one key.

mod certificate;
pub(crate) mod der;
mod ec;
mod jwk;
mod password;
mod pem;
mod private;
mod public;
mod rsa;

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

pub use certificate::Certificate;
pub use ec::{Curve, EcPrivate, EcPublic};
pub(crate) use jwk::{Epk, base64url};
pub use rsa::{MAX_RSA_BITS, MIN_RSA_BITS, RsaPrivate, RsaPublic};

/// Largest key file read, in bytes: an RSA-8192 key with its certificate chain is below it.
pub const MAX_KEY_FILE: usize = 64 << 10;

/// Size of a symmetric key in bytes.
pub const SYMMETRIC_KEY: usize = 32;

/// Why a key was refused. Never holds a part of the key or of the password.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// Larger than [`MAX_KEY_FILE`].
    #[error("the key file is larger than {MAX_KEY_FILE} bytes")]
    TooLarge,
    /// Neither PEM, nor DER, nor JWK, nor 32 raw bytes.
    #[error("not a key: expected PEM, DER or a JWK")]
    NotAKey,
    /// PEM without the kind of block that is needed.
    #[error("the PEM file holds no {0}")]
    NoBlock(&'static str),
    /// PEM with two keys of the same kind.
    #[error("the PEM file holds several private keys; keep each in a file of its own")]
    SeveralKeys,
    /// A PEM block that does not end, or is not base64.
    #[error("the PEM block is damaged: {0}")]
    Pem(&'static str),
    /// A structure that is not what its label says.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A well-formed key of another kind.
    #[error("{0} is not supported; use RSA, or EC on P-256, P-384 or P-521")]
    Unsupported(&'static str),
    /// A private key where a public one belongs.
    #[error("this is a private key; give its public part ('openssl pkey -in KEY -pubout')")]
    PrivateForPublic,
    /// A public key where a private one belongs.
    #[error("this is a public key or a certificate; give the private key")]
    PublicForPrivate,
    /// Too weak, or so large that each use takes seconds.
    #[error("the RSA key has {0} bits; from {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")]
    RsaSize(usize),
    /// The numbers don't belong together.
    #[error("the {0} key's parts contradict each other")]
    Inconsistent(&'static str),
    /// Coordinates that are no point of the curve, or the point at infinity.
    #[error("the EC key's coordinates are not a point on {0}")]
    Point(Curve),
    /// An encrypted key and no password.
    #[error("the private key is encrypted; give its password")]
    Encrypted,
    /// The password, or the file, is wrong: which, can't be told.
    #[error("the password does not open the private key")]
    Password,
    /// A way of encrypting the key that is not read.
    #[error("the private key is encrypted with {0}; convert it with 'openssl pkcs8 -topk8 -v2 aes-256-cbc'")]
    Cipher(&'static str),
    /// Key derivation that would take more time or memory than a key is worth.
    #[error("the private key's password derivation asks for more {0} than is allowed")]
    DerivationCost(&'static str),
    /// A JWK whose `use` or `alg` says that it is not for encryption.
    #[error("the JWK's '{0}' says that it is not for encrypting keys")]
    Purpose(&'static str),
}

/// A key that opens wrapped keys. Zeroized on drop; `Debug` shows its kind only.
#[derive(Clone)]
pub enum PrivateKey {
    /// For JWE (RSA-OAEP) and PKCS7.
    Rsa(RsaPrivate),
    /// For JWE (ECDH-ES).
    Ec(EcPrivate),
    /// A key-encryption key shared by both sides.
    Symmetric(SymmetricKey),
}

/// A recipient's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// For JWE (RSA-OAEP) and PKCS7.
    Rsa(RsaPublic),
    /// For JWE (ECDH-ES).
    Ec(EcPublic),
}

/// 32 bytes that both sides hold. Zeroized on drop.
#[derive(Clone)]
pub struct SymmetricKey(Zeroizing<[u8; SYMMETRIC_KEY]>);

impl SymmetricKey {
    /// Takes exactly 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes =
            bytes.try_into().map_err(|_| KeyError::Malformed("symmetric key of other than 32 bytes"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; SYMMETRIC_KEY] {
        &self.0
    }
}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(..)")
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(key) => key.fmt(f),
            Self::Ec(key) => key.fmt(f),
            Self::Symmetric(key) => key.fmt(f),
        }
    }
}

/// How the bytes of a key file are written.
enum Form<'a> {
    Pem(Vec<pem::Block<'a>>),
    Jwk(&'a [u8]),
    Der(&'a [u8]),
    Raw(&'a [u8]),
}

impl<'a> Form<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, KeyError> {
        if bytes.len() > MAX_KEY_FILE {
            return Err(KeyError::TooLarge);
        }
        // No DER or JSON form of an accepted key is as short.
        if bytes.len() == SYMMETRIC_KEY {
            return Ok(Self::Raw(bytes));
        }
        let text = bytes.trim_ascii_start();
        match text.first() {
            Some(b'{') => Ok(Self::Jwk(text)),
            _ if bytes.first() == Some(&der::SEQUENCE) => Ok(Self::Der(bytes)),
            _ => match pem::blocks(bytes)? {
                blocks if blocks.is_empty() => Err(KeyError::NotAKey),
                blocks => Ok(Self::Pem(blocks)),
            },
        }
    }
}

impl PrivateKey {
    /// Reads a private key that has no password, or 32 raw bytes as a symmetric key.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        match Form::of(bytes)? {
            Form::Raw(key) => Ok(Self::Symmetric(SymmetricKey::from_bytes(key)?)),
            Form::Jwk(json) => jwk::private(json),
            Form::Der(der) => private::from_der(der),
            Form::Pem(blocks) => {
                let block = private_block(&blocks)?;
                if block.is_encrypted() {
                    return Err(KeyError::Encrypted);
                }
                private::from_labelled(block.label, &block.decode()?)
            }
        }
    }

    /// Reads a private key; the password is used when the key is encrypted, else not looked at.
    /// Apart from [`Self::parse`], so that programs without passwords don't carry their algorithms.
    pub fn parse_with_password(bytes: &[u8], password: &[u8]) -> Result<Self, KeyError> {
        match Form::of(bytes)? {
            Form::Der(der) if private::is_encrypted(der) => {
                opened(private::from_pkcs8(&password::open_pkcs8(der, password)?))
            }
            Form::Pem(blocks) => {
                let block = private_block(&blocks)?;
                if block.label == pem::ENCRYPTED_PRIVATE_KEY {
                    let plain = password::open_pkcs8(&block.decode()?, password)?;
                    opened(private::from_pkcs8(&plain))
                } else if block.is_encrypted() {
                    let plain = password::open_traditional(block, password)?;
                    opened(private::from_labelled(block.label, &plain))
                } else {
                    Self::parse(bytes)
                }
            }
            Form::Der(_) | Form::Jwk(_) | Form::Raw(_) => Self::parse(bytes),
        }
    }

    /// The public half; none of a symmetric key.
    pub fn public(&self) -> Option<PublicKey> {
        match self {
            Self::Rsa(key) => Some(PublicKey::Rsa(key.public())),
            Self::Ec(key) => Some(PublicKey::Ec(key.public())),
            Self::Symmetric(_) => None,
        }
    }
}

impl PublicKey {
    /// Reads a public key, or takes it from a certificate.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        match Form::of(bytes)? {
            Form::Raw(_) => Err(KeyError::NotAKey),
            Form::Jwk(json) => jwk::public(json),
            Form::Der(der) => public::from_der(der),
            Form::Pem(blocks) => public::from_pem(&blocks),
        }
    }

    /// Names the key in a JWE's header, when its JWK had a `kid`.
    pub fn kid(&self) -> Option<&str> {
        match self {
            Self::Rsa(key) => key.hints.kid.as_deref(),
            Self::Ec(key) => key.hints.kid.as_deref(),
        }
    }
}

/// What a JWK says of a public key besides its numbers; no part of its identity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    pub(crate) kid: Option<String>,
    pub(crate) alg: Option<String>,
}

/// A wrong password gives right padding once in 256 times, and then no key.
fn opened(key: Result<PrivateKey, KeyError>) -> Result<PrivateKey, KeyError> {
    key.map_err(|error| if matches!(error, KeyError::Malformed(_)) { KeyError::Password } else { error })
}

fn private_block<'a, 'b>(blocks: &'b [pem::Block<'a>]) -> Result<&'b pem::Block<'a>, KeyError> {
    let mut found = blocks.iter().filter(|block| pem::is_private(block.label));
    match (found.next(), found.next()) {
        (Some(block), None) => Ok(block),
        (Some(_), Some(_)) => Err(KeyError::SeveralKeys),
        (None, _) if blocks.iter().any(|block| pem::is_public(block.label)) => {
            Err(KeyError::PublicForPrivate)
        }
        (None, _) => Err(KeyError::NoBlock("private key")),
    }
}
