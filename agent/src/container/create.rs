//! CreateContainer: from the sealed specification alone. The host's OCI spec selects a slot.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocols::refusal::Code;
use sealed_spec::log::{LogInfo, LogRecipient, LogStream};
use sealed_spec::{Logs, SealedSpec};
use slog::info;

use super::{Container, Instance, Pause, Plan, Rights, valid_id};
use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::images::Root;
use crate::launch::{LaunchError, private_dir};
use crate::oci::Around;
use crate::policy::{self, HostSpec};
use crate::process::{OutputPolicy, StreamsWanted};
use crate::sandbox::Sandbox;
use crate::slots::{self, Patience};
use tokio::time::Instant;

/// How long a killed process of an instance that nobody wants may take to end.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// One request.
#[derive(Debug)]
pub struct CreateRequest {
    /// The host's id for it.
    pub id: String,
    /// What the host's OCI spec says.
    pub host: HostSpec,
    /// How long to wait for the image.
    pub patience: Duration,
}

impl Agent {
    /// Makes a container whose process waits for [`Agent::start`]. If the caller goes away meanwhile,
    /// what was made is taken apart again: the kubelet comes back with another id.
    pub async fn create(self: &Arc<Self>, request: CreateRequest) -> Result<()> {
        let agent = self.clone();
        let (answer, answered) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let id = request.id.clone();
            let made = agent.create_now(request).await;
            let succeeded = made.is_ok();
            if answer.send(made).is_err() && succeeded {
                let _ = agent.remove(&id, Some(CLEAN_UP)).await;
            }
        });
        answered
            .await
            .unwrap_or_else(|_| Err(Error::Internal("creating the container was interrupted".into())))
    }

    async fn create_now(self: &Arc<Self>, request: CreateRequest) -> Result<()> {
        let CreateRequest { id, host, patience } = request;
        if !valid_id(&id) {
            return Err(Error::InvalidArgument("malformed container id".into()));
        }
        if self.sandbox_request()?.id == id {
            return self.containers.insert(&id, Container::Pause(Arc::new(Pause::default())));
        }
        let opening = self.opening()?;
        opening.open_copied(&self.quarantine).await?;
        let sandbox = self.furnish().await?;
        let spec = opening.require()?;
        let Some(name) = host.name.clone() else {
            let detail =
                "the request names no container, or two (annotation io.kubernetes.cri.container-name)";
            return Err(Error::refused(Code::ContainerUnknown, detail));
        };
        let reserved = self.containers.reserve(&id)?;
        let until = Instant::now() + patience;
        let attempt = self.claim(&name, &id).await?;
        info!(self.log, # "host", "creating a container"; "id" => &id, "replaced" => host.replaced.join(", "));
        match self.build(&id, (&name, &host), &spec, &sandbox, attempt.patience(until)).await {
            Ok(instance) => {
                self.enroll(reserved, instance);
                if attempt.superseded() {
                    self.remove(&id, Some(CLEAN_UP)).await?;
                    return Err(slots::superseded(&name));
                }
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_dir_all(self.paths.container(&id));
                self.containers.note(|slots| slots.removed(&id));
                info!(self.log, # "host", "no container"; "id" => &id, "reason" => error.to_string());
                Err(error)
            }
        }
    }

    async fn build(
        self: &Arc<Self>,
        id: &str,
        (name, host): (&str, &HostSpec),
        spec: &SealedSpec,
        sandbox: &Sandbox,
        patience: Patience,
    ) -> Result<Instance> {
        let policy::Sealed { container: sealed, image } = policy::sealed_container(spec, name)?;
        let directory = self.paths.container(id);
        private_dir(&directory).map_err(Error::step("making the container's directory"))?;
        let mut root = self.images.root(image, &directory.join("root"), patience).await?;
        let cgroup = cgroup(id);
        let around = Around { root: &root, sandbox, directory: &directory, cgroup: &cgroup };
        let prepared = self.prepare(spec, &sealed, host, around).await?;
        root.mount = Box::new((root.mount, prepared.keeps));
        let stop_signal = root
            .config
            .config()
            .as_ref()
            .and_then(|c| c.stop_signal().as_deref())
            .and_then(super::life::signal_number);
        let rights = Rights::sealed(spec, &sealed, stop_signal);
        let pipe_size = self.config.pipe_size;
        let streams = StreamsWanted { output: output_policy(spec), input: rights.stdin, pipe_size };
        let plan = Plan { id, name, directory, cgroup, spec: &prepared.spec, rights, streams };
        let made = self.launch(plan, Box::new(root)).await.map_err(|error| explain(error, spec));
        drop(prepared.sub_paths);
        let made = made?;
        if let Logs::Sealed { recipient } = &spec.grants.logs
            && let Err(error) = self.seal_output(&made, recipient)
        {
            // Nobody knows of it yet: what was launched is taken apart here.
            self.undo(&made.id, &made.cgroup).await;
            return Err(error);
        }
        Ok(made)
    }

    /// What the first process prints is for the owner alone.
    fn seal_output(&self, instance: &Instance, recipient: &LogRecipient) -> Result<()> {
        let spec = self.opening()?.digest()?.to_string();
        let streams = &instance.init.streams;
        for (output, stream) in [(&streams.stdout, LogStream::Stdout), (&streams.stderr, LogStream::Stderr)] {
            let info = LogInfo {
                spec: spec.clone(),
                container: instance.name.clone(),
                instance: instance.id.clone(),
                stream,
            };
            output.seal(recipient, &info).map_err(|e| Error::refused(Code::Launch, e.to_string()))?;
        }
        Ok(())
    }
}

/// A container's cgroup, below the root of cgroups.
fn cgroup(id: &str) -> String {
    format!("/pod/{id}")
}

/// What the host may read of a process' output. Sealing comes after.
pub(super) fn output_policy(spec: &SealedSpec) -> OutputPolicy {
    match spec.grants.logs {
        Logs::Off => OutputPolicy::Discard,
        Logs::Clear | Logs::Sealed { .. } => OutputPolicy::Clear,
    }
}

/// The same for probes and hooks: the owner's log is the first process'.
pub(super) fn probe_policy(spec: &SealedSpec) -> OutputPolicy {
    if spec.grants.logs == Logs::Clear { OutputPolicy::Clear } else { OutputPolicy::Discard }
}

/// Where the owner lets the host read output, it may also read what the kernel said when there is none. The
/// launcher's own words stay inside: they hold arguments and paths of the sealed specification.
pub(super) fn explain(error: LaunchError, spec: &SealedSpec) -> Error {
    match error {
        LaunchError::Failed(failure) if spec.grants.logs == Logs::Clear => {
            let kernel = kernels_words(&failure.detail);
            Error::refused(Code::Launch, format!("{}{kernel}", failure.summary))
        }
        error => error.into(),
    }
}

/// The kernel's names for what went wrong, found in other words.
fn kernels_words(detail: &str) -> String {
    let errors = (1..=133).map(nix::errno::Errno::from_raw);
    let named = errors.filter(|errno| {
        let (name, number) = (format!("{errno:?}: "), format!("(os error {})", *errno as i32));
        detail.contains(&name) || detail.contains(&number)
    });
    let words: Vec<&str> =
        named.filter(|e| *e != nix::errno::Errno::UnknownErrno).map(|e| e.desc()).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// For tests of what is mounted: a root that nobody has to unmount.
impl Root {
    /// A root file system that is a directory.
    pub fn directory(path: PathBuf, config: agent_image::ImageConfiguration) -> Self {
        Self { path, config, mount: Box::new(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_failed_launch_only_the_kernels_words_leave() {
        let detail = "failed to run mysql --password=hunter2: EACCES: Permission denied: (os error 2)";
        let failure = crate::launch::Failure { summary: "starting failed".into(), detail: detail.into() };
        let mut spec = SealedSpec::new(sealed_spec::PodSpec::default());
        let said = |spec: &SealedSpec| explain(LaunchError::Failed(failure.clone()), spec).to_string();
        assert_eq!(said(&spec), "sealpod[LAUNCH]: starting failed");
        spec.grants.logs = Logs::Clear;
        assert_eq!(
            said(&spec),
            "sealpod[LAUNCH]: starting failed (No such file or directory, Permission denied)"
        );
    }
}
