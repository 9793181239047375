//! A machine, by the PEM file of its TPM's public key.

use std::path::Path;

use anyhow::{Context as _, Result};
use getrandom::SysRng;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::rand_core::UnwrapErr;
use rsa::{Oaep, RsaPublicKey};
use sha2::Sha256;
use tee_evidence::pef::{Lockbox, Place, SYMKEY_CIPHERTEXT};
use verifier::pef::MachineKey;

use super::SymmetricKey;
use crate::files;

const LIMIT: usize = 4096;
/// Anybody can read and change a comment; a file's name is enough.
const COMMENT: usize = 64;

/// A machine that may open a blob.
pub(crate) struct Machine {
    pub(crate) pem: String,
    pub(crate) key: MachineKey,
    comment: String,
    public: RsaPublicKey,
}

impl Machine {
    /// Reads a key file, in the form that fingerprints are made of.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let pem = files::read_text(path, LIMIT)?.to_string();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let comment = stem.chars().filter(|c| (' '..='~').contains(c)).take(COMMENT).collect();
        Self::parse(pem, comment).with_context(|| format!("machine key {name}"))
    }

    pub(crate) fn parse(pem: String, comment: String) -> Result<Self> {
        let key = MachineKey::from_pem(&pem)?;
        let public = RsaPublicKey::from_public_key_pem(&pem).context("not an RSA public key")?;
        Ok(Self { pem, key, comment, public })
    }

    /// The symmetric key for this machine.
    pub(crate) fn lockbox(&self, place: Place, key: &SymmetricKey) -> Result<Lockbox> {
        // The system's own generator, which ends the program when it can't give any.
        let mut random = UnwrapErr(SysRng);
        let sealed = self.public.encrypt(&mut random, Oaep::<Sha256>::new(), key.bytes());
        let sealed = sealed.context("the blob's key can't be encrypted for the machine")?;
        let encrypted_key: [u8; SYMKEY_CIPHERTEXT] =
            sealed.try_into().ok().context("the machine's key is not RSA-2048")?;
        Ok(Lockbox {
            place,
            comment: self.comment.clone(),
            encrypted_key,
            fingerprint: *self.key.fingerprint(),
        })
    }
}
