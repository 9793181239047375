//! The passes that know nothing of encryption.

use std::io;

use sha2::{Digest as _, Sha256};

use super::{Pass, PassError};
use crate::document::Digest;

/// SHA-256 of what passes.
pub(crate) struct Hash(Sha256);

impl Hash {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Of all that passed.
    pub(crate) fn digest(self) -> Digest {
        Digest::from(<[u8; 32]>::from(self.0.finalize()))
    }
}

impl Pass for Hash {
    fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), PassError> {
        self.0.update(bytes);
        Ok(())
    }
}

/// Writes what passes.
pub(crate) struct Write<W>(W);

impl<W: io::Write> Write<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self(writer)
    }
}

impl<W: io::Write + Send> Pass for Write<W> {
    fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), PassError> {
        self.0.write_all(bytes).map_err(PassError::Write)
    }

    fn end(&mut self) -> Result<(), PassError> {
        self.0.flush().map_err(PassError::Write)
    }
}
