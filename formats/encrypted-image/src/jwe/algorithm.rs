//! How the content key comes to a recipient: RSA-OAEP (RFC 7518 section 4.3) and ECDH-ES with AES key wrap
//! (sections 4.6 and 4.4).

use aes_kw::{KeyInit, KwAes128, KwAes192, KwAes256};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::content::{self, Encryption};
use super::header::Header;
use super::{JweError, RsaOaep};
use crate::keys::{Curve, EcPrivate, EcPublic, Epk, PrivateKey, PublicKey, RsaPrivate};
use crate::pkcs11::OaepHash;

/// As `alg` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    RsaOaep(OaepHash),
    /// With the size of the key-encryption key in bytes.
    EcdhEs(usize),
}

impl Algorithm {
    /// None of names that other recipients may use; an error for those with which no key would be needed.
    pub(super) fn from_name(name: &str) -> Result<Option<Self>, JweError> {
        Ok(Some(match name {
            "RSA-OAEP" => Self::RsaOaep(OaepHash::Sha1),
            "RSA-OAEP-256" => Self::RsaOaep(OaepHash::Sha256),
            "ECDH-ES+A128KW" => Self::EcdhEs(16),
            "ECDH-ES+A192KW" => Self::EcdhEs(24),
            "ECDH-ES+A256KW" => Self::EcdhEs(32),
            "none" | "dir" => {
                return Err(JweError::Unsupported { what: "key algorithm", name: name.to_owned() });
            }
            _ => return Ok(None),
        }))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::RsaOaep(OaepHash::Sha1) => "RSA-OAEP",
            Self::RsaOaep(OaepHash::Sha256) => "RSA-OAEP-256",
            Self::EcdhEs(16) => "ECDH-ES+A128KW",
            Self::EcdhEs(24) => "ECDH-ES+A192KW",
            Self::EcdhEs(_) => "ECDH-ES+A256KW",
        }
    }
}

/// A recipient that may be our key: its kind and curve fit.
pub(super) enum Candidate<'a> {
    Rsa { key: &'a RsaPrivate, hash: OaepHash, encrypted_key: &'a [u8] },
    Ec { kek: Zeroizing<Vec<u8>>, encrypted_key: &'a [u8] },
}

impl<'a> Candidate<'a> {
    /// None if the recipient is for a key of another kind, curve or size.
    pub(super) fn new(
        algorithm: Algorithm,
        header: &Header<'_>,
        encrypted_key: &'a [u8],
        encryption: Encryption,
        key: &'a PrivateKey,
    ) -> Result<Option<Self>, JweError> {
        match (algorithm, key) {
            (Algorithm::RsaOaep(hash), PrivateKey::Rsa(key)) => {
                Ok((encrypted_key.len() == key.size()).then_some(Self::Rsa { key, hash, encrypted_key }))
            }
            (Algorithm::EcdhEs(size), PrivateKey::Ec(key)) => {
                // Key wrap adds 8 bytes (RFC 3394 section 2.2.1).
                if encrypted_key.len() != encryption.key_size() + 8 {
                    return Err(JweError::Malformed("'encrypted_key' has another size than its algorithm's"));
                }
                let epk = header.epk()?;
                if Curve::from_name(epk.curve()) != Some(key.curve()) {
                    return Ok(None);
                }
                let epk =
                    epk.key(key.curve()).map_err(|_| JweError::Malformed("'epk' is not a public EC key"))?;
                let parties = (header.party("apu")?, header.party("apv")?);
                let kek = agree(key, &epk, algorithm, size, &parties).ok_or(JweError::NotRecipient)?;
                Ok(Some(Self::Ec { kek, encrypted_key }))
            }
            _ => Ok(None),
        }
    }

    /// The content key, or random bytes in its place when it isn't ours: what comes after takes the same
    /// path, so that nobody learns why a JWE was refused (RFC 7516 section 11.5). None if the system has
    /// no randomness.
    pub(super) fn content_key(&self, encryption: Encryption) -> Option<Zeroizing<Vec<u8>>> {
        let size = encryption.key_size();
        let random = content::random(size)?;
        let key = match self {
            Self::Rsa { key, hash, encrypted_key } => key.decrypt_oaep(*hash, encrypted_key),
            Self::Ec { kek, encrypted_key } => unwrap(kek, encrypted_key),
        };
        Some(key.filter(|key| key.len() == size).unwrap_or(random))
    }
}

/// The recipient's header and encrypted key; none if there is no randomness.
pub(super) fn wrap(recipient: &PublicKey, rsa: RsaOaep, cek: &[u8]) -> Option<(Value, Vec<u8>)> {
    let (mut header, encrypted_key) = match recipient {
        PublicKey::Rsa(key) => {
            let hash = match (key.hints.alg.as_deref(), rsa) {
                (Some("RSA-OAEP"), _) | (None, RsaOaep::Sha1) => OaepHash::Sha1,
                (Some("RSA-OAEP-256"), _) | (_, RsaOaep::Sha256) => OaepHash::Sha256,
                (Some(_), RsaOaep::Sha1) => OaepHash::Sha1,
            };
            (json!({ "alg": Algorithm::RsaOaep(hash).name() }), key.encrypt_oaep(hash, cek)?)
        }
        PublicKey::Ec(key) => {
            let algorithm = match key.hints.alg.as_deref() {
                Some("ECDH-ES+A128KW") => Algorithm::EcdhEs(16),
                Some("ECDH-ES+A192KW") => Algorithm::EcdhEs(24),
                _ => Algorithm::EcdhEs(32),
            };
            let Algorithm::EcdhEs(size) = algorithm else { return None };
            let ephemeral = EcPrivate::generate(key.curve())?;
            let kek = agree(&ephemeral, key, algorithm, size, &Default::default())?;
            let mut encrypted_key = vec![0; cek.len() + 8];
            match size {
                16 => KwAes128::new_from_slice(&kek).ok()?.wrap_key(cek, &mut encrypted_key).ok()?,
                24 => KwAes192::new_from_slice(&kek).ok()?.wrap_key(cek, &mut encrypted_key).ok()?,
                _ => KwAes256::new_from_slice(&kek).ok()?.wrap_key(cek, &mut encrypted_key).ok()?,
            };
            (json!({ "alg": algorithm.name(), "epk": Epk::of(&ephemeral.public()) }), encrypted_key)
        }
    };
    if let Some(kid) = recipient.kid() {
        header["kid"] = kid.into();
    }
    Some((header, encrypted_key))
}

fn unwrap(kek: &[u8], encrypted_key: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut key = Zeroizing::new(vec![0; encrypted_key.len().checked_sub(8)?]);
    match kek.len() {
        16 => KwAes128::new_from_slice(kek).ok()?.unwrap_key(encrypted_key, &mut key).ok()?,
        24 => KwAes192::new_from_slice(kek).ok()?.unwrap_key(encrypted_key, &mut key).ok()?,
        _ => KwAes256::new_from_slice(kek).ok()?.unwrap_key(encrypted_key, &mut key).ok()?,
    };
    Some(key)
}

/// Diffie-Hellman, then the Concat KDF with SHA-256 (RFC 7518 section 4.6.2): one round is enough for a
/// key of up to 32 bytes.
fn agree(
    key: &EcPrivate,
    peer: &EcPublic,
    algorithm: Algorithm,
    size: usize,
    (apu, apv): &(Vec<u8>, Vec<u8>),
) -> Option<Zeroizing<Vec<u8>>> {
    let mut hash = Sha256::new();
    hash.update(1u32.to_be_bytes());
    hash.update(&*key.agree(peer)?);
    for part in [algorithm.name().as_bytes(), apu, apv] {
        hash.update(u32::try_from(part.len()).ok()?.to_be_bytes());
        hash.update(part);
    }
    hash.update((size as u32 * 8).to_be_bytes());
    let mut kek = Zeroizing::new(hash.finalize().to_vec());
    kek.truncate(size);
    Some(kek)
}
