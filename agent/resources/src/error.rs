//! Why a limit wasn't set or a number wasn't read.

use std::io;
use std::path::Path;

/// Every message is safe for the host: it names the kernel's files and the host's own values.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The request makes no sense; nothing was changed.
    #[error("{0}")]
    Malformed(String),
    /// The kernel can't do it.
    #[error("the guest's kernel has no {0}")]
    Missing(String),
    /// Not now: pausing what is paused, or a machine that doesn't get ready.
    #[error("{0}")]
    State(String),
    /// The kernel says no.
    #[error("{step}: {source}")]
    Kernel {
        /// What was being done.
        step: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, ResourceError>;

impl ResourceError {
    pub(crate) fn malformed(text: impl Into<String>) -> Self {
        Self::Malformed(text.into())
    }

    pub(crate) fn kernel(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::Kernel { step, source }
    }

    /// `verb` and the file's own name: its directory says nothing more.
    pub(crate) fn file(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::kernel(format!("{verb} {name}"))
    }
}
