//! The runtime specification, put together.

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Root, Spec};
use sealed_spec::podspec::ProcMount;

use crate::{ContainerInput, OciError, capabilities, mounts, process, resources, seccomp, sysctl, user};

/// Runtime specification that libcontainer reads.
const VERSION: &str = "1.0.2";

/// Hidden unless procMount says otherwise: the CRI runtimes' list.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/interrupts",
    "/sys/devices/virtual/powercap",
];

/// Hidden always, procMount or not: guest memory, and what firmware and TEE left for the agent.
const ALWAYS_MASKED: [&str; 5] =
    ["/proc/kcore", "/sys/firmware", "/sys/kernel/config", "/sys/kernel/debug", "/sys/kernel/security"];

/// Read-only always, procMount or not: root in a container is the guest's root, and what it writes here
/// (`core_pattern`, for one) runs as the agent does.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The container's runtime specification, whole: nothing is left for the runtime to default.
pub fn container_spec(input: &ContainerInput<'_>) -> Result<Spec, OciError> {
    let context = input.container.security_context.as_ref();
    if context.and_then(|c| c.privileged) == Some(true) {
        return Err(OciError::refused(
            "securityContext.privileged",
            "a privileged container could reach the agent and the TEE's devices; add the capabilities that it needs instead",
        ));
    }
    let identity = user::identity(input)?;
    let capabilities = capabilities::set(context)?;
    let process = process::process(input, &identity, &capabilities)?;

    let mut root = Root::default();
    root.set_path(input.rootfs.to_owned());
    root.set_readonly(Some(context.and_then(|c| c.read_only_root_filesystem).unwrap_or(false)));

    let mut masked: Vec<String> = ALWAYS_MASKED.iter().map(|path| (*path).to_owned()).collect();
    let read_only = READ_ONLY.iter().map(|path| (*path).to_owned()).collect();
    if context.and_then(|c| c.proc_mount).unwrap_or_default() == ProcMount::Default {
        masked.extend(MASKED.iter().map(|path| (*path).to_owned()));
    }
    masked.sort();

    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces(input)?));
    linux.set_cgroups_path(Some(input.cgroups_path.to_owned()));
    linux.set_resources(Some(resources::cgroup(input.container)?));
    linux.set_seccomp(Some(seccomp::filter(input, &capabilities)?));
    linux.set_masked_paths(Some(masked));
    linux.set_readonly_paths(Some(read_only));
    let parameters: HashMap<_, _> = sysctl::parameters(input.pod)?.into_iter().collect();
    linux.set_sysctl(Some(parameters).filter(|p| !p.is_empty()));
    // None: the runtime makes its default ones (null, zero, full, random, urandom, tty) and no others.
    linux.set_devices(None);
    linux.set_rootfs_propagation(Some("private".to_owned()));
    linux.set_mount_label(None);
    linux.set_uid_mappings(None);
    linux.set_gid_mappings(None);

    let mut spec = Spec::default();
    spec.set_version(VERSION.to_owned());
    spec.set_root(Some(root));
    spec.set_mounts(Some(mounts::mounts(input)?));
    spec.set_process(Some(process));
    // The UTS namespace is the pod's and has its name already.
    spec.set_hostname(None);
    spec.set_domainname(None);
    spec.set_hooks(None);
    spec.set_annotations(None);
    spec.set_linux(Some(linux));
    Ok(spec)
}

/// Own processes, mounts and cgroup view; IPC and host name are the pod's; the network is the guest's.
fn namespaces(input: &ContainerInput<'_>) -> Result<Vec<LinuxNamespace>, OciError> {
    let shared = input.namespaces;
    let list: [(LinuxNamespaceType, Option<&PathBuf>); 5] = [
        (LinuxNamespaceType::Pid, shared.pid.as_ref()),
        (LinuxNamespaceType::Mount, None),
        (LinuxNamespaceType::Cgroup, None),
        (LinuxNamespaceType::Ipc, Some(&shared.ipc)),
        (LinuxNamespaceType::Uts, Some(&shared.uts)),
    ];
    let mut namespaces = Vec::with_capacity(list.len());
    for (kind, path) in list {
        let mut namespace = LinuxNamespaceBuilder::default().typ(kind);
        if let Some(path) = path {
            namespace = namespace.path(path);
        }
        namespaces.push(namespace.build()?);
    }
    Ok(namespaces)
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
