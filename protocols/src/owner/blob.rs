//! What owners say of their ESM blobs.

use serde::{Deserialize, Serialize};

use super::statement::{line, number};
use super::{OwnerPublicKey, Statement, StatementError};
use crate::name;

const MAX_MACHINES: usize = 64;
const MAX_PEM: usize = 2048;

/// A blob whose guests may prove themselves with its key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PefBlob {
    /// The owner.
    pub repository: String,
    /// Whose keys its guests may ask for.
    pub lineage: String,
    /// 32 lower-case hex digits, random.
    pub blob: String,
    /// Each statement about a blob has a higher one than the last: only `machines` may change.
    pub serial: u64,
    /// The public key of the seed in the blob.
    pub key: OwnerPublicKey,
    /// `sha256:` digest of the initdata in the blob.
    pub init_data: String,
    /// `sha256:` digest of the sealed spec in the blob.
    pub spec_digest: String,
    /// Public keys (PEM, SubjectPublicKeyInfo, as given to the blob) of the machines that can open it.
    pub machines: Vec<String>,
}

impl Statement for PefBlob {
    const TYPE: &str = "sealpod-pef-blob";

    fn repository(&self) -> &str {
        &self.repository
    }

    fn validate(&self) -> Result<(), StatementError> {
        line(&self.repository, &self.lineage)?;
        blob(&self.blob)?;
        number("serial", self.serial)?;
        name::digest(&self.init_data)?;
        name::digest(&self.spec_digest)?;
        let pem = |machine: &String| machine.len() <= MAX_PEM && machine.is_ascii();
        if self.machines.is_empty() || self.machines.len() > MAX_MACHINES || !self.machines.iter().all(pem) {
            return Err(StatementError::Value {
                field: "machines",
                problem: "must hold 1 to 64 PEM public keys of at most 2048 bytes",
            });
        }
        Ok(())
    }
}

/// The end of a blob: its guests get nothing any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobDenial {
    /// The owner.
    pub repository: String,
    /// The blob that ends.
    pub blob: String,
}

impl Statement for BlobDenial {
    const TYPE: &str = "sealpod-blob-denial";

    fn repository(&self) -> &str {
        &self.repository
    }

    fn validate(&self) -> Result<(), StatementError> {
        name::repository(&self.repository)?;
        blob(&self.blob)
    }
}

fn blob(id: &str) -> Result<(), StatementError> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if id.len() == 32 && id.bytes().all(hex) {
        return Ok(());
    }
    Err(StatementError::Value { field: "blob", problem: "must be 32 lower-case hex digits" })
}
