//! The sealed pod specification: seal, open, bind.
//!
//! Data only: no I/O, no clock. [`document`] is the sealed form (one JWE), [`spec`] what it holds,
//! [`podspec`] the pod, [`fields`] what of a manifest stays public and what is sealed, and
//! [`initdata`] what binds a VM to one sealed specification.

pub mod document;
pub mod fields;
pub mod initdata;
pub mod key;
pub mod names;
pub mod podspec;
pub mod secret;
pub mod spec;

pub use document::{DocumentError, Header, HeaderFields, SealedDocument, Workload, WorkloadKind, open, seal};
pub use key::{KeyError, SpecKey};
pub use names::{KbsUri, KeyId, Lineage, NameError, Repository, SpecDigest};
pub use podspec::PodSpec;
pub use secret::Secret;
pub use spec::{Grants, ImageRef, Logs, RegistrySource, SealedSpec, SpecError};
