//! One directory a guest for its sockets, console and disks: private, removed at the end, and swept by the next
//! guest if the launcher was killed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

const PREFIX: &str = "sealpod-run-";
/// Longest path that fits `sockaddr_un`, less the NUL and the longest name we put into the directory.
const LONGEST: usize = 107 - "/vm.sock_4294967295".len();

/// What goes wrong with the run directory.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// It could not be made.
    #[error("cannot make a run directory in {base}")]
    Create {
        /// Where it was to be.
        base: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Unix sockets in it would have names longer than the kernel takes.
    #[error(
        "{path} is too long for unix sockets ({length} > {LONGEST} bytes); choose a shorter runtime directory"
    )]
    TooLong {
        /// The directory.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
}

/// A locked private directory.
#[derive(Debug)]
pub(crate) struct RunDir {
    // Dropped first: whoever sweeps may then take what removing has not finished.
    directory: TempDir,
    _lock: Flock<File>,
}

impl RunDir {
    /// Makes a directory in `base` and removes those of launchers that are gone.
    pub(crate) fn create(base: &Path) -> Result<RunDir, RunDirError> {
        let failed = |source| RunDirError::Create { base: base.to_owned(), source };
        std::fs::create_dir_all(base).map_err(failed)?;
        sweep(base);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(base)
            .map_err(failed)?;
        let length = directory.path().as_os_str().len();
        if length > LONGEST {
            return Err(RunDirError::TooLong { path: directory.path().to_owned(), length });
        }
        let file = OpenOptions::new().create(true).append(true).open(directory.path().join("lock"));
        let lock = Flock::lock(file.map_err(failed)?, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| failed(errno.into()))?;
        Ok(RunDir { directory, _lock: lock })
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Where run directories go when the caller has no wish: `$XDG_RUNTIME_DIR`, else the temporary directory.
pub(crate) fn default_base() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_dir() && path.as_os_str().len() + PREFIX.len() + 6 <= LONGEST)
        .unwrap_or_else(std::env::temp_dir)
}

/// Best effort: what can't be removed now is tried again by the next guest.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || !abandoned(&entry.path()) {
            continue;
        }
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

fn abandoned(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(metadata) = std::fs::symlink_metadata(directory) else { return false };
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return false;
    }
    match OpenOptions::new().append(true).open(directory.join("lock")) {
        Ok(file) => Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok(),
        // Between mkdir and the lock's creation it is young.
        Err(_) => metadata
            .modified()
            .ok()
            .and_then(|made| made.elapsed().ok())
            .is_some_and(|age| age > Duration::from_secs(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_and_removed() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::create(base.path()).unwrap();
        assert_eq!(std::fs::metadata(run.directory.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let path = run.directory.path().to_owned();
        drop(run);
        assert!(!path.exists());
    }

    #[test]
    fn the_next_one_sweeps_what_a_killed_launcher_left() {
        let base = tempfile::tempdir().unwrap();
        let left = base.path().join("sealpod-run-abandoned");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("lock"), "").unwrap();
        std::fs::write(left.join("vm.sock"), "").unwrap();
        let young = base.path().join("sealpod-run-starting");
        std::fs::create_dir(&young).unwrap();
        let live = RunDir::create(base.path()).unwrap();
        assert!(!left.exists());
        assert!(young.exists());
        let _second = RunDir::create(base.path()).unwrap();
        assert!(live.directory.path().exists());
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let deep = base.path().join("x".repeat(100));
        assert!(matches!(RunDir::create(&deep), Err(RunDirError::TooLong { .. })));
    }
}
