//! Images inside the guest: pulled by digest, verified, then unpacked where only the guest can read.
//!
//! The registry and the network are the host's, so nothing they send is believed: the manifest must hash
//! to the digest in the sealed spec, config and layers to the digests in that manifest, and each unpacked
//! layer to its diff id in that config. A layer becomes visible in the store only after all of that.

mod archive;
mod error;
mod header;
mod layer;
mod limits;
mod manifest;
mod pax;
mod rootfs;
mod sparse;
mod store;
mod unpack;

pub use error::{ErrorKind, ImageError};
pub use limits::Limits;
pub use oci_registry::{Digest, RegistryError};
pub use oci_spec::image::ImageConfiguration;
pub use rootfs::{Rootfs, RootfsError};
pub use store::{Image, ImageStore};
