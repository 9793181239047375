//! TEEs as the agent sees them: chosen at run time by what the guest has, never by configuration.
//! Without one there is no fallback, nor where two would have a say.

mod detect;
mod launch_secret;
pub mod pef;
mod snp;

use protocols::rcar::TeeKind;
use protocols::refusal::{Code, Refusal};
use sealed_spec::SpecKey;
use serde_json::Value;
use thiserror::Error;

pub use detect::detect;
pub use launch_secret::{LaunchSecretError, SevSecret};
pub use pef::{EsmError, Pef};
pub use snp::{Configfs, Directories, Exchange, FirmwareError, Reports, SevGuest, Snp, Tsm, TsmError};

/// A trusted execution environment. Calls block; up to seconds when the firmware is busy.
pub trait Tee: Send + Sync {
    /// The name in the key broker protocol.
    fn kind(&self) -> TeeKind;

    /// The digest of the initdata that the launch bound this VM to: HOST_DATA of SNP, and what the secret of
    /// the other TEEs says in its place.
    fn init_data_digest(&self) -> Result<[u8; 32], TeeError>;

    /// Evidence over a binding, as the key broker protocol's `primary_evidence`.
    fn evidence(&self, binding: &Binding<'_>) -> Result<Value, TeeError>;

    /// SHA-256 of the only sealed spec of this VM, where the launch names it beside the initdata.
    fn sealed_spec(&self) -> Option<&[u8; 32]> {
        None
    }

    /// The spec key itself, where the launch brought it: such a VM has no broker to ask.
    fn spec_key(&self) -> Option<SpecKey> {
        None
    }
}

/// What evidence is made for.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// Nonce and ephemeral key of the session, hashed ([`protocols::rcar::report_data`]).
    pub report_data: &'a [u8; 64],
    /// SHA-256 of the sealed spec; zeros in a VM that has none. Part of evidence without HOST_DATA.
    pub sealed_spec: &'a [u8; 32],
}

/// Why the TEE gave no evidence.
#[derive(Debug, Error)]
pub enum TeeError {
    /// The device is there and can't be opened.
    #[error("TEE device {path} can't be opened")]
    Open {
        /// Which device.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel knows that it runs under SEV-SNP, and offers no report.
    #[error(
        "this is an SEV-SNP guest, but there is neither {device} nor a report provider in configfs; is sev-guest in the guest kernel's configuration, and has the host given the secrets page?"
    )]
    NoSource {
        /// The device that should be there.
        device: &'static str,
    },
    /// The kernel's word on the privilege level makes no sense.
    #[error("{path} says '{value}' instead of a privilege level from 0 to 3")]
    Vmpl {
        /// Which file.
        path: String,
        /// What it says, shortened.
        value: String,
    },
    /// The request to the firmware failed.
    #[error("the TEE's firmware gave no report")]
    Firmware(#[from] FirmwareError),
    /// The request by configfs failed.
    #[error("configfs-tsm gave no report")]
    Tsm(#[from] TsmError),
    /// The injected secret can't be used.
    #[error("the injected launch secret can't be used")]
    LaunchSecret(#[from] LaunchSecretError),
    /// The ESM blob's file can't be used.
    #[error("this VM's ESM blob can't be used")]
    Esm(#[from] EsmError),
    /// The report is for other data than what was asked for.
    #[error("the TEE's report is not for the data it was asked for")]
    OtherData,
    /// The report can't be read.
    #[error("the TEE's report can't be read")]
    Report(#[source] tee_evidence::snp::ReportError),
    /// The report can't be written as evidence.
    #[error("the TEE's report can't be written as evidence")]
    Json(#[source] tee_evidence::snp::json::JsonError),
    /// The evidence can't be written.
    #[error("the evidence can't be written as JSON")]
    Evidence(#[source] serde_json::Error),
    /// No randomness.
    #[error("no randomness from the kernel")]
    Random(#[source] getrandom::Error),
}

impl TeeError {
    /// The line for host and owner.
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Open { .. } | Self::NoSource { .. } => Code::NoTee,
            Self::LaunchSecret(_) | Self::Esm(_) => Code::LaunchSecret,
            Self::Random(_) => Code::Internal,
            _ => Code::Evidence,
        };
        Refusal::new(code, chain(self))
    }
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
