//! Boots a guest in QEMU and drives its agent as the Kata runtime does. `sealpod run`, the demo and the tests
//! stand on it.
//!
//! - [`GuestManifest`]: what a guest is booted from;
//! - [`Guest`]: a running guest that leaves nothing behind;
//! - [`AgentClient`]: ttrpc to its agent;
//! - [`pod`]: a pod's life, in the runtime's order of requests.

pub mod accelerator;
mod client;
mod console;
mod guest;
mod manifest;
pub mod pod;
mod process;
mod qemu;
mod rundir;
mod vsock;

pub use accelerator::{Accelerator, Choice};
pub use client::{AgentClient, AgentError};
pub use guest::{BootError, BootOptions, EmulatorError, Guest, SevOptions};
pub use manifest::{DEFAULT_APPEND, DEFAULT_SNP_POLICY, GuestManifest, ManifestError, Platform};
pub use process::{Process, ProcessError};
pub use qemu::{Bus, Disk, GUEST_MAC, LAYER_DISK, Network};
pub use rundir::RunDirError;
pub use vsock::VsockError;
