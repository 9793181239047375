//! vsock ports that guest and host agree on.

/// ttrpc: the agent listens in the guest, the Kata runtime connects.
pub const AGENT: u32 = 1024;
/// The relay listens on the host (CID 2); the agent connects and speaks TLS to the broker through it.
pub const BROKER: u32 = 4050;
