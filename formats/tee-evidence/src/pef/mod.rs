//! Power PEF: the ESM blob that lets an ultravisor turn a VM secure, byte for byte as svm-tools writes it,
//! and the flattened device tree underneath. Devicetree Specification v0.4 chapter 5; open-power/svm-tools
//! `docs/README.ESM`. Nothing here encrypts or decrypts.

mod digests;
mod esm;
pub mod fdt;

pub use digests::Digests;
pub use esm::{
    EsmBlob, EsmError, EsmFile, FINGERPRINT, FileName, IV, Lockbox, MAC, MAX_FILE, MAX_LOCKBOXES, Place,
    SYMKEY_CIPHERTEXT, Sealed,
};
