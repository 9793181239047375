//! Secrets at rest: AES-256-GCM under the master key, bound to the place they belong to.
//!
//! Whoever holds the database alone can't read a secret, move one to another key id or owner, or put
//! another public key in an owner's row.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use ring::hmac;
use zeroize::Zeroizing;

const NONCE: usize = 12;
const TAG: usize = 16;

/// Why a secret couldn't be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The master key doesn't have 32 bytes.
    #[error("the master key is not 32 bytes long")]
    Length,
    /// The system gave no randomness.
    #[error("the system's random number generator failed")]
    Random,
    /// The cipher refused.
    #[error("the secret can't be sealed")]
    Seal,
    /// Another master key, another place, or changed bytes.
    #[error("the stored secret doesn't open under this master key and in this place")]
    Open,
    /// The row's authentication tag doesn't match.
    #[error("the stored row was not written by this broker")]
    Tag,
}

/// What a sealed value belongs to; part of what its seal authenticates.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The owner's repository.
    pub owner: &'a str,
    /// The key id within it.
    pub key_id: &'a str,
}

impl Place<'_> {
    /// Lengths first, so that no two places have the same bytes.
    fn bytes(&self) -> Vec<u8> {
        encode("sealpod-broker secret v1", &[self.key_id, self.owner])
    }
}

fn encode(domain: &str, parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in std::iter::once(&domain).chain(parts) {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// The key that everything at rest is sealed under.
pub struct MasterKey {
    cipher: Aes256Gcm,
    rows: hmac::Key,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// Bytes of a master key.
    pub const LENGTH: usize = 32;

    /// Takes the key's bytes.
    ///
    /// # Errors
    /// [`SecretError::Length`].
    pub fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        if bytes.len() != Self::LENGTH {
            return Err(SecretError::Length);
        }
        let cipher = Aes256Gcm::new_from_slice(bytes).map_err(|_| SecretError::Length)?;
        let derive = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let rows = hmac::sign(&derive, b"sealpod-broker rows v1");
        Ok(Self { cipher, rows: hmac::Key::new(hmac::HMAC_SHA256, rows.as_ref()) })
    }

    /// Seals `secret` for `place`: nonce, ciphertext, tag.
    ///
    /// # Errors
    /// [`SecretError::Random`] or [`SecretError::Seal`].
    pub fn seal(&self, place: Place<'_>, secret: &[u8]) -> Result<Vec<u8>, SecretError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SecretError::Random)?;
        let payload = Payload { msg: secret, aad: &place.bytes() };
        let sealed = self.cipher.encrypt(&Nonce::from(nonce), payload).map_err(|_| SecretError::Seal)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`MasterKey::seal`] made for the same `place`.
    ///
    /// # Errors
    /// [`SecretError::Open`].
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(SecretError::Open)?;
        if sealed.len() < TAG {
            return Err(SecretError::Open);
        }
        let payload = Payload { msg: sealed, aad: &place.bytes() };
        self.cipher.decrypt(&Nonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| SecretError::Open)
    }

    /// An authentication tag over a row's values.
    #[must_use]
    pub fn tag(&self, table: &str, values: &[&str]) -> Vec<u8> {
        hmac::sign(&self.rows, &encode(table, values)).as_ref().to_vec()
    }

    /// Checks a row's tag, in constant time.
    ///
    /// # Errors
    /// [`SecretError::Tag`].
    pub fn check_tag(&self, table: &str, values: &[&str], tag: &[u8]) -> Result<(), SecretError> {
        hmac::verify(&self.rows, &encode(table, values), tag).map_err(|_| SecretError::Tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { owner: "shop", key_id: "kbs:///shop/sealed-spec/web.r1.00000000" };

    fn key(byte: u8) -> MasterKey {
        MasterKey::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn opens_what_it_sealed() {
        let sealed = key(1).seal(PLACE, b"secret").unwrap();
        assert_eq!(*key(1).open(PLACE, &sealed).unwrap(), b"secret");
        assert_ne!(sealed, key(1).seal(PLACE, b"secret").unwrap(), "a nonce was used twice");
    }

    #[test]
    fn another_master_key_opens_nothing() {
        let sealed = key(1).seal(PLACE, b"secret").unwrap();
        assert_eq!(key(2).open(PLACE, &sealed).unwrap_err(), SecretError::Open);
    }

    #[test]
    fn another_owner_opens_nothing() {
        let sealed = key(1).seal(PLACE, b"secret").unwrap();
        assert_eq!(key(1).open(Place { owner: "other", ..PLACE }, &sealed).unwrap_err(), SecretError::Open);
    }

    #[test]
    fn another_key_id_opens_nothing() {
        let sealed = key(1).seal(PLACE, b"secret").unwrap();
        assert_eq!(key(1).open(Place { key_id: "x", ..PLACE }, &sealed).unwrap_err(), SecretError::Open);
    }

    #[test]
    fn each_changed_byte_and_each_cut_is_refused() {
        let sealed = key(1).seal(PLACE, b"secret").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key(1).open(PLACE, &changed).unwrap_err(), SecretError::Open);
            assert_eq!(key(1).open(PLACE, &sealed[..at]).unwrap_err(), SecretError::Open);
        }
    }

    #[test]
    fn a_tag_is_for_one_row() {
        let tag = key(1).tag("owners", &["shop", "key"]);
        assert!(key(1).check_tag("owners", &["shop", "key"], &tag).is_ok());
        for (table, values) in
            [("owners", ["sho", "pkey"]), ("owners", ["shop", "kez"]), ("policies", ["shop", "key"])]
        {
            assert_eq!(key(1).check_tag(table, &values, &tag), Err(SecretError::Tag));
        }
        assert!(key(2).check_tag("owners", &["shop", "key"], &tag).is_err());
    }

    #[test]
    fn debug_prints_nothing() {
        assert_eq!(format!("{:?}", key(7)), "MasterKey(…)");
    }
}
