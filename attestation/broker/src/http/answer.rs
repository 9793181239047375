//! Refusals as the protocol's error bodies. The client gets the refusal line; the log gets the reason.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use protocols::rcar::KbsError;
use protocols::refusal::{Code, Refusal};

use crate::chain;
use crate::sessions::SessionError;
use crate::store::StoreError;

/// The header in which a released key's answer carries the audit log's signed position, as JSON.
pub const CHECKPOINT_HEADER: &str = "sealpod-checkpoint";

/// A refused request: what the client is told, and what only the log is.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) reason: Option<String>,
    status: StatusCode,
}

impl Refused {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { refusal: Refusal::new(code, short(detail.into())), reason: None, status: status(code) }
    }

    /// Adds what the client isn't told.
    pub(crate) fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(short(reason.into()));
        self
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::new(
            Code::Internal,
            "the broker's database refused the request; nothing was changed or released",
        )
        .because(chain(&error))
    }
}

impl From<SessionError> for Refused {
    fn from(error: SessionError) -> Self {
        let code = match error {
            SessionError::Full => Code::Overloaded,
            SessionError::Random => Code::Internal,
            SessionError::Unknown
            | SessionError::InFlight
            | SessionError::Attested
            | SessionError::NotAttested => Code::Session,
        };
        Self::new(code, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = Json(KbsError::new(variant(self.refusal.code), self.refusal.to_string()));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, 30.into());
        }
        response
    }
}

/// Most bytes of a text that goes to the log or into an audit record: it may quote what a stranger sent.
const LONGEST: usize = 1024;

fn short(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}

/// 401 makes a stock client start again, so only what a new handshake can cure gets it.
fn status(code: Code) -> StatusCode {
    match code {
        Code::Session | Code::Nonce => StatusCode::UNAUTHORIZED,
        Code::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::VersionExists | Code::PolicySerial => StatusCode::CONFLICT,
        Code::Statement | Code::Evidence | Code::InitdataInvalid => StatusCode::BAD_REQUEST,
        _ => StatusCode::FORBIDDEN,
    }
}

/// The last part of the protocol's error type.
fn variant(code: Code) -> &'static str {
    match code {
        Code::Session => "InvalidCookie",
        Code::Overloaded | Code::Internal => "InternalError",
        Code::Resource => "ResourceNotFound",
        Code::LaunchDigest
        | Code::SpecDigest
        | Code::TeeKind
        | Code::Tcb
        | Code::GuestPolicy
        | Code::Vmpl
        | Code::RevisionRetired
        | Code::RevisionMinimum
        | Code::PolicyMissing => "PolicyDeny",
        Code::OwnerSignature
        | Code::OwnerUnknown
        | Code::VersionExists
        | Code::PolicySerial
        | Code::Statement => "StatementRefused",
        _ => "AttestationFailed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_sent_fills_no_log() {
        let long = "ä".repeat(500_000);
        let refused = Refused::new(Code::Evidence, long.as_str()).because(long);
        assert!(refused.refusal.detail.len() <= LONGEST + 3);
        assert!(refused.reason.unwrap().len() <= LONGEST + 3);
    }
}
