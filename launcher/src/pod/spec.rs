//! The OCI specification that containerd's CRI makes and the Kata runtime trims for the guest: pid and network
//! namespaces are gone, capabilities have no `CAP_` prefix, sources are paths in the guest.

use std::collections::HashMap;

use protobuf::MessageField;
use protocols::oci::{
    Linux, LinuxCPU, LinuxCapabilities, LinuxMemory, LinuxNamespace, LinuxResources, Mount,
};
use protocols::oci::{Process, Root, Spec, User};

use super::{Container, Pod};

/// The sandbox's shared memory in the guest.
pub(super) const SHM: &str = "/run/kata-containers/sandbox/shm";
/// What a container may do unless its pod says otherwise (containerd's default).
const CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// The kubelet's view of the API server, added to every container.
const SERVICE_ENV: [&str; 3] = [
    "KUBERNETES_SERVICE_HOST=10.96.0.1",
    "KUBERNETES_SERVICE_PORT=443",
    "KUBERNETES_PORT=tcp://10.96.0.1:443",
];
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(super) fn rootfs(container_id: &str) -> String {
    format!("/run/kata-containers/{container_id}/rootfs")
}

/// The pause container's specification: its id is the sandbox's.
pub(super) fn pause(pod: &Pod, sandbox_id: &str) -> Spec {
    let mut spec = base(pod, sandbox_id, sandbox_id);
    let annotations = &mut spec.Annotations;
    annotations.insert("io.kubernetes.cri.container-type".to_owned(), "sandbox".to_owned());
    annotations.insert("io.katacontainers.pkg.oci.container_type".to_owned(), "pod_sandbox".to_owned());
    annotations.insert("io.kubernetes.cri.sandbox-cpu-period".to_owned(), "100000".to_owned());
    annotations.insert(
        "io.kubernetes.cri.sandbox-log-directory".to_owned(),
        format!("/var/log/pods/{}_{}_{}", pod.namespace, pod.name, pod.uid),
    );
    let capabilities = capabilities();
    spec.Process = MessageField::some(Process {
        User: MessageField::some(User { UID: 65535, GID: 65535, ..Default::default() }),
        Args: strings(&["/pause"]),
        Env: strings(&[PATH]),
        Cwd: "/".to_owned(),
        Capabilities: MessageField::some(capabilities),
        NoNewPrivileges: true,
        OOMScoreAdj: -998,
        ..Default::default()
    });
    spec.Root = MessageField::some(Root { Path: rootfs(sandbox_id), Readonly: true, ..Default::default() });
    spec.Mounts.push(mount("/dev/shm", SHM, "bind", &["rbind", "ro", "nosuid", "nodev", "noexec"]));
    spec
}

/// A container's specification; `mounts` are those with sources that were copied or made before.
pub(super) fn container(
    pod: &Pod,
    sandbox_id: &str,
    container_id: &str,
    container: &Container,
    mounts: Vec<Mount>,
) -> Spec {
    let mut spec = base(pod, sandbox_id, container_id);
    let annotations = &mut spec.Annotations;
    annotations.insert("io.kubernetes.cri.container-type".to_owned(), "container".to_owned());
    annotations.insert("io.kubernetes.cri.container-name".to_owned(), container.name.clone());
    annotations.insert("io.kubernetes.cri.image-name".to_owned(), container.image.clone());
    annotations.insert("io.katacontainers.pkg.oci.container_type".to_owned(), "pod_container".to_owned());
    spec.Process = MessageField::some(process(pod, container));
    spec.Root = MessageField::some(Root { Path: rootfs(container_id), ..Default::default() });
    spec.Mounts.extend(mounts);
    spec
}

/// What containerd runs in a container, also for `exec` with other arguments.
pub(super) fn process(pod: &Pod, container: &Container) -> Process {
    let mut env = strings(&[PATH]);
    env.push(format!("HOSTNAME={}", pod.hostname));
    env.extend(container.env.iter().cloned());
    env.extend(strings(&SERVICE_ENV));
    let cwd = if container.working_dir.is_empty() { "/" } else { &container.working_dir };
    Process {
        Terminal: container.terminal,
        User: MessageField::some(User::default()),
        Args: container.command.iter().chain(&container.args).cloned().collect(),
        Env: env,
        Cwd: cwd.to_owned(),
        Capabilities: MessageField::some(capabilities()),
        OOMScoreAdj: 1000,
        ..Default::default()
    }
}

fn base(pod: &Pod, sandbox_id: &str, container_id: &str) -> Spec {
    let annotations = HashMap::from([
        ("io.kubernetes.cri.sandbox-id".to_owned(), sandbox_id.to_owned()),
        ("io.kubernetes.cri.sandbox-name".to_owned(), pod.name.clone()),
        ("io.kubernetes.cri.sandbox-namespace".to_owned(), pod.namespace.clone()),
        ("io.kubernetes.cri.sandbox-uid".to_owned(), pod.uid.clone()),
        (
            "io.katacontainers.pkg.oci.bundle_path".to_owned(),
            format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{container_id}"),
        ),
    ]);
    let namespace = |kind: &str| LinuxNamespace { Type: kind.to_owned(), ..Default::default() };
    let resources = LinuxResources {
        CPU: MessageField::some(LinuxCPU { Shares: 2, Period: 100_000, ..Default::default() }),
        Memory: MessageField::some(LinuxMemory::default()),
        ..Default::default()
    };
    Spec {
        Version: "1.2.0".to_owned(),
        Hostname: pod.hostname.clone(),
        Mounts: kernel_mounts(),
        Annotations: annotations,
        Linux: MessageField::some(Linux {
            Resources: MessageField::some(resources),
            CgroupsPath: format!("/kubepods/besteffort/pod{}/{container_id}", pod.uid),
            Namespaces: ["ipc", "uts", "mnt"].map(namespace).to_vec(),
            MaskedPaths: strings(&MASKED),
            ReadonlyPaths: strings(&READ_ONLY),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn capabilities() -> LinuxCapabilities {
    LinuxCapabilities {
        Bounding: strings(&CAPABILITIES),
        Effective: strings(&CAPABILITIES),
        Permitted: strings(&CAPABILITIES),
        ..Default::default()
    }
}

pub(super) fn mount(destination: &str, source: &str, kind: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: source.to_owned(),
        type_: kind.to_owned(),
        options: strings(options),
        ..Default::default()
    }
}

fn kernel_mounts() -> Vec<Mount> {
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        Pod {
            name: "web".to_owned(),
            namespace: "prod".to_owned(),
            uid: "7b1c".to_owned(),
            hostname: "web".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn the_wire_has_katas_traps() {
        let web = Container {
            name: "nginx".to_owned(),
            image: "img".to_owned(),
            command: vec!["/bin/a".to_owned()],
            args: vec!["b".to_owned()],
            ..Default::default()
        };
        let spec = container(&pod(), "sandbox", "cid", &web, Vec::new());
        let process = &spec.Process;
        assert_eq!(process.Args, ["/bin/a", "b"]);
        assert!(process.Capabilities.Bounding.iter().all(|name| !name.starts_with("CAP_")));
        let namespaces: Vec<&str> = spec.Linux.Namespaces.iter().map(|one| one.Type.as_str()).collect();
        assert_eq!(namespaces, ["ipc", "uts", "mnt"]);
        assert_eq!(spec.Annotations["io.kubernetes.cri.container-type"], "container");
        assert_eq!(spec.Annotations["io.kubernetes.cri.container-name"], "nginx");
        assert_eq!(spec.Annotations["io.kubernetes.cri.sandbox-id"], "sandbox");
    }

    #[test]
    fn the_pause_container_is_the_sandbox() {
        let spec = pause(&pod(), "sandbox");
        assert_eq!(spec.Annotations["io.kubernetes.cri.container-type"], "sandbox");
        assert!(!spec.Annotations.contains_key("io.kubernetes.cri.container-name"));
        assert_eq!(spec.Root.Path, "/run/kata-containers/sandbox/rootfs");
    }
}
