//! A guest from boot to end: emulated secure processor, vsock device, QEMU, in this order, and away again in the
//! other, whatever happens.

mod emulator;
mod sev;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use protocols::ports;

use crate::accelerator::{self, Accelerator, Choice, ProbeError};
use crate::client::{AgentClient, AgentError};
use crate::console;
use crate::manifest::{GuestManifest, ManifestError, Platform};
use crate::process::{Process, ProcessError};
use crate::qemu::{self, Disk, Network};
use crate::rundir::{self, RunDir, RunDirError};
use crate::vsock::{Device, VsockError};

pub use emulator::EmulatorError;
pub use sev::SevOptions;

/// Lines of console shown with an error.
const SHOWN: usize = 25;

/// What differs from one boot of a manifest to the next.
#[derive(Clone, Debug)]
pub struct BootOptions {
    /// Initdata as the guest's block device holds it (magic, length, gzip, padded to 512 bytes); empty: no device.
    pub initdata_device: Vec<u8>,
    /// More disks, in the order of [`Disk::pci_path`].
    pub disks: Vec<Disk>,
    /// HOST_DATA of the launch: SHA-256 of the initdata.
    pub host_data: [u8; 32],
    /// The relay's listening unix socket, which the guest reaches at port 4050 of the host.
    pub relay_socket: Option<PathBuf>,
    /// Who launches a guest of the kinds `sev` and `sev-es`, emulated or not; the others don't need it.
    pub sev: Option<SevOptions>,
    /// What executes the guest.
    pub accelerator: Choice,
    /// The guest's network.
    pub network: Network,
    /// For what is remembered between boots: the accelerator that works.
    pub state_dir: PathBuf,
    /// For sockets and console while the guest runs; none: `$XDG_RUNTIME_DIR` or the temporary directory.
    pub runtime_dir: Option<PathBuf>,
    /// How long the agent may take to answer its first `Check`. Ten times idle: machines are busy.
    pub boot_timeout: Duration,
}

impl Default for BootOptions {
    fn default() -> BootOptions {
        BootOptions {
            initdata_device: Vec::new(),
            disks: Vec::new(),
            host_data: [0; 32],
            relay_socket: None,
            sev: None,
            accelerator: Choice::Auto,
            network: Network::User,
            state_dir: std::env::temp_dir(),
            runtime_dir: None,
            boot_timeout: Duration::from_secs(120),
        }
    }
}

/// Why a guest did not come up.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The manifest's files.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The accelerator's probe.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The run directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// A file in the run directory.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The relay's socket is not there.
    #[error("the relay's socket {path} is not there; start 'sealpod-relay --listen unix:{path} …'")]
    Relay {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody to launch it.
    #[error("a guest of kind sev or sev-es is launched by the relay with the broker's session: name both")]
    NoSevOptions,
    /// The vsock device.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// A program could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The emulated secure processor.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// QEMU ended before the agent answered.
    #[error("the guest ended before its agent answered ({status}){}", shown(.qemu, .console))]
    Ended {
        /// How QEMU ended.
        status: std::process::ExitStatus,
        /// What QEMU said.
        qemu: String,
        /// The console's last lines.
        console: String,
    },
    /// The agent did not answer in time.
    #[error(
        "the agent did not answer within {} s (accelerator {accelerator}; last error: {}){}",
        .patience.as_secs(), chain(.last), shown(.qemu, .console)
    )]
    Silent {
        /// How long was waited.
        patience: Duration,
        /// With what the guest ran.
        accelerator: Accelerator,
        /// The last attempt's error.
        last: AgentError,
        /// What QEMU said.
        qemu: String,
        /// The console's last lines.
        console: String,
    },
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

fn shown(qemu: &str, console: &str) -> String {
    let mut text = String::new();
    if !qemu.trim().is_empty() {
        text += &format!("\nqemu says:\n{}", qemu.trim_end());
    }
    if console.is_empty() {
        text + "\nthe guest's console is empty"
    } else {
        text + "\nlast lines of the guest's console:\n" + console
    }
}

/// A running guest. Dropping it ends everything that was started for it and removes its files.
#[derive(Debug)]
pub struct Guest {
    // In this order: the guest first, then what serves it, then their files.
    qemu: Process,
    _emulator: Option<Process>,
    _vsock: Device,
    run: RunDir,
    accelerator: Accelerator,
    started: Instant,
    boot_timeout: Duration,
}

impl Guest {
    /// Starts a guest; [`Guest::connect`] tells whether it came up.
    ///
    /// # Errors
    /// [`BootError`]; nothing is left running or lying around.
    pub async fn boot(manifest: &GuestManifest, options: &BootOptions) -> Result<Guest, BootError> {
        manifest.check_files()?;
        let base = options.runtime_dir.clone().unwrap_or_else(rundir::default_base);
        let accelerator =
            accelerator::resolve(options.accelerator, manifest, &options.state_dir, &base).await?;
        let run = RunDir::create(&base)?;
        let vm = run.join("vm.sock");
        if let Some(relay) = &options.relay_socket {
            link_relay(relay, &port_socket(&vm, ports::BROKER))?;
        }
        let initdata = match options.initdata_device.as_slice() {
            [] => None,
            bytes => Some(write(run.join("initdata.img"), bytes)?),
        };
        let emulator = match &manifest.platform {
            Platform::Snp { .. } | Platform::Sev { .. } | Platform::SevEmulated { .. } | Platform::None => {
                None
            }
            Platform::SnpEmulated { .. } => {
                Some(emulator::serve(manifest, &run, &vm, &options.host_data).await?)
            }
        };
        let vhost = run.join("vhost.sock");
        let vsock = Device::start(&vhost, &vm, manifest.platform.encrypted())?;
        let boot = qemu::Boot {
            accelerator,
            vsock: Some(&vhost),
            console: &run.join("console.log"),
            initdata: initdata.as_deref(),
            disks: &options.disks,
            host_data: &options.host_data,
            network: options.network,
        };
        let mut command = match (manifest.platform.launched_by_relay(), &options.sev) {
            (None, _) => std::process::Command::new(&manifest.qemu),
            (Some(es), Some(sev)) => sev::command(manifest, &run, sev, options.relay_socket.as_deref(), es)?,
            (Some(_), None) => return Err(BootError::NoSevOptions),
        };
        command.args(qemu::arguments(manifest, &boot));
        let log = run.join("qemu.log");
        let log = std::fs::File::create(&log).map_err(|source| BootError::Write { path: log, source })?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = Instant::now();
        let qemu = Process::spawn(command)?;
        Ok(Guest {
            qemu,
            _emulator: emulator,
            _vsock: vsock,
            run,
            accelerator,
            started,
            boot_timeout: options.boot_timeout,
        })
    }

    /// Connects to the agent once it answers `Check`.
    ///
    /// # Errors
    /// [`BootError::Ended`] or [`BootError::Silent`], with the console's last lines.
    pub async fn connect(&self) -> Result<AgentClient, BootError> {
        let deadline = self.started + self.boot_timeout;
        let vm = self.vsock_socket();
        loop {
            let attempt = async {
                let client = AgentClient::connect(&vm, ports::AGENT).await?;
                client.check(Duration::from_secs(5)).await?;
                Ok(client)
            };
            let remaining = deadline.saturating_duration_since(Instant::now());
            let outcome = tokio::select! {
                outcome = tokio::time::timeout(remaining, attempt) => outcome,
                status = self.qemu.exited() => return Err(self.ended(status)),
            };
            let last = match outcome {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(error)) => error,
                Err(_) => AgentError::Lost { rpc: "check", detail: "it never listened".to_owned() },
            };
            if Instant::now() >= deadline {
                return Err(BootError::Silent {
                    patience: self.boot_timeout,
                    accelerator: self.accelerator,
                    last,
                    qemu: self.qemu_log(),
                    console: self.console_tail(SHOWN),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn ended(&self, status: std::process::ExitStatus) -> BootError {
        BootError::Ended { status, qemu: self.qemu_log(), console: self.console_tail(SHOWN) }
    }

    /// The unix socket for connections to the guest's vsock ports (`CONNECT <port>\n`).
    #[must_use]
    pub fn vsock_socket(&self) -> PathBuf {
        self.run.join("vm.sock")
    }

    /// The last lines of the guest's console, with control characters replaced.
    #[must_use]
    pub fn console_tail(&self, lines: usize) -> String {
        console::last_lines(&self.run.join("console.log"), lines)
    }

    fn qemu_log(&self) -> String {
        console::last_lines(&self.run.join("qemu.log"), SHOWN)
    }

    /// With what it runs.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// When QEMU was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// QEMU's process id.
    #[must_use]
    pub fn qemu_pid(&self) -> i32 {
        self.qemu.id()
    }

    /// Waits until the guest is off.
    pub async fn exited(&self) -> std::process::ExitStatus {
        self.qemu.exited().await
    }

    /// Gives the guest `patience` to power off (after `DestroySandbox`), then takes the power away. True if it
    /// went by itself.
    pub async fn shutdown(self, patience: Duration) -> bool {
        self.qemu.exited_within(patience).await
    }
}

/// The socket where the guest's connections to `port` of the host arrive.
fn port_socket(vm: &Path, port: u32) -> PathBuf {
    let mut name = vm.as_os_str().to_owned();
    name.push(format!("_{port}"));
    PathBuf::from(name)
}

fn link_relay(relay: &Path, at: &Path) -> Result<(), BootError> {
    let failed = |source| BootError::Relay { path: relay.to_owned(), source };
    std::fs::metadata(relay).map_err(failed)?;
    let target = std::path::absolute(relay).map_err(failed)?;
    std::os::unix::fs::symlink(&target, at).map_err(|source| BootError::Write { path: at.to_owned(), source })
}

fn write(path: PathBuf, bytes: &[u8]) -> Result<PathBuf, BootError> {
    match std::fs::write(&path, bytes) {
        Ok(()) => Ok(path),
        Err(source) => Err(BootError::Write { path, source }),
    }
}
