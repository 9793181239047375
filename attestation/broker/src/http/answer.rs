//! Refusals as the protocol's error bodies. The client gets the refusal line; the log gets the reason.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use protocols::rcar::KbsError;
use protocols::refusal::Code;

use crate::broker::Broker;
use crate::clock;
use crate::refused::Refused;

/// The header in which a released key's answer carries the audit log's signed position, as JSON.
pub const CHECKPOINT_HEADER: &str = "sealpod-checkpoint";

/// Logs a refusal, no faster than the throttle lets strangers fill the log.
pub(crate) fn answer(
    broker: &Broker,
    operation: &'static str,
    result: Result<Response, Refused>,
) -> Response {
    result.unwrap_or_else(|refused| {
        broker.counters().refused.add();
        let second = clock::unix(broker.clock().now());
        if let Some(suppressed) = broker.throttle().admit(second) {
            slog::info!(broker.log(), "refused"; "operation" => operation, "code" => refused.refusal.code.name(),
                "detail" => &refused.refusal.detail, "reason" => &refused.reason, "suppressed" => suppressed);
        }
        refused.into_response()
    })
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
        | Code::ReleaseLimit
        | Code::PolicyMissing => "PolicyDeny",
        Code::OwnerSignature
        | Code::OwnerUnknown
        | Code::VersionExists
        | Code::PolicySerial
        | Code::Statement => "StatementRefused",
        _ => "AttestationFailed",
    }
}
