//! Manifests and indexes, whole.

use crate::{Digest, RegistryError};

/// What a manifest request accepts, image-spec's and Docker's.
pub const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest or index, and the digest of exactly these bytes.
#[derive(Clone, Debug)]
pub struct Document {
    /// As they came.
    pub bytes: Vec<u8>,
    /// Of the bytes.
    pub digest: Digest,
    /// What the registry calls it; nothing vouches for that.
    pub media_type: Option<String>,
}

impl Document {
    /// Refuses bytes that have another digest than `expected`.
    pub(crate) fn check(
        bytes: Vec<u8>,
        media_type: Option<String>,
        expected: Option<&Digest>,
        what: &str,
    ) -> Result<Self, RegistryError> {
        let digest = Digest::of(&bytes);
        match expected {
            Some(expected) if *expected != digest => Err(RegistryError::DigestMismatch {
                what: what.to_owned(),
                expected: expected.to_string(),
                actual: digest.to_string(),
            }),
            _ => Ok(Self { bytes, digest, media_type }),
        }
    }
}
