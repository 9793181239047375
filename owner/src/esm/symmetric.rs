//! A blob's symmetric key: AES-256-GCM with initialisation vectors of 16 bytes and without additional data, as the
//! ultravisor opens them.

use aes_gcm::aead::Aead as _;
use aes_gcm::aead::consts::U16;
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, KeyInit as _};
use anyhow::{Context as _, Result};
use tee_evidence::pef::{IV, MAC, Sealed};
use zeroize::Zeroizing;

type Gcm = AesGcm<Aes256, U16>;

/// The key. Wiped on drop.
pub(crate) struct SymmetricKey(Zeroizing<[u8; 32]>);

impl SymmetricKey {
    pub(crate) fn generate() -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut()).context("no randomness from the kernel")?;
        Ok(Self(key))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        (bytes.len() == key.len()).then(|| key.copy_from_slice(bytes)).map(|()| Self(key))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// Encrypts a file, or the digests.
    pub(crate) fn seal(&self, plaintext: &[u8]) -> Result<Sealed> {
        let mut iv = [0; IV];
        getrandom::fill(&mut iv).context("no randomness from the kernel")?;
        let sealed = Gcm::new(&(*self.0).into()).encrypt(&iv.into(), plaintext);
        let mut ciphertext = sealed.ok().context("a file of the blob can't be encrypted")?;
        let tag = ciphertext.split_off(ciphertext.len() - MAC);
        let mac = tag.try_into().ok().context("a file of the blob can't be encrypted")?;
        Ok(Sealed { comment: String::new(), iv, mac, ciphertext })
    }

    /// Decrypts one.
    pub(crate) fn open(&self, sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let whole = [sealed.ciphertext.as_slice(), &sealed.mac].concat();
        Gcm::new(&(*self.0).into()).decrypt(&sealed.iv.into(), whole.as_slice()).ok().map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_that_key_alone_and_unchanged_alone() {
        let (key, other) = (SymmetricKey::generate().unwrap(), SymmetricKey::generate().unwrap());
        let sealed = key.seal(b"secret").unwrap();
        assert_eq!(key.open(&sealed).unwrap().as_slice(), b"secret");
        assert!(other.open(&sealed).is_none());
        let changed = Sealed { iv: [0; IV], ..sealed.clone() };
        assert!(key.open(&changed).is_none());
        let mut changed = sealed.clone();
        changed.ciphertext[0] ^= 1;
        assert!(key.open(&changed).is_none());
        assert_ne!(key.seal(b"secret").unwrap().iv, sealed.iv);
        assert!(SymmetricKey::from_bytes(&[0; 31]).is_none());
    }
}
