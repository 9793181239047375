//! The key of one volume: random, handed to dm-crypt by name, revoked as soon as dm-crypt has it.

use std::ffi::CString;
use std::io;

use zeroize::Zeroizing;

use crate::error::{Result, ScratchError};
use crate::sys;

/// AES-256 twice for XTS, then HMAC-SHA-256's.
pub(crate) const KEY_BYTES: usize = 64 + 32;

/// A key that the calling thread's keyring holds; dropping it revokes it.
pub(crate) struct VolumeKey {
    id: i32,
    description: String,
}

impl VolumeKey {
    /// A new one. dm-crypt looks it up for the thread that loads the table, so that must be this one.
    pub(crate) fn generate(volume: &str) -> Result<VolumeKey> {
        let failed = |step| move |source| ScratchError::Key { volume: volume.to_owned(), step, source };
        let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
        getrandom::fill(bytes.as_mut_slice())
            .map_err(|error| failed("draw a key")(io::Error::from(error)))?;
        // logon keys need a prefix before a colon.
        let description = format!("sealpod:{volume}");
        let name = CString::new(description.as_str())
            .map_err(|_| failed("name its key")(io::ErrorKind::InvalidInput.into()))?;
        let id = sys::add_logon_key(&name, bytes.as_slice()).map_err(failed("give the kernel its key"))?;
        Ok(VolumeKey { id, description })
    }

    /// As dm-crypt's table names it.
    pub(crate) fn table_name(&self) -> String {
        format!(":{KEY_BYTES}:logon:{}", self.description)
    }
}

impl Drop for VolumeKey {
    fn drop(&mut self) {
        // It ends with the thread's keyring in any case.
        let _ = sys::revoke_key(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_gone_when_it_is_dropped_and_its_name_tells_nothing() {
        let Ok(key) = VolumeKey::generate("v") else {
            eprintln!("skipped: this machine's kernel takes no keys");
            return;
        };
        assert_eq!(key.table_name(), ":96:logon:sealpod:v");
        let id = key.id;
        drop(key);
        assert!(sys::revoke_key(id).is_err());
    }
}
