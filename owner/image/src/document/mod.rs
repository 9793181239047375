//! The documents of an image (OCI image specification 1.1, "Image Manifest" and "Image Index"; Docker's
//! schema 2 beside them), read so that what isn't understood here survives a rewrite.

mod config;
mod descriptor;
mod digest;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use std::collections::BTreeMap;

pub use config::Config;
pub use descriptor::{Descriptor, Platform};
pub use digest::{Digest, DigestError, Hashing};

/// Longest manifest, index or config that is read; registries take no longer manifests either.
pub const DOCUMENT_LIMIT: u64 = 4 * 1024 * 1024;
/// Most layers that a manifest may list; overlayfs mounts no more.
pub const LAYER_LIMIT: usize = 512;
/// Most manifests that an index may list.
pub const MANIFEST_LIMIT: usize = 512;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Why bytes are not a document of an image.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// Not JSON of that shape.
    #[error("not a {what}: {source}")]
    Shape {
        /// Manifest, index or config.
        what: &'static str,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// Another version of the format.
    #[error("schema version {0}; only 2 is read, copy the image with a newer tool first")]
    SchemaVersion(u64),
    /// Longer than any sensible image.
    #[error("{count} {what}, more than {limit}")]
    TooMany {
        /// Layers or manifests.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// Neither a manifest nor an index.
    #[error("media type '{0}' is neither an image manifest nor an index")]
    MediaType(String),
    /// The document names another media type for itself than whoever pointed at it.
    #[error("it calls itself '{own}', what points to it says '{given}'")]
    Confused {
        /// In the document.
        own: String,
        /// In the descriptor.
        given: String,
    },
}

/// An image manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u64,
    /// What it calls itself; absent in old OCI images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the base first.
    pub layers: Vec<Descriptor>,
    /// Everything else, kept as it is.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

/// An index: one image for several platforms.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u64,
    /// What it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it lists.
    pub manifests: Vec<Descriptor>,
    /// Everything else, kept as it is.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

impl Manifest {
    /// Parses what a descriptor of media type `given` points to.
    ///
    /// # Errors
    /// When it is no manifest, calls itself something else, or lists too many layers.
    pub fn parse(bytes: &[u8], given: &str) -> Result<Self, DocumentError> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|source| DocumentError::Shape { what: "manifest", source })?;
        version(manifest.schema_version)?;
        same_type(manifest.media_type.as_deref(), given)?;
        bounded("layers", manifest.layers.len(), LAYER_LIMIT)?;
        Ok(manifest)
    }

    /// A manifest of its parts, in OCI's media type.
    #[must_use]
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config,
            layers,
            rest: Map::new(),
        }
    }

    /// As it is stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

impl Index {
    /// Parses what a descriptor of media type `given` points to.
    ///
    /// # Errors
    /// When it is no index, calls itself something else, or lists too many manifests.
    pub fn parse(bytes: &[u8], given: &str) -> Result<Self, DocumentError> {
        let index: Self =
            serde_json::from_slice(bytes).map_err(|source| DocumentError::Shape { what: "index", source })?;
        version(index.schema_version)?;
        same_type(index.media_type.as_deref(), given)?;
        bounded("manifests", index.manifests.len(), MANIFEST_LIMIT)?;
        Ok(index)
    }

    /// An index of nothing, as a new layout has it.
    #[must_use]
    pub fn empty() -> Self {
        Self { schema_version: 2, media_type: None, manifests: Vec::new(), rest: Map::new() }
    }

    /// The same index, of OCI's media type, with other entries.
    #[must_use]
    pub fn with(&self, manifests: Vec<Descriptor>) -> Self {
        Self { media_type: Some(OCI_INDEX.to_owned()), manifests, ..self.clone() }
    }

    /// As it is stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

/// What kind of document a media type stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One image.
    Manifest,
    /// A list of images.
    Index,
    /// Neither.
    Other,
}

impl Kind {
    /// By media type.
    #[must_use]
    pub fn of(media_type: &str) -> Self {
        match media_type {
            OCI_MANIFEST | DOCKER_MANIFEST => Self::Manifest,
            OCI_INDEX | DOCKER_INDEX => Self::Index,
            _ => Self::Other,
        }
    }

    /// Of a document without a descriptor: what it says of itself, else what it has.
    ///
    /// # Errors
    /// When it is neither manifest nor index.
    pub fn media_type_of(bytes: &[u8]) -> Result<String, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Peek {
            media_type: Option<String>,
            config: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let peek: Peek = serde_json::from_slice(bytes)
            .map_err(|source| DocumentError::Shape { what: "manifest or index", source })?;
        let media_type = match (peek.media_type, peek.config, peek.manifests) {
            (Some(media_type), _, _) => media_type,
            (None, Some(_), None) => OCI_MANIFEST.to_owned(),
            (None, None, Some(_)) => OCI_INDEX.to_owned(),
            (None, _, _) => String::new(),
        };
        match Self::of(&media_type) {
            Self::Other => Err(DocumentError::MediaType(media_type)),
            Self::Manifest | Self::Index => Ok(media_type),
        }
    }
}

/// Annotations by name.
pub type Annotations = BTreeMap<String, String>;

fn version(version: u64) -> Result<(), DocumentError> {
    if version == 2 { Ok(()) } else { Err(DocumentError::SchemaVersion(version)) }
}

/// A document that passes for two kinds is read differently by different tools.
fn same_type(own: Option<&str>, given: &str) -> Result<(), DocumentError> {
    match own {
        Some(own) if !own.is_empty() && own != given => {
            Err(DocumentError::Confused { own: own.to_owned(), given: given.to_owned() })
        }
        _ => Ok(()),
    }
}

fn bounded(what: &'static str, count: usize, limit: usize) -> Result<(), DocumentError> {
    if count <= limit { Ok(()) } else { Err(DocumentError::TooMany { what, count, limit }) }
}

fn to_bytes<T: Serialize>(document: &T) -> Vec<u8> {
    // Only maps with keys that are no strings fail, and there are none.
    serde_json::to_vec(document).unwrap_or_default()
}
