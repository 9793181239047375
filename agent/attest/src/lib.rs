//! The guest's side of attestation: which TEE this is, what the launch bound, and the spec key.
//!
//! ```text
//! tee::detect ─▶ initdata::load (HOST_DATA) ─▶ rcar::release_key (pinned TLS, RCAR) ─▶ SpecKey
//! ```
//! Every failure is a [`protocols::refusal::Refusal`], ready for the host and the owner to read.

pub mod initdata;
pub mod rcar;
pub mod tee;

#[cfg(test)]
mod testing;
