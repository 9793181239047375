//! Ed25519 keys of owners and of the broker's audit log: text and file forms, strict verification.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

/// Why a key can't be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The system's randomness failed.
    #[error("no randomness from the kernel")]
    Random(#[source] getrandom::Error),
    /// Reading or writing the file failed.
    #[error("key file {path}: {operation} failed")]
    File {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Group or others may read the file.
    #[error("key file {0} can be read by others; run 'chmod 600' on it and consider the key known")]
    Mode(PathBuf),
    /// The file isn't a key.
    #[error("key file {0} does not hold 32 bytes in base64url on one line")]
    Format(PathBuf),
    /// The seed isn't one.
    #[error("seed is not 32 bytes in standard base64")]
    Seed,
    /// A public key that isn't one, or is a weak point.
    #[error("public key is not 32 bytes in base64url (43 characters) of a valid Ed25519 point")]
    Public,
}

/// A private key. Zeroized on drop, silent in Debug.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

impl SigningKey {
    /// A fresh key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(KeyError::Random)?;
        Ok(Self { key: ed25519_dalek::SigningKey::from_bytes(&seed) })
    }

    /// The key of a seed.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: ed25519_dalek::SigningKey::from_bytes(seed) }
    }

    /// Reads a key file; refuses one that others can read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let failed = |operation| move |source| KeyError::File { path: path.to_owned(), operation, source };
        let file = File::open(path).map_err(failed("opening"))?;
        let mode = file.metadata().map_err(failed("checking"))?.mode();
        if mode & 0o077 != 0 {
            return Err(KeyError::Mode(path.to_owned()));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(128));
        file.take(128).read_to_end(&mut text).map_err(failed("reading"))?;
        let line = text.strip_suffix(b"\n").unwrap_or(&text);
        let mut seed = Zeroizing::new([0; 32]);
        match URL_SAFE_NO_PAD.decode_slice(line, seed.as_mut()) {
            Ok(32) => Ok(Self { key: ed25519_dalek::SigningKey::from_bytes(&seed) }),
            _ => Err(KeyError::Format(path.to_owned())),
        }
    }

    /// Writes a new key file, mode 0600. Never replaces one.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |operation| move |source| KeyError::File { path: path.to_owned(), operation, source };
        let mut text = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.key.as_bytes()));
        text.push('\n');
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed("creating"))?;
        file.write_all(text.as_bytes()).map_err(failed("writing"))?;
        file.sync_all().map_err(failed("syncing"))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey { key: self.key.verifying_key() }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

/// A public key; its text form is base64url of 32 bytes, 43 characters.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey {
    key: VerifyingKey,
}

impl PublicKey {
    /// The 32 bytes of the point.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        // Strict: no weak keys and no second encoding of a signature.
        self.key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.key.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        if text.len() != 43 || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(32) {
            return Err(KeyError::Public);
        }
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Public)?;
        if key.is_weak() { Err(KeyError::Public) } else { Ok(Self { key }) }
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn file_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        let key = SigningKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(SigningKey::load(&path).unwrap().public(), key.public());
        assert!(matches!(key.save(&path), Err(KeyError::File { operation: "creating", .. })));
        assert_eq!(format!("{key:?}"), "SigningKey(..)");
    }

    #[test]
    fn refuses_files_that_are_readable_or_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        SigningKey::generate().unwrap().save(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SigningKey::load(&path), Err(KeyError::Mode(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            good.repeat(2),
            good.trim_end()[1..].to_owned(),
            format!(" {good}"),
            "a".repeat(500),
        ] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(SigningKey::load(&path), Err(KeyError::Format(_))));
        }
    }

    #[test]
    fn public_text_is_exact() {
        let public = SigningKey::generate().unwrap().public();
        let text = public.to_string();
        assert_eq!(text.parse::<PublicKey>().unwrap(), public);
        // The neutral element verifies anything.
        let weak = URL_SAFE_NO_PAD.encode([[1u8].as_slice(), &[0; 31]].concat());
        for bad in [format!("{text}="), format!("{text}\n"), text[1..].to_owned(), weak, "!".repeat(43)] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }
}
