//! What of a converted specification is this guest's own: where its cgroup is, which namespaces it shares,
//! which numbers its devices have, and what its image says where the host is silent.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use agent_image::ImageConfiguration;
use agent_storage::{DeviceNode, DeviceUpdate, PciAddress};
use libcontainer::oci_spec::runtime::{
    LinuxDevice, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, Spec,
};
use protocols::refusal::Code;

use crate::error::{Error, Result};

const MAX_CGROUP: usize = 1024;

/// Namespaces that containers of the sandbox share.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// The ipc namespace.
    pub ipc: PathBuf,
    /// The uts namespace.
    pub uts: PathBuf,
    /// The pid namespace, if this container shares it.
    pub pid: Option<PathBuf>,
}

/// The container's cgroup below the root of cgroups, from what the host calls it: a path, or systemd's
/// `slice:prefix:name`. Each container has one of its own, whatever the host says.
pub fn cgroup(asked: &str, id: &str) -> Result<String> {
    let wrong = |reason: &str| Error::refused(Code::Launch, format!("the cgroup's path {reason}"));
    if asked.len() > MAX_CGROUP || asked.contains('\0') {
        return Err(wrong("is longer than 1024 bytes or holds a NUL"));
    }
    let path = match asked.split(':').collect::<Vec<_>>().as_slice() {
        [slice, prefix, name] if !slice.contains('/') && !name.is_empty() => match *prefix {
            "" => format!("{}/{name}.scope", slices(slice)),
            prefix => format!("{}/{prefix}-{name}.scope", slices(slice)),
        },
        _ => asked.to_owned(),
    };
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    if names.iter().any(|name| matches!(*name, "." | "..")) {
        return Err(wrong("has '.' or '..' in it"));
    }
    let own = names.last().is_some_and(|name| name.contains(id));
    let mut path = names.into_iter().fold(String::new(), |path, name| path + "/" + name);
    if !own {
        path = path + "/" + id;
    }
    Ok(path)
}

/// `a-b.slice` lies in `a.slice`.
fn slices(slice: &str) -> String {
    let Some(name) = slice.strip_suffix(".slice") else { return slice.to_owned() };
    let mut path = String::new();
    let mut so_far = String::new();
    for part in name.split('-').filter(|part| !part.is_empty()) {
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(part);
        path = format!("{path}/{so_far}.slice");
    }
    path
}

/// Puts the shared namespaces in, and one of its own for processes where none is shared.
pub fn namespaces(spec: &mut Spec, shared: &Shared) -> Result<()> {
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut list = linux.namespaces().clone().unwrap_or_default();
    list.retain(|n| !matches!(n.typ(), LinuxNamespaceType::Pid | LinuxNamespaceType::Network));
    for namespace in &mut list {
        match namespace.typ() {
            LinuxNamespaceType::Ipc => {
                namespace.set_path(Some(shared.ipc.clone()));
            }
            LinuxNamespaceType::Uts => {
                namespace.set_path(Some(shared.uts.clone()));
            }
            _ => {}
        }
    }
    let mut pid = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Pid);
    if let Some(path) = &shared.pid {
        pid = pid.path(path);
    }
    list.push(pid.build().map_err(|e| internal(&e))?);
    linux.set_namespaces(Some(list));
    // The namespace has its name, and its ipc and uts sysctls are the pod's.
    spec.set_hostname(None);
    Ok(())
}

/// Gives each device of the host its name and numbers in this guest, and the container access to it.
pub fn devices(spec: &mut Spec, updates: &[DeviceUpdate]) -> Result<()> {
    let denied = |reason: String| Error::refused(Code::Device, reason);
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let mut list = linux.devices().clone().unwrap_or_default();
    let mut resources = linux.resources().clone().unwrap_or_default();
    let mut rules = resources.devices().clone().unwrap_or_default();
    let mut seen = HashSet::new();
    // From the host's numbers, all at once: one device's new numbers may be another's old ones.
    let mut moved: Vec<(LinuxDeviceType, i64, i64, &DeviceNode)> = Vec::new();
    let mut granted = Vec::new();
    for update in updates {
        let Some(node) = &update.node else { continue };
        let path = &update.container_path;
        if !seen.insert(path) {
            return Err(denied(format!("two devices are '{path}'")));
        }
        let Some(device) = list.iter_mut().find(|device| device.path() == Path::new(path)) else {
            return Err(denied(format!("the OCI specification has no device '{path}'")));
        };
        let kind = if node.block { LinuxDeviceType::B } else { LinuxDeviceType::C };
        moved.push((device.typ(), device.major(), device.minor(), node));
        device.set_typ(kind);
        device.set_major(node.major);
        device.set_minor(node.minor);
        if let Some(path) = &update.path {
            device.set_path(path.clone());
        }
        granted.push(rule(node)?);
    }
    for rule in &mut rules {
        let (Some(major), Some(minor)) = (rule.major(), rule.minor()) else { continue };
        let kind = rule.typ().unwrap_or(LinuxDeviceType::A);
        let node = moved.iter().find(|(k, m, n, _)| (*k, *m, *n) == (kind, major, minor));
        if let Some((.., node)) = node {
            rule.set_major(Some(node.major));
            rule.set_minor(Some(node.minor));
        }
    }
    rules.extend(granted);
    // The wire says 0 for «any minor», as for minor 0: a rule that isn't one of the container's devices means
    // any, as in `c 136:*`.
    for rule in &mut rules {
        let (Some(kind), Some(major), Some(0)) = (rule.typ(), rule.major(), rule.minor()) else { continue };
        let is_device = |d: &LinuxDevice| (d.typ(), d.major(), d.minor()) == (kind, major, 0);
        if !list.iter().any(is_device) {
            rule.set_minor(None);
        }
    }
    resources.set_devices(Some(rules));
    linux.set_resources(Some(resources));
    linux.set_devices(Some(list));
    Ok(())
}

fn rule(node: &DeviceNode) -> Result<LinuxDeviceCgroup> {
    let kind = if node.block { LinuxDeviceType::B } else { LinuxDeviceType::C };
    LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(kind)
        .major(node.major)
        .minor(node.minor)
        .access("rwm")
        .build()
        .map_err(|e| internal(&e))
}

/// Variables in which device plugins hold the host's PCI addresses get the guest's
/// (`PCIDEVICE_…`, and the JSON of the same name with `_INFO`).
pub fn pci_variables(spec: &mut Spec, updates: &[DeviceUpdate]) -> Result<()> {
    let addresses: BTreeMap<PciAddress, PciAddress> =
        updates.iter().flat_map(|update| update.pci.iter().copied()).collect();
    let Some(process) = spec.process_mut() else { return Ok(()) };
    let mut variables = process.env().clone().unwrap_or_default();
    let mut translated: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for variable in &mut variables {
        let Some((name, value)) = variable.split_once('=') else { continue };
        if !name.starts_with("PCIDEVICE_") || name.ends_with("_INFO") {
            continue;
        }
        let mut pairs = Vec::new();
        for host in value.split(',') {
            let guest = host.parse().ok().and_then(|address| addresses.get(&address));
            let guest = guest.ok_or_else(|| {
                Error::refused(
                    Code::Device,
                    format!("variable {name} names a PCI device that isn't in this guest"),
                )
            })?;
            pairs.push((host.to_owned(), guest.to_string()));
        }
        let guests: Vec<&str> = pairs.iter().map(|(_, guest)| guest.as_str()).collect();
        let (name, value) = (name.to_owned(), guests.join(","));
        translated.insert(format!("{name}_INFO"), pairs);
        *variable = format!("{name}={value}");
    }
    for variable in &mut variables {
        let Some((name, value)) = variable.split_once('=') else { continue };
        if let Some(pairs) = translated.get(name) {
            let value = pairs.iter().fold(value.to_owned(), |text, (host, guest)| text.replace(host, guest));
            *variable = format!("{name}={value}");
        }
    }
    process.set_env(Some(variables));
    Ok(())
}

/// Where the host is silent, the image that was pulled here speaks: arguments, directory, variables.
pub fn image(spec: &mut Spec, config: &ImageConfiguration) {
    let (Some(process), Some(image)) = (spec.process_mut(), config.config().as_ref()) else { return };
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        let entry = image.entrypoint().iter().flatten().chain(image.cmd().iter().flatten());
        process.set_args(Some(entry.cloned().collect()));
    }
    if process.cwd() == Path::new("/")
        && let Some(directory) = image.working_dir().as_ref().filter(|d| d.starts_with('/'))
    {
        process.set_cwd(PathBuf::from(directory));
    }
    let mut variables = process.env().clone().unwrap_or_default();
    let has = |variables: &[String], name: &str| {
        variables.iter().any(|v| v.split_once('=').is_some_and(|(other, _)| other == name))
    };
    for variable in image.env().iter().flatten() {
        if variable.split_once('=').is_some_and(|(name, _)| !name.is_empty() && !has(&variables, name)) {
            variables.push(variable.clone());
        }
    }
    process.set_env(Some(variables));
}

/// One more bind mount, read-only if it says so.
pub fn bind(spec: &mut Spec, source: &Path, destination: &str, options: &[&str]) -> Result<()> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let mount = MountBuilder::default()
        .typ("bind")
        .source(source)
        .destination(destination)
        .options(options)
        .build()
        .map_err(|e| internal(&e))?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// Whether something is mounted on a path of the container already.
pub fn mounts_on(spec: &Spec, destination: &str) -> bool {
    let lies_on = |mount: &Mount| mount.destination() == Path::new(destination);
    spec.mounts().iter().flatten().any(lies_on)
}

/// Directories and files of bind mounts, for what may be sealed in them.
pub fn bind_sources(spec: &Spec) -> Vec<PathBuf> {
    let binds = spec.mounts().iter().flatten().filter(|mount| mount.typ().as_deref() == Some("bind"));
    binds.filter_map(|mount| mount.source().clone()).collect()
}

fn internal(error: &dyn std::error::Error) -> Error {
    Error::Internal(format!("making the specification: {error}"))
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;
