//! Limits, pause, numbers, out-of-memory events.

use std::sync::Arc;

use protocols::agent as wire;
use protocols::empty::Empty;
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::error::{Error, Result};

pub(super) async fn update(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::UpdateContainerRequest,
) -> Result<Empty> {
    let agent = agent.clone();
    let wanted = request.resources.into_option();
    super::detached(async move {
        match wanted {
            Some(wanted) => agent.update(&request.container_id, wanted).await,
            // Nothing to change, but in a container that is there.
            None => agent.containers.find(&request.container_id).map(|_| ()),
        }
    })
    .await
}

pub(super) async fn pause(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::PauseContainerRequest,
) -> Result<Empty> {
    let agent = agent.clone();
    super::detached(async move { agent.pause(&request.container_id).await }).await
}

pub(super) async fn resume(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::ResumeContainerRequest,
) -> Result<Empty> {
    let agent = agent.clone();
    super::detached(async move { agent.resume(&request.container_id).await }).await
}

pub(super) async fn stats(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::StatsContainerRequest,
) -> Result<wire::StatsContainerResponse> {
    agent.stats(&request.container_id).await
}

/// A long poll; the runtime keeps one open as long as the sandbox lives.
pub(super) async fn oom_event(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    _: wire::GetOOMEventRequest,
) -> Result<wire::OOMEvent> {
    let mut response = wire::OOMEvent::new();
    // An empty message is how runtimes know that the sandbox has ended.
    response.container_id = agent.oom.next().await.ok_or_else(|| Error::Internal(String::new()))?;
    Ok(response)
}
