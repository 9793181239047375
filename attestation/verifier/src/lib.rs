//! Evidence, collateral and now, to a verdict; a verdict and reference values, to a grant. Pure: no
//! clock, no network, no files, no environment.
//!
//! Each step is a type that only the step before can make, so a skipped check doesn't compile:
//! [`snp::Evidence`] → [`snp::SignatureChecked`] → [`snp::Appraised`] → [`Grant`].

mod denial;
mod grant;
mod reference;
pub mod snp;
mod verdict;

pub use denial::{Check, Denial};
pub use grant::Grant;
pub use reference::{LaunchDigest, ReferenceValues};
pub use verdict::{CheckRecord, Outcome, TcbVersions, TeeKind, Trust, Verdict};
