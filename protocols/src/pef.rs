//! Power PEF in the key broker protocol, which has no name for it: tee `pef`. What the guest finds in its
//! ESM blob, and how it proves that it does.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::signing::{KeyError, PublicKey, SigningKey};

/// Name of the ESM blob's file that holds an [`EsmSecret`].
pub const ESM_FILE: &str = "sealpod";
/// Longest such file, in bytes.
pub const MAX_ESM_FILE: usize = 16 * 1024;
/// The only version of [`EsmSecret`].
pub const ESM_VERSION: u32 = 1;

/// What an owner puts into the ESM blob of one sealed pod. A blob's files are encrypted without anything
/// that ties them to their name or blob, so that is in here.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct EsmSecret {
    /// [`ESM_VERSION`].
    pub version: u32,
    /// [`ESM_FILE`]: the name under which it has to be found.
    pub name: String,
    /// Which blob: 32 hex digits.
    pub blob: String,
    /// `sha256:` digest of the initdata: what HOST_DATA is for SNP guests.
    pub init_data: String,
    /// `sha256:` digest of the one sealed spec that this guest may open.
    pub sealed_spec: String,
    /// Seed of the blob's Ed25519 key: standard base64 of 32 bytes.
    pub key: String,
}

impl fmt::Debug for EsmSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EsmSecret")
            .field("blob", &self.blob)
            .field("init_data", &self.init_data)
            .field("sealed_spec", &self.sealed_spec)
            .finish_non_exhaustive()
    }
}

/// `primary_evidence` of the TEE `pef`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PefEvidence {
    /// Which blob.
    pub blob: String,
    /// Standard base64 of the Ed25519 signature over [`signed_message`].
    pub signature: String,
}

impl EsmSecret {
    /// The blob's key.
    pub fn key(&self) -> Result<BlobKey, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        match STANDARD.decode_slice(&self.key, seed.as_mut()) {
            Ok(32) => Ok(BlobKey(SigningKey::from_seed(&seed))),
            _ => Err(KeyError::Seed),
        }
    }
}

/// The key of one blob: signs evidence, and nothing else. Zeroized on drop, silent in Debug.
#[derive(Debug)]
pub struct BlobKey(SigningKey);

impl BlobKey {
    /// A fresh key, and its seed as [`EsmSecret::key`] has it.
    pub fn generate() -> Result<(Self, Zeroizing<String>), KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(KeyError::Random)?;
        Ok((Self(SigningKey::from_seed(&seed)), Zeroizing::new(STANDARD.encode(seed.as_ref()))))
    }

    /// What the owner enrols.
    pub fn public(&self) -> PublicKey {
        self.0.public()
    }

    /// Evidence for a session, a sealed spec and this blob.
    pub fn evidence(&self, report_data: &[u8; 64], sealed_spec: &[u8; 32], blob: &str) -> PefEvidence {
        let signature = self.0.sign(&signed_message(report_data, sealed_spec, blob));
        PefEvidence { blob: blob.to_owned(), signature: STANDARD.encode(signature) }
    }
}

/// What the blob's key signs: a context, what evidence of the session must be bound to
/// ([`crate::rcar::report_data`]: nonce and ephemeral key), the sealed spec's SHA-256, the blob's id.
pub fn signed_message(report_data: &[u8; 64], sealed_spec: &[u8; 32], blob: &str) -> Vec<u8> {
    [b"sealpod-pef-v1".as_slice(), report_data, sealed_spec, blob.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_key_that_was_made_with_it() {
        let (key, seed) = BlobKey::generate().unwrap();
        let mut secret = EsmSecret {
            version: ESM_VERSION,
            name: ESM_FILE.into(),
            blob: "0".repeat(32),
            init_data: String::new(),
            sealed_spec: String::new(),
            key: seed.to_string(),
        };
        assert_eq!(secret.key().unwrap().public(), key.public());
        let evidence = key.evidence(&[1; 64], &[2; 32], &secret.blob);
        let signature: [u8; 64] = STANDARD.decode(&evidence.signature).unwrap().try_into().unwrap();
        let verifies = |message: &[u8]| key.public().verifies(message, &signature);
        assert!(verifies(&signed_message(&[1; 64], &[2; 32], &secret.blob)));
        assert!(!verifies(&signed_message(&[0; 64], &[2; 32], &secret.blob)));
        assert!(!verifies(&signed_message(&[1; 64], &[0; 32], &secret.blob)));
        assert!(!verifies(&signed_message(&[1; 64], &[2; 32], &"1".repeat(32))));
        assert!(!format!("{secret:?} {key:?}").contains(seed.as_str()));
        for bad in ["", "AAAA", &seed[1..], &format!("{}=", seed.as_str())] {
            secret.key = bad.to_owned();
            assert!(secret.key().is_err(), "{bad}");
        }
    }
}
