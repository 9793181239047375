//! Why an image can't be used. The errors can be cloned: every caller that waits for a pull gets the one
//! that ended it.

use std::io;
use std::sync::Arc;

use encrypted_image::CipherError;
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
    /// A layer is encrypted, and no key that the sealed specification names for its image opens it.
    Key,
    /// The image is named by tag, and no signature that the image policy asks for vouches for what it means.
    Signature,
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
    /// The broker doesn't give a registry's login, or it is none.
    #[error("login for registry {registry}: {uri}: {reason}")]
    Credentials {
        /// The registry's host.
        registry: String,
        /// The resource that the sealed specification names.
        uri: String,
        /// Why it can't be used.
        reason: String,
    },
    /// The sealed proxy can't be used.
    #[error("{reason}")]
    Proxy {
        /// What is wrong with it, without its password.
        reason: String,
    },
    /// The broker doesn't give a key that the sealed specification names, or it is none.
    #[error("image key {uri}: {reason}")]
    Key {
        /// The key's name.
        uri: String,
        /// Why it can't be used.
        reason: String,
    },
    /// None of the image's keys opens a layer.
    #[error("layer {layer}: {reason}")]
    NotAuthorised {
        /// Digest of the encrypted layer.
        layer: String,
        /// What each key came to.
        reason: String,
    },
    /// A layer was opened, and isn't what was encrypted.
    #[error("layer {layer}: {source}")]
    Cipher {
        /// Digest of the encrypted layer.
        layer: String,
        /// Which check failed.
        source: Arc<CipherError>,
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
    /// An image without a sealed digest that nobody vouches for.
    #[error("{0}")]
    Signature(String),
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
            Self::Reference { .. }
            | Self::Credentials { .. }
            | Self::Proxy { .. }
            | Self::Interrupted { .. } => ErrorKind::Pull,
            Self::TooLarge { .. } | Self::DigestMismatch { .. } | Self::Cipher { .. } => ErrorKind::Digest,
            Self::Manifest { .. } => ErrorKind::Config,
            Self::Key { .. } | Self::NotAuthorised { .. } => ErrorKind::Key,
            Self::Signature(_) => ErrorKind::Signature,
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
