//! A whole Sealpod on this machine, for the demo and the tests: a registry with a small real image, a
//! broker that trusts an emulated root, a relay, an owner, and guests booted in QEMU.

pub mod image;
pub mod installation;
pub mod process;
pub mod registry;
