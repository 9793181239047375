//! Attestation and key broker daemon.

fn main() {}
