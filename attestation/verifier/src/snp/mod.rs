//! SEV-SNP: AMD 56860 (report), AMD 57230 (VCEK certificate and key distribution). The order of checks:
//! layout, key info, product, chain, revocation, signature, endorsement, binding, then the policy's.

mod anchors;
mod appraisal;
mod certificate;
mod claims;
mod crl;
mod endorsement;
mod evidence;
mod memo;
pub mod minima;
pub mod pile;
mod reference;

pub use anchors::{AnchorError, Anchors, EMULATED_OID};
pub use appraisal::Session;
pub use claims::{PlatformBits, PolicyBits, SnpClaims, TcbVersions};
pub use evidence::{Evidence, Revocation, SignatureChecked};
pub use reference::SnpReference;
/// Callers speak of evidence in the verifier's terms alone.
pub use tee_evidence::snp::Tcb;
pub use tee_evidence::snp::json::{KbsEvidence, from_kbs};

#[cfg(test)]
mod tests;
