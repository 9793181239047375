//! What makes a decrypted layer fit to be used: its HMAC and its private digest both passed.
//!
//! Bytes leave the keystream before anybody knows whether they are the owner's. They go to a stage, and only the value
//! that both checks make together, [`Authenticated`], gets them out of it: no check, no value, no layer.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::cipher::{CipherError, Keystream, Mac};
use crate::options::{PrivateOptions, PublicOptions};

/// The checks and the keystream of one layer, apart, each for a thread of its own: the first takes the encrypted bytes,
/// the last the decrypted ones. [`Authenticated::join`] takes their results.
#[must_use]
pub fn split(private: &PrivateOptions, public: &PublicOptions) -> (MacCheck, Keystream, DigestCheck) {
    let layer = LayerId { hmac: public.hmac, digest: *private.digest() };
    (
        MacCheck { mac: Mac::new(private.key()), seen: Seen { layer, length: 0 } },
        Keystream::new(private.key(), private.nonce()),
        DigestCheck { digest: Sha256::new(), seen: Seen { layer, length: 0 } },
    )
}

/// Checks the HMAC over the encrypted bytes.
pub struct MacCheck {
    mac: Mac,
    seen: Seen,
}

/// Checks the private digest over the decrypted bytes.
pub struct DigestCheck {
    digest: Sha256,
    seen: Seen,
}

/// The HMAC is the layer's.
#[derive(Debug)]
pub struct MacPassed(Seen);

/// The plain bytes are the layer's.
#[derive(Debug)]
pub struct DigestPassed(Seen);

/// Proof that a whole decrypted layer is the one that was encrypted. Nothing but [`Authenticated::join`] and
/// [`crate::Decryptor::finish`] makes one.
#[derive(Debug)]
pub struct Authenticated(Seen);

/// A place where a decrypted layer waits: a temporary file, a directory that is being unpacked into. It comes out only
/// for the proof of its own layer; dropped otherwise, so `T` removes itself on drop.
#[derive(Debug)]
pub struct Staged<T> {
    stage: T,
    digest: [u8; 32],
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct LayerId {
    hmac: [u8; 32],
    digest: [u8; 32],
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    layer: LayerId,
    length: u64,
}

impl MacCheck {
    /// Takes the next encrypted bytes in.
    pub fn update(&mut self, encrypted: &[u8]) {
        self.seen.add(encrypted);
        self.mac.update(encrypted);
    }

    /// Compares, in constant time.
    ///
    /// # Errors
    /// [`CipherError::Hmac`].
    pub fn finish(self) -> Result<MacPassed, CipherError> {
        let fits = self.mac.finish().ct_eq(&self.seen.layer.hmac);
        if fits.into() { Ok(MacPassed(self.seen)) } else { Err(CipherError::Hmac) }
    }
}

impl DigestCheck {
    /// Takes the next decrypted bytes in.
    pub fn update(&mut self, plain: &[u8]) {
        self.seen.add(plain);
        self.digest.update(plain);
    }

    /// Compares.
    ///
    /// # Errors
    /// [`CipherError::Digest`].
    pub fn finish(self) -> Result<DigestPassed, CipherError> {
        let fits = self.digest.finalize().as_slice().ct_eq(&self.seen.layer.digest);
        if fits.into() { Ok(DigestPassed(self.seen)) } else { Err(CipherError::Digest) }
    }
}

impl Authenticated {
    /// Both checks of one layer, over the same number of bytes.
    ///
    /// # Errors
    /// [`CipherError::Mixed`]: the checks were of different layers, or one of them missed bytes.
    #[expect(clippy::needless_pass_by_value, reason = "a passed check counts once")]
    pub fn join(mac: MacPassed, digest: DigestPassed) -> Result<Self, CipherError> {
        if mac.0 == digest.0 { Ok(Self(mac.0)) } else { Err(CipherError::Mixed) }
    }

    /// SHA-256 of the plain blob: the digest of the decrypted layer's descriptor.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.0.layer.digest
    }

    /// Length of the blob in bytes, encrypted and plain alike.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.0.length
    }
}

impl<T> Staged<T> {
    /// A stage for the layer with these options.
    pub const fn new(stage: T, private: &PrivateOptions) -> Self {
        Self { stage, digest: *private.digest() }
    }

    /// The stage, to write to. What it holds is nobody's yet.
    pub const fn unauthenticated(&mut self) -> &mut T {
        &mut self.stage
    }

    /// The stage, for good.
    ///
    /// # Errors
    /// [`CipherError::Mixed`]: the proof is another layer's. The stage is dropped.
    pub fn publish(self, proof: &Authenticated) -> Result<T, CipherError> {
        if self.digest == *proof.digest() { Ok(self.stage) } else { Err(CipherError::Mixed) }
    }
}

impl Seen {
    const fn add(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.length)
    }
}

impl fmt::Debug for MacCheck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MacCheck({:?})", self.seen)
    }
}

impl fmt::Debug for DigestCheck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DigestCheck({:?})", self.seen)
    }
}

#[cfg(test)]
#[path = "authenticate_tests.rs"]
mod tests;
