//! The one admin endpoint of the key broker protocol that is served: writing a resource, in the operator's compat
//! repository alone.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocols::broker::MAX_RESOURCE;
use protocols::owner::KEY_KIND;
use protocols::rcar::{RESOURCE_PATH, ResourceUri};
use protocols::refusal::Code;

use super::answer::answer;
use super::{body, cookie, no_such_method};
use crate::broker::Broker;
use crate::config::COMPAT_REPOSITORY;
use crate::refused::Refused;
use crate::sessions::SessionError;

pub(super) async fn write(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    if broker.admins().is_empty() {
        return no_such_method(request.method().clone(), request).await;
    }
    let result = take(&broker, request).await;
    answer(&broker, "compat", result.map(|()| StatusCode::OK.into_response()))
}

async fn take(broker: &Broker, request: Request) -> Result<(), Refused> {
    let (parts, stream) = request.into_parts();
    let token = cookie::bearer(&parts.headers).ok_or(SessionError::Unknown)?;
    broker.admins().admit(token, broker.tokens().issuer(), broker.clock().now())?;
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let uri = path
        .strip_prefix(RESOURCE_PATH)
        .and_then(|path| path.strip_prefix('/'))
        .and_then(|path| ResourceUri::from_path(path).ok())
        .filter(|uri| uri.repository() == COMPAT_REPOSITORY && uri.kind() != KEY_KIND);
    let uri = uri.ok_or_else(|| {
        Refused::new(
            Code::Resource,
            format!("administrators write resources of the repository '{COMPAT_REPOSITORY}' only"),
        )
    })?;
    let content = body::bytes(&parts, stream, MAX_RESOURCE, Code::Statement).await?;
    Ok(broker.store().write_compat(&uri, &content).await?)
}
