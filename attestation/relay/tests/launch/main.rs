//! The wrapper as it runs: the built program, a broker on loopback, and a scripted QEMU.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

mod background;
mod bench;
mod broker;
mod emulated;
mod good;
#[path = "../../../emulator/tests/owner/mod.rs"]
mod owner;
mod refused;
