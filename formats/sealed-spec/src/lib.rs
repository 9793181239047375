//! The sealed pod specification: seal, open, bind.
//!
//! Data only: no I/O, no clock. [`document`] is the sealed form (one JWE), [`spec`] what it holds,
//! [`podspec`] the pod, [`grants`] what the host may do, [`fields`] what of a manifest stays public and
//! what is sealed, [`log`] the form of sealed log lines, and [`initdata`] what binds a VM to one sealed
//! specification.

pub mod document;
pub mod fields;
pub mod grants;
pub mod host_values;
pub mod initdata;
pub mod key;
pub mod log;
pub mod names;
pub mod origin;
pub mod podspec;
pub mod secret;
pub mod spec;

pub use document::{DocumentError, Header, HeaderFields, SealedDocument, Workload, WorkloadKind, open, seal};
pub use grants::{Grants, Logs};
pub use key::{KeyError, SpecKey};
pub use names::{KbsUri, KeyId, Lineage, NameError, Repository, SpecDigest};
pub use podspec::PodSpec;
pub use secret::Secret;
pub use spec::{ImageRef, LayerStore, Proxy, RegistrySource, SealedSpec, SpecError};
