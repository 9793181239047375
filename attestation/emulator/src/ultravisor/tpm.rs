//! The key of a machine's TPM, in software.

use getrandom::SysRng;
use rsa::pkcs8::{self, DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::rand_core::UnwrapErr;
use rsa::{BoxedUint, Oaep, RsaPrivateKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The public exponent. TPMs have 65537.
pub const EXPONENT: u64 = 257;
const BITS: usize = 2048;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// It can't be made.
    #[error("generating the TPM's key: {0}")]
    Generate(#[source] rsa::Error),
    /// It can't be read.
    #[error("the TPM's key is not a PKCS#8 RSA key: {0}")]
    Pkcs8(#[source] pkcs8::Error),
    /// It can't be written.
    #[error("writing the TPM's key: {0}")]
    Spki(#[source] pkcs8::spki::Error),
}

/// A machine's RSA key.
pub struct TpmKey {
    key: RsaPrivateKey,
    public: String,
}

impl std::fmt::Debug for TpmKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "TpmKey({})", hex::encode(self.fingerprint()))
    }
}

impl TpmKey {
    /// A new key.
    pub fn generate() -> Result<Self, TpmError> {
        let exponent = BoxedUint::from(EXPONENT);
        let key = RsaPrivateKey::new_with_exp(&mut UnwrapErr(SysRng), BITS, exponent)
            .map_err(TpmError::Generate)?;
        Self::new(key)
    }

    fn new(key: RsaPrivateKey) -> Result<Self, TpmError> {
        let public = key.to_public_key().to_public_key_pem(LineEnding::LF).map_err(TpmError::Spki)?;
        Ok(Self { key, public })
    }

    /// A stored key.
    pub fn from_pem(pem: &str) -> Result<Self, TpmError> {
        Self::new(RsaPrivateKey::from_pkcs8_pem(pem).map_err(TpmError::Pkcs8)?)
    }

    /// The key as PKCS#8 PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, TpmError> {
        self.key.to_pkcs8_pem(LineEnding::LF).map_err(TpmError::Pkcs8)
    }

    /// The public half, as blobs are made for it: PEM with a line end at its end.
    pub fn public_pem(&self) -> &str {
        &self.public
    }

    /// SHA-256 of [`TpmKey::public_pem`], by which lockboxes are found.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.public).into()
    }

    /// RSA-OAEP with SHA-256.
    pub(super) fn unwrap(&self, wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.key.decrypt(Oaep::<Sha256>::new(), wrapped).ok().map(Zeroizing::new)
    }
}
