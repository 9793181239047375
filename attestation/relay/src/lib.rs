//! The relay: guests without a network of their own reach the broker through it. It moves bytes between
//! a guest's vsock (or the unix socket that a vhost-user device maps it to) and the broker's TCP port.
//! TLS ends in the guest and in the broker; the relay holds no key, reads nothing and is trusted with
//! nothing. Everything is bounded: connections, per guest and in all, buffers, idle time.
//!
//! Beside that it mirrors AMD's certificates for the site ([`collateral`]), and launches SEV and SEV-ES guests in QEMU's place ([`sev`]), over QEMU's monitor ([`qmp`]).

pub mod address;
pub mod collateral;
pub mod listener;
mod pipe;
pub mod qmp;
pub mod serve;
pub mod sev;
