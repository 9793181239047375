//! The sandbox.

use std::sync::Arc;

use protocols::agent as wire;
use protocols::empty::Empty;
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::error::Result;
use crate::sandbox;

pub(super) async fn create(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::CreateSandboxRequest,
) -> Result<Empty> {
    let agent = agent.clone();
    if agent.mode.sealed().is_none() {
        return super::detached(async move { agent.create_plain_sandbox(request).await }).await;
    }
    let host = sandbox::check_request(&request)?;
    super::detached(async move { agent.create_sandbox(host).await }).await
}

pub(super) async fn destroy(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    _: wire::DestroySandboxRequest,
) -> Result<Empty> {
    agent.destroy().await?;
    Ok(Empty::new())
}
