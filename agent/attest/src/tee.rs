//! TEEs as the agent sees them: chosen at run time by what the guest has, never by configuration.
//! Without one there is no fallback.

mod sev_guest;

use std::path::Path;
use std::sync::Arc;

use protocols::rcar::TeeKind;
use protocols::refusal::{Code, Refusal};
use serde_json::Value;
use thiserror::Error;

pub use sev_guest::{Exchange, FirmwareError, SevGuest};

/// A trusted execution environment. Calls block; up to seconds when the firmware is busy.
pub trait Tee: Send + Sync {
    /// The name in the key broker protocol.
    fn kind(&self) -> TeeKind;

    /// What the launch bound this VM to: HOST_DATA, from a report made for this call.
    fn host_data(&self) -> Result<[u8; 32], TeeError>;

    /// Evidence over `report_data`, as the key broker protocol's `primary_evidence`.
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Value, TeeError>;
}

/// Why the TEE gave no evidence.
#[derive(Debug, Error)]
pub enum TeeError {
    /// The device is there and can't be opened.
    #[error("TEE device {path} can't be opened")]
    Open {
        /// Which device.
        path: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The request to the firmware failed.
    #[error("the TEE's firmware gave no report")]
    Firmware(#[from] FirmwareError),
    /// The report is for other data than what was asked for.
    #[error("the TEE's report is not for the data it was asked for")]
    OtherData,
    /// The report can't be read.
    #[error("the TEE's report can't be read")]
    Report(#[source] tee_evidence::snp::ReportError),
    /// The report can't be written as evidence.
    #[error("the TEE's report can't be written as evidence")]
    Json(#[source] tee_evidence::snp::json::JsonError),
    /// No randomness.
    #[error("no randomness from the kernel")]
    Random(#[source] getrandom::Error),
}

impl TeeError {
    /// The line for host and owner.
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Open { .. } => Code::NoTee,
            Self::Random(_) => Code::Internal,
            _ => Code::Evidence,
        };
        Refusal::new(code, chain(self))
    }
}

/// The TEE of this guest.
pub fn detect() -> Result<Arc<dyn Tee>, Refusal> {
    if Path::new(sev_guest::DEVICE).exists() {
        return match SevGuest::open() {
            Ok(tee) => Ok(Arc::new(tee)),
            Err(error) => Err(error.refusal()),
        };
    }
    Err(Refusal::new(
        Code::NoTee,
        format!("no {} in this guest; start it as a SEV-SNP confidential VM", sev_guest::DEVICE),
    ))
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors repeat their source's text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
