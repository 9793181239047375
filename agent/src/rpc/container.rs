//! Containers.

use std::sync::Arc;
use std::time::Duration;

use protocols::agent as wire;
use protocols::empty::Empty;
use protocols::refusal::Code;
use sealed_spec::Logs;
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::container::CreateRequest;
use crate::error::{Error, Result};
use crate::policy::HostSpec;

/// How long a create waits for an image if the client sets no deadline.
const PATIENCE: Duration = Duration::from_secs(50);
/// Kubernetes shows no more of it.
const TERMINATION_LOG: u64 = 4096;

pub(super) async fn create(
    agent: &Arc<Agent>,
    context: &TtrpcContext,
    request: wire::CreateContainerRequest,
) -> Result<Empty> {
    let patience = patience(context.timeout_nano);
    if agent.mode.sealed().is_none() {
        let agent = agent.clone();
        let patience = if context.timeout_nano > 0 { patience } else { agent.config.image_pull };
        return super::detached(async move { agent.create_plain(request, patience).await }).await;
    }
    let host = HostSpec::read(&request);
    let request = CreateRequest { id: request.container_id, host, patience };
    agent.create(request).await.map(|()| Empty::new())
}

pub(super) async fn start(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::StartContainerRequest,
) -> Result<Empty> {
    let agent = agent.clone();
    super::detached(async move { agent.start(&request.container_id).await.map_err(internal) }).await
}

pub(super) async fn remove(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::RemoveContainerRequest,
) -> Result<Empty> {
    let agent = agent.clone();
    let limit = (request.timeout != 0).then(|| Duration::from_secs(request.timeout.into()));
    super::detached(async move { agent.remove(&request.container_id, limit).await.map_err(internal) }).await
}

/// Runtimes know one error of these two calls, also for a container that isn't there.
fn internal(error: Error) -> Error {
    match error {
        Error::InvalidArgument(reason) => Error::Internal(reason),
        other => other,
    }
}

pub(super) async fn diagnostic(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::GetDiagnosticDataRequest,
) -> Result<wire::GetDiagnosticDataResponse> {
    if request.log_type != "termination_log" {
        return Err(Error::InvalidArgument("unknown type of diagnostic data".into()));
    }
    let instance = agent.containers.instance(&request.container_id)?;
    if agent.mode.sealed().is_none() {
        let mut response = wire::GetDiagnosticDataResponse::new();
        let path = crate::plain::termination_log(&instance.directory.join("bundle"));
        response.data = path.map(|path| last_words(&path)).unwrap_or_default();
        return Ok(response);
    }
    if agent.opening()?.require()?.grants.logs != Logs::Clear {
        return Err(Error::refused(
            Code::RpcDenied,
            "the sealed spec does not grant the termination log (logs: clear)",
        ));
    }
    let mut response = wire::GetDiagnosticDataResponse::new();
    response.data = last_words(&instance.directory.join(crate::oci::TERMINATION_LOG));
    Ok(response)
}

/// The container writes this file: opened without following links, read with a bound.
fn last_words(path: &std::path::Path) -> String {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        let _ = file.take(TERMINATION_LOG).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Leaves the client time to hear the answer.
fn patience(timeout_nanoseconds: i64) -> Duration {
    match u64::try_from(timeout_nanoseconds) {
        Ok(0) | Err(_) => PATIENCE,
        Ok(nanoseconds) => Duration::from_nanos(nanoseconds / 10 * 9).min(Duration::from_secs(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_answers_before_its_client_gives_up() {
        assert_eq!(patience(0), PATIENCE);
        assert_eq!(patience(-1), PATIENCE);
        assert_eq!(patience(10_000_000_000), Duration::from_secs(9));
        assert_eq!(patience(i64::MAX), Duration::from_secs(3600));
    }
}
