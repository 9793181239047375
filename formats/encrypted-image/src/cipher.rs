//! `AES_256_CTR_HMAC_SHA256`: AES-256 in counter mode, the private nonce being the whole first counter block (big-endian,
//! 128 bits), and HMAC-SHA256 with the same key over the ciphertext.
//!
//! [`Encryptor`] and [`Decryptor`] work in place, in chunks of any size. [`Keystream`] and [`Mac`] are their parts, for
//! pipelines that run them on different threads; [`crate::authenticate`] brings those together again.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
pub use keystream::Keystream;
use sha2::Sha256;

use crate::authenticate::{Authenticated, DigestCheck, MacCheck, split};
use crate::options::{PrivateOptions, PublicOptions};

/// Why a decrypted layer is refused. None of the texts holds an HMAC or a digest: the right ones would help a forger.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CipherError {
    /// The HMAC over the ciphertext isn't the public one.
    #[error("layer refused: its hmac does not fit, so the encrypted bytes or the annotation were changed")]
    Hmac,
    /// The plain blob isn't the one that the private options name.
    #[error(
        "layer refused: what it decrypts to does not have the private digest, so nonce or key are another layer's"
    )]
    Digest,
    /// Results of checks of different layers, or over different lengths.
    #[error("layer refused: hmac and digest were checked over different layers")]
    Mixed,
}

/// HMAC-SHA256 over the ciphertext of one layer.
#[derive(Clone)]
pub struct Mac(Hmac<Sha256>);

/// Encrypts a layer in place.
pub struct Encryptor {
    keystream: Keystream,
    mac: Mac,
}

/// Decrypts a layer in place. Until [`Decryptor::finish`] says otherwise, what comes out may be anybody's.
pub struct Decryptor {
    mac: MacCheck,
    keystream: Keystream,
    digest: DigestCheck,
}

impl Mac {
    /// Over nothing yet.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let mut block = [0; 64];
        block[..32].copy_from_slice(key);
        let mac = Self(Hmac::new(&block.into()));
        zeroize::Zeroize::zeroize(&mut block);
        mac
    }

    /// Takes the next encrypted bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The HMAC: of a layer that was encrypted here.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }
}

impl Encryptor {
    /// For one layer: a pair of key and nonce is never used twice.
    #[must_use]
    pub fn new(key: &[u8; 32], nonce: &[u8; 16]) -> Self {
        Self { keystream: Keystream::new(key, nonce), mac: Mac::new(key) }
    }

    /// Encrypts the next bytes in place.
    pub fn update(&mut self, bytes: &mut [u8]) {
        self.keystream.apply(bytes);
        self.mac.update(bytes);
    }

    /// The HMAC for the public options.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.mac.finish()
    }
}

impl Decryptor {
    /// For the layer that has these options.
    #[must_use]
    pub fn new(private: &PrivateOptions, public: &PublicOptions) -> Self {
        let (mac, keystream, digest) = split(private, public);
        Self { mac, keystream, digest }
    }

    /// Decrypts the next bytes in place.
    pub fn update(&mut self, bytes: &mut [u8]) {
        self.mac.update(bytes);
        self.keystream.apply(bytes);
        self.digest.update(bytes);
    }

    /// Whether all that came out is the layer that was encrypted.
    ///
    /// # Errors
    /// The HMAC or the private digest doesn't fit: throw what came out away.
    pub fn finish(self) -> Result<Authenticated, CipherError> {
        Authenticated::join(self.mac.finish()?, self.digest.finish()?)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Mac(…)")
    }
}

#[cfg(test)]
#[path = "cipher_tests.rs"]
mod tests;
