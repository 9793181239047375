//! A whole Sealpod on this machine, for the demo and the tests: a registry with a small real image, a
//! broker that trusts an emulated root, a relay, an owner, and guests booted in QEMU.

pub mod attempt;
pub mod broker;
pub mod checks;
pub mod cosign;
pub mod disk;
pub mod frames;
pub mod host;
pub mod image;
pub mod installation;
pub mod kata;
pub mod lifecycle;
pub mod machine;
pub mod mutate;
pub mod owner;
pub mod pattern;
pub mod plain;
pub mod process;
pub mod registry;
pub mod small_disk;
pub mod world;
