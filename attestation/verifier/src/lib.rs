//! Evidence, collateral and now, to a verdict; a verdict and reference values, to a grant. Pure: no
//! clock, no network, no files, no environment.
//!
//! Each step is a type that only the step before can make, so a skipped check doesn't compile:
//! for SNP, [`snp::Evidence`] → [`snp::SignatureChecked`] → [`Appraised`] → [`Grant`]; the other TEEs have
//! first steps of their own and end in the same two types.

mod appraised;
mod checks;
mod denial;
mod grant;
pub mod passport;
pub mod pef;
mod reference;
pub mod sample;
pub mod sev;
pub mod snp;
mod verdict;

pub use appraised::{Appraised, Inspected};
pub use checks::{CheckRecord, Outcome};
pub use denial::{Check, Denial};
pub use grant::Grant;
pub use pef::{PefClaims, PefReference};
pub use reference::{LaunchDigest, ReferenceValues};
pub use sample::SampleClaims;
pub use sev::{SevClaims, SevReference};
pub use snp::{SnpClaims, SnpReference};
pub use verdict::{Claims, TeeKind, Trust, Verdict};
