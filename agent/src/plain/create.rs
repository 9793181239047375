//! CreateContainer and ExecProcess on the plain path, in the stock agent's order: devices, storages,
//! secrets, namespaces, process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_cdh::Socket;
use agent_image::ImageConfiguration;
use agent_storage::{DeviceRequest, DeviceUpdate, Storages, add_device};
use libcontainer::oci_spec::runtime::Spec;
use protocols::agent as wire;
use protocols::refusal::Code;
use slog::info;

use super::convert::{self, Controllers, Converted};
use super::image::Here;
use super::sandbox::PlainSandbox;
use super::{fit, request};
use crate::agent::Agent;
use crate::container::{Container, Keeps, Pause, Plan, Rights, told, valid_id};
use crate::error::{Error, Result};
use crate::launch::private_dir;
use crate::process::{OutputPolicy, StreamsWanted};

/// Annotations by which containerd and CRI-O tell the sandbox' own container from the others.
const KINDS: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
const NAMES: [&str; 2] = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name"];
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Secret volumes and environment files are small; a shared root of data is not looked through.
const SECRETS: &str = "/run/kata-containers/shared/containers";

/// What a container keeps as long as it exists: dropped when it is removed.
struct Kept {
    storages: Arc<Storages>,
    id: String,
    /// Behind a lock only because others may not share it.
    _socket: Option<Mutex<Socket>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.storages.release(&self.id);
    }
}

/// What storages made of a container's root.
struct Furnished {
    updates: Vec<DeviceUpdate>,
    points: Vec<PathBuf>,
    image: Option<ImageConfiguration>,
}

impl Agent {
    /// Makes the container that the host describes.
    pub async fn create_plain(
        self: &Arc<Self>,
        request: wire::CreateContainerRequest,
        patience: Duration,
    ) -> Result<()> {
        let id = request.container_id.clone();
        if !valid_id(&id) {
            return Err(Error::Internal("malformed container id".into()));
        }
        let sandbox = self.plain.sandbox().map_err(plainly)?;
        let made = self.create_plain_now(&id, &sandbox, request, patience).await;
        if let Err(error) = &made {
            info!(self.log, # "host", "no container"; "id" => &id, "reason" => error.to_string());
        }
        made.map_err(plainly)
    }

    async fn create_plain_now(
        self: &Arc<Self>,
        id: &str,
        sandbox: &PlainSandbox,
        request: wire::CreateContainerRequest,
        patience: Duration,
    ) -> Result<()> {
        check(&request)?;
        let shares_pids = request.sandbox_pidns || sandbox.shares_pids;
        let host = request.OCI.into_option().ok_or(convert::ConvertError::Missing("content"))?;
        let cgroup_path = host.Linux.as_ref().map(|linux| linux.CgroupsPath.clone()).unwrap_or_default();
        let annotation = |keys: [&str; 2]| keys.iter().find_map(|key| host.Annotations.get(*key)).cloned();
        if annotation(KINDS).as_deref() == Some("sandbox") {
            // The pause that the host sends an image for is built in.
            info!(self.log, # "host", "the sandbox' own container"; "id" => id);
            if shares_pids {
                self.shared_pids(sandbox).await?;
            }
            return self.containers.reserve(id).map(|reserved| {
                reserved.fill(Container::Pause(Arc::new(Pause::default())));
            });
        }
        let name = annotation(NAMES).unwrap_or_else(|| id.to_owned());
        let Converted { value: mut spec, left_out } = convert::spec(&host, self.controllers())?;
        if !left_out.is_empty() {
            info!(self.log, # "host", "parts without effect"; "id" => id, "parts" => left_out.join(", "));
        }
        let reserved = self.containers.reserve(id)?;
        let storages = request::storages(request.storages);
        let devices = request::devices(request.devices);
        let images = self.plain.storages.images(id, &storages)?;
        let images = self.pull_named(images, patience).await?;
        let kept = Kept { storages: self.plain.storages.clone(), id: id.to_owned(), _socket: None };
        let furnished = self.furnish_plain(id, devices, storages, images).await?;
        fit::devices(&mut spec, &furnished.updates)?;
        fit::pci_variables(&mut spec, &furnished.updates)?;
        if let Some(config) = &furnished.image {
            fit::image(&mut spec, config);
        }
        self.plain_root(id, &mut spec, &furnished.points)?;
        let cgroup = fit::cgroup(&cgroup_path, id)?;
        let directory = self.paths.container(id);
        private_dir(&directory).map_err(Error::step("making the container's directory"))?;
        let mut plan = Prepared { spec, kept, directory, cgroup };
        let prepared = self.prepare_plain(&name, sandbox, shares_pids, &mut plan).await;
        if let Err(error) = prepared {
            let _ = fs::remove_dir_all(&plan.directory);
            return Err(error);
        }
        let Prepared { spec, kept, directory, cgroup } = plan;
        let streams =
            StreamsWanted { output: OutputPolicy::Clear, input: true, pipe_size: self.config.pipe_size };
        let keeps: Keeps = Box::new(kept);
        let rights = Rights::all();
        let plan =
            Plan { id, name: &name, directory: directory.clone(), cgroup, spec: &spec, rights, streams };
        let instance = self.launch(plan, keeps).await.map_err(|error| {
            let _ = fs::remove_dir_all(&directory);
            told(error)
        })?;
        self.enroll(reserved, instance);
        Ok(())
    }

    /// Secrets, namespaces and what else a process needs before it is made.
    async fn prepare_plain(
        self: &Arc<Self>,
        name: &str,
        sandbox: &PlainSandbox,
        shares_pids: bool,
        plan: &mut Prepared,
    ) -> Result<()> {
        let Prepared { spec, kept, directory, cgroup } = plan;
        let secrets = self.secrets(name);
        if let Some(process) = spec.process_mut() {
            let mut variables = process.env().clone().unwrap_or_default();
            secrets.unseal_env(&mut variables).await?;
            process.set_env(Some(variables));
        }
        for source in fit::bind_sources(spec) {
            if source.starts_with(SECRETS) && source.is_dir() {
                secrets.unseal_dir(&source).await?;
            }
        }
        if secrets.has_socket() && !fit::mounts_on(spec, agent_cdh::SOCKET) {
            let place = directory.join("resources");
            private_dir(&place).map_err(Error::step("making the container's directory"))?;
            kept._socket = Some(Mutex::new(secrets.serve(&place, cgroup).await?));
            let socket = place.join("cdh.sock");
            fit::bind(spec, &socket, agent_cdh::SOCKET, &["bind", "nosuid", "nodev", "noexec"])?;
        }
        let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
        if let Some(resolv_conf) = &sandbox.resolv_conf
            && !fit::mounts_on(spec, RESOLV_CONF)
            && root.join("etc/resolv.conf").symlink_metadata().is_ok_and(|m| m.is_file())
        {
            fit::bind(spec, resolv_conf, RESOLV_CONF, &["bind", "ro", "nosuid", "nodev", "noexec"])?;
        }
        let pid = match shares_pids {
            true => Some(self.shared_pids(sandbox).await?),
            false => None,
        };
        let shared = fit::Shared { ipc: sandbox.ipc.clone(), uts: sandbox.uts.clone(), pid };
        fit::namespaces(spec, &shared)?;
        sandbox.hooks.append(spec);
        if let Some(linux) = spec.linux_mut() {
            linux.set_cgroups_path(Some(PathBuf::from(&*cgroup)));
        }
        let has_arguments =
            spec.process().as_ref().and_then(|p| p.args().as_ref()).is_some_and(|a| !a.is_empty());
        if !has_arguments {
            return Err(Error::refused(
                Code::Launch,
                "neither the OCI specification nor the image says what to run",
            ));
        }
        agent_oci::make_working_dir(&root, spec).map_err(|e| Error::refused(Code::Launch, e.to_string()))
    }

    /// Devices, then storages.
    async fn furnish_plain(
        &self,
        id: &str,
        devices: Vec<DeviceRequest>,
        requests: Vec<agent_storage::StorageRequest>,
        images: std::collections::HashMap<String, Arc<agent_image::Image>>,
    ) -> Result<Furnished> {
        let machine = self.plain.machine.clone();
        let storages = self.plain.storages.clone();
        let containers = self.plain.containers.clone();
        let id = id.to_owned();
        super::blocking(move || {
            let updates = devices.iter().map(|device| add_device(&machine, device));
            let updates =
                updates.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| as_device(&error))?;
            let image = images.values().next().map(|image| image.config().clone());
            let added = storages.add(Some(&id), &requests, &Here { containers, images })?;
            Ok(Furnished { updates, points: added.points, image })
        })
        .await
    }

    /// The container's root: what was mounted for it, else the directory that the host names.
    fn plain_root(&self, id: &str, spec: &mut Spec, points: &[PathBuf]) -> Result<()> {
        let own = self.plain.containers.join(id).join("rootfs");
        let Some(root) = spec.root_mut() else { return Err(convert::ConvertError::Missing("root").into()) };
        let named = root.path().clone();
        let denied = |reason: String| Error::refused(Code::Launch, reason);
        let path = match own.is_dir() && (points.contains(&own) || !named.is_dir()) {
            true => own,
            false => named,
        };
        let plain = path.is_absolute() && path.components().count() > 1;
        if !plain || self.plain.private.iter().any(|private| path.starts_with(private)) {
            return Err(denied(format!("'{}' is no container's root", path.display())));
        }
        if !path.is_dir() {
            return Err(denied(format!("the container's root '{}' is not there", path.display())));
        }
        root.set_path(path);
        Ok(())
    }

    /// Starts the process that the host describes in a running container.
    pub async fn exec_plain(self: &Arc<Self>, request: wire::ExecProcessRequest) -> Result<()> {
        if (request.stdin_port, request.stdout_port, request.stderr_port) != (0, 0, 0) {
            return Err(Error::Internal("streams on ports of their own are not supported".into()));
        }
        let process = request.process.as_ref().ok_or(convert::ConvertError::Missing("process"));
        let Converted { value, .. } =
            process.and_then(convert::process).map_err(Error::from).map_err(plainly)?;
        self.exec_as_told(&request.container_id, &request.exec_id, value).await.map_err(plainly)
    }

    /// Limits whose absence is only noted.
    fn controllers(&self) -> Controllers {
        let list = fs::read_to_string(self.paths.cgroups.join("cgroup.controllers")).unwrap_or_default();
        let has = |name: &str| list.split_whitespace().any(|controller| controller == name);
        let v1 = |name: &str| self.paths.cgroups.join(name).is_dir();
        Controllers { io: has("io") || v1("blkio"), hugetlb: has("hugetlb") || v1("hugetlb") }
    }
}

/// A container on the way.
struct Prepared {
    spec: Spec,
    kept: Kept,
    directory: PathBuf,
    cgroup: String,
}

/// What this agent doesn't do is refused, not left out.
fn check(request: &wire::CreateContainerRequest) -> Result<()> {
    if !request.shared_mounts.is_empty() {
        return Err(Error::Internal("mounts shared from another container's root are not supported".into()));
    }
    if (request.stdin_port, request.stdout_port, request.stderr_port) != (0, 0, 0) {
        return Err(Error::Internal("streams on ports of their own are not supported".into()));
    }
    Ok(())
}

/// The runtime knows one status for everything that goes wrong here; the text has the code.
fn plainly(error: Error) -> Error {
    match error {
        Error::Refused(refusal) => Error::Internal(refusal.to_string()),
        Error::InvalidArgument(text) | Error::NotFound(text) => Error::Internal(text),
        error => error,
    }
}

fn as_device(error: &agent_storage::StorageError) -> Error {
    Error::refused(Code::Device, error.to_string())
}

/// Where a container's last words are: the source of what is mounted at its terminationMessagePath.
pub(crate) fn termination_log(bundle: &Path) -> Option<PathBuf> {
    let spec = Spec::load(bundle.join("config.json")).ok()?;
    let key = "io.kubernetes.container.terminationMessagePath";
    let path = PathBuf::from(spec.annotations().as_ref()?.get(key)?);
    let mounts = spec.mounts().as_ref()?;
    mounts.iter().find(|mount| *mount.destination() == path)?.source().clone()
}
