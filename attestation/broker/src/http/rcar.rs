//! The key broker protocol: `/auth`, `/attest`, `/resource` (RCAR 0.4.0), and a guest's confirmation.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Extension, Request, State};
use axum::http::header::{CONTENT_TYPE, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use protocols::broker::Confirmation;
use protocols::rcar::{
    AttestRequest, AttestResponse, Challenge, RESOURCE_PATH, ResourceUri, SESSION_COOKIE, VERSION,
};
use protocols::refusal::Code;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::answer::{CHECKPOINT_HEADER, answer};
use super::{Peer, body, cookie};
use crate::appraise::{Attested, Kind, appraise};
use crate::broker::Broker;
use crate::clock;
use crate::journal::{self, Journal};
use crate::refused::Refused;
use crate::release;
use crate::sessions::SessionError;
use crate::store::Release;

/// Bytes of an `/auth` body: a version, a TEE's name and a few parameters that nobody reads.
const AUTH_BYTES: usize = 8 * 1024;

type Answer = Result<Response, Refused>;

pub(super) async fn auth(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    broker.counters().auth.add();
    answer(&broker, "auth", open_session(&broker, request).await)
}

/// The keys that verify tokens.
pub(super) async fn jwks(State(broker): State<Arc<Broker>>) -> Response {
    let keys = broker.tokens().jwks().map_err(|error| Refused::new(Code::Internal, error.to_string()));
    answer(&broker, "jwks", keys.map(|keys| Json(keys).into_response()))
}

/// The body of `/auth`. What else it holds is skipped, not kept.
#[derive(Deserialize)]
struct AuthBody {
    version: String,
    tee: String,
    #[serde(rename = "extra-params", default)]
    _extra_params: IgnoredAny,
}

async fn open_session(broker: &Broker, request: Request) -> Answer {
    let (parts, stream) = request.into_parts();
    let request: AuthBody = body::json(&parts, stream, AUTH_BYTES, Code::Session).await?;
    if request.version != VERSION {
        let given: String = request.version.chars().take(32).collect();
        return Err(Refused::new(
            Code::Session,
            format!("protocol version '{given}' is not spoken here; only {VERSION} is"),
        ));
    }
    let kind = Kind::from_name(&request.tee).filter(|kind| *kind != Kind::Sample || broker.accepts_sample());
    let Some(kind) = kind else {
        let given: String = request.tee.chars().take(32).collect();
        return Err(Refused::new(
            Code::TeeKind,
            format!("evidence of kind '{given}' is not accepted by this broker; 'snp', 'sev' and 'pef' are"),
        ));
    };
    let now = broker.clock().now();
    let (id, nonce) = broker.challenges().issue(kind.code(), now)?;
    let expires = clock::http_date(now + broker.limits().session_lifetime());
    let cookie = format!("{SESSION_COOKIE}={}; Expires={expires}; Path=/; Secure; HttpOnly", id.reveal());
    let mut response = Json(Challenge { nonce, extra_params: "".into() }).into_response();
    response.headers_mut().insert(SET_COOKIE, header(&cookie)?);
    Ok(response)
}

pub(super) async fn attest(
    State(broker): State<Arc<Broker>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    broker.counters().attest.add();
    let result = check_evidence(&broker, peer, request).await;
    if result.is_err() {
        broker.counters().attest_refused.add();
    }
    answer(&broker, "attest", result)
}

async fn check_evidence(broker: &Broker, peer: Peer, request: Request) -> Answer {
    let (parts, stream) = request.into_parts();
    let id = cookie::session(&parts.headers).ok_or(SessionError::Unknown)?;
    let request: AttestRequest<Box<RawValue>> =
        body::json(&parts, stream, broker.limits().attest_bytes, Code::Evidence).await?;
    let now = broker.clock().now();
    let alias = broker.challenges().alias(id);
    // From here on, the challenge is used up whatever happens.
    let challenge =
        broker.challenges().take(id, &request.runtime_data.nonce, now).map_err(|error| {
            match (error, broker.sessions().attested(alias, now)) {
                (SessionError::Used, Ok(_)) => SessionError::Attested,
                (error, _) => error,
            }
        })?;
    let (expires, kind) = (challenge.expires(), challenge.kind());
    let appraised = appraise(broker, challenge, &request, now).await;
    let (attested, token) = appraised.inspect_err(|refused| {
        if journal::is_of_evidence(refused) {
            let kind = Kind::from_code(kind).map_or("unknown", Kind::name);
            broker.journal().refused(peer.0, kind, refused, now);
        }
    })?;
    broker.sessions().keep(alias, attested, peer.0, expires, broker.clock().now())?;
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
    let release = released.release.map(|release| (broker.journal().clone(), release));
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
        return Ok(broker.sessions().attested(broker.challenges().alias(id), now)?);
    }
    let token = cookie::bearer(headers).ok_or(SessionError::Unknown)?;
    if !broker.tokens().may_be_ours(token) {
        return broker.passports().admit(token, now).map(Arc::new);
    }
    let alias =
        broker.tokens().verify(token, now).map_err(|error| Refused::new(Code::Session, error.to_string()))?;
    Ok(broker.sessions().attested(alias, now)?)
}

fn header(text: &str) -> Result<HeaderValue, Refused> {
    HeaderValue::from_str(text).map_err(|_| Refused::new(Code::Internal, "a header can't be written"))
}

/// A guest's word that its key arrived and opened its sealed spec.
pub(super) async fn confirm(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    let result = take_confirmation(&broker, request).await;
    answer(&broker, "confirm", result.map(|()| StatusCode::NO_CONTENT.into_response()))
}

async fn take_confirmation(broker: &Broker, request: Request) -> Result<(), Refused> {
    let (parts, stream) = request.into_parts();
    let attested = attested_session(broker, &parts.headers)?;
    let Confirmation { uri } = body::json(&parts, stream, AUTH_BYTES, Code::Statement).await?;
    let uri: ResourceUri = uri.parse().map_err(|_| release::nothing_to_release())?;
    release::confirm(broker, &attested, &uri).await
}

/// A body that tells when it was handed to the connection: then its release counts as delivered.
struct Delivery {
    content: Option<Bytes>,
    release: Option<(Journal, Release)>,
}

impl HttpBody for Delivery {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(content) = self.content.take() else { return Poll::Ready(None) };
        if let Some((journal, release)) = self.release.take() {
            journal.delivered(release);
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
