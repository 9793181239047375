//! What can go wrong, in words for whoever reads the runtime's log.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a storage or a device can't be had.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The request is malformed, or asks for what no driver does. Nothing was done.
    #[error("storage {what}: {reason}")]
    Invalid {
        /// Which storage or device, as the runtime named it.
        what: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A device that didn't appear in time.
    #[error("device {device} did not appear within {} s", .patience.as_secs_f32())]
    Missing {
        /// How it was named.
        device: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// A step that the kernel refused.
    #[error("{operation} {path}: {source}", path = .path.display())]
    Kernel {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The image of a guest pull.
    #[error("image {image}: {reason}")]
    Image {
        /// Its reference.
        image: String,
        /// Why it isn't there.
        reason: String,
    },
    /// Encrypted or fresh scratch storage.
    #[error("scratch storage on {device}: {reason}")]
    Scratch {
        /// The device below.
        device: String,
        /// Why it can't be used.
        reason: String,
    },
}

impl StorageError {
    /// A malformed request.
    pub fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: clip(&what.into()), reason: reason.into() }
    }

    /// Whether the request was to blame, and nothing was done.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid { .. })
    }

    pub(crate) fn kernel(
        operation: &'static str,
        path: impl AsRef<Path>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Kernel { operation, path: path.as_ref().to_owned(), source: source.into() }
    }
}

/// The beginning of a name that someone else chose, for messages.
pub(crate) fn clip(text: &str) -> String {
    const LONGEST: usize = 256;
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}
