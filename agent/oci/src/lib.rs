//! A sealed container and its image's config become an OCI runtime specification, as kubelet and a CRI
//! runtime would make it. Nothing of the host's own specification takes part.
//!
//! Inside the guest a container is still confined: what would let it reach the agent, the TEE's devices or
//! the vsock is refused by name, also where Kubernetes would allow it (`privileged`, some capabilities).

mod capabilities;
mod environment;
mod error;
mod input;
mod mounts;
mod process;
mod resources;
mod seccomp;
mod seccomp_table;
mod spec;
mod subpath;
mod sysctl;
mod user;
mod volumes;

pub use error::OciError;
pub use input::{AgentFiles, ContainerInput, ExtraMount, HostVolume, SharedNamespaces, Supplied};
pub use process::{exec_process, make_working_dir};
pub use spec::container_spec;
pub use subpath::{SubPaths, bind_sub_paths};
pub use volumes::{VolumePlan, volume_plans};
