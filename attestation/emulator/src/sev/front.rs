//! The program that stands where QEMU would: launches the guest on the emulated platform, answers the monitor
//! until `cont`, then becomes the real QEMU, without SEV, with the injected secret in a place where the test
//! initrd finds it.

use super::faults::{self, Fault};
use super::guest::{Guest, Status};
use super::monitor::{self, Commands, Left, Outcome};
use super::platform::Platform;
use super::words::{CommandLine, Monitor, SevObject, WordsError};
use crate::firmware::{Firmware, FirmwareError};
use crate::measure::{CpuModel, FileError, HashTable, LegacyLaunch, MeasureError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use zeroize::Zeroizing;

/// Signature of the ACPI table in which the guest finds what was injected.
pub const TABLE: &str = "SPSV";
/// A firmware image has at most 64 MiB, a blob far less.
const FILE_MAX: u64 = 64 << 20;
/// Bit of the address that says "encrypted", as on Milan.
const CBITPOS: u32 = 51;

/// What isn't on QEMU's command line.
#[derive(Debug)]
pub struct Options {
    /// The platform.
    pub platform: Platform,
    /// The real QEMU.
    pub qemu: PathBuf,
    /// The CPU model that SEV-ES guests' processors have, by QEMU's name.
    pub cpu: CpuModel,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The command line.
    #[error(transparent)]
    Words(#[from] WordsError),
    /// The firmware.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// Kernel or initrd.
    #[error(transparent)]
    File(#[from] FileError),
    /// The launch can't be measured.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// Something that the launch needs isn't on the command line.
    #[error("an SEV launch needs {0}")]
    Missing(&'static str),
    /// A file can't be read.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A blob is not base64, as QEMU wants it.
    #[error("{0} does not hold base64")]
    Base64(PathBuf),
    /// The firmware refuses a command. QEMU's words.
    #[error("{command} ret=1 fw_error={code} '{status}'", code = *.status as u32)]
    Launch {
        /// The command.
        command: &'static str,
        /// What the firmware says.
        status: Status,
    },
    /// The monitor's socket.
    #[error("monitor {path}: {source}")]
    Monitor {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Whoever launched the guest went away before it ran.
    #[error("the monitor was closed before the guest was started")]
    HungUp,
    /// Random numbers or memory for the secret.
    #[error("{0}")]
    System(String),
    /// The real QEMU doesn't start.
    #[error("starting {path}: {source}")]
    Qemu {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Does what QEMU would with these words. Returns after `quit`; else this process becomes the real QEMU.
pub fn run(mut options: Options, words: Vec<OsString>) -> Result<(), FrontError> {
    faults::apply(&mut options.platform, &options.faults);
    let line = CommandLine::parse(words)?;
    let Options { platform, qemu, cpu, faults } = &options;
    let guest = match &line.guest {
        Some(object) => Some(launch(platform, object, &line, *cpu, faults)?),
        None if line.probe => None,
        None => return Err(become_qemu(qemu, &line.rest, None)),
    };
    let area = line.firmware.as_deref().map(secret_area).transpose()?.flatten();
    let mut launch = Launch { platform, faults, guest, secret: None, area };
    let left = match (line.paused, line.monitors.iter().find(|monitor| !monitor.listens)) {
        (false, _) => Left::Run,
        (true, Some(monitor)) => connect(monitor, &mut launch)?,
        (true, None) => match line.monitors.first() {
            Some(monitor) => listen(monitor, &mut launch)?,
            None => return Err(FrontError::Missing("a monitor (-qmp unix:PATH) to start the guest by")),
        },
    };
    match (left, line.probe) {
        (Left::Quit, _) => Ok(()),
        (Left::HungUp, _) | (Left::Run, true) => Err(FrontError::HungUp),
        (Left::Run, false) => Err(become_qemu(qemu, &line.rest, launch.secret.take())),
    }
}

fn secret_area(path: &Path) -> Result<Option<u32>, FrontError> {
    Ok(Firmware::parse(read(path)?)?.secret_area())
}

/// LAUNCH_START … LAUNCH_MEASURE, with the files that are really on the command line.
fn launch(
    platform: &Platform,
    object: &SevObject,
    line: &CommandLine,
    cpu: CpuModel,
    faults: &[Fault],
) -> Result<Guest, FrontError> {
    let firmware = line.firmware.as_deref().ok_or(FrontError::Missing("-bios FIRMWARE"))?;
    let godh = object.dh_cert_file.as_deref().ok_or(FrontError::Missing("dh-cert-file="))?;
    let session = object.session_file.as_deref().ok_or(FrontError::Missing("session-file="))?;
    let firmware = Firmware::parse(read(firmware)?)?;
    let hashes = match (&line.kernel, object.kernel_hashes) {
        (Some(kernel), true) => {
            let append = line.append.as_deref().map(OsStrExt::as_bytes).unwrap_or_default();
            Some(HashTable::of_words(kernel, line.initrd.as_deref(), append)?)
        }
        _ => None,
    };
    let measured = LegacyLaunch { firmware: &firmware, hashes: hashes.as_ref(), vcpus: line.vcpus, cpu };

    let failed = |command| move |status| FrontError::Launch { command, status };
    let mut guest = Guest::start(platform, object.policy, &decode(godh)?, &decode(session)?, faults)
        .map_err(failed("sev_launch_start: LAUNCH_START"))?;
    for data in measured.data()? {
        guest.update_data(&data).map_err(failed("sev_launch_update_data: LAUNCH_UPDATE"))?;
    }
    if guest.is_es() {
        for page in measured.processors()? {
            guest.update_processor(&page).map_err(failed("sev_launch_update_vmsa: LAUNCH_UPDATE_VMSA"))?;
        }
    }
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)
        .map_err(|error| FrontError::System(format!("reading random numbers: {error}")))?;
    guest.measure(nonce).map_err(failed("sev_launch_get_measure: LAUNCH_MEASURE"))?;
    Ok(guest)
}

fn read(path: &Path) -> Result<Vec<u8>, FrontError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes))
        .map_err(|source| FrontError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

fn decode(path: &Path) -> Result<Vec<u8>, FrontError> {
    STANDARD.decode(read(path)?.trim_ascii()).map_err(|_| FrontError::Base64(path.to_owned()))
}

/// The monitor's commands of one launch.
struct Launch<'a> {
    platform: &'a Platform,
    faults: &'a [Fault],
    guest: Option<Guest>,
    secret: Option<Zeroizing<Vec<u8>>>,
    /// Bytes that the firmware has for a secret.
    area: Option<u32>,
}

impl Commands for Launch<'_> {
    fn execute(&mut self, command: &str, arguments: &Value) -> Outcome {
        match command {
            "query-sev-capabilities" => Outcome::Return(json!({
                "pdh": STANDARD.encode(self.platform.pdh),
                "cert-chain": STANDARD.encode(&self.platform.chain),
                "cpu0-id": STANDARD.encode(self.platform.id),
                "cbitpos": CBITPOS,
                "reduced-phys-bits": 1,
            })),
            "query-sev" => Outcome::Return(self.query()),
            "query-sev-launch-measure" => self.measurement(),
            "sev-inject-launch-secret" => self.inject(arguments),
            "query-status" => Outcome::Return(json!({ "running": false, "status": "prelaunch" })),
            "cont" => match self.guest.as_mut().map(Guest::finish) {
                Some(Ok(secret)) => {
                    self.secret = secret;
                    Outcome::Run
                }
                Some(Err(status)) => refused("LAUNCH_FINISH", status),
                None => Outcome::Run,
            },
            other => Outcome::Error("CommandNotFound", format!("The command {other} has not been found")),
        }
    }
}

impl Launch<'_> {
    fn query(&self) -> Value {
        let Some(guest) = &self.guest else {
            return json!({
                "enabled": false, "api-major": 0, "api-minor": 0, "build-id": 0, "policy": 0, "handle": 0,
                "state": "uninit",
            });
        };
        let (mut api, mut policy) = (self.platform.api, guest.policy());
        for fault in self.faults {
            match fault {
                Fault::QueryApi(major, minor) => api = (*major, *minor),
                Fault::QueryPolicy(other) => policy = *other,
                _ => {}
            }
        }
        json!({
            "enabled": true, "api-major": api.0, "api-minor": api.1, "build-id": self.platform.build,
            "policy": policy, "handle": 1, "state": guest.state().name(),
        })
    }

    fn measurement(&self) -> Outcome {
        let Some(mut measurement) = self.guest.as_ref().and_then(Guest::measurement) else {
            return Outcome::Error("GenericError", "SEV launch measurement is not available".to_owned());
        };
        for fault in self.faults {
            match fault {
                Fault::Measure => measurement[0] ^= 1,
                Fault::ReplayedMeasurement(data) => return Outcome::Return(json!({ "data": data })),
                _ => {}
            }
        }
        Outcome::Return(json!({ "data": STANDARD.encode(measurement) }))
    }

    fn inject(&mut self, arguments: &Value) -> Outcome {
        let bytes = |name: &str| {
            arguments.get(name).and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok())
        };
        let (Some(header), Some(secret)) = (bytes("packet-header"), bytes("secret")) else {
            return Outcome::Error("GenericError", "SEV: Failed to decode header or secret".to_owned());
        };
        if self.faults.contains(&Fault::InjectRefused) {
            return refused("LAUNCH_SECRET", Status::InvalidParameter);
        }
        if self.area.is_none_or(|area| secret.len() > area as usize) {
            return Outcome::Error(
                "GenericError",
                "SEV: the firmware has no room for this secret".to_owned(),
            );
        }
        match self.guest.as_mut().map(|guest| guest.inject(&header, &secret)) {
            Some(Ok(())) => Outcome::Return(json!({})),
            Some(Err(status)) => refused("LAUNCH_SECRET", status),
            None => Outcome::Error("GenericError", "SEV not enabled for guest".to_owned()),
        }
    }
}

fn refused(command: &str, status: Status) -> Outcome {
    let code = status as u32;
    Outcome::Error("GenericError", format!("SEV: failed {command} ret=1 fw_error={code} '{status}'"))
}

fn connect(monitor: &Monitor, launch: &mut Launch<'_>) -> Result<Left, FrontError> {
    let failed = |source| FrontError::Monitor { path: monitor.path.clone(), source };
    let stream = UnixStream::connect(&monitor.path).map_err(failed)?;
    converse(stream, launch).map_err(failed)
}

/// Like QEMU's, the monitor outlives those who talk to it.
fn listen(monitor: &Monitor, launch: &mut Launch<'_>) -> Result<Left, FrontError> {
    let failed = |source| FrontError::Monitor { path: monitor.path.clone(), source };
    let _ = fs::remove_file(&monitor.path);
    let listener = UnixListener::bind(&monitor.path).map_err(failed)?;
    loop {
        let (stream, _) = listener.accept().map_err(failed)?;
        if let Ok(left @ (Left::Run | Left::Quit)) = converse(stream, launch) {
            let _ = fs::remove_file(&monitor.path);
            return Ok(left);
        }
    }
}

fn converse(stream: UnixStream, launch: &mut Launch<'_>) -> io::Result<Left> {
    let mut input = BufReader::new(stream.try_clone()?);
    monitor::serve(&mut input, &mut { stream }, launch)
}

/// Returns only if that fails.
fn become_qemu(qemu: &Path, words: &[OsString], secret: Option<Zeroizing<Vec<u8>>>) -> FrontError {
    let mut command = Command::new(qemu);
    command.args(words);
    // Open until QEMU has read it, and in no file system.
    let _open: OwnedFd;
    if let Some(secret) = secret {
        let table = memfd_create(c"secret", MFdFlags::empty()).map_err(io::Error::from).and_then(|file| {
            File::from(file.try_clone()?).write_all(&secret)?;
            Ok(file)
        });
        match table {
            Ok(file) => {
                let table = format!(
                    "sig={TABLE},oem_id=SEALPD,oem_table_id=EMULATED,data=/proc/self/fd/{}",
                    file.as_raw_fd()
                );
                command.arg("-acpitable").arg(table);
                _open = file;
            }
            Err(error) => return FrontError::System(format!("passing the secret on: {error}")),
        }
    }
    FrontError::Qemu { path: qemu.to_owned(), source: command.exec() }
}
