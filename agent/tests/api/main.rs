//! The API over a socket, with a source of keys and images that needs no VM: what the host may do, in
//! which order, and what it hears. Containers themselves run in the QEMU tests.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod containers;
mod host;
mod policy;
mod sandbox;
