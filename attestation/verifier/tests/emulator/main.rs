//! Two programs that share no measuring or verifying code, the emulated hardware and this verifier, have to
//! agree: on launch digests, on which evidence is genuine, and on why everything else is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod sev;
mod snp;
