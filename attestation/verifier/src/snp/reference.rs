//! What a policy demands of SEV-SNP guests.

use std::collections::BTreeMap;

use tee_evidence::snp::{Line, Product, Tcb};

/// Reference values for SEV-SNP. `Default` is the strictest about the guest and asks nothing of the TCB.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnpReference {
    /// Lowest version of each component, for reported, committed and launch TCB, of every processor; counts
    /// only while `line_minima` is empty. `fmc` counts only where the product has one; without it, the
    /// product's FMC may have any version.
    pub minimum_tcb: Tcb,
    /// The same for one line of processors: their numbers have nothing to do with each other. A processor
    /// whose line isn't there is held to its product's first line; one whose product isn't there is refused.
    pub line_minima: BTreeMap<Line, Tcb>,
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
    /// Lines of processors that are not trusted any more.
    pub denied_lines: Vec<Line>,
    /// If not empty, the ID block must be signed by one of these keys.
    pub id_key_digests: Vec<[u8; 48]>,
    /// If not empty, one of these keys must have certified the one that signed the ID block.
    pub author_key_digests: Vec<[u8; 48]>,
    /// Lowest guest security version; counts only if the ID block is signed, so it needs
    /// [`SnpReference::id_key_digests`] or [`SnpReference::author_key_digests`].
    pub minimum_guest_svn: u32,
    /// The platform must have checked for aliased memory (BadRAM, CVE-2024-21944).
    pub require_alias_check: bool,
    /// Bits that launch and current mitigation vector must both have. If any, only reports of version 5 do.
    pub required_mitigations: u64,
    /// The guest's policy must keep it on one socket.
    pub require_single_socket: bool,
    /// The guest's policy must demand that the host can't see the ciphertext of its memory.
    pub require_ciphertext_hiding: bool,
    /// The guest's policy must demand that power readings are off.
    pub require_rapl_disabled: bool,
}

impl SnpReference {
    /// The minimum for a line of processors, and whose it is. `None` if there are minima, and none for this
    /// product: the numbers of one product say nothing about another.
    pub(crate) fn minimum(&self, line: Line) -> Option<(Tcb, &'static str)> {
        if self.line_minima.is_empty() {
            return Some((self.minimum_tcb, "all"));
        }
        let first = Line::of(line.product(), None);
        [line, first].into_iter().find_map(|line| Some((*self.line_minima.get(&line)?, line.name())))
    }
}
