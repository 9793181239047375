//! Power PEF: a guest holds the key from an ESM blob, which only a machine that the owner authorised can open,
//! and only for the kernel, initrd and command line whose digests are in the blob. There is no quote: every
//! verdict says what nobody checked. The way: [`Evidence`] → [`SignatureChecked`] → [`crate::Appraised`].

mod evidence;
mod machine;

use serde::Serialize;

pub use evidence::{Enrolment, Evidence, Session, SignatureChecked};
pub use machine::{Anchors, MachineError, MachineKey};

use crate::verdict::hex_string;

/// What is known of a PEF guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PefClaims {
    /// The owner who enrolled the blob.
    pub repository: String,
    /// Whose guests the blob is for.
    pub lineage: String,
    /// The ESM blob that the guest's key is from.
    pub blob: String,
    /// SHA-256 of the sealed spec that the blob is for.
    #[serde(serialize_with = "hex_string")]
    pub sealed_spec: [u8; 32],
    /// Fingerprints of the machines that can open the blob; the guest runs on one of them.
    #[serde(serialize_with = "hex_strings")]
    pub machines: Vec<[u8; 32]>,
}

/// What a policy demands of PEF guests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PefReference {
    /// The owner whose key it is: nobody else's enrolment counts.
    pub repository: String,
    /// The key's lineage.
    pub lineage: String,
    /// If not empty, no other machine may be able to open the blob.
    pub machines: Vec<[u8; 32]>,
    /// The key is released a limited number of times.
    pub limited_releases: bool,
    /// Release such keys as well, though guests of one blob can't be told apart.
    pub allow_limited_releases: bool,
}

fn hex_strings<S: serde::Serializer>(digests: &[[u8; 32]], s: S) -> Result<S::Ok, S::Error> {
    s.collect_seq(digests.iter().map(hex::encode))
}

#[cfg(test)]
mod tests;
