//! Images inside the guest: pulled by digest, verified, then unpacked where only the guest can read.
//!
//! The registry and the network are the host's, so nothing they send is believed: the manifest must hash
//! to the digest in the sealed spec, config and layers to the digests in that manifest, and each unpacked
//! layer to its diff id in that config. An encrypted layer is opened by the keys that the specification names
//! for its image, and by no others. What is sealed by tag is a digest as soon as the image policy's signatures vouch
//! for it. A layer becomes visible in the store only after all of that.

mod archive;
mod error;
mod header;
mod keys;
mod layer;
mod limits;
mod manifest;
mod pax;
mod pipeline;
mod pull;
mod rootfs;
mod signature;
mod sources;
mod sparse;
mod store;
mod unpack;

pub use error::{ErrorKind, ImageError};
pub use keys::{Asked, NoResources, Resources};
pub use limits::Limits;
pub use oci_registry::{Digest, RegistryError};
pub use oci_spec::image::ImageConfiguration;
pub use rootfs::{Rootfs, RootfsError};
pub use store::{Encryption, Image, ImageStore, Settings};
