//! The in-guest agent, PID 1 of a sealed pod's VM.
//!
//! | module | job |
//! |---|---|
//! | [`pid1`] | mounts, sysctls, power-off |
//! | [`reaper`] | every child's end, once |
//! | [`config`], [`mode`] | what the runtime configured, and what this VM is |
//! | [`attested`], [`opening`] | TEE, initdata, key, the sealed specification |
//! | [`guarded`], [`secrets`] | the policy mode, and what containers get from the broker |
//! | [`agent`] | the parts, put together |
//! | [`plain`] | the host's specifications, where no sealed one decides |
//! | [`sandbox`], [`container`], [`slots`] | what runs, and how often |
//! | [`images`], [`oci`], [`launch`] | root file systems and where their layers are, OCI specifications, libcontainer in a helper |
//! | [`process`] | streams |
//! | [`policy`], [`rpc`] | which RPCs a sealed VM answers, and the answers |
//! | [`record`] | what the host asked for before the specification was open |
//! | [`volumes`] | files of the host's that the sealed spec grants |
//! | [`quarantine`], [`resources`] | files, limits and numbers |
//! | [`log`] | the records that may leave the guest |

pub mod agent;
pub mod attested;
pub mod config;
pub mod container;
pub mod error;
pub mod guarded;
pub mod images;
mod kernel;
pub mod launch;
mod layer_disk;
pub mod log;
pub mod mode;
pub mod oci;
pub mod opening;
pub mod pid1;
pub mod plain;
pub mod policy;
pub mod process;
pub mod quarantine;
pub mod reaper;
pub mod record;
pub mod resources;
pub mod rpc;
pub mod sandbox;
pub mod secrets;
pub mod slots;
pub mod volumes;
