//! What a policy demands of SEV-SNP guests.

use tee_evidence::snp::{Product, Tcb};

/// Reference values for SEV-SNP. `Default` is the strictest about the guest and asks nothing of the TCB.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnpReference {
    /// Lowest version of each component, for reported, committed and launch TCB. `fmc` counts only where
    /// the product has one; without it, the product's FMC may have any version.
    pub minimum_tcb: Tcb,
    /// Allow guests whose memory the host may debug.
    pub allow_debug: bool,
    /// Allow guests that a migration agent may export.
    pub allow_migrate_ma: bool,
    /// Allow guests that may run where SMT is on.
    pub allow_smt: bool,
    /// The privilege level that the agent runs at.
    pub vmpl: u32,
    /// Cloud providers whose VLEKs are allowed. None: VCEKs only.
    pub vlek_csp_ids: Vec<String>,
    /// Chips that are not trusted any more.
    pub denied_chips: Vec<[u8; 64]>,
    /// Products that are not trusted any more.
    pub denied_products: Vec<Product>,
    /// If not empty, the ID block must be signed by one of these keys.
    pub id_key_digests: Vec<[u8; 48]>,
    /// If not empty, one of these keys must have certified the one that signed the ID block.
    pub author_key_digests: Vec<[u8; 48]>,
    /// Lowest guest security version; counts only if the ID block is signed, so it needs
    /// [`SnpReference::id_key_digests`] or [`SnpReference::author_key_digests`].
    pub minimum_guest_svn: u32,
    /// The platform must have checked for aliased memory (BadRAM, CVE-2024-21944).
    pub require_alias_check: bool,
}
