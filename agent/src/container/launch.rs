//! A container's first process, whoever specified it: made, written into the books, watched.

use std::path::PathBuf;
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use slog::info;

use super::books::{Keeps, Reserved};
use super::exec::told;
use super::{Container, Instance, Rights, cgroup};
use crate::agent::Agent;
use crate::error::Result;
use crate::launch::LaunchError;
use crate::process::StreamsWanted;

/// A container about to be made.
pub struct Plan<'a> {
    /// The host's id for it.
    pub id: &'a str,
    /// The sealed name; on the plain path, its id.
    pub name: &'a str,
    /// For config.json and files of its own; exists.
    pub directory: PathBuf,
    /// Its cgroup, as `spec` names it.
    pub cgroup: String,
    /// What libcontainer makes of it.
    pub spec: &'a Spec,
    /// What the host may do with its processes.
    pub rights: Rights,
    /// How its streams shall be; a terminal if `spec` says so.
    pub streams: StreamsWanted,
}

impl Agent {
    /// Makes a container whose process waits to be let go. `keeps` is dropped when it is removed, or at
    /// once if there will be none; nothing is left of a failure then.
    pub async fn launch(&self, plan: Plan<'_>, keeps: Keeps) -> std::result::Result<Instance, LaunchError> {
        let bundle = plan.directory.join("bundle");
        match self.launcher.create(plan.id, &bundle, plan.spec, plan.streams).await {
            Ok(process) => Ok(Instance::new(
                plan.id,
                plan.name,
                plan.directory,
                plan.cgroup,
                plan.rights,
                Arc::new(process),
                keeps,
            )),
            Err(error) => {
                self.undo(plan.id, &plan.cgroup).await;
                Err(error)
            }
        }
    }

    /// Makes a container, from its reservation to its watch.
    pub async fn make(self: &Arc<Self>, plan: Plan<'_>, keeps: Keeps) -> Result<Arc<Instance>> {
        let reserved = self.containers.reserve(plan.id)?;
        let instance = self.launch(plan, keeps).await.map_err(told)?;
        Ok(self.enroll(reserved, instance))
    }

    /// Every container's id, the pause container's too.
    pub fn container_ids(&self) -> Vec<String> {
        self.containers.ids()
    }

    /// A helper that ended half-way may have left behind a process that nobody knows.
    pub(super) async fn undo(&self, id: &str, path: &str) {
        cgroup::kill(&self.paths.cgroups, path);
        let removed = cgroup::remove(&self.paths.cgroups, path).await;
        if removed.is_err() || self.launcher.delete(id).await.is_err() {
            info!(self.log, # "host", "something of a failed container is left over"; "id" => id);
        }
    }

    /// Writes a container into the books and watches for its end.
    pub fn enroll(self: &Arc<Self>, reserved: Reserved<'_>, instance: Instance) -> Arc<Instance> {
        let instance = Arc::new(instance);
        reserved.fill(Container::Instance(instance.clone()));
        self.watch_oom(&instance);
        let agent = self.clone();
        let watched = instance.clone();
        tokio::spawn(async move {
            let code = watched.init.watched.wait().await;
            agent.containers.note(|slots| slots.exited(&watched.id, code));
            info!(agent.log, # "host", "a container has ended"; "id" => &watched.id, "code" => code);
        });
        instance
    }
}
