//! Why an image can't be used. The errors can be cloned: every caller that waits for a pull gets the one
//! that ended it.

use std::io;
use std::sync::Arc;

use oci_registry::{ReferenceError, RegistryError};

/// The step that refused an image; the agent gives each its own refusal code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The registry couldn't be reached, or answered with an error.
    Pull,
    /// Bytes don't hash to the digest that names them.
    Digest,
    /// A layer can't be unpacked: malformed, escaping, too large, or of a kind that isn't supported.
    Unpack,
    /// The manifest or the image config is malformed or doesn't fit this machine.
    Config,
}

/// Why an image can't be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference isn't an image name.
    #[error("image reference {reference:?}: {reason}; write it as host/repository")]
    Reference {
        /// The reference as sealed.
        reference: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The registry, or what it sent, can't be used.
    #[error(transparent)]
    Registry(RegistryError),
    /// An answer larger than the bound for its kind, or than it was declared to be.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// The thing that is too large.
        what: String,
        /// Bound, in bytes.
        limit: u64,
    },
    /// Bytes that don't hash to the digest that names them.
    #[error("{what} doesn't match its digest: expected {expected}, received {actual}")]
    DigestMismatch {
        /// Manifest, image config, layer, or unpacked layer.
        what: String,
        /// The digest that was promised.
        expected: String,
        /// The digest of the bytes.
        actual: String,
    },
    /// A manifest, index or config that can't be used.
    #[error("{what}: {reason}")]
    Manifest {
        /// The document.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An encrypted layer, or a key for an image: not supported.
    #[error(
        "image {image} is encrypted ({detail}); encrypted layers are not supported yet, seal it with a plain image"
    )]
    Encrypted {
        /// The image's digest.
        image: String,
        /// The media type or key that says so.
        detail: String,
    },
    /// A layer whose tar can't be unpacked safely.
    #[error("layer {layer}: {reason}")]
    Unpack {
        /// The layer's diff id.
        layer: String,
        /// The entry and the rule that it breaks.
        reason: String,
    },
    /// The layer store failed.
    #[error("image store: {operation}: {source}{}", disk_hint(.source))]
    Store {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// The task that pulled the image ended without an answer.
    #[error("image {image}: the pull was interrupted; ask again")]
    Interrupted {
        /// The image's digest.
        image: String,
    },
}

impl ImageError {
    /// Which step refused.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Registry(error) => match error.of_registry() {
                RegistryError::Truncated { .. }
                | RegistryError::TooLarge { .. }
                | RegistryError::DigestMismatch { .. } => ErrorKind::Digest,
                RegistryError::Document { .. } => ErrorKind::Config,
                _ => ErrorKind::Pull,
            },
            Self::Reference { .. } | Self::Interrupted { .. } => ErrorKind::Pull,
            Self::TooLarge { .. } | Self::DigestMismatch { .. } => ErrorKind::Digest,
            Self::Manifest { .. } | Self::Encrypted { .. } => ErrorKind::Config,
            Self::Unpack { .. } | Self::Store { .. } => ErrorKind::Unpack,
        }
    }

    pub(crate) fn store(operation: &'static str, source: io::Error) -> Self {
        Self::Store { operation, source: Arc::new(source) }
    }
}

fn disk_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::OutOfMemory => {
            "; give the guest more memory or use a smaller image"
        }
        _ => "",
    }
}

impl From<ReferenceError> for ImageError {
    fn from(ReferenceError { reference, reason }: ReferenceError) -> Self {
        Self::Reference { reference, reason }
    }
}

impl From<RegistryError> for ImageError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Reference(error) => error.into(),
            RegistryError::TooLarge { what, limit } => Self::TooLarge { what, limit },
            RegistryError::DigestMismatch { what, expected, actual } => {
                Self::DigestMismatch { what, expected, actual }
            }
            other => Self::Registry(other),
        }
    }
}
