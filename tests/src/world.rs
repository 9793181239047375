//! One Sealpod on this machine: registry, emulated platform, broker, relay and an enrolled owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::broker::{Broker, Trust};
use crate::installation::Installation;
use crate::machine::Machine;
use crate::owner::Owner;
use crate::process::{Daemon, Finished};
use crate::registry::Registry;
use crate::small_disk::SmallDisk;

/// The name that guests know the broker by; only the relay knows where it is.
pub const BROKER_NAME: &str = "broker.example";
/// The CPU model that guests declare, and that the launch digest covers.
pub const CPU_MODEL: &str = "EPYC-Milan";

/// Everything that runs beside the guests. Dropping it ends all of it.
#[derive(Debug)]
pub struct World {
    // Dropped in this order: programs first, then their directory.
    relay: Daemon,
    broker: Broker,
    registry: Registry,
    installation: Installation,
    machine: Machine,
    directory: TempDir,
}

impl World {
    /// Starts everything; `progress` is told what is being done.
    ///
    /// # Errors
    /// When a program or file is missing or fails, with what it printed.
    pub fn start(progress: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::start_on(None, progress)
    }

    /// The same with machines of another kind.
    ///
    /// # Errors
    /// When a program or file is missing or fails, with what it printed.
    pub fn start_machine(machine: Machine) -> Result<Self> {
        Self::start_with(machine, None, &mut |_| {})
    }

    /// The same with the broker's state on a disk that can be full.
    ///
    /// # Errors
    /// When a program or file is missing or fails, with what it printed.
    pub fn start_on(disk: Option<SmallDisk>, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::start_with(Machine::MILAN, disk, progress)
    }

    fn start_with(machine: Machine, disk: Option<SmallDisk>, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        let installation = Installation::find()?;
        let directory =
            tempfile::Builder::new().prefix("sealpod-").tempdir().context("cannot make a directory")?;
        let root = directory.path();

        progress("a registry on loopback, with a busybox image made here and pushed by skopeo");
        let registry = Registry::start(&root.join("registry"))?;

        progress("an emulated AMD secure processor with a root of its own");
        let chip = root.join("chip");
        let mut command = Command::new(installation.binary("sealpod-emulator"));
        command.arg("init").arg("--state").arg(&chip).args(["--product", machine.product]);
        if machine.is_sev() {
            command.arg("--sev");
        }
        Finished::of(&mut command)?.success("sealpod-emulator init")?;

        progress("the attestation broker, which trusts that emulated root by its configuration");
        let broker = Broker::start_on(disk, &installation, &root.join("broker"), &Trust::of(machine, &chip))?;

        progress("the relay: a byte pipe from guests to the broker, without keys");
        let relay = start_relay(&installation, root, "relay", &broker)?;
        Ok(Self { relay, broker, registry, installation, machine, directory })
    }

    /// The built programs and guest files.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The registry.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The registry, to end it.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The broker, to end it.
    pub fn broker_mut(&mut self) -> &mut Broker {
        &mut self.broker
    }

    /// The relay's listening socket.
    #[must_use]
    pub fn relay_socket(&self) -> PathBuf {
        socket_of(self.directory.path(), "relay")
    }

    /// Where everything lives; gone with the world.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The relay's process id.
    #[must_use]
    pub fn relay_pid(&self) -> u32 {
        self.relay.pid()
    }

    /// An owner with a key of its own, enrolled for `repository`.
    ///
    /// # Errors
    /// When `sealpod init` or the enrolment fails.
    pub fn enrolled_owner(&self, repository: &str) -> Result<Owner> {
        let home = self.directory.path().join(format!("owner-{repository}"));
        let owner = Owner::init(&self.installation, &home, repository, &self.broker)?;
        self.broker.enrol(repository, &owner.public_key()?)?;
        Ok(owner)
    }

    /// Writes `guest.toml` for the test guest into `directory`, with `initrd` in place of the built one.
    ///
    /// # Errors
    /// When the manifest can't be written.
    pub fn guest_manifest(&self, name: &str, initrd: Option<&Path>) -> Result<PathBuf> {
        let file = |name: &str| self.installation.guest_file(name);
        let default = file("initrd-test.img");
        let text = format!(
            "firmware = {:?}\nkernel = {:?}\ninitrd = {:?}\nvcpus = 1\nmemory_mib = 512\ncpu_model = {:?}\n\n\
             [platform]\nkind = {:?}\nemulator = {:?}\nstate = {:?}\n",
            file("firmware.fd"),
            file("bzImage"),
            initrd.unwrap_or(&default),
            self.machine.cpu_model,
            self.machine.kind,
            self.installation.binary("sealpod-emulator"),
            self.directory.path().join("chip"),
        );
        let path = self.directory.path().join(format!("{name}.toml"));
        fs::write(&path, text).context("cannot write the guest manifest")?;
        Ok(path)
    }

    /// A copy of the test initrd with one byte changed that the guest still boots with.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn initrd_with_one_byte_changed(&self) -> Result<PathBuf> {
        let mut bytes =
            fs::read(self.installation.guest_file("initrd-test.img")).context("cannot read the initrd")?;
        // Byte 4–7 of a gzip header is a time that nothing reads.
        *bytes.get_mut(4).context("the initrd is empty")? ^= 1;
        let path = self.directory.path().join("initrd-changed.img");
        fs::write(&path, bytes).context("cannot write the changed initrd")?;
        Ok(path)
    }

    /// A second broker of the same name with a certificate authority of its own, and a relay to it: what a host
    /// puts in between to see the pod's secrets.
    ///
    /// # Errors
    /// When either can't be started.
    pub fn broker_in_between(&self) -> Result<(Broker, Daemon, PathBuf)> {
        let root = self.directory.path();
        let broker = Broker::start(
            &self.installation,
            &root.join("broker-in-between"),
            &Trust::of(self.machine, &root.join("chip")),
        )?;
        let relay = start_relay(&self.installation, root, "relay-in-between", &broker)?;
        Ok((broker, relay, socket_of(root, "relay-in-between")))
    }
}

fn socket_of(root: &Path, name: &str) -> PathBuf {
    root.join(format!("{name}.sock"))
}

fn start_relay(installation: &Installation, root: &Path, name: &str, broker: &Broker) -> Result<Daemon> {
    let socket = socket_of(root, name);
    let mut command = Command::new(installation.binary("sealpod-relay"));
    command.arg("--listen").arg(format!("unix:{}", socket.display()));
    command.arg("--broker").arg(broker.address().to_string());
    let mut relay = Daemon::start(name, &mut command, &root.join(format!("{name}.log")))?;
    relay.wait_until("its socket", || socket.exists())?;
    Ok(relay)
}

/// What the launcher remembers about this machine between runs (which accelerator works), beside the built files.
#[must_use]
pub fn launcher_state() -> PathBuf {
    Installation::target_directory().join("launcher-state")
}
