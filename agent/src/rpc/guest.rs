//! The guest as a machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocols::agent as wire;
use protocols::empty::Empty;
use tokio::time::{Instant, sleep};
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::guest;

const PROCESSORS: &str = "/sys/devices/system/cpu";
/// As long as the stock agent waits for hot-plugged processors.
const PLUG_PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn details(
    _: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::GuestDetailsRequest,
) -> Result<wire::GuestDetailsResponse> {
    let mut agent = wire::AgentDetails::new();
    agent.version = env!("CARGO_PKG_VERSION").to_owned();
    agent.init_daemon = std::process::id() == 1;
    agent.supports_seccomp = true;
    agent.extra_features = vec!["sealpod".to_owned()];
    let mut response = wire::GuestDetailsResponse::new();
    response.agent_details = Some(agent).into();
    if request.mem_block_size {
        response.mem_block_size_bytes = guest::memory_block_size();
    }
    Ok(response)
}

pub(super) async fn online(
    _: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::OnlineCPUMemRequest,
) -> Result<Empty> {
    let end = Instant::now() + PLUG_PATIENCE;
    loop {
        let online =
            guest::online_processors(Path::new(PROCESSORS)).map_err(Error::step("listing processors"))?;
        if !request.wait || online >= request.nb_cpus as usize {
            return Ok(Empty::new());
        }
        if Instant::now() >= end {
            return Err(Error::Internal(format!("{online} of {} processors are there", request.nb_cpus)));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn reseed(
    _: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::ReseedRandomDevRequest,
) -> Result<Empty> {
    guest::mix_randomness(&request.data).map_err(Error::step("mixing in randomness"))?;
    Ok(Empty::new())
}

pub(super) async fn set_time(
    _: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::SetGuestDateTimeRequest,
) -> Result<Empty> {
    guest::set_clock(request.Sec, request.Usec).map_err(|e| Error::Internal(e.to_string()))?;
    Ok(Empty::new())
}

pub(super) async fn metrics(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    _: wire::GetMetricsRequest,
) -> Result<wire::Metrics> {
    let mut response = wire::Metrics::new();
    response.metrics = format!(
        "# TYPE sealpod_agent_resident_bytes gauge\nsealpod_agent_resident_bytes {}\n\
         # TYPE sealpod_agent_containers gauge\nsealpod_agent_containers {}\n",
        guest::resident(),
        agent.containers.ids().len()
    );
    Ok(response)
}
