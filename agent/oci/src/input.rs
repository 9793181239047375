//! What a container's specification is made from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use sealed_spec::PodSpec;
use sealed_spec::podspec::Container;

use crate::SubPaths;

/// Everything that decides how a container runs. All of it is the owner's or the agent's.
#[derive(Clone, Copy)]
pub struct ContainerInput<'a> {
    /// The sealed pod.
    pub pod: &'a PodSpec,
    /// The container, one of the pod's.
    pub container: &'a Container,
    /// Config of the container's image, verified.
    pub image: &'a ImageConfiguration,
    /// The mounted root file system; users and groups are looked up in it.
    pub rootfs: &'a Path,
    /// The agent's own files for the pod.
    pub files: &'a AgentFiles,
    /// Guest directory of each volume, by name.
    pub volumes: &'a BTreeMap<String, PathBuf>,
    /// Volumes that the host fills, by the index of the container's volume mount.
    pub host_volumes: &'a BTreeMap<usize, HostVolume>,
    /// Mounts that the pod doesn't name: the service account's token, the container's own socket.
    pub extra_mounts: &'a [ExtraMount],
    /// Values of variables that aren't in the pod.
    pub supplied: &'a Supplied,
    /// The container's volume mounts with a subPath, bound by [`crate::bind_sub_paths`].
    pub sub_paths: &'a SubPaths,
    /// Namespaces that the pod's containers share.
    pub namespaces: &'a SharedNamespaces,
    /// The container's cgroup, relative to the cgroup root.
    pub cgroups_path: &'a Path,
    /// The pod's host name.
    pub hostname: &'a str,
}

/// A volume that the host fills, as the agent has published it. Always read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostVolume {
    /// Directory or file in guest memory.
    pub source: PathBuf,
    /// Whether programs in it may run.
    pub executable: bool,
}

/// A mount that the pod doesn't name; read-only and without programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraMount {
    /// In the container.
    pub destination: PathBuf,
    /// In the guest.
    pub source: PathBuf,
}

/// Values of variables that aren't in the pod.
#[derive(Clone, Default)]
pub struct Supplied {
    /// Of variables with a `valueFrom`, by name. Never expanded.
    pub values: BTreeMap<String, String>,
    /// Service links, which are untrusted: they never replace a variable of the image or the pod.
    pub links: BTreeMap<String, String>,
}

impl std::fmt::Debug for Supplied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Supplied(..)")
    }
}

/// Files that the agent makes and keeps; kubelet's are never used.
#[derive(Clone, Debug)]
pub struct AgentFiles {
    /// For `/etc/hosts`.
    pub hosts: PathBuf,
    /// For `/etc/hostname`.
    pub hostname: PathBuf,
    /// For `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The container's own, for its terminationMessagePath.
    pub termination_log: PathBuf,
    /// The pod's tmpfs for `/dev/shm`.
    pub shm: PathBuf,
}

/// Namespaces that the agent keeps for the pod. The network namespace is the guest's own.
#[derive(Clone, Debug)]
pub struct SharedNamespaces {
    /// IPC namespace, kept by a bind mount.
    pub ipc: PathBuf,
    /// UTS namespace, kept by a bind mount.
    pub uts: PathBuf,
    /// The pod's pid namespace, where its containers see each other's processes.
    pub pid: Option<PathBuf>,
}
