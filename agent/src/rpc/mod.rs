//! The Kata agent's API: for each noun a file, in each file thin shims over the agent's core.
//!
//! Every call passes [`Service::enter`]: whoever decides in this VM's mode, and a bound on calls in flight.

mod container;
mod files;
mod guest;
mod health;
mod network;
mod process;
mod resources;
mod sandbox;
mod server;
mod status;

pub use server::{Peers, serve};

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use protocols::agent as wire;
use protocols::agent_ttrpc::{AgentService, create_agent_service};
use protocols::empty::Empty;
use protocols::health_ttrpc::create_health;
use protocols::refusal::Refusal;
use protocols::types;
use slog::info;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::guarded;
use crate::mode::Mode;
use crate::opening::Opening;
use crate::policy;
use crate::record;

/// Calls in flight, most of them waiting for a process or its output.
const MAX_CALLS: usize = 2048;

/// The API on top of an agent.
#[derive(Clone)]
pub struct Service {
    agent: Arc<Agent>,
    calls: Arc<Semaphore>,
}

impl Service {
    /// The API on top of `agent`.
    pub fn new(agent: Arc<Agent>) -> Self {
        Self { agent, calls: Arc::new(Semaphore::new(MAX_CALLS)) }
    }

    /// Dispatch tables for a ttrpc server.
    pub fn tables(self) -> HashMap<String, ttrpc::r#async::Service> {
        let mut tables = create_agent_service(Arc::new(self));
        tables.extend(create_health(Arc::new(health::Health)));
        tables
    }

    /// Notes a request that comes before the specification is open, to be checked when it opens; checks it
    /// at once if it is.
    fn recorded<R: 'static>(
        &self,
        rpc: &'static str,
        opening: &Opening,
        request: &R,
    ) -> std::result::Result<(), Refusal> {
        if self.agent.record.note(rpc, request)? {
            return Ok(());
        }
        opening.spec().map_or(Ok(()), |spec| record::check(&spec.pod, request))
    }

    /// Every call begins here.
    async fn enter<R>(&self, rpc: &'static str, request: &R) -> Result<OwnedSemaphorePermit>
    where
        R: protobuf::Message + serde::Serialize,
    {
        let permit = self.calls.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Error::Busy(format!("more than {MAX_CALLS} calls are in flight")))?;
        let admitted = match &self.agent.mode {
            Mode::Sealed(opening) => {
                policy::check(rpc, opening.phase()).and_then(|()| self.recorded(rpc, opening, request))
            }
            // Policies know requests by their message's name.
            Mode::Policy(gatekeeper) => match guarded::as_seen(request) {
                Ok(seen) => gatekeeper.admit(R::NAME, seen).await,
                Err(refusal) => Err(refusal),
            },
            Mode::Unsealed => Ok(()),
        };
        if let Err(refusal) = admitted {
            info!(self.agent.log, # "host", "refused"; "rpc" => rpc, "reason" => refusal.to_string());
            return Err(refusal.into());
        }
        Ok(permit)
    }
}

/// Work that goes on when the caller goes away, so that nothing is left half done.
async fn detached(work: impl Future<Output = Result<()>> + Send + 'static) -> Result<Empty> {
    match tokio::spawn(work).await {
        Ok(done) => done.map(|()| Empty::new()),
        Err(_) => Err(Error::Internal("the call was interrupted".into())),
    }
}

/// A call: policy, work, translation of the error.
macro_rules! calls {
    ($($method:ident($rpc:literal, $request:ty) -> $response:ty = $work:path;)*) => {
        #[async_trait]
        impl AgentService for Service {
            $(async fn $method(&self, context: &TtrpcContext, request: $request) -> ttrpc::Result<$response> {
                let call = || async {
                    let _permit = self.enter($rpc, &request).await?;
                    $work(&self.agent, context, request).await
                };
                call().await.map_err(|error| status::from(&error))
            })*
        }
    };
}

calls! {
    create_container("CreateContainer", wire::CreateContainerRequest) -> Empty = container::create;
    start_container("StartContainer", wire::StartContainerRequest) -> Empty = container::start;
    remove_container("RemoveContainer", wire::RemoveContainerRequest) -> Empty = container::remove;
    stats_container("StatsContainer", wire::StatsContainerRequest) -> wire::StatsContainerResponse = resources::stats;
    update_container("UpdateContainer", wire::UpdateContainerRequest) -> Empty = resources::update;
    update_ephemeral_mounts("UpdateEphemeralMounts", wire::UpdateEphemeralMountsRequest) -> Empty = sandbox::update_ephemeral;
    pause_container("PauseContainer", wire::PauseContainerRequest) -> Empty = resources::pause;
    resume_container("ResumeContainer", wire::ResumeContainerRequest) -> Empty = resources::resume;
    remove_stale_virtiofs_share_mounts("RemoveStaleVirtiofsShareMounts", wire::RemoveStaleVirtiofsShareMountsRequest) -> Empty = sandbox::remove_stale_shares;
    get_diagnostic_data("GetDiagnosticData", wire::GetDiagnosticDataRequest) -> wire::GetDiagnosticDataResponse = container::diagnostic;
    exec_process("ExecProcess", wire::ExecProcessRequest) -> Empty = process::exec;
    signal_process("SignalProcess", wire::SignalProcessRequest) -> Empty = process::signal;
    wait_process("WaitProcess", wire::WaitProcessRequest) -> wire::WaitProcessResponse = process::wait;
    write_stdin("WriteStdin", wire::WriteStreamRequest) -> wire::WriteStreamResponse = process::write_stdin;
    read_stdout("ReadStdout", wire::ReadStreamRequest) -> wire::ReadStreamResponse = process::read_stdout;
    read_stderr("ReadStderr", wire::ReadStreamRequest) -> wire::ReadStreamResponse = process::read_stderr;
    close_stdin("CloseStdin", wire::CloseStdinRequest) -> Empty = process::close_stdin;
    tty_win_resize("TtyWinResize", wire::TtyWinResizeRequest) -> Empty = process::resize;
    update_interface("UpdateInterface", wire::UpdateInterfaceRequest) -> types::Interface = network::update_interface;
    update_routes("UpdateRoutes", wire::UpdateRoutesRequest) -> wire::Routes = network::update_routes;
    list_interfaces("ListInterfaces", wire::ListInterfacesRequest) -> wire::Interfaces = network::list_interfaces;
    list_routes("ListRoutes", wire::ListRoutesRequest) -> wire::Routes = network::list_routes;
    add_arp_neighbors("AddARPNeighbors", wire::AddARPNeighborsRequest) -> Empty = network::add_neighbours;
    get_ip_tables("GetIPTables", wire::GetIPTablesRequest) -> wire::GetIPTablesResponse = network::rules;
    set_ip_tables("SetIPTables", wire::SetIPTablesRequest) -> wire::SetIPTablesResponse = network::set_rules;
    get_metrics("GetMetrics", wire::GetMetricsRequest) -> wire::Metrics = guest::metrics;
    mem_agent_memcg_set("MemAgentMemcgSet", wire::MemAgentMemcgConfig) -> Empty = status::unbuilt;
    mem_agent_compact_set("MemAgentCompactSet", wire::MemAgentCompactConfig) -> Empty = status::unbuilt;
    create_sandbox("CreateSandbox", wire::CreateSandboxRequest) -> Empty = sandbox::create;
    destroy_sandbox("DestroySandbox", wire::DestroySandboxRequest) -> Empty = sandbox::destroy;
    online_cpu_mem("OnlineCPUMem", wire::OnlineCPUMemRequest) -> Empty = guest::online;
    reseed_random_dev("ReseedRandomDev", wire::ReseedRandomDevRequest) -> Empty = guest::reseed;
    get_guest_details("GetGuestDetails", wire::GuestDetailsRequest) -> wire::GuestDetailsResponse = guest::details;
    mem_hotplug_by_probe("MemHotplugByProbe", wire::MemHotplugByProbeRequest) -> Empty = guest::probe_memory;
    set_guest_date_time("SetGuestDateTime", wire::SetGuestDateTimeRequest) -> Empty = guest::set_time;
    copy_file("CopyFile", wire::CopyFileRequest) -> Empty = files::copy;
    get_oom_event("GetOOMEvent", wire::GetOOMEventRequest) -> wire::OOMEvent = resources::oom_event;
    add_swap("AddSwap", wire::AddSwapRequest) -> Empty = guest::add_swap;
    add_swap_path("AddSwapPath", wire::AddSwapPathRequest) -> Empty = guest::add_swap_path;
    get_volume_stats("GetVolumeStats", wire::VolumeStatsRequest) -> protocols::csi::VolumeStatsResponse = guest::volume_stats;
    resize_volume("ResizeVolume", wire::ResizeVolumeRequest) -> Empty = guest::resize_volume;
    set_policy("SetPolicy", wire::SetPolicyRequest) -> Empty = sandbox::set_policy;
}
