//! Images as their owner handles them: OCI layouts, docker archives, registries; encrypted, decrypted and
//! re-wrapped without changing what needs no change.

pub mod pgp;
pub mod pkcs11;
pub mod provider;
