//! The guest's side of attestation: TEE devices, initdata, key release.
