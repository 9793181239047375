//! Files: bounded reads, and writes that leave either the old file or the whole new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// Who may read a new file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The owner alone (0600).
    Secret,
    /// Everybody (0644).
    Public,
}

/// Why a file can't be read or written.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    /// The system said no.
    #[error("{path}: {operation} failed: {source}")]
    System {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Longer than anything of its kind.
    #[error("{path}: longer than {limit} bytes; is it the right file?")]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// What is allowed.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("{path}: not UTF-8 text (first bad byte at offset {offset})")]
    Encoding {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: usize,
    },
}

/// At most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |operation| move |source| FileError::System { path: path.into(), operation, source };
    let file = File::open(path).map_err(failed("opening"))?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed("reading"))?;
    if bytes.len() > limit {
        return Err(FileError::TooLong { path: path.into(), limit });
    }
    Ok(bytes)
}

/// At most `limit` bytes of UTF-8.
pub(crate) fn read_text(path: &Path, limit: usize) -> Result<Zeroizing<String>, FileError> {
    let bytes = read(path, limit)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(error) => Err(FileError::Encoding { path: path.into(), offset: error.valid_up_to() }),
    }
}

/// Like [`write`], and refuses to replace a file that is there.
pub(crate) fn create(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!("{name}.new-{}", std::process::id()));
    write(&draft, bytes, access)?;
    // Unlike a rename, a link fails if the name is taken: of two programs at once, one makes the file.
    let made = std::fs::hard_link(&draft, path);
    let _ = std::fs::remove_file(&draft);
    made.map_err(|source| FileError::System { path: path.into(), operation: "creating", source })
}

/// Writes a file whole or not at all: a new file beside it, synced, then renamed.
pub(crate) fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    let failed = |operation| move |source| FileError::System { path: path.into(), operation, source };
    let name = path.file_name().ok_or_else(|| failed("naming")(io::ErrorKind::InvalidFilename.into()))?;
    let mut draft_name = std::ffi::OsString::from(".");
    draft_name.push(name);
    draft_name.push(format!(".{}", std::process::id()));
    let draft = path.with_file_name(draft_name);
    let mode = if access == Access::Secret { 0o600 } else { 0o644 };
    let written = (|| {
        // A draft of a killed process with the same number is nobody's.
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replacing")(error)),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&draft)
            .map_err(failed("creating"))?;
        file.write_all(bytes).map_err(failed("writing"))?;
        file.sync_all().map_err(failed("writing"))?;
        std::fs::rename(&draft, path).map_err(failed("replacing"))
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed("writing"))
}

/// A directory that only its owner can enter.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| FileError::System {
        path: path.into(),
        operation: "creating",
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn writes_whole_files_with_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.json");
        write(&path, b"old", Access::Public).unwrap();
        write(&path, b"new", Access::Secret).unwrap();
        assert_eq!(&**read(&path, 3).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no draft left");
    }

    #[test]
    fn refusals_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert!(read(&path, 1).unwrap_err().to_string().contains("/x: opening failed"));
        std::fs::write(&path, b"ab\xff").unwrap();
        assert!(matches!(read(&path, 2), Err(FileError::TooLong { limit: 2, .. })));
        assert!(matches!(read_text(&path, 3), Err(FileError::Encoding { offset: 2, .. })));
        let missing = dir.path().join("no/such/dir");
        assert!(write(&missing, b"", Access::Public).unwrap_err().to_string().contains("creating failed"));
        // A directory in the way: nothing is left behind.
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        assert!(write(&taken, b"", Access::Public).unwrap_err().to_string().contains("replacing failed"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
