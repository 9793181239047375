//! An unsealed guest: a plain Kata agent with a root disk, for tests of the API itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use launcher::{BootOptions, Bus, DEFAULT_APPEND, Disk, Guest, GuestManifest, Platform};
use tempfile::TempDir;

use crate::disk;
use crate::image;
use crate::installation::Installation;
use crate::kata::{InitExec, Kata};
use crate::world::{CPU_MODEL, launcher_state};

/// Ten times what an idle machine needs.
const BOOT: Duration = Duration::from_secs(180);
/// What makes a guest unsealed; it is measured.
pub const UNSEALED: &str = "sealpod.unsealed=allow";

/// What an unsealed guest is booted with.
#[derive(Debug)]
pub struct Plain {
    /// What the guest is booted from.
    pub guest: GuestManifest,
    /// Its disks; the first is the containers' root.
    pub disks: Vec<Disk>,
    directory: TempDir,
}

/// A booted guest. The disks' files live as long.
#[derive(Debug)]
pub struct PlainGuest {
    /// The guest.
    pub guest: Guest,
    /// The runtime's connection.
    pub kata: Kata,
    _directory: TempDir,
}

impl Plain {
    /// A guest with busybox, and `extra` programs, on its root disk.
    ///
    /// # Errors
    /// When `make guest` hasn't run, or the disk can't be made.
    pub fn new(extra: &[(&str, &Path)]) -> Result<Self> {
        let installation = Installation::find()?;
        let directory =
            tempfile::Builder::new().prefix("sealpod-").tempdir().context("cannot make a directory")?;
        let root = directory.path().join("root.img");
        let mut programs = Vec::new();
        for (at, program) in extra {
            programs.push((*at, image::stripped(program, directory.path())?));
        }
        disk::root(&root, &programs)?;
        let guest = GuestManifest {
            firmware: installation.guest_file("firmware.fd"),
            kernel: installation.guest_file("bzImage"),
            initrd: installation.guest_file("initrd-production.img"),
            append: format!("{DEFAULT_APPEND} {UNSEALED}"),
            vcpus: 1,
            memory_mib: 512,
            cpu_model: CPU_MODEL.to_owned(),
            qemu: PathBuf::from("qemu-system-x86_64"),
            platform: Platform::None,
        };
        Ok(Self { guest, disks: vec![Disk { read_only: true, ..Disk::new(root) }], directory })
    }

    /// Adds a disk, made by `make` at the path that it is given; its index.
    ///
    /// # Errors
    /// `make`'s.
    pub fn add(&mut self, name: &str, bus: Bus, make: impl FnOnce(&Path) -> Result<()>) -> Result<usize> {
        let path = self.directory.path().join(name);
        make(&path)?;
        self.disks.push(Disk { bus, ..Disk::new(path) });
        Ok(self.disks.len() - 1)
    }

    /// Boots it and connects.
    ///
    /// # Errors
    /// When the guest doesn't come up, with its console's last lines.
    pub async fn boot(self) -> Result<PlainGuest> {
        let options = BootOptions {
            disks: self.disks,
            state_dir: launcher_state(),
            boot_timeout: BOOT,
            ..BootOptions::default()
        };
        let guest = Guest::boot(&self.guest, &options).await?;
        let client = guest.connect().await?;
        Ok(PlainGuest { guest, kata: Kata::new(client, InitExec::Empty), _directory: self.directory })
    }
}

impl PlainGuest {
    /// The guest's console, its end.
    #[must_use]
    pub fn console(&self) -> String {
        self.guest.console_tail(40)
    }
}
