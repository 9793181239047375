//! SEV and SEV-ES, where the guest owner attests the launch and not the guest itself: a session with the
//! platform's key, the platform's authentication code over the launch, and only then a secret. AMD 55766 "SEV API".
//!
//! [`Platform`] → [`ChainChecked`] → [`Session`] → [`Measured`] → [`Appraised`](crate::Appraised) →
//! [`Grant`](crate::Grant) → [`LaunchSecret`]; a guest that was given a connection key then proves itself with it:
//! [`Launched`] → [`Appraised`](crate::Appraised).
//!
//! Weaker than SEV-SNP whatever is checked here: the host can replay, remap and corrupt the guest's memory
//! (CVE-2021-26311, CVE-2020-12967), and without ES it reads and writes the guest's registers.

mod anchors;
mod chain;
mod claims;
mod crypto;
mod curve;
mod launched;
mod measure;
mod secret;
mod session;
mod stored;

pub use anchors::{AnchorError, Anchors, EMULATED_KEY_ID};
pub use chain::{ChainChecked, Collateral, Platform};
pub use claims::{SevClaims, SevPolicyBits, SevProduct, SevReference, weaknesses};
pub use crypto::{NoRandomness, Randomness};
pub use launched::{ConnectionSession, Launched};
pub use measure::{Launch, Measured};
pub use secret::{LaunchSecret, SecretError};
pub use session::{LaunchFiles, Session, SessionError};
pub use stored::StoredError;

pub use tee_evidence::guid::Guid;
pub use tee_evidence::sev::{FirmwareApi, Measurement, Policy, SecretEntry};

/// The checks of a platform's certificates.
pub(crate) const CHAIN: &[&str] = &["certificates", "curve_points", "cek", "certificate_chain"];
/// The checks of a measurement.
pub(crate) const MEASURE: &[&str] = &["launch_policy", "launch_measure"];
/// The checks of a guest that comes back with its connection key.
pub(crate) const CONNECT: &[&str] = &["connection", "sealed_spec", "host_data"];

/// The guest policy that sessions are made with: nothing that a host could use against the guest is allowed.
pub const STRICT: u32 = Policy::NODBG | Policy::NOKS | Policy::NOSEND | Policy::DOMAIN | Policy::SEV;

#[cfg(test)]
mod tests;
