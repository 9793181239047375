//! The emulated secure processor's process: one a guest, told what is really booted, ended with the guest.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::console;
use crate::manifest::{GuestManifest, Platform};
use crate::process::{Process, ProcessError};
use crate::rundir::RunDir;

/// The port of the host at which the test initrd's `/dev/sev-guest` helper finds the emulator.
const PORT: u32 = 4051;
/// It hashes firmware, kernel and initrd before it listens.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the emulated secure processor did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// Its program.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file for it.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It did not get ready.
    #[error("{emulator} did not become ready ({reason}); is {state} made by 'sealpod-emulator init'?{}", says(.log))]
    NotReady {
        /// The program.
        emulator: PathBuf,
        /// Its state directory.
        state: PathBuf,
        /// What happened.
        reason: String,
        /// Its error output.
        log: String,
    },
}

fn says(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" It says:\n{log}") }
}

/// Starts it and waits until it listens. It ends when its standard input closes, hence with the launcher.
pub(super) async fn serve(
    manifest: &GuestManifest,
    run: &RunDir,
    vm: &Path,
    host_data: &[u8; 32],
) -> Result<Process, EmulatorError> {
    let Platform::SnpEmulated { emulator, state, policy } = &manifest.platform else {
        return Err(not_ready(Path::new(""), Path::new(""), "the platform is not emulated", run));
    };
    let append = run.join("append");
    std::fs::write(&append, &manifest.append)
        .map_err(|source| EmulatorError::Write { path: append.clone(), source })?;
    let log = run.join("emulator.log");
    let log = std::fs::File::create(&log).map_err(|source| EmulatorError::Write { path: log, source })?;
    let mut command = Command::new(emulator);
    command.arg("serve").arg("--state").arg(state);
    command.arg("--listen").arg(super::port_socket(vm, PORT));
    command.arg("--firmware").arg(&manifest.firmware);
    command.arg("--kernel").arg(&manifest.kernel);
    command.arg("--initrd").arg(&manifest.initrd);
    command.arg("--append-file").arg(&append);
    command.arg("--vcpus").arg(manifest.vcpus.to_string());
    command.arg("--cpu-model").arg(&manifest.cpu_model);
    command.arg("--host-data").arg(hex::encode(host_data));
    command.arg("--policy").arg(format!("{policy:x}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut process = Process::spawn(command)?;
    let failed = |reason: &str| not_ready(emulator, state, reason, run);
    let stdout = process.stdout.take().ok_or_else(|| failed("it has no standard output"))?;
    let stdout = tokio::process::ChildStdout::from_std(stdout)
        .map_err(|error| failed(&format!("its output can't be read: {error}")))?;
    let mut line = String::new();
    let mut reader = BufReader::new(stdout.take(256));
    match tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await {
        Ok(Ok(_)) if line.trim_end() == "ready" => Ok(process),
        Ok(Ok(0)) => Err(failed("it ended")),
        Ok(Ok(_)) => Err(failed(&format!("it said {line:?}"))),
        Ok(Err(error)) => Err(failed(&error.to_string())),
        Err(_) => Err(failed("it said nothing for a minute")),
    }
}

fn not_ready(emulator: &Path, state: &Path, reason: &str, run: &RunDir) -> EmulatorError {
    EmulatorError::NotReady {
        emulator: emulator.to_owned(),
        state: state.to_owned(),
        reason: reason.to_owned(),
        log: console::last_lines(&run.join("emulator.log"), 10),
    }
}
