//! The state directory: which files there are, their modes, and the lock that keeps a second broker out.
//!
//! `init` builds a whole directory beside the final place and renames it, so there is never half of one.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest key or certificate file, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The files in a state directory. Everything but `ca.pem` and `audit.pub` is secret.
pub mod file {
    /// Held locked while a broker serves.
    pub const LOCK: &str = "lock";
    /// Master key: base64 of 32 bytes. Secrets at rest are worthless without it: back it up elsewhere.
    pub const MASTER_KEY: &str = "master.key";
    /// Private key of the broker's own CA, PEM.
    pub const CA_KEY: &str = "ca.key";
    /// Certificate of the broker's own CA, PEM: what owners pin.
    pub const CA: &str = "ca.pem";
    /// Ed25519 seed that signs audit checkpoints.
    pub const AUDIT_KEY: &str = "audit.key";
    /// Its public half, for auditors.
    pub const AUDIT_PUB: &str = "audit.pub";
    /// P-256 key that signs attestation tokens, base64 of PKCS#8.
    pub const TOKEN_KEY: &str = "token.key";
    /// The database (SQLite, WAL).
    pub const DATABASE: &str = "broker.sqlite";
}

/// What went wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is one already.
    #[error("state directory {0} exists already; start it with 'sealpod-broker serve', or choose another")]
    Exists(PathBuf),
    /// There is none.
    #[error("state directory {0} is not initialised; run 'sealpod-broker init' first")]
    Missing(PathBuf),
    /// Another broker runs on it.
    #[error("state directory {0} is in use by another sealpod-broker; stop that one first")]
    InUse(PathBuf),
    /// A secret file can be read by others.
    #[error("{path} has mode {mode:03o}; a secret must be 0600: chmod 600 it after checking who read it")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file is longer than any real one.
    #[error("{0} is longer than {MAX_BYTES} bytes")]
    Length(PathBuf),
    /// An operation on a file failed.
    #[error("{path} can't be {operation}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

fn io(path: &Path, operation: &'static str) -> impl FnOnce(std::io::Error) -> StateError {
    move |source| StateError::Io { path: path.to_owned(), operation, source }
}

/// A state directory that is being made; removed again unless it is finished.
#[derive(Debug)]
pub struct Staging {
    work: PathBuf,
    place: PathBuf,
    finished: bool,
}

impl Staging {
    /// Starts a directory that will be `place`.
    ///
    /// # Errors
    /// [`StateError`], notably if `place` exists and holds anything.
    pub fn begin(place: &Path) -> Result<Self, StateError> {
        match std::fs::read_dir(place) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(StateError::Exists(place.to_owned()));
                }
            }
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(io(place, "listed")(source)),
        }
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let work = place.with_file_name(format!(".{name}.init-{}", std::process::id()));
        if let Some(parent) = place.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(io(parent, "made"))?;
        }
        DirBuilder::new().mode(0o700).create(&work).map_err(io(&work, "made"))?;
        Ok(Self { work, place: place.to_owned(), finished: false })
    }

    /// Path of `name` for now.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// Writes a new file: 0600 if `secret`, else 0644.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write(&self, name: &str, content: &[u8], secret: bool) -> Result<(), StateError> {
        let path = self.path(name);
        let mode = if secret { 0o600 } else { 0o644 };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .map_err(io(&path, "made"))?;
        file.write_all(content).and_then(|()| file.sync_all()).map_err(io(&path, "written"))
    }

    /// Moves the whole directory to its place.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn finish(mut self) -> Result<(), StateError> {
        let sync = |path: &Path| File::open(path).and_then(|dir| dir.sync_all());
        sync(&self.work).map_err(io(&self.work, "written"))?;
        std::fs::rename(&self.work, &self.place).map_err(io(&self.place, "put in place"))?;
        self.finished = true;
        match self.place.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => sync(parent).map_err(io(parent, "written")),
            None => Ok(()),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing in it is in use; what can't be removed is a hidden directory with a telling name.
            let _ = std::fs::remove_dir_all(&self.work);
        }
    }
}

/// An initialised state directory.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Opens `place`.
    ///
    /// # Errors
    /// [`StateError::Missing`] if `init` didn't run.
    pub fn open(place: &Path) -> Result<Self, StateError> {
        if place.join(file::MASTER_KEY).is_file() && place.join(file::DATABASE).is_file() {
            Ok(Self(place.to_owned()))
        } else {
            Err(StateError::Missing(place.to_owned()))
        }
    }

    /// Path of `name`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Reads a secret file; refuses one that others may read.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn secret(&self, name: &str) -> Result<Zeroizing<String>, StateError> {
        let path = self.path(name);
        let file = File::open(&path).map_err(io(&path, "opened"))?;
        let metadata = file.metadata().map_err(io(&path, "read"))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateError::Mode { path, mode });
        }
        read_bounded(&path, file)
    }

    /// Reads a file that is no secret.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn text(&self, name: &str) -> Result<String, StateError> {
        let path = self.path(name);
        let file = File::open(&path).map_err(io(&path, "opened"))?;
        read_bounded(&path, file).map(|text| text.as_str().to_owned())
    }

    /// Keeps any other broker off this directory for as long as the lock lives.
    ///
    /// # Errors
    /// [`StateError::InUse`].
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.path(file::LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io(&path, "opened"))?;
        match file.try_lock() {
            Ok(()) => Ok(StateLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse(self.0.clone())),
            Err(TryLockError::Error(source)) => Err(io(&path, "locked")(source)),
        }
    }
}

/// Held while a broker serves.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

fn read_bounded(path: &Path, file: File) -> Result<Zeroizing<String>, StateError> {
    // Room from the start: a string that grows leaves copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(io(path, "read"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(StateError::Length(path.to_owned()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(place: &Path) -> StateDir {
        let staging = Staging::begin(place).unwrap();
        staging.write(file::MASTER_KEY, b"k", true).unwrap();
        staging.write(file::DATABASE, b"", true).unwrap();
        staging.finish().unwrap();
        StateDir::open(place).unwrap()
    }

    #[test]
    fn a_secret_is_0600_in_a_0700_directory() {
        let dir = tempfile::tempdir().unwrap();
        let state = made(&dir.path().join("state"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("state")), 0o700);
        assert_eq!(mode(&state.path(file::MASTER_KEY)), 0o600);
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = made(&dir.path().join("state"));
        assert_eq!(*state.secret(file::MASTER_KEY).unwrap(), "k");
        let path = state.path(file::MASTER_KEY);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(state.secret(file::MASTER_KEY), Err(StateError::Mode { mode: 0o640, .. })));
    }

    #[test]
    fn an_existing_directory_is_never_initialised_again() {
        let dir = tempfile::tempdir().unwrap();
        made(&dir.path().join("state"));
        assert!(matches!(Staging::begin(&dir.path().join("state")), Err(StateError::Exists(_))));
    }

    #[test]
    fn an_empty_directory_may_be_initialised() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("state");
        std::fs::create_dir(&place).unwrap();
        made(&place);
    }

    #[test]
    fn a_failed_start_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::begin(&dir.path().join("state")).unwrap();
        staging.write(file::MASTER_KEY, b"k", true).unwrap();
        drop(staging);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_ends() {
        let dir = tempfile::tempdir().unwrap();
        let state = made(&dir.path().join("state"));
        let lock = state.lock().unwrap();
        assert!(matches!(state.lock(), Err(StateError::InUse(_))));
        drop(lock);
        state.lock().unwrap();
    }

    #[test]
    fn a_directory_without_init_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::Missing(_))));
    }
}
