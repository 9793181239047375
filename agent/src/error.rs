//! What an RPC answers when it doesn't do what was asked; translated to a ttrpc status in `rpc`.

use protocols::refusal::{Code, Refusal};

use crate::launch::LaunchError;
use crate::slots::SlotError;

/// Every message in here is safe for the host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Against the sealed specification or the rules of a sealed VM.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A malformed request, or one for a container that isn't there.
    #[error("{0}")]
    InvalidArgument(String),
    /// The process has ended, or there is none of that name.
    #[error("{0}")]
    NotFound(String),
    /// It failed inside the guest.
    #[error("{0}")]
    Internal(String),
    /// Not possible for this process, as a window size without a terminal.
    #[error("{0}")]
    Unavailable(String),
    /// An RPC that this agent doesn't have.
    #[error("not implemented by this agent")]
    Unimplemented,
    /// Too much at once.
    #[error("{0}")]
    Busy(String),
}

/// Result of an RPC's core.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refusal by code.
    pub fn refused(code: Code, detail: impl Into<String>) -> Self {
        Self::Refused(Refusal::new(code, detail))
    }

    /// A step that failed in the guest, in words that hold nothing of the sealed specification.
    pub fn step(step: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::Internal(format!("{step}: {}", error.kind()))
    }
}

impl From<SlotError> for Error {
    fn from(error: SlotError) -> Self {
        let code = match error {
            SlotError::Unknown(_) | SlotError::Debugged { .. } => Code::ContainerUnknown,
            SlotError::Duplicate(_) => Code::ContainerDuplicate,
            SlotError::Busy { .. } | SlotError::Pending { .. } | SlotError::Superseded(_) => Code::SlotBusy,
            SlotError::Order { .. } => Code::SlotOrder,
            SlotError::Restart { .. } => Code::SlotRestart,
        };
        Self::refused(code, error.to_string())
    }
}

impl From<LaunchError> for Error {
    fn from(error: LaunchError) -> Self {
        Self::refused(Code::Launch, error.to_string())
    }
}
