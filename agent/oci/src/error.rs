//! Why a container's specification can't be made.

use std::io;

/// Why a container's specification can't be made. Texts name fields and rules; values only where they are
/// the owner's words and no secret (user names, sysctl and capability names).
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A field asks for something that isn't given.
    #[error("{field}: {reason}")]
    Refused {
        /// Path of the field in the PodSpec.
        field: String,
        /// The rule, and what to do instead.
        reason: String,
    },
    /// Neither container nor image say what to run.
    #[error("container {0}: no command: the image has no entrypoint or cmd; set command in the pod")]
    NoCommand(String),
    /// A user or group that can't be found.
    #[error("{what} {name:?} is not in the image's {file}; set runAsUser and runAsGroup, or fix the image")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// As the image wrote it.
        name: String,
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
    },
    /// The container would run as root although runAsNonRoot forbids it.
    #[error(
        "container {0}: runAsNonRoot is true and the user is root; set runAsUser or use an image with a user"
    )]
    Root(String),
    /// Reading or making something in the root file system or a volume failed.
    #[error("{what}: {source}")]
    Io {
        /// The file and what was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A mount needs something that the agent didn't prepare.
    #[error("volume {0:?} was not prepared")]
    NotPrepared(String),
    /// The pieces don't make a specification.
    #[error("runtime specification: {0}")]
    Specification(#[from] oci_spec::OciSpecError),
}

impl OciError {
    pub(crate) fn refused(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refused { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { what: what.into(), source: source.into() }
    }
}
