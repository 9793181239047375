//! Power PEF in the key broker protocol, which has no name for it: tee `pef`. What the guest finds in its
//! ESM blob, and how it proves that it does.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

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

/// What the blob's key signs: a context, what evidence of the session must be bound to
/// ([`crate::rcar::report_data`]: nonce and ephemeral key), the sealed spec's SHA-256, the blob's id.
pub fn signed_message(report_data: &[u8; 64], sealed_spec: &[u8; 32], blob: &str) -> Vec<u8> {
    [b"sealpod-pef-v1".as_slice(), report_data, sealed_spec, blob.as_bytes()].concat()
}
