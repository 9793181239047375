//! Images as their owner handles them: OCI layouts, docker archives, registries; encrypted, decrypted and
//! re-wrapped without changing what needs no change.
//!
//! [`Source`] and [`Destination`] are places, [`Node`] is an image as it was read, and each module of
//! [`operation`] does one thing to it. Nothing is named before all of it is there and verified.

pub mod access;
pub mod document;
mod error;
mod name;
mod observer;
pub mod operation;
pub mod pgp;
mod pipeline;
pub mod pkcs11;
pub mod places;
pub mod provider;
mod report;
mod select;
pub mod store;
mod tree;
mod wrapped;

pub use error::{ImageError, Layers, Noted, Problem};
pub use name::{ImageName, NameError};
pub use observer::{Meter, Observer, Silent};
pub use pipeline::PassError;
pub use report::{Done, ImageReport, LayerReport, Report};
pub use select::{Selection, SelectionError};
pub use store::{Destination, Document, Source, Stage, StoreError};
pub use tree::{Image, Node};
