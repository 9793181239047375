//! The owner's own RSA key, which opens the origin lockbox of every blob made here: so that machines can be added
//! later. Never needed where a blob is used.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use getrandom::SysRng;
use rsa::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use rsa::rand_core::UnwrapErr;
use rsa::{Oaep, RsaPrivateKey};
use sha2::Sha256;
use tee_evidence::pef::{EsmBlob, Place};
use zeroize::Zeroizing;

use super::{Machine, SymmetricKey};
use crate::files::{self, Access};

const BITS: usize = 2048;
const LIMIT: usize = 16 * 1024;

/// The owner's key.
pub(crate) struct Origin {
    key: RsaPrivateKey,
    machine: Machine,
}

impl Origin {
    /// Reads the key at `path`.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let mode = std::fs::metadata(path).with_context(|| format!("origin key {shown}"))?.mode();
        ensure!(mode & 0o077 == 0, "origin key {shown} can be read by others; run 'chmod 600' on it");
        let pem = files::read_text(path, LIMIT)?;
        // The error must not quote the file.
        let Ok(key) = RsaPrivateKey::from_pkcs8_pem(&pem) else {
            bail!("origin key {shown} is not an RSA key in PKCS#8 PEM without a passphrase");
        };
        Self::new(key).with_context(|| format!("origin key {shown}"))
    }

    /// The key at `path`, made there if there is none.
    pub(crate) fn load_or_make(path: &Path) -> Result<Self> {
        if path.exists() {
            return Self::load(path);
        }
        let key = RsaPrivateKey::new(&mut UnwrapErr(SysRng), BITS).context("an RSA key can't be made")?;
        let pem = key.to_pkcs8_pem(LineEnding::LF).context("an RSA key can't be written")?;
        files::create(path, pem.as_bytes(), Access::Secret)?;
        Self::new(key)
    }

    fn new(key: RsaPrivateKey) -> Result<Self> {
        let pem = key.to_public_key().to_public_key_pem(LineEnding::LF).context("it has no public half")?;
        Ok(Self { key, machine: Machine::parse(pem, "owner".into())? })
    }

    /// As a lockbox's holder.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Opens the origin lockbox.
    pub(crate) fn open(&self, blob: &EsmBlob) -> Result<SymmetricKey> {
        let own =
            blob.lockbox(self.machine.key.fingerprint()).filter(|lockbox| lockbox.place == Place::Origin);
        let lockbox =
            own.context("this origin key did not make the blob; name the one that did with --origin")?;
        let opened =
            self.key.decrypt_blinded(&mut UnwrapErr(SysRng), Oaep::<Sha256>::new(), &lockbox.encrypted_key);
        let opened =
            Zeroizing::new(opened.ok().context("the origin lockbox does not open: the blob was changed")?);
        SymmetricKey::from_bytes(&opened).context("the origin lockbox holds no AES-256 key")
    }
}
