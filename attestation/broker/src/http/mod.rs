//! The broker's HTTP surface: the key broker protocol, the owners' interface, and nothing else.

mod answer;
mod blobs;
mod body;
mod compat;
mod cookie;
mod owner_api;
mod rcar;
mod sev;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use protocols::broker::{
    BLOB_DENIALS_PATH, BLOBS_PATH, CONFIRM_PATH, HEALTH_PATH, Health, POLICIES_PATH, REGISTRATIONS_PATH,
    RESOURCES_PATH, RETIREMENTS_PATH,
};
use protocols::rcar::{ATTEST_PATH, AUTH_PATH, KbsError, RESOURCE_PATH};
use protocols::sev::{MEASUREMENTS_PATH, SESSIONS_PATH};

use crate::broker::Broker;
use crate::token::JWKS_PATH;

pub use answer::CHECKPOINT_HEADER;

/// Where a request came from; put there by the accept loop.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Everything that the broker answers.
pub fn router(broker: Arc<Broker>) -> Router {
    Router::new()
        .route(AUTH_PATH, post(rcar::auth))
        .route(ATTEST_PATH, post(rcar::attest))
        .route(JWKS_PATH, get(rcar::jwks))
        .route(CONFIRM_PATH, post(rcar::confirm))
        .route(&format!("{RESOURCE_PATH}/{{*path}}"), get(rcar::resource).post(compat::write))
        .route(REGISTRATIONS_PATH, post(owner_api::register))
        .route(RESOURCES_PATH, post(owner_api::keep))
        .route(POLICIES_PATH, post(owner_api::add_policy))
        .route(RETIREMENTS_PATH, post(owner_api::retire))
        .route(BLOBS_PATH, post(blobs::enrol))
        .route(BLOB_DENIALS_PATH, post(blobs::deny))
        .route(SESSIONS_PATH, post(sev::open))
        .route(MEASUREMENTS_PATH, post(sev::measure))
        .route(HEALTH_PATH, get(health))
        .fallback(nothing_here)
        .method_not_allowed_fallback(no_such_method)
        .with_state(broker)
}

async fn health(State(broker): State<Arc<Broker>>) -> Response {
    let up = match broker.store().probe().await {
        Ok(()) => true,
        Err(error) => {
            slog::error!(broker.log(), "health check failed"; "error" => crate::chain(&error));
            false
        }
    };
    let health = Health {
        status: if up { "ok" } else { "failing" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        trust: broker.trust().to_vec(),
    };
    let status = if up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(health)).into_response()
}

async fn nothing_here(uri: Uri) -> Response {
    // The protocol's admin interface, which can change what every tenant gets, is not served but for the
    // operator's own resources.
    let path: String = uri.path().chars().take(128).collect();
    let error = KbsError::new("PluginNotFound", format!("this broker has nothing at {path}"));
    (StatusCode::NOT_FOUND, axum::Json(error)).into_response()
}

async fn no_such_method(method: Method, request: Request) -> Response {
    let path: String = request.uri().path().chars().take(128).collect();
    let error = KbsError::new("InvalidRequestPath", format!("{path} does not take {method}"));
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(error)).into_response()
}
