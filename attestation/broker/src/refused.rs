//! Refusals inside the broker: the line that the client gets, and what only the log and the operator get.
//! The HTTP side turns one into an error body.

use axum::http::StatusCode;
use protocols::refusal::{Code, Refusal};
use verifier::{Check, Denial};

use crate::chain;
use crate::sessions::SessionError;
use crate::store::StoreError;

/// A refused request: what the client is told, and what only the log is.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) reason: Option<String>,
    /// The failed appraisal, if it was one: the whole table of its checks.
    pub(crate) denial: Option<Box<Denial>>,
    pub(crate) status: StatusCode,
}

impl Refused {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let refusal = Refusal::new(code, short(detail.into()));
        Self { refusal, reason: None, denial: None, status: status(code) }
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
            SessionError::Nonce => Code::Nonce,
            SessionError::Unknown | SessionError::Used | SessionError::Attested => Code::Session,
        };
        Self::new(code, error.to_string())
    }
}

/// A failed check under the code that it has everywhere.
impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        let code = match denial.check {
            Check::LaunchDigest => Code::LaunchDigest,
            Check::TeeKind => Code::TeeKind,
            Check::Tcb => Code::Tcb,
            Check::GuestPolicy => Code::GuestPolicy,
            Check::Vmpl => Code::Vmpl,
            Check::Evidence => Code::Evidence,
            Check::Signature => Code::Signature,
            Check::CertificateChain => Code::CertificateChain,
            Check::Collateral => Code::Collateral,
            Check::Binding => Code::Binding,
            Check::HostData => Code::HostData,
        };
        let detail = denial.detail.clone();
        Self { denial: Some(Box::new(denial)), ..Self::new(code, detail) }
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
