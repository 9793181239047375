//! What containerd and the Kata runtime ask for: storages and OCI specifications of plain containers.

use std::collections::HashMap;

use launcher::Disk;
use protobuf::MessageField;
use protocols::agent::{CreateContainerRequest, Storage};
use protocols::oci::{
    Linux, LinuxCPU, LinuxCapabilities, LinuxMemory, LinuxNamespace, LinuxResources, Mount, Process, Root,
    Spec, User,
};

/// The sandbox's shared memory.
pub const SHM: &str = "/run/kata-containers/sandbox/shm";
/// Where `CopyFile` may write.
pub const SHARED: &str = "/run/kata-containers/shared/containers";

/// containerd's default capabilities, in the runtime's spelling.
pub const CAPABILITIES: [&str; 14] = [
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

/// Every capability that Linux has.
pub const ALL_CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Words as the wire has them.
#[must_use]
pub fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The sandbox's `/dev/shm`.
#[must_use]
pub fn shm() -> Storage {
    Storage {
        driver: "ephemeral".to_owned(),
        source: "shm".to_owned(),
        fstype: "tmpfs".to_owned(),
        options: strings(&["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"]),
        mount_point: SHM.to_owned(),
        ..Default::default()
    }
}

/// Where the runtime says that a container's root is.
#[must_use]
pub fn rootfs(id: &str) -> String {
    format!("/run/kata-containers/{id}/rootfs")
}

/// A container's root on the guest's first disk.
#[must_use]
pub fn root_disk(id: &str) -> Storage {
    Storage {
        driver: "blk".to_owned(),
        source: Disk::pci_path(0),
        fstype: "ext4".to_owned(),
        options: strings(&["ro"]),
        mount_point: rootfs(id),
        ..Default::default()
    }
}

/// A container that runs `args` from the root disk, as containerd asks for it.
#[must_use]
pub fn container(id: &str, args: &[&str]) -> CreateContainerRequest {
    let annotations = HashMap::from([
        ("io.kubernetes.cri.container-type".to_owned(), "container".to_owned()),
        ("io.kubernetes.cri.container-name".to_owned(), id.to_owned()),
        ("io.katacontainers.pkg.oci.container_type".to_owned(), "pod_container".to_owned()),
    ]);
    request(id, args, annotations)
}

/// The sandbox's own container: its id is the sandbox's.
#[must_use]
pub fn pause(id: &str) -> CreateContainerRequest {
    let annotations = HashMap::from([
        ("io.kubernetes.cri.container-type".to_owned(), "sandbox".to_owned()),
        ("io.katacontainers.pkg.oci.container_type".to_owned(), "pod_sandbox".to_owned()),
    ]);
    request(id, &["/pause"], annotations)
}

fn request(id: &str, args: &[&str], annotations: HashMap<String, String>) -> CreateContainerRequest {
    let namespace = |kind: &str| LinuxNamespace { Type: kind.to_owned(), ..Default::default() };
    let resources = LinuxResources {
        CPU: MessageField::some(LinuxCPU { Shares: 2, Period: 100_000, ..Default::default() }),
        Memory: MessageField::some(LinuxMemory::default()),
        ..Default::default()
    };
    let linux = Linux {
        Resources: MessageField::some(resources),
        CgroupsPath: format!("/kubepods/besteffort/pod7b1c/{id}"),
        Namespaces: ["ipc", "uts", "mnt"].map(namespace).to_vec(),
        MaskedPaths: strings(&["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"]),
        ReadonlyPaths: strings(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ..Default::default()
    };
    let spec = Spec {
        Version: "1.2.0".to_owned(),
        Hostname: "pod".to_owned(),
        Process: MessageField::some(process(args)),
        Root: MessageField::some(Root { Path: rootfs(id), Readonly: true, ..Default::default() }),
        Mounts: mounts(),
        Annotations: annotations,
        Linux: MessageField::some(linux),
        ..Default::default()
    };
    CreateContainerRequest {
        container_id: id.to_owned(),
        exec_id: id.to_owned(),
        storages: vec![root_disk(id)],
        OCI: MessageField::some(spec),
        ..Default::default()
    }
}

/// A process as containerd describes it.
#[must_use]
pub fn process(args: &[&str]) -> Process {
    Process {
        User: MessageField::some(User::default()),
        Args: strings(args),
        Env: strings(&["PATH=/bin", "HOSTNAME=pod"]),
        Cwd: "/".to_owned(),
        Capabilities: MessageField::some(capabilities(&CAPABILITIES)),
        NoNewPrivileges: true,
        ..Default::default()
    }
}

/// The same capabilities in every set that matters to root.
#[must_use]
pub fn capabilities(names: &[&str]) -> LinuxCapabilities {
    LinuxCapabilities {
        Bounding: strings(names),
        Effective: strings(names),
        Permitted: strings(names),
        ..Default::default()
    }
}

/// A mount.
#[must_use]
pub fn mount(destination: &str, source: &str, kind: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        source: source.to_owned(),
        type_: kind.to_owned(),
        options: strings(options),
        ..Default::default()
    }
}

fn mounts() -> Vec<Mount> {
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
        mount("/dev/shm", SHM, "bind", &["rbind"]),
        mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
    ]
}
