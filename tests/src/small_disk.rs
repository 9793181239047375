//! A disk that is soon full: a small tmpfs in a mount namespace of its own, gone with its holder. Needs root.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::Daemon;

/// Says in the new file system that it is there.
const MARK: &str = "mounted";
const BALLAST: &str = "ballast";

/// A mounted small disk; dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    // Dropped in this order: the namespace goes with its only process, then the empty directory.
    holder: Daemon,
    path: PathBuf,
    _directory: TempDir,
}

impl SmallDisk {
    /// Mounts a disk of that size.
    ///
    /// # Errors
    /// When this process may not mount.
    pub fn mount(kibibytes: u32) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("sealpod-").tempdir().context("cannot make a directory")?;
        let path = directory.path().join("disk");
        fs::create_dir(&path).context("cannot make the mount point")?;
        let script = format!(
            "mount -t tmpfs -o mode=0700,size={kibibytes}k tmpfs \"$0\" && : > \"$0/{MARK}\" && exec sleep 3600"
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", &script]).arg(&path);
        let mut holder = Daemon::start("a small disk", &mut command, &directory.path().join("log"))?;
        let mark = seen_by(holder.pid(), &path.join(MARK));
        holder.wait_until("its mount (which needs root)", || mark.exists())?;
        Ok(Self { holder, path, _directory: directory })
    }

    /// Where it is for programs that [`Self::command`] starts.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where this process sees a path on it.
    #[must_use]
    pub fn seen(&self, path: &Path) -> PathBuf {
        seen_by(self.holder.pid(), path)
    }

    /// `program` where the disk is mounted; its working directory is `/`.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.holder.pid())).args(["--mount", "--"]).arg(program);
        command
    }

    /// Takes what room there is.
    ///
    /// # Errors
    /// When something else than the end of the disk stops it.
    pub fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.ballast()).context("cannot make the ballast")?;
        loop {
            match file.write(&[0xff; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => bail!("cannot fill the disk: {error}"),
            }
        }
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When the disk was not filled.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("cannot remove the ballast")
    }

    /// What is on it, the helper files aside.
    ///
    /// # Errors
    /// When it can't be listed.
    pub fn entries(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.seen(&self.path)).context("cannot list the disk")? {
            let name = entry.context("cannot list the disk")?.file_name().to_string_lossy().into_owned();
            if name != MARK && name != BALLAST {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn ballast(&self) -> PathBuf {
        self.seen(&self.path.join(BALLAST))
    }
}

/// What `pid` has at the absolute `path` (proc(5), `/proc/pid/root`).
fn seen_by(pid: u32, path: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root")).join(path.strip_prefix("/").unwrap_or(path))
}
