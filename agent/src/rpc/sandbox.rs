//! The sandbox.

use std::sync::Arc;

use protocols::agent as wire;
use protocols::empty::Empty;
use protocols::refusal::Code;
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::mode::Mode;
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
    if agent.mode.sealed().is_none() {
        agent.end_plain().await;
    }
    agent.destroy().await?;
    Ok(Empty::new())
}

/// Memory of another size, as the machine grows. The table denies it in a sealed VM.
pub(super) async fn update_ephemeral(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::UpdateEphemeralMountsRequest,
) -> Result<Empty> {
    let agent = agent.clone();
    super::detached(async move { agent.update_plain_mounts(request.storages).await }).await
}

/// Shared directories whose other side is gone.
pub(super) async fn remove_stale_shares(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    _: wire::RemoveStaleVirtiofsShareMountsRequest,
) -> Result<Empty> {
    agent.remove_stale_shares().await?;
    Ok(Empty::new())
}

/// Another policy, if the one in force allows it.
pub(super) async fn set_policy(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::SetPolicyRequest,
) -> Result<Empty> {
    match &agent.mode {
        Mode::Policy(gatekeeper) => match gatekeeper.replace(&request.policy).await {
            Ok(()) => Ok(Empty::new()),
            Err(refusal) if refusal.code == Code::PolicyInvalid => {
                Err(Error::InvalidArgument(refusal.to_string()))
            }
            Err(refusal) => Err(refusal.into()),
        },
        // A runtime sends its policy to whatever agent it finds; nothing here would look at it.
        Mode::Sealed(_) | Mode::Unsealed => Err(Error::Unimplemented),
    }
}
