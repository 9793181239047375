//! The 32-byte key of one sealing. A new one is made each time; the broker releases it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// AES-256-GCM key of one sealed document.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SpecKey([u8; 32]);

/// Why bytes are not a spec key, or none could be made.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The length is wrong.
    #[error(
        "spec key: {0} bytes, 32 are needed; take the key that `sealpod seal` wrote beside the sealed pod"
    )]
    Length(usize),
    /// Not base64url without padding.
    #[error(
        "spec key: not base64url without padding; take the key that `sealpod seal` wrote beside the sealed pod"
    )]
    Base64,
    /// The system's random number generator failed.
    #[error("spec key: no random numbers from the system: {0}")]
    Random(#[from] getrandom::Error),
}

impl SpecKey {
    /// A fresh random key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self(*bytes))
    }

    /// From exactly 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        bytes.try_into().map(Self).map_err(|_| KeyError::Length(bytes.len()))
    }

    /// From base64url without padding.
    pub fn from_base64url(text: &str) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Base64)?);
        Self::from_bytes(&bytes)
    }

    /// Base64url without padding.
    pub fn to_base64url(&self) -> Zeroizing<String> {
        Zeroizing::new(URL_SAFE_NO_PAD.encode(self.0))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// SHA-256 of the key: what the owner's registration commits to.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl fmt::Debug for SpecKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpecKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let key = SpecKey::generate().unwrap();
        assert_eq!(SpecKey::from_base64url(&key.to_base64url()).unwrap(), key);
        assert!(matches!(SpecKey::from_bytes(&[0; 31]), Err(KeyError::Length(31))));
        assert!(matches!(SpecKey::from_base64url(&"A".repeat(42)), Err(KeyError::Length(31))));
        assert!(matches!(SpecKey::from_base64url("====="), Err(KeyError::Base64)));
        assert_eq!(format!("{key:?}"), "SpecKey(..)");
    }
}
