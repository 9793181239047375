//! Launches of SEV and SEV-ES guests: sessions and measurements, for the relay on the host.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use protocols::refusal::Code;
use protocols::sev::{MeasurementRequest, SessionRequest};

use super::answer::answer;
use super::{Peer, body};
use crate::broker::Broker;
use crate::journal;
use crate::refused::Refused;
use crate::sev;

/// Bytes of a measurement's body.
const MEASUREMENT_BYTES: usize = 4 * 1024;

pub(super) async fn open(
    State(broker): State<Arc<Broker>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let result = open_session(&broker, peer, request).await;
    finish(&broker, peer, "launch session", result)
}

async fn open_session(broker: &Broker, peer: Peer, request: Request) -> Result<Response, Refused> {
    let (parts, stream) = request.into_parts();
    let most = broker.limits().attest_bytes;
    let request: SessionRequest = body::json(&parts, stream, most, Code::Evidence).await?;
    let answer = sev::open(broker, peer.0, &request, broker.clock().now()).await?;
    Ok(Json(answer).into_response())
}

pub(super) async fn measure(
    State(broker): State<Arc<Broker>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let result = take_measurement(&broker, request).await;
    finish(&broker, peer, "launch measurement", result)
}

async fn take_measurement(broker: &Broker, request: Request) -> Result<Response, Refused> {
    let (parts, stream) = request.into_parts();
    let request: MeasurementRequest = body::json(&parts, stream, MEASUREMENT_BYTES, Code::Evidence).await?;
    Ok(Json(sev::measure(broker, &request).await?).into_response())
}

/// Refused launches are in the audit log as refused evidence is.
fn finish(
    broker: &Broker,
    peer: Peer,
    operation: &'static str,
    result: Result<Response, Refused>,
) -> Response {
    if let Err(refused) = &result
        && journal::is_of_evidence(refused)
    {
        broker.journal().refused(peer.0, "sev", refused, broker.clock().now());
    }
    answer(broker, operation, result)
}
