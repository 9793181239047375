//! SEV-SNP: attestation report, the fields in it, the certificate table that goes with it, and the
//! JSON form of both. AMD 56860 "SEV Secure Nested Paging Firmware ABI", GHCB 56421 §4.1.8.1.

mod certs;
mod fields;
pub mod json;
mod report;

pub use certs::{CertEntry, CertKind, CertificateTable, TableError};
pub use fields::{
    Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, Line, MitigationVectors, PlatformInfo, Product, RawTcb,
    SigningKey, Tcb, TcbError, TcbLayout,
};
pub use report::{ALGORITHM_ECDSA_P384_SHA384, RawReport, Report, ReportError, Signature, offset};
