//! Resources of the agent's containers: limits, pause, numbers, and what the kernel kills for want of
//! memory.

use std::fs;
use std::sync::Arc;

use agent_resources::{Cgroup, ResourceError};
use protocols::agent::{CgroupStats, NetworkStats, StatsContainerResponse};
use protocols::oci::LinuxResources;
use slog::info;

use crate::agent::Agent;
use crate::container::{Container, Instance};
use crate::error::{Error, Result};

impl From<ResourceError> for Error {
    fn from(error: ResourceError) -> Self {
        match error {
            ResourceError::Malformed(reason) => Self::InvalidArgument(reason),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl Agent {
    /// Sets limits. The sandbox' own container has none.
    pub async fn update(&self, id: &str, wanted: LinuxResources) -> Result<()> {
        let Container::Instance(instance) = self.containers.find(id)? else { return Ok(()) };
        let permitted = self.permitted(&instance, wanted)?;
        let cgroup = self.cgroup_of(&instance)?;
        blocking(move || cgroup.update(&permitted)).await
    }

    /// Stops every process of a container.
    pub async fn pause(&self, id: &str) -> Result<()> {
        let instance = self.running(id)?;
        Ok(self.cgroup_of(&instance)?.freeze().await?)
    }

    /// Lets every process of a container go on.
    pub async fn resume(&self, id: &str) -> Result<()> {
        let instance = self.running(id)?;
        Ok(self.cgroup_of(&instance)?.thaw().await?)
    }

    /// A container's numbers, with those of the interfaces that it shares with the others.
    pub async fn stats(&self, id: &str) -> Result<StatsContainerResponse> {
        let mut response = StatsContainerResponse::new();
        let cgroup = match self.containers.find(id)? {
            Container::Instance(instance) => Some(self.cgroup_of(&instance)?),
            Container::Pause(_) => None,
        };
        let (stats, interfaces): (CgroupStats, Vec<NetworkStats>) = blocking(move || {
            let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
            let stats = cgroup.map(|cgroup| cgroup.stats()).unwrap_or_default();
            Ok((stats, agent_resources::stats::network(&interfaces)))
        })
        .await?;
        response.cgroup_stats = Some(stats).into();
        response.network_stats = interfaces;
        Ok(response)
    }

    /// Queues an event each time the kernel kills in a container for want of memory, until the container
    /// is over. Called before its process is let go.
    pub(crate) fn watch_oom(self: &Arc<Self>, instance: &Arc<Instance>) {
        let cgroup = self.cgroup_of(instance);
        let watched = cgroup.and_then(|cgroup| Ok((cgroup.watch_oom()?, cgroup)));
        let (mut watch, cgroup) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                let reason = error.to_string();
                info!(self.log, # "host", "no news of memory running out"; "id" => &instance.id, "reason" => reason);
                return;
            }
        };
        let agent = self.clone();
        let instance = instance.clone();
        tokio::spawn(async move {
            loop {
                let hit = tokio::select! {
                    kills = watch.next() => kills.is_some(),
                    _ = instance.init.watched.wait() => {
                        // News that came at the same time as the end.
                        if watch.rest(&cgroup) > 0 {
                            agent.oom.push(instance.id.clone());
                        }
                        return;
                    }
                };
                if !hit {
                    return;
                }
                agent.oom.push(instance.id.clone());
            }
        });
    }

    /// After processors were plugged in.
    pub(crate) async fn widen_cpusets(&self) -> Result<()> {
        let online = self.machine.processor_list()?;
        let cgroups: Vec<Cgroup> =
            self.containers.instances().iter().filter_map(|i| self.cgroup_of(i).ok()).collect();
        blocking(move || {
            for cgroup in cgroups.iter().filter(|cgroup| cgroup.exists()) {
                cgroup.widen_cpuset(&online, "")?;
            }
            Ok(())
        })
        .await
    }

    pub(crate) fn cgroup_of(&self, instance: &Instance) -> Result<Cgroup> {
        Ok(self.hierarchy.cgroup(&instance.cgroup)?)
    }

    /// What of a request is carried out: everything outside of a sealed VM.
    fn permitted(&self, instance: &Instance, wanted: LinuxResources) -> Result<LinuxResources> {
        let Some(opening) = self.mode.sealed() else { return Ok(wanted) };
        let permitted = crate::policy::update::check(&*opening.require()?, &instance.name, &wanted)?;
        if !permitted.dropped.is_empty() {
            let dropped = permitted.dropped.join(", ");
            info!(self.log, # "host", "limits that stay"; "id" => &instance.id, "asked" => dropped);
        }
        Ok(permitted.resources)
    }

    fn running(&self, id: &str) -> Result<Arc<Instance>> {
        let instance = self.containers.instance(id)?;
        match instance.init.watched.code() {
            None => Ok(instance),
            Some(_) => Err(Error::Internal("the container has ended".into())),
        }
    }
}

/// The kernel may take its time to give memory back, or to add numbers up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> agent_resources::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Error::Internal("the call was interrupted".into())),
    }
}
