//! What the relying party allows. The default allows nothing.

use crate::{PefReference, SevReference, SnpReference, TeeKind};

/// An allowed launch digest and what its owner calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchDigest {
    /// For audit records.
    pub name: String,
    /// All bytes: 48 for SEV-SNP, 32 for SEV and SEV-ES. One of another length matches nothing.
    pub digest: Vec<u8>,
}

/// Reference values of a release policy. `Default` allows nothing, so what is not said is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReferenceValues {
    /// Kinds of TEE. Emulated evidence matches the `-emulated` kinds only.
    pub tee: Vec<TeeKind>,
    /// Guest images. None: nothing is released.
    pub launch_digests: Vec<LaunchDigest>,
    /// What SEV-SNP guests must show; without it none is granted.
    pub snp: Option<SnpReference>,
    /// What SEV and SEV-ES guests must show; without it none is granted.
    pub sev: Option<SevReference>,
    /// What PEF guests must show; without it none is granted.
    pub pef: Option<PefReference>,
}
