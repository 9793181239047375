//! Control groups and the guest as a machine.
//!
//! | module | job |
//! |---|---|
//! | [`hierarchy`], [`cgroup`] | version 2, or version 1 where the kernel has only that; one container's cgroup |
//! | [`update`] | a request's limits, all checked before the first is written |
//! | [`stats`] | numbers of a container, in the API's version 1 shape |
//! | [`freeze`], [`oom`] | pause and resume, confirmed; what the kernel kills for want of memory |
//! | [`machine`] | processors, memory, swap, PCI paths |
//! | [`clock`], [`volume`], [`metrics`] | time and randomness, file systems, Prometheus text |

pub mod cgroup;
pub mod clock;
pub mod error;
pub mod freeze;
pub mod hierarchy;
pub mod machine;
pub mod metrics;
pub mod oom;
pub mod stats;
mod sys;
pub mod update;
pub mod volume;

pub use cgroup::Cgroup;
pub use error::{ResourceError, Result};
pub use hierarchy::{Hierarchy, Version};
pub use oom::{OomEvents, OomWatch};
