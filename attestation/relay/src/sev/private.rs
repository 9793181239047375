//! One private directory a launch, for session files and the monitor's socket. It is named by the process that
//! launches or, in its place, is QEMU; what a killed launch left is removed by the next one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

const PREFIX: &str = "launch-";
/// Longest path that fits `sockaddr_un`, less the NUL and the longest name in the directory.
const LONGEST: usize = 107 - "/monitor".len();
/// Directories left behind that one launch looks at.
const MAX_SWEPT: usize = 1024;

/// What goes wrong with the directory.
#[derive(Debug, Error)]
pub(crate) enum PrivateError {
    /// It can't be made.
    #[error(
        "no private directory for the launch can be made in {base}; runtime_dir in relay.toml names another"
    )]
    Create {
        /// Where it was to be.
        base: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The monitor's socket would have a name longer than the kernel takes.
    #[error("{path} is too long for unix sockets; choose a shorter runtime_dir in relay.toml")]
    Long {
        /// The directory.
        path: PathBuf,
    },
    /// A file in it can't be written.
    #[error("{path} can't be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directory; removed with everything in it on drop.
#[derive(Debug)]
pub(crate) struct Private {
    path: Option<PathBuf>,
}

impl Private {
    /// Makes the directory of this process, and removes those of processes that are gone.
    pub(crate) fn create(base: &Path) -> Result<Self, PrivateError> {
        let failed = |source| PrivateError::Create { base: base.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(base).map_err(failed)?;
        sweep(base);
        let id = process_id("self").ok_or_else(|| failed(io::Error::other("/proc is not mounted")))?;
        let path = base.join(format!("{PREFIX}{id}"));
        if path.as_os_str().len() > LONGEST {
            return Err(PrivateError::Long { path });
        }
        // Also where one is left of this very process: it isn't ours to take over.
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self { path: Some(path) })
    }

    /// Takes over the directory that another program of ours made.
    pub(crate) fn adopt(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    /// Leaves the directory to another program of ours.
    pub(crate) fn hand_over(mut self) -> PathBuf {
        self.path.take().unwrap_or_default()
    }

    /// The process that it belongs to; 0 if its name isn't one of ours.
    pub(crate) fn pid(&self) -> i32 {
        let name = self.path.as_deref().and_then(|path| path.file_name()?.to_str()?.strip_prefix(PREFIX));
        name.and_then(|id| id.split_once('-')?.0.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.as_deref().unwrap_or(Path::new("")).join(name)
    }

    /// Writes a file for its owner alone.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf, PrivateError> {
        let path = self.join(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match file.and_then(|mut file| file.write_all(content.as_bytes())) {
            Ok(()) => Ok(path),
            Err(source) => Err(PrivateError::Write { path, source }),
        }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What can't be removed now is swept by the next launch.
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// A process by its pid and the time it started, which no other ever has.
fn process_id(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (before, after) = (stat.split_once(' ')?.0, stat.rsplit_once(')')?.1);
    let started = after.split_ascii_whitespace().nth(19)?;
    Some(format!("{before}-{started}"))
}

fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten().take(MAX_SWEPT) {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let Some((pid, _)) = id.split_once('-') else { continue };
        let ours = entry
            .metadata()
            .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw());
        let number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        if ours && number && process_id(pid).as_deref() != Some(id) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_is_private_and_removed() {
        let base = tempfile::tempdir().unwrap();
        let private = Private::create(base.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = private.write("session", "blob").unwrap();
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        assert!(private.write("session", "another").is_err());
        // One a process.
        assert!(matches!(Private::create(base.path()), Err(PrivateError::Create { .. })));
        drop(private);
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn it_can_be_handed_over() {
        let base = tempfile::tempdir().unwrap();
        let path = Private::create(base.path()).unwrap().hand_over();
        let adopted = Private::adopt(path.clone());
        assert_eq!(u32::try_from(adopted.pid()), Ok(std::process::id()));
        drop(adopted);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_launch_left_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("session"), "").unwrap();
            path
        };
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        let pid = gone.id();
        gone.wait().unwrap();
        let left = make(&format!("launch-{pid}-1"));
        // The pid is in use, by a process that started at another time.
        let reused = make(&format!("launch-{}-1", std::process::id()));
        let live = make(&format!("launch-{}", process_id("1").unwrap()));
        let other = make("other");
        let odd = make("launch-x-1");
        drop(Private::create(base.path()).unwrap());
        assert!(!left.exists() && !reused.exists());
        assert!(live.exists() && other.exists() && odd.exists());
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let deep = base.path().join("x".repeat(100));
        assert!(matches!(Private::create(&deep), Err(PrivateError::Long { .. })));
    }
}
