//! From the sealed specification to what libcontainer gets: the conversion is [`agent_oci`]'s, the files
//! and directories are the agent's. A last look keeps the TEE's devices out whatever the conversion does.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use agent_cdh::Socket;
use agent_oci::{AgentFiles, ContainerInput, ExtraMount, HostVolume, SharedNamespaces, SubPaths, Supplied};
use libcontainer::oci_spec::runtime::{LinuxCapabilities, Mount, Process, Spec};
use protocols::rcar::ResourceUri;
use protocols::refusal::Code;
use sealed_spec::SealedSpec;
use sealed_spec::host_values::{is_downward_value, is_service_link_with};
use sealed_spec::names::KbsUri;
use sealed_spec::podspec::Container;
use slog::info;

use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::images::Root;
use crate::policy::HostSpec;
use crate::sandbox::Sandbox;
use crate::secrets::Secrets;
use crate::volumes::{self, Mounted};

/// File of a container's last words, in its directory.
pub const TERMINATION_LOG: &str = "termination-log";

/// What leads to the TEE: with it a container could pass for the agent.
const TEE_PATHS: [&str; 6] = [
    "/dev/sev-guest",
    "/dev/tdx_guest",
    "/dev/cuse",
    "/sys/kernel/config",
    "/sys/kernel/security",
    "/dev/vsock",
];

/// File systems that lead there wherever they are mounted: reports by configfs, injected secrets by
/// securityfs and efivarfs, device nodes of the guest.
const TEE_FILE_SYSTEMS: [&str; 5] = ["configfs", "securityfs", "efivarfs", "devtmpfs", "debugfs"];

/// What has to be hidden in every container.
const TEE_MASKED: [&str; 2] = ["/sys/kernel/config", "/sys/kernel/security"];

/// A specification, with the binds that it needs until libcontainer has made its own.
pub struct Prepared {
    /// For config.json.
    pub spec: Spec,
    /// Dropped when the container has its mounts.
    pub sub_paths: SubPaths,
    /// Volumes and the container's resource socket: dropped when the container is gone.
    pub keeps: (Mounted, Mutex<Option<Socket>>),
}

impl Agent {
    /// Everything that a sealed container needs before it is launched. Of the host's specification come the
    /// files of granted volumes and granted values, and nothing else.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        spec: &SealedSpec,
        container: &Container,
        host: &HostSpec,
        around: Around<'_>,
    ) -> Result<Prepared> {
        let secrets = self.secrets(&container.name);
        let (granted, added) = volumes::granted(spec, container, host)?;
        if !added.is_empty() {
            let names = added.join(" ");
            info!(self.log, # "host", "mounts that nobody granted are left out"; "at" => names);
        }
        let mut mounted = Mounted::default();
        let mut surroundings = Surroundings {
            around,
            host_volumes: BTreeMap::new(),
            extra_mounts: Vec::new(),
            supplied: supplied(spec, container, host)?,
        };
        for variable in &container.env {
            let uri = variable.value_from.as_ref().and_then(|source| source.resource.as_ref());
            if let Some(uri) = uri {
                let value = fetched(&secrets, uri).await?;
                surroundings.supplied.values.insert(variable.name.clone(), value);
            }
        }
        for (number, volume) in granted.iter().enumerate() {
            let place = surroundings.around.directory.join("volumes").join(number.to_string());
            let made = self.volumes.mount(volume, &self.quarantine, &place, &mut mounted)?;
            match volume.index {
                Some(index) => drop(surroundings.host_volumes.insert(index, made)),
                None => surroundings
                    .extra_mounts
                    .push(ExtraMount { destination: (&volume.destination).into(), source: made.source }),
            }
        }
        let mut socket = None;
        if secrets.has_socket() {
            let place = around.directory.join("resources");
            let made = fs::create_dir(&place)
                .and_then(|()| fs::set_permissions(&place, fs::Permissions::from_mode(0o755)));
            made.map_err(Error::step("making the directory of the resource socket"))?;
            socket = Some(secrets.serve(&place, around.cgroup).await?);
            let destination = Path::new(agent_cdh::SOCKET).parent().unwrap_or(Path::new("/")).to_owned();
            surroundings.extra_mounts.push(ExtraMount { destination, source: place });
        }
        let (mut oci, sub_paths) = container_spec(spec, container, &surroundings)?;
        if let Some(process) = oci.process_mut() {
            let mut environment = process.env().clone().unwrap_or_default();
            secrets.unseal_env(&mut environment).await?;
            process.set_env(Some(environment));
        }
        Ok(Prepared { spec: oci, sub_paths, keeps: (mounted, Mutex::new(socket)) })
    }
}

/// Where a container is made.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// Its root file system.
    pub root: &'a Root,
    /// What the pod's containers share.
    pub sandbox: &'a Sandbox,
    /// The container's own.
    pub directory: &'a Path,
    /// Its cgroup, below the root of cgroups.
    pub cgroup: &'a str,
}

/// What a container's specification is made from beside the sealed spec.
struct Surroundings<'a> {
    around: Around<'a>,
    /// Granted volumes, by the index of the volume mount.
    host_volumes: BTreeMap<usize, HostVolume>,
    /// Mounts that the pod doesn't name.
    extra_mounts: Vec<ExtraMount>,
    /// Values of variables that aren't in the pod.
    supplied: Supplied,
}

/// The specification of one container.
fn container_spec(
    spec: &SealedSpec,
    container: &Container,
    surroundings: &Surroundings<'_>,
) -> Result<(Spec, SubPaths)> {
    let Around { root, sandbox, directory, cgroup } = surroundings.around;
    let log = directory.join(TERMINATION_LOG);
    let written =
        fs::write(&log, b"").and_then(|()| fs::set_permissions(&log, fs::Permissions::from_mode(0o666)));
    written.map_err(Error::step("making the termination log"))?;
    let files = AgentFiles {
        hosts: sandbox.hosts.clone(),
        hostname: sandbox.hostname_file.clone(),
        resolv_conf: sandbox.resolv_conf.clone(),
        termination_log: log,
        shm: sandbox.shm.clone(),
    };
    let namespaces =
        SharedNamespaces { ipc: sandbox.ipc.clone(), uts: sandbox.uts.clone(), pid: sandbox.pid.clone() };
    let place = directory.join("sub-paths");
    let sub_paths =
        agent_oci::bind_sub_paths(container, &sandbox.volumes, &surroundings.host_volumes, &place);
    let sub_paths = sub_paths.map_err(|e| refused(&e))?;
    let input = ContainerInput {
        pod: &spec.pod,
        container,
        image: &root.config,
        rootfs: &root.path,
        files: &files,
        volumes: &sandbox.volumes,
        host_volumes: &surroundings.host_volumes,
        extra_mounts: &surroundings.extra_mounts,
        supplied: &surroundings.supplied,
        sub_paths: &sub_paths,
        namespaces: &namespaces,
        cgroups_path: Path::new(cgroup),
        hostname: &sandbox.hostname,
    };
    let mut oci = agent_oci::container_spec(&input).map_err(|e| refused(&e))?;
    agent_oci::make_working_dir(&root.path, &oci).map_err(|e| refused(&e))?;
    if let Some(process) = oci.process_mut()
        && process.no_new_privileges() == Some(false)
    {
        // libcontainer takes any value for yes when it decides whether the filter comes before or after
        // the capabilities are dropped; after, installing it fails.
        process.set_no_new_privileges(None);
    }
    keep_out_tee(&oci)?;
    Ok((oci, sub_paths))
}

/// The value of a variable that the broker has.
async fn fetched(secrets: &Secrets, uri: &KbsUri) -> Result<String> {
    let unusable =
        |reason: &str| Error::refused(Code::SecretUnseal, format!("the resource of a variable {reason}"));
    let wanted = uri.to_string().parse::<ResourceUri>().map_err(|_| unusable("has no usable name"))?;
    let bytes = secrets.resource(&wanted).await?;
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(unusable("is not text")),
    }
}

/// Values that the host may supply, as far as granted: fields of the downward API, service links.
fn supplied(spec: &SealedSpec, container: &Container, host: &HostSpec) -> Result<Supplied> {
    let mut supplied = Supplied::default();
    for variable in &container.env {
        let field = variable.value_from.as_ref().and_then(|source| source.downward_field());
        let Some(field) = field else { continue };
        if !spec.grants.downward.contains(&field) {
            let detail = "the sealed spec doesn't grant a field that a variable takes (downward)";
            return Err(Error::refused(Code::Launch, detail));
        }
        let value = host.environment.get(&variable.name);
        let value = value.ok_or_else(|| volumes::missing_value(&variable.name))?;
        // A sealed secret among them would be opened for whoever chose it.
        if !is_downward_value(&field, value) || value.starts_with(agent_cdh::PREFIX) {
            let detail = "a value of the downward API has not the form that its field has";
            return Err(Error::refused(Code::Launch, detail));
        }
        supplied.values.insert(variable.name.clone(), value.clone());
    }
    if spec.grants.service_links {
        let links = host.environment.iter().filter(|(name, value)| is_service_link_with(name, value));
        supplied.links = links.map(|(name, value)| (name.clone(), value.clone())).collect();
    }
    Ok(supplied)
}

/// The process of an exec in a container that was made from `bundle`.
pub fn exec_process(bundle: &Path, argv: &[String]) -> Result<Process> {
    let spec = Spec::load(bundle.join("config.json"));
    let spec = spec.map_err(|_| Error::Internal("the container's specification can't be read".into()))?;
    agent_oci::exec_process(&spec, argv, false).map_err(|e| refused(&e))
}

/// The capabilities of a container's first process.
pub fn capabilities(bundle: &Path) -> Result<Option<LinuxCapabilities>> {
    let spec = Spec::load(bundle.join("config.json"));
    let spec = spec.map_err(|_| Error::Internal("the container's specification can't be read".into()))?;
    Ok(spec.process().as_ref().and_then(|process| process.capabilities().clone()))
}

fn refused(error: &agent_oci::OciError) -> Error {
    Error::refused(Code::Launch, error.to_string())
}

fn keep_out_tee(spec: &Spec) -> Result<()> {
    let tee =
        |path: &Path| TEE_PATHS.iter().any(|tee| path.starts_with(tee) || Path::new(tee).starts_with(path));
    let is = |mount: &Mount, kinds: &[&str]| mount.typ().as_deref().is_some_and(|kind| kinds.contains(&kind));
    let mounts = || spec.mounts().iter().flatten();
    let bound = mounts().filter(|m| is(m, &["bind"])).any(|m| m.source().as_deref().is_some_and(tee));
    let mounted = mounts().any(|m| is(m, &TEE_FILE_SYSTEMS));
    let sysfs = mounts().any(|m| is(m, &["sysfs"]));
    let linux = spec.linux().as_ref();
    let device = linux.and_then(|l| l.devices().as_ref()).into_iter().flatten().any(|d| tee(d.path()));
    let masked = linux.and_then(|l| l.masked_paths().as_ref());
    let hidden =
        TEE_MASKED.iter().all(|path| masked.is_some_and(|masked| masked.iter().any(|mask| mask == path)));
    if bound || mounted || device || sysfs && !hidden {
        return Err(Error::refused(Code::Launch, "the container would get a device of the TEE"));
    }
    // Nodes can be made (MKNOD is a default capability); what isn't listed doesn't open.
    let rules = linux.and_then(|l| l.resources().as_ref()).and_then(|r| r.devices().as_ref());
    let first = rules.and_then(|rules| rules.first());
    if first.is_none_or(|rule| rule.allow() || rule.typ().is_some() || rule.major().is_some()) {
        return Err(Error::refused(Code::Launch, "the container's devices would not be limited to a list"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn looked_at(edit: impl FnOnce(&mut Value)) -> Result<()> {
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "mounts": [
                { "destination": "/sys", "type": "sysfs", "source": "sysfs" },
                { "destination": "/etc/hosts", "type": "bind", "source": "/run/sealpod/sandbox/hosts" },
            ],
            "linux": {
                "maskedPaths": ["/sys/kernel/config", "/sys/kernel/security"],
                "resources": { "devices": [
                    { "allow": false, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
                ] },
            },
        });
        edit(&mut spec);
        keep_out_tee(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn the_tees_devices_stay_with_the_agent() {
        looked_at(|_| {}).unwrap();
        for source in ["/dev/sev-guest", "/dev", "/", "/sys/kernel/config/tsm/report", "/sys", "/dev/vsock"] {
            assert!(looked_at(|spec| spec["mounts"][1]["source"] = json!(source)).is_err(), "{source}");
        }
        let node = json!([{ "path": "/dev/sev-guest", "type": "c", "major": 10, "minor": 1 }]);
        assert!(looked_at(|spec| spec["linux"]["devices"] = node).is_err());
    }

    #[test]
    fn nor_is_there_another_way_to_reports_and_secrets() {
        for kind in TEE_FILE_SYSTEMS {
            assert!(looked_at(|spec| spec["mounts"][1]["type"] = json!(kind)).is_err(), "{kind}");
        }
        for masked in [json!(["/sys/kernel/config"]), json!(["/sys/kernel/security"]), json!(null)] {
            assert!(looked_at(|spec| spec["linux"]["maskedPaths"] = masked.clone()).is_err(), "{masked}");
        }
    }

    #[test]
    fn nodes_that_a_container_makes_itself_do_not_open() {
        let all = json!([{ "allow": true, "access": "rwm" }]);
        let late = json!([
            { "allow": true, "type": "c", "major": 10, "access": "rwm" },
            { "allow": false, "access": "rwm" },
        ]);
        let some = json!([{ "allow": false, "type": "c", "access": "rwm" }]);
        for rules in [all, late, some, json!([]), json!(null)] {
            assert!(
                looked_at(|spec| spec["linux"]["resources"]["devices"] = rules.clone()).is_err(),
                "{rules}"
            );
        }
    }
}
