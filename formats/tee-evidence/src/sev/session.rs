//! The session that a guest owner opens with a platform: transport keys, wrapped for the platform. 128
//! bytes, AMD 55766 table 47.

use crate::reader::{ReadError, Reader};

/// A session blob. QEMU takes it as base64 in a file (`session-file`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionBlob {
    /// What the master secret is derived with.
    pub nonce: [u8; 16],
    /// TEK ‖ TIK under the key-encryption key.
    pub wrap_tk: [u8; 32],
    /// Initial counter of that.
    pub wrap_iv: [u8; 16],
    /// HMAC of `wrap_tk` under the key-integrity key.
    pub wrap_mac: [u8; 32],
    /// HMAC of the guest policy under TIK.
    pub policy_mac: [u8; 32],
}

impl SessionBlob {
    /// Bytes of a blob.
    pub const LEN: usize = 128;

    /// Reads exactly [`SessionBlob::LEN`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let blob = Self {
            nonce: reader.array()?,
            wrap_tk: reader.array()?,
            wrap_iv: reader.array()?,
            wrap_mac: reader.array()?,
            policy_mac: reader.array()?,
        };
        reader.finish()?;
        Ok(blob)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let parts = [&self.nonce[..], &self.wrap_tk, &self.wrap_iv, &self.wrap_mac, &self.policy_mac];
        out.copy_from_slice(&parts.concat());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_its_place() {
        let bytes: Vec<u8> = (0..128).collect();
        let blob = SessionBlob::parse(&bytes).unwrap();
        assert_eq!((blob.nonce[0], blob.wrap_tk[0], blob.wrap_iv[0]), (0, 16, 48));
        assert_eq!((blob.wrap_mac[0], blob.policy_mac[0]), (64, 96));
        assert_eq!(blob.to_bytes(), *bytes);
        assert!(SessionBlob::parse(&bytes[..127]).is_err());
        assert!(SessionBlob::parse(&[bytes, vec![0]].concat()).is_err());
    }
}
