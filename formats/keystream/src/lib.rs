//! AES-256 in counter mode (NIST SP 800-38A section 6.5), the first counter block being the whole nonce: big-endian,
//! 128 bits. A crate of its own because this one loop is compiled for speed, and what uses it for size.

use std::fmt;

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};

/// The AES-CTR keystream of one layer. Encrypts and decrypts alike; authenticates nothing.
pub struct Keystream(Ctr128BE<Aes256>);

impl Keystream {
    /// The keystream from its beginning.
    #[must_use]
    pub fn new(key: &[u8; 32], nonce: &[u8; 16]) -> Self {
        Self(Ctr128BE::new(key.into(), nonce.into()))
    }

    /// Encrypts or decrypts the next bytes.
    #[inline(never)] // Else it is compiled as its caller is.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}

impl fmt::Debug for Keystream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keystream(…)")
    }
}
