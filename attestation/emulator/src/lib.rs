//! Software AMD secure processor and Power ultravisor for machines without the hardware; test and demo only.
//!
//! On the host, `sealpod-emulator` plays the secure processor of one VM: it measures the files that QEMU
//! boots and signs attestation reports in AMD's format under a root of its own ([`snp`]), or launches an SEV
//! guest in QEMU's place ([`sev`]). In the guest, `sealpod-emulated-sp` plays what the kernel shows of it
//! ([`guest`]). [`ultravisor`] opens ESM blobs. The agent is the same binary as in production; only a broker
//! that was told to trusts the roots.
//!
//! Shares no code with the verifier: what this crate writes, the verifier reads by its own understanding
//! of AMD's and IBM's specifications.

pub mod firmware;
pub mod guest;
mod guid;
pub mod measure;
pub mod sev;
pub mod snp;
pub mod state;
pub mod ultravisor;
