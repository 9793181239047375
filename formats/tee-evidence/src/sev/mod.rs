//! SEV and SEV-ES: certificates of the platform and of AMD, the launch session, LAUNCH_MEASURE and
//! LAUNCH_SECRET, as bytes and as types. AMD 55766 "SEV API", appendix C for certificates. No
//! cryptography: what is signed or authenticated is handed out as bytes.

mod authority;
mod certificate;
mod chain;
mod measure;
mod policy;
mod secret;
mod session;

pub use authority::{Authority, AuthorityError};
pub use certificate::{Algorithm, Certificate, CertificateError, Point, Signature, Unsigned, Usage};
pub use chain::{CertChain, ChainError};
pub use measure::{LaunchMeasure, Measurement};
pub use policy::{FirmwareApi, Policy};
pub use secret::{SecretEntry, SecretHeader, SecretTable, SecretTableError};
pub use session::SessionBlob;
