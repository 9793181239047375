//! Why a registry can't be used. The errors can be cloned: everyone who waits for one transfer gets the one
//! that ended it.

use std::time::Duration;

use crate::ReferenceError;

/// Why a request to a registry failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// The reference isn't an image name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A location, certificate, login or proxy can't be used; nothing was sent.
    #[error("registry {registry}: {reason}")]
    Configuration {
        /// The registry's host or location.
        registry: String,
        /// What is wrong, and what to change.
        reason: String,
    },
    /// An answer that breaks a rule: the rule is ours, so another attempt doesn't help.
    #[error("registry {registry}: {reason}")]
    Refused {
        /// `scheme://host[:port]` that answered.
        registry: String,
        /// The rule.
        reason: String,
    },
    /// No answer, or not all of it, after all retries.
    #[error("registry {registry}: no answer after {attempts} attempts: {reason}")]
    Unreachable {
        /// `scheme://host[:port]` that failed.
        registry: String,
        /// How many times in a row it was tried.
        attempts: u32,
        /// The last failure.
        reason: String,
    },
    /// The registry answered with a status that isn't success.
    #[error("registry {registry}: {what} answered with status {status}{}{}", named(.code.as_deref()), hint(*.status, .note.as_deref()))]
    Status {
        /// `scheme://host[:port]` that answered.
        registry: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What the registry wants to be waited for.
        retry_after: Option<Duration>,
        /// The registry's word for it, such as `DENIED`.
        code: Option<String>,
        /// Why there was no login.
        note: Option<String>,
    },
    /// An answer larger than the bound for its kind, or than it was declared to be.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// The thing that is too large.
        what: String,
        /// Bound, in bytes.
        limit: u64,
    },
    /// Fewer bytes than declared.
    #[error("{what} ended after {received} of {expected} bytes")]
    Truncated {
        /// The thing that ended early.
        what: String,
        /// Bytes that came.
        received: u64,
        /// Bytes that were declared.
        expected: u64,
    },
    /// Bytes that don't hash to the digest that names them.
    #[error("{what} doesn't match its digest: expected {expected}, received {actual}")]
    DigestMismatch {
        /// Manifest, image config, layer.
        what: String,
        /// The digest that was promised.
        expected: String,
        /// The digest of the bytes.
        actual: String,
    },
    /// A document that can't be read.
    #[error("{what}: {reason}")]
    Document {
        /// The document.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// What is to be pushed can't be read.
    #[error("{what}: {reason}")]
    Content {
        /// The blob.
        what: String,
        /// Why not.
        reason: String,
    },
    /// Neither the registry nor a mirror had it.
    #[error("{registry}; before that, {mirrors}")]
    WithMirrors {
        /// The registry's own failure.
        registry: Box<RegistryError>,
        /// What became of each mirror.
        mirrors: String,
    },
}

impl RegistryError {
    /// The failure of the registry itself, without what its mirrors did.
    pub fn of_registry(&self) -> &Self {
        match self {
            Self::WithMirrors { registry, .. } => registry.of_registry(),
            other => other,
        }
    }

    /// The status that the registry answered with, if that is the failure.
    pub fn status(&self) -> Option<u16> {
        match self.of_registry() {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(crate) fn with_mirrors(self, mirrors: &[String]) -> Self {
        if mirrors.is_empty() {
            return self;
        }
        Self::WithMirrors { registry: Box::new(self), mirrors: mirrors.join("; ") }
    }

    /// The same after so many attempts.
    pub(crate) fn after(self, attempts: u32) -> Self {
        match self {
            Self::Unreachable { registry, reason, .. } => Self::Unreachable { registry, attempts, reason },
            other => other,
        }
    }

    /// Whether another attempt may succeed: the failure may have been the network's.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => matches!(*status, 408 | 429 | 500..),
            _ => false,
        }
    }

    /// How long the registry wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn named(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}

fn hint(status: u16, note: Option<&str>) -> String {
    if let Some(note) = note {
        return format!("; {note}");
    }
    let hint = match status {
        401 | 403 => "; give a login for this registry, or check the one it has",
        404 => "; it is not there",
        429 => "; it limits how often it may be asked",
        _ => "",
    };
    hint.to_owned()
}
