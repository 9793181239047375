//! The guest as a machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_resources::clock::{self, ClockError};
use agent_resources::volume;
use protocols::agent as wire;
use protocols::csi::VolumeStatsResponse;
use protocols::empty::Empty;
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::mode::Mode;

/// As long as the stock agent waits for hot-plugged processors.
const PLUG_PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn details(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::GuestDetailsRequest,
) -> Result<wire::GuestDetailsResponse> {
    let mut details = wire::AgentDetails::new();
    details.version = env!("CARGO_PKG_VERSION").to_owned();
    details.init_daemon = std::process::id() == 1;
    details.device_handlers = agent_storage::DEVICE_HANDLERS.map(str::to_owned).to_vec();
    details.storage_handlers = agent_storage::STORAGE_HANDLERS.map(str::to_owned).to_vec();
    details.supports_seccomp = true;
    details.extra_features = vec!["sealpod".to_owned()];
    let mut response = wire::GuestDetailsResponse::new();
    response.agent_details = Some(details).into();
    if request.mem_block_size {
        response.mem_block_size_bytes = agent.machine.memory_block_size();
    }
    if request.mem_hotplug_probe {
        response.support_mem_hotplug_probe = agent.machine.probes_memory();
    }
    Ok(response)
}

/// Whether the host waits is its own affair: processors are there when this answers.
pub(super) async fn online(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::OnlineCPUMemRequest,
) -> Result<Empty> {
    if request.nb_cpus > 0 {
        agent.machine.online_processors(request.nb_cpus, PLUG_PATIENCE).await?;
    }
    if !request.cpu_only {
        agent.machine.online_memory()?;
    }
    if request.nb_cpus > 0 {
        agent.widen_cpusets().await?;
    }
    Ok(Empty::new())
}

pub(super) async fn probe_memory(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::MemHotplugByProbeRequest,
) -> Result<Empty> {
    agent.machine.probe_memory(&request.memHotplugProbeAddr)?;
    Ok(Empty::new())
}

pub(super) async fn add_swap(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::AddSwapRequest,
) -> Result<Empty> {
    let device = agent.machine.pci_block_device(&request.PCIPath, agent.config.hotplug).await?;
    agent.machine.swap_on(&device)?;
    Ok(Empty::new())
}

pub(super) async fn add_swap_path(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::AddSwapPathRequest,
) -> Result<Empty> {
    agent.machine.swap_on(Path::new(&request.path))?;
    Ok(Empty::new())
}

pub(super) async fn reseed(
    _: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::ReseedRandomDevRequest,
) -> Result<Empty> {
    clock::mix_randomness(&request.data).map_err(Error::step("mixing in randomness"))?;
    Ok(Empty::new())
}

/// The host's word, but in a confidential VM never from before the agent was built, nor from before what the
/// broker said.
pub(super) async fn set_time(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::SetGuestDateTimeRequest,
) -> Result<Empty> {
    let floor = match agent.mode {
        Mode::Sealed(ref opening) => opening.earliest(),
        Mode::Policy(ref gatekeeper) => gatekeeper.earliest(),
        Mode::Unsealed => 0,
    };
    clock::set_clock(request.Sec, request.Usec, floor).map_err(|error| match error {
        ClockError::Malformed => Error::InvalidArgument(error.to_string()),
        ClockError::TooEarly(_) | ClockError::TooLate(_) | ClockError::Kernel(_) => {
            Error::Internal(error.to_string())
        }
    })?;
    Ok(Empty::new())
}

pub(super) async fn metrics(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    _: wire::GetMetricsRequest,
) -> Result<wire::Metrics> {
    let mut response = wire::Metrics::new();
    response.metrics = agent.metrics.text(Path::new("/proc"), agent.containers.ids().len());
    Ok(response)
}

pub(super) async fn volume_stats(
    _: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::VolumeStatsRequest,
) -> Result<VolumeStatsResponse> {
    Ok(volume::stats(Path::new(volume::VOLUMES), &request.volume_guest_path)?)
}

pub(super) async fn resize_volume(
    _: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::ResizeVolumeRequest,
) -> Result<Empty> {
    volume::grow(Path::new(volume::VOLUMES), &request.volume_guest_path, request.size)?;
    Ok(Empty::new())
}
