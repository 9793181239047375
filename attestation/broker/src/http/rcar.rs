//! The key broker protocol: `/auth`, `/attest`, `/resource` (RCAR 0.4.0).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Extension, Request, State};
use axum::http::header::{CONTENT_TYPE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use protocols::rcar::{
    AttestRequest, AttestResponse, AuthRequest, Challenge, RESOURCE_PATH, ResourceUri, SESSION_COOKIE,
    TeeKind, VERSION,
};
use protocols::refusal::Code;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::answer::{CHECKPOINT_HEADER, Refused};
use super::{Peer, body, cookie};
use crate::appraise::{Attested, appraise};
use crate::broker::Broker;
use crate::clock;
use crate::release;
use crate::sessions::SessionError;
use crate::store::Release;

/// Bytes of an `/auth` body: a version, a TEE's name and a few parameters that nobody reads.
const AUTH_BYTES: usize = 8 * 1024;

type Answer = Result<Response, Refused>;

pub(super) async fn auth(
    State(broker): State<Arc<Broker>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    broker.counters().auth.add();
    answer(&broker, "auth", open_session(&broker, peer, request).await)
}

async fn open_session(broker: &Broker, peer: Peer, request: Request) -> Answer {
    let (parts, stream) = request.into_parts();
    let request: AuthRequest = body::json(&parts, stream, AUTH_BYTES, Code::Session).await?;
    if request.version != VERSION {
        let given: String = request.version.chars().take(32).collect();
        return Err(Refused::new(
            Code::Session,
            format!("protocol version '{given}' is not spoken here; only {VERSION} is"),
        ));
    }
    if request.tee != TeeKind::Snp {
        let given: String = request.tee.name().chars().take(32).collect();
        return Err(Refused::new(
            Code::TeeKind,
            format!("evidence of kind '{given}' is not accepted by this broker; 'snp' is"),
        ));
    }
    let now = broker.clock().now();
    let (id, nonce) = broker.sessions().open(peer.0, now)?;
    let expires = clock::http_date(now + broker.sessions().lifetime());
    let cookie = format!("{SESSION_COOKIE}={}; Expires={expires}; Path=/; Secure; HttpOnly", id.reveal());
    let mut response = Json(Challenge { nonce, extra_params: "".into() }).into_response();
    response.headers_mut().insert(SET_COOKIE, header(&cookie)?);
    Ok(response)
}

pub(super) async fn attest(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    broker.counters().attest.add();
    let result = check_evidence(&broker, request).await;
    if result.is_err() {
        broker.counters().attest_refused.add();
    }
    answer(&broker, "attest", result)
}

async fn check_evidence(broker: &Broker, request: Request) -> Answer {
    let (parts, stream) = request.into_parts();
    let id = cookie::session(&parts.headers).ok_or(SessionError::Unknown)?;
    let request: AttestRequest<Box<RawValue>> =
        body::json(&parts, stream, broker.limits().attest_bytes, Code::Evidence).await?;
    let now = broker.clock().now();
    let (claim, nonce) = broker.sessions().begin(id, now)?;
    // From here on, the nonce is gone whatever happens.
    let attested = appraise(nonce, &request, broker.anchors(), now)?;
    let (attested, alias) = claim.complete(attested, broker.clock().now())?;
    let token = broker
        .tokens()
        .issue(alias, &attested.claims(), now, broker.sessions().lifetime())
        .map_err(|error| Refused::new(Code::Internal, error.to_string()))?;
    slog::debug!(broker.log(), "attested"; "evidence" => attested.summary());
    Ok(Json(AttestResponse { token }).into_response())
}

pub(super) async fn resource(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    broker.counters().resource.add();
    // A body means nothing here, and isn't read.
    let (parts, _) = request.into_parts();
    answer(&broker, "resource", release_resource(&broker, &parts).await)
}

async fn release_resource(broker: &Broker, request: &Parts) -> Answer {
    let attested = attested_session(broker, &request.headers)?;
    // The path as it came: an escaped or queried address is another address, and there is none such.
    let path = request.uri.path_and_query().map_or("", |path| path.as_str());
    let uri = path
        .strip_prefix(RESOURCE_PATH)
        .and_then(|path| path.strip_prefix('/'))
        .and_then(|path| ResourceUri::from_path(path).ok())
        .ok_or_else(release::nothing_to_release)?;
    let released = release::release(broker, attested, uri).await?;
    let text = serde_json::to_vec(&released.jwe)
        .map_err(|_| Refused::new(Code::Internal, "the wrapped key can't be written as JSON"))?;
    let release = released.release.map(|release| (broker.deliveries(), release));
    let delivery = Delivery { content: Some(text.into()), release };
    let mut response = Response::new(Body::new(delivery));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(checkpoint) = released.checkpoint {
        let text = serde_json::to_string(&checkpoint)
            .map_err(|_| Refused::new(Code::Internal, "the checkpoint can't be written as JSON"))?;
        response.headers_mut().insert(CHECKPOINT_HEADER, header(&text)?);
    }
    Ok(response)
}

fn attested_session(broker: &Broker, headers: &HeaderMap) -> Result<Arc<Attested>, Refused> {
    let now = broker.clock().now();
    if let Some(id) = cookie::session(headers) {
        return Ok(broker.sessions().attested(id, now)?);
    }
    let token = cookie::bearer(headers).ok_or(SessionError::Unknown)?;
    let alias =
        broker.tokens().verify(token, now).map_err(|error| Refused::new(Code::Session, error.to_string()))?;
    Ok(broker.sessions().attested_as(alias, now)?)
}

fn header(text: &str) -> Result<HeaderValue, Refused> {
    HeaderValue::from_str(text).map_err(|_| Refused::new(Code::Internal, "a header can't be written"))
}

/// Logs a refusal, no faster than the throttle lets strangers fill the log.
pub(super) fn answer(broker: &Broker, operation: &'static str, result: Answer) -> Response {
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

/// A body that tells when it was handed to the connection: then its release counts as delivered.
struct Delivery {
    content: Option<Bytes>,
    release: Option<(mpsc::Sender<Release>, Release)>,
}

impl HttpBody for Delivery {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(content) = self.content.take() else { return Poll::Ready(None) };
        if let Some((deliveries, release)) = self.release.take() {
            // A full queue leaves the release reserved, which never allows more than delivered does.
            let _ = deliveries.try_send(release);
        }
        Poll::Ready(Some(Ok(Frame::data(content))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.as_ref().map_or(0, |content| content.len() as u64))
    }
}
