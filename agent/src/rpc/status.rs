//! Errors as ttrpc statuses; what clients rely on is in the table of the Kata agent's API.

use std::sync::Arc;

use protocols::refusal::Code as Refused;
use ttrpc::Code;
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::error::{Error, Result};

/// The status for an error. Messages are safe for the host by construction.
pub(super) fn from(error: &Error) -> ttrpc::Error {
    let code = match error {
        Error::Refused(refusal) => match refusal.code {
            // Failures on the way, not denials.
            Refused::SandboxState
            | Refused::Launch
            | Refused::ImagePull
            | Refused::ImagePulling
            | Refused::ImageDigest
            | Refused::ImageUnpack
            | Refused::ImageConfig
            | Refused::Storage
            | Refused::Device => Code::INTERNAL,
            _ => Code::PERMISSION_DENIED,
        },
        Error::InvalidArgument(_) => Code::INVALID_ARGUMENT,
        Error::NotFound(_) => Code::NOT_FOUND,
        Error::Unimplemented => Code::UNIMPLEMENTED,
        Error::Internal(_) => Code::INTERNAL,
        Error::Unavailable(_) => Code::UNAVAILABLE,
        Error::Busy(_) => Code::RESOURCE_EXHAUSTED,
    };
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, error.to_string()))
}

/// An RPC that this agent doesn't have.
pub(super) async fn unbuilt<Request, Response>(
    _: &Arc<Agent>,
    _: &TtrpcContext,
    _: Request,
) -> Result<Response> {
    Err(Error::Unimplemented)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_statuses_that_they_rely_on() {
        for (error, code) in [
            (Error::refused(Refused::ExecDenied, "x"), Code::PERMISSION_DENIED),
            (Error::refused(Refused::SandboxState, "x"), Code::INTERNAL),
            (Error::refused(Refused::ImagePull, "x"), Code::INTERNAL),
            (Error::InvalidArgument("x".into()), Code::INVALID_ARGUMENT),
            (Error::NotFound("x".into()), Code::NOT_FOUND),
            (Error::Unavailable("x".into()), Code::UNAVAILABLE),
            (Error::Unimplemented, Code::UNIMPLEMENTED),
        ] {
            let ttrpc::Error::RpcStatus(status) = from(&error) else { panic!("not a status") };
            assert_eq!(status.code(), code);
        }
    }
}
