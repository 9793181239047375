//! An owner at the command line: every step is the built `sealpod`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::broker::Broker;
use crate::installation::Installation;
use crate::process::Finished;
use crate::registry::{HOST, Registry};
use crate::world::BROKER_NAME;

/// An identity directory and the program that uses it.
#[derive(Clone, Debug)]
pub struct Owner {
    program: PathBuf,
    home: PathBuf,
}

/// What `sealpod seal` wrote.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// For the cluster.
    pub manifest: PathBuf,
    /// For `push`.
    pub key: PathBuf,
    /// What it printed.
    pub printed: String,
}

impl Owner {
    /// `sealpod init`.
    ///
    /// # Errors
    /// With what the command printed.
    pub fn init(installation: &Installation, home: &Path, repository: &str, broker: &Broker) -> Result<Self> {
        let owner = Self { program: installation.binary("sealpod"), home: home.to_owned() };
        let port = broker.address().port();
        let mut command = owner.command("init");
        command.args(["--repository", repository]);
        command.arg("--broker").arg(format!("https://localhost:{port}"));
        command.arg("--guest-broker").arg(format!("https://{BROKER_NAME}"));
        command.arg("--broker-ca").arg(broker.certificate_authority());
        Finished::of(&mut command)?.success("sealpod init")?;
        Ok(owner)
    }

    /// `sealpod SUBCOMMAND` with this identity, to be completed.
    #[must_use]
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--identity").arg(&self.home).arg(subcommand);
        command
    }

    /// The public key that the broker's operator enrols.
    ///
    /// # Errors
    /// When the identity can't be read.
    pub fn public_key(&self) -> Result<String> {
        let path = self.home.join("owner.pub");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// `sealpod seal`, with the registry as guests and as this machine reach it.
    ///
    /// # Errors
    /// With what the command printed.
    pub fn seal(
        &self,
        manifest: &Path,
        output: &Path,
        registry: &Registry,
        arguments: &[&str],
    ) -> Result<Sealed> {
        let key = output.with_extension("key.json");
        let mut command = self.command("seal");
        command.arg(manifest).arg("--output").arg(output).arg("--key-output").arg(&key);
        command.arg("--registry").arg(format!("{HOST}={}", registry.location_from_guest()));
        command.arg("--resolve-via").arg(format!("{HOST}={}", registry.location()));
        let printed = Finished::of(command.args(arguments))?.success("sealpod seal")?;
        Ok(Sealed { manifest: output.to_owned(), key, printed })
    }

    /// `sealpod measure`.
    ///
    /// # Errors
    /// With what the command printed.
    pub fn measure(&self, guest: &Path, output: &Path) -> Result<String> {
        let mut command = self.command("measure");
        command.arg("--guest").arg(guest).arg("--output").arg(output);
        Finished::of(&mut command)?.success("sealpod measure")
    }

    /// `sealpod push`.
    ///
    /// # Errors
    /// With what the command printed.
    pub fn push(&self, sealed: &Sealed, measurement: &Path) -> Result<String> {
        self.push_with(sealed, measurement, &[])
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// With what the command printed.
    pub fn push_with(&self, sealed: &Sealed, measurement: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("push");
        command.arg(&sealed.key).arg("--measurement").arg(measurement).args(arguments);
        Finished::of(&mut command)?.success("sealpod push")
    }

    /// `sealpod run`, to be completed.
    #[must_use]
    pub fn run(&self, sealed: &Sealed, guest: &Path, relay: &Path) -> Command {
        let mut command = self.command("run");
        command.arg(&sealed.manifest).arg("--guest").arg(guest);
        command.arg("--relay").arg(format!("unix:{}", relay.display()));
        command
    }
}
