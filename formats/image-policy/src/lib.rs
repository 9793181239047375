//! Which images may run: containers-policy.json(5), and the signatures that it asks for. Pure: no I/O, no
//! clock. Text and signatures come in as bytes, time as seconds; what comes out is [`Permitted`], the only
//! value with which an image that has no sealed digest may be fetched.
//!
//! Understood are the requirements `reject`, `insecureAcceptAnything`, `signedBy` (OpenPGP, containers-signature(5))
//! and `sigstoreSigned` with keys (cosign). What the file may say beyond that is refused by name, never skipped.

mod error;
mod identity;
mod inline;
mod json;
mod keys;
mod openpgp;
mod payload;
mod policy;
mod public_key;
mod reference;
mod requirement;
mod verify;

pub use error::{PolicyError, Refusal, SignatureError};
pub use inline::inline_key_files;
pub use policy::{Policy, Requirements};
pub use reference::{Reference, ReferenceError};
pub use verify::{Permitted, SignatureInput, verify};

/// Largest policy, its keys included.
pub const MAX_POLICY: usize = 128 * 1024;
/// Largest signature: a blob of simple signing, or a cosign payload.
pub const MAX_SIGNATURE: usize = 128 * 1024;
/// So many signatures of one image are looked at.
pub const MAX_SIGNATURES: usize = 64;

#[cfg(test)]
mod testing;
