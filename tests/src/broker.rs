//! A running `sealpod-broker` with a state directory of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::installation::Installation;
use crate::machine::Machine;
use crate::process::{Daemon, Finished, free_address};
use crate::small_disk::SmallDisk;
use crate::world::BROKER_NAME;

/// Which emulated roots a broker's configuration names.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// `trust.emulated_roots`.
    pub roots: Vec<PathBuf>,
    /// `trust.emulated_sev_arks`.
    pub sev_arks: Vec<PathBuf>,
}

impl Trust {
    /// That of the emulated machine in `chip`.
    #[must_use]
    pub fn of(machine: Machine, chip: &Path) -> Self {
        match machine.is_sev() {
            true => Self { roots: Vec::new(), sev_arks: vec![chip.join("sev-ask-ark.cert")] },
            false => Self { roots: vec![chip.join("ark.pem")], sev_arks: Vec::new() },
        }
    }

    /// The configuration's table.
    fn table(&self) -> String {
        let mut text = format!("[trust]\nemulated_roots = {:?}\n", self.roots);
        if !self.sev_arks.is_empty() {
            text += &format!("emulated_sev_arks = {:?}\n", self.sev_arks);
        }
        text
    }
}

/// The broker daemon; dropping it ends it.
#[derive(Debug)]
pub struct Broker {
    program: PathBuf,
    configuration: PathBuf,
    state: PathBuf,
    address: SocketAddr,
    log: PathBuf,
    // Dropped in this order: the program first, then its disk.
    daemon: Daemon,
    disk: Option<SmallDisk>,
}

impl Broker {
    /// Initialises a state directory under `directory` and serves from it.
    ///
    /// # Errors
    /// When the broker can't be initialised or started.
    pub fn start(installation: &Installation, directory: &Path, trust: &Trust) -> Result<Self> {
        Self::start_on(None, installation, directory, trust)
    }

    /// The same with the state on a disk that can be full.
    ///
    /// # Errors
    /// When the broker can't be initialised or started.
    pub fn start_on(
        disk: Option<SmallDisk>,
        installation: &Installation,
        directory: &Path,
        trust: &Trust,
    ) -> Result<Self> {
        fs::create_dir_all(directory).context("cannot make the broker's directory")?;
        let program = installation.binary("sealpod-broker");
        let state = disk.as_ref().map_or(directory, SmallDisk::path).join("state");
        let address = free_address()?;
        let configuration = directory.join("broker.toml");
        let text = format!(
            "listen = \"{address}\"\nstate = {state:?}\nserver_names = [\"{BROKER_NAME}\", \"localhost\"]\n\n{}",
            trust.table()
        );
        fs::write(&configuration, text).context("cannot write the broker's configuration")?;
        let log = directory.join("log");
        Finished::of(command(disk.as_ref(), &program).arg("init").arg("--config").arg(&configuration))?
            .success("sealpod-broker init")?;
        let daemon = serve(disk.as_ref(), &program, &configuration, &log, address)?;
        Ok(Self { program, configuration, state, address, log, daemon, disk })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate authority that owners pin.
    #[must_use]
    pub fn certificate_authority(&self) -> PathBuf {
        let path = self.state.join("ca.pem");
        self.disk.as_ref().map_or(path.clone(), |disk| disk.seen(&path))
    }

    /// Its disk, if it has one of its own.
    #[must_use]
    pub fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// Lets the holder of `key` write below `repository`.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn enrol(&self, repository: &str, key: &str) -> Result<()> {
        let mut command = command(self.disk.as_ref(), &self.program);
        command.args(["owner", "enrol", "--config"]).arg(&self.configuration);
        command.args(["--repository", repository, "--key", key]);
        Finished::of(&mut command)?.success("sealpod-broker owner enrol").map(drop)
    }

    /// Writes the audit log to `path`, as JSON lines.
    ///
    /// # Errors
    /// When the broker can't read its own log.
    pub fn export_audit(&self, path: &Path) -> Result<()> {
        let mut command = command(self.disk.as_ref(), &self.program);
        command.args(["audit", "export", "--config"]).arg(&self.configuration);
        let text = Finished::of(&mut command)?.success("sealpod-broker audit export")?;
        fs::write(path, text).context("cannot write the exported audit log")
    }

    /// A second start on the same state directory.
    ///
    /// # Errors
    /// When the program can't be started at all.
    pub fn start_again(&self) -> Result<Finished> {
        let mut command = command(self.disk.as_ref(), &self.program);
        Finished::of(command.arg("serve").arg("--config").arg(&self.configuration))
    }

    /// The broker's own log, its end.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }

    /// Ends the broker, as an unreachable one.
    ///
    /// # Errors
    /// When it can't be signalled.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.stop().map(drop)
    }
    /// Serves again after [`Self::stop`], at the same address.
    ///
    /// # Errors
    /// When the broker can't be started.
    pub fn serve(&mut self) -> Result<()> {
        let disk = self.disk.as_ref();
        self.daemon = serve(disk, &self.program, &self.configuration, &self.log, self.address)?;
        Ok(())
    }
}

fn command(disk: Option<&SmallDisk>, program: &Path) -> Command {
    disk.map_or_else(|| Command::new(program), |disk| disk.command(program))
}

fn serve(
    disk: Option<&SmallDisk>,
    program: &Path,
    configuration: &Path,
    log: &Path,
    address: SocketAddr,
) -> Result<Daemon> {
    let mut command = command(disk, program);
    command.arg("serve").arg("--config").arg(configuration);
    let mut daemon = Daemon::start("sealpod-broker", &mut command, log)?;
    daemon.wait_listening(address)?;
    Ok(daemon)
}
