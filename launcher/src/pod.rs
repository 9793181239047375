//! A pod's life in a guest, request by request as the Kata runtime (Go shim) makes them for containerd: network,
//! sandbox, files, containers, streams, waiting, signals, removal. What the host may do wrong on purpose is in
//! [`HostileKnobs`].

mod driver;
mod files;
mod id;
mod objects;
mod sandbox;
mod spec;
mod streams;

use std::collections::BTreeMap;
use std::time::Duration;

pub use driver::{PodRun, RunningContainer};
pub use id::new_id;
pub use objects::{HostView, ObjectError};
pub use sandbox::NetworkConfig;

use crate::client::AgentError;

/// A pod as the host sees it.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Hostname; empty: the pod's name.
    pub hostname: String,
    /// Init containers, in order.
    pub init_containers: Vec<Container>,
    /// Containers.
    pub containers: Vec<Container>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// A policy for `SetPolicy`, where the runtime is configured to send one.
    pub policy: Option<String>,
}

/// A container as the host sees it: in a sealed pod, a placeholder.
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// Its name in the pod.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// `command`.
    pub command: Vec<String>,
    /// `args`.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `workingDir`; empty: `/`.
    pub working_dir: String,
    /// Volume mounts.
    pub mounts: Vec<VolumeMount>,
    /// `tty`.
    pub terminal: bool,
    /// Where the kubelet expects the termination message; empty: `/dev/termination-log`.
    pub termination_log: String,
}

/// A volume mounted into a container.
#[derive(Clone, Debug, Default)]
pub struct VolumeMount {
    /// The volume's name.
    pub volume: String,
    /// Where in the container.
    pub path: String,
    /// Which file or directory of the volume; empty: all.
    pub sub_path: String,
    /// Read only.
    pub read_only: bool,
}

/// What is behind a volume.
#[derive(Clone, Debug)]
pub enum Volume {
    /// Files that the runtime copies into the guest: ConfigMap, Secret, projected.
    Files(BTreeMap<String, Vec<u8>>),
    /// `emptyDir`; true: `medium: Memory`.
    Empty(bool),
}

/// What a hostile host does differently. Everything off by default; tests and the demo show that it changes
/// nothing in the containers, or is refused.
#[derive(Clone, Debug, Default)]
pub struct HostileKnobs {
    /// `NAME=value` added to each container's environment.
    pub extra_env: Vec<String>,
    /// Files mounted into each container: where, and the directory's files.
    pub extra_mount: Option<(String, BTreeMap<String, Vec<u8>>)>,
    /// Arguments in place of each container's.
    pub args: Option<Vec<String>>,
    /// Containers beyond the pod's, created after its own.
    pub extra_containers: Vec<Container>,
    /// Contents in place of files in `Files` volumes, by file name.
    pub replaced_files: BTreeMap<String, Vec<u8>>,
    /// Files of volumes are never copied.
    pub withhold_files: bool,
}

/// One of a process' two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output, as it comes.
#[derive(Clone, Debug)]
pub struct Output {
    /// The container's name.
    pub container: String,
    /// Which stream.
    pub stream: Stream,
    /// The bytes.
    pub data: Vec<u8>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The container's name.
    pub container: String,
    /// Exit code; 128 + n for signal n.
    pub exit_code: i32,
    /// Standard output, at most its first [`KEPT`] bytes.
    pub stdout: Vec<u8>,
    /// Standard error, at most its first [`KEPT`] bytes.
    pub stderr: Vec<u8>,
}

/// Bytes of a stream that an [`Outcome`] keeps.
pub const KEPT: usize = 1024 * 1024;

/// How long the driver waits, as the runtime is configured.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For an ordinary request.
    pub request: Duration,
    /// For one try of `CreateContainer`, after which the kubelet tries again with a new id.
    pub create: Duration,
    /// For all tries of `CreateContainer` together.
    pub creating: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            request: Duration::from_secs(60),
            create: Duration::from_secs(60),
            creating: Duration::from_secs(20 * 60),
        }
    }
}

/// Why a pod did not run.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// A request about the sandbox failed.
    #[error("sandbox: {0}")]
    Sandbox(AgentError),
    /// A request about a container failed.
    #[error("container {container}: {error}")]
    Container {
        /// Its name.
        container: String,
        /// What failed.
        error: AgentError,
    },
    /// An init container failed, so the others are not started.
    #[error("init container {} ended with exit code {}", .0.container, .0.exit_code)]
    Init(Outcome),
    /// The pod names something that isn't there.
    #[error("container {container}: {detail}")]
    Invalid {
        /// Its name.
        container: String,
        /// What.
        detail: String,
    },
    /// No random numbers.
    #[error("cannot make a container id: {0}")]
    Id(String),
}

impl PodError {
    /// The agent's refusal, if that is what stopped the pod.
    #[must_use]
    pub fn refusal(&self) -> Option<&protocols::refusal::Refusal> {
        match self {
            PodError::Sandbox(error) | PodError::Container { error, .. } => error.refusal(),
            _ => None,
        }
    }
}
