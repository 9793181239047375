//! The launch of SEV and SEV-ES guests (SEV API, 55766; QEMU's docs/system/i386/amd-memory-encryption): a wrapper that
//! stands where a runtime expects QEMU. It gets a session for the guest's initdata from the broker, starts QEMU
//! paused, hands the measurement to the broker and the broker's packet to QEMU, and lets the guest run. It holds no
//! key: what it could do wrong, the host can do without it.
//!
//! - [`qemu`]: the wrapper, up to the point where its process becomes QEMU;
//! - [`attest`](attendant): the rest, in a process beside it that ends when the guest runs.

mod attendant;
pub mod broker;
pub mod command_line;
pub mod config;
pub mod initdata;
pub mod launch;
mod private;
mod process;
mod wrapper;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use protocols::refusal::Refusal;
use thiserror::Error;

use crate::qmp::QmpError;
use command_line::CommandLineError;
use config::ConfigError;
use initdata::InitdataError;
use launch::LaunchError;
use private::PrivateError;

/// Words that only the relay itself uses.
pub const INTERNAL: [&str; 2] = [attendant::DETACH, attendant::ATTEST];

/// Why there is no guest.
#[derive(Debug, Error)]
enum SevError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    #[error(transparent)]
    Initdata(#[from] InitdataError),
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("cannot start {program}; 'qemu' in relay.toml names it")]
    Start { program: String, source: io::Error },
    #[error("{operation} failed")]
    System { operation: &'static str, source: io::Error },
    #[error("{program} ended before its launch was measured ({status}); its own error output says why")]
    Ended { program: String, status: String },
    #[error("{program} did not connect to the wrapper's monitor within {seconds} s")]
    NoMonitor { program: String, seconds: u64 },
    #[error("process {found} connected to the guest's monitor; the guest's is {wanted}")]
    Stranger { found: i32, wanted: i32 },
    #[error("interrupted by signal {0}")]
    Interrupted(u8),
    #[error("the handover {path} can't be read: {detail}")]
    Handover { path: PathBuf, detail: String },
}

impl From<Refusal> for SevError {
    fn from(refusal: Refusal) -> Self {
        Self::Launch(refusal.into())
    }
}

impl From<QmpError> for SevError {
    fn from(error: QmpError) -> Self {
        Self::Launch(error.into())
    }
}

fn system(operation: &'static str) -> impl Fn(io::Error) -> SevError {
    move |source| SevError::System { operation, source }
}

/// One line: a refusal as it came, anything else with its causes.
fn report(error: &SevError) -> ExitCode {
    if let SevError::Launch(LaunchError::Refused(refusal)) = error {
        eprintln!("{refusal}");
    } else {
        let mut line = format!("sealpod-relay: {error}");
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            line += &format!(": {cause}");
            next = cause.source();
        }
        eprintln!("{line}");
    }
    match error {
        SevError::Interrupted(signal) => ExitCode::from(128 + signal),
        _ => ExitCode::FAILURE,
    }
}

/// Stands for QEMU: the words are QEMU's. Returns only if no guest runs, or if it runs in the background.
#[must_use]
pub fn qemu(words: &[OsString]) -> ExitCode {
    wrapper::run(words).unwrap_or_else(|error| report(&error))
}

/// Prints what QEMU says of the platform, for `platform` in the settings.
#[must_use]
pub fn platform() -> ExitCode {
    wrapper::platform().map_or_else(|error| report(&error), |()| ExitCode::SUCCESS)
}

/// What the wrapper starts of itself: one of [`INTERNAL`] and its words.
#[must_use]
pub fn internal(word: &str, directory: PathBuf) -> ExitCode {
    let outcome =
        if word == attendant::DETACH { attendant::detach(&directory) } else { attendant::run(directory) };
    outcome.map_or_else(|error| report(&error), |()| ExitCode::SUCCESS)
}
