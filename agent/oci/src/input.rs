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
    /// The container's volume mounts with a subPath, bound by [`crate::bind_sub_paths`].
    pub sub_paths: &'a SubPaths,
    /// Namespaces that the pod's containers share.
    pub namespaces: &'a SharedNamespaces,
    /// The container's cgroup, relative to the cgroup root.
    pub cgroups_path: &'a Path,
    /// The pod's host name.
    pub hostname: &'a str,
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
}
