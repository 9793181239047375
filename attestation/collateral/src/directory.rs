//! The cache directory: one file a piece, named after it. Files are put in place whole; what can't be
//! read or fails its check is told by the caller and otherwise as if it weren't there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::key::Key;

/// Bounds of a cache directory.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { files: 16_384, bytes: 64 * 1024 * 1024 }
    }
}

/// Why a cache can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system said no.
    #[error("{path} can't be {operation}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A file is longer than its kind.
    #[error("{0} is longer than anything of its kind; remove it")]
    Length(PathBuf),
    /// No room, and nothing that could be fetched again to make some.
    #[error(
        "the cache {0} is full ({1} files or {2} bytes) of what can't be fetched again; remove what is old"
    )]
    Full(PathBuf, usize, u64),
}

fn failed(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> DirectoryError {
    move |source| DirectoryError::Io { path: path.to_owned(), operation, source }
}

/// A cache directory that exists.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    bounds: Bounds,
    drafts: AtomicU64,
}

/// What a directory lists for one piece.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) key: Key,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

impl Directory {
    /// Opens a directory, and makes it (0700) where it is missing.
    pub(crate) fn open(path: &Path, bounds: Bounds) -> Result<Self, DirectoryError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path, "made"))?;
        Ok(Self { path: path.to_owned(), bounds, drafts: AtomicU64::new(0) })
    }

    pub(crate) fn path(&self, key: &Key) -> PathBuf {
        self.path.join(key.file_name())
    }

    /// The bytes kept for `key`, unchecked; `None` where there are none.
    pub(crate) fn read(&self, key: &Key) -> Result<Option<Vec<u8>>, DirectoryError> {
        let path = self.path(key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, "opened")(error)),
        };
        let mut bytes = Vec::new();
        let limit = key.limit() as u64;
        file.take(limit + 1).read_to_end(&mut bytes).map_err(failed(&path, "read"))?;
        if bytes.len() as u64 > limit {
            return Err(DirectoryError::Length(path));
        }
        Ok(Some(bytes))
    }

    /// Puts a file in place: a draft beside it, synced and renamed. Makes room by removing the oldest
    /// certificates of chips, which can be fetched again.
    pub(crate) fn write(&self, key: &Key, bytes: &[u8]) -> Result<(), DirectoryError> {
        self.make_room(key, bytes.len() as u64)?;
        let path = self.path(key);
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let draft = self.path.join(format!(".draft-{}-{number}", std::process::id()));
        let written = (|| {
            match std::fs::remove_file(&draft) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&draft, "replaced")(error));
                }
                _ => {}
            }
            // Public data; what must not be is changed by others.
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&draft)
                .map_err(failed(&draft, "made"))?;
            file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed(&draft, "written"))?;
            std::fs::rename(&draft, &path).map_err(failed(&path, "put in place"))
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&draft);
        }
        written?;
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(failed(&self.path, "written"))
    }

    /// Everything in it that has a name of ours, in no order.
    pub(crate) fn list(&self) -> Result<Vec<Listed>, DirectoryError> {
        let mut listed = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed(&self.path, "listed"))? {
            let entry = entry.map_err(failed(&self.path, "listed"))?;
            let name = entry.file_name();
            let Some(key) = name.to_str().and_then(Key::from_file_name) else { continue };
            // Whatever was removed meanwhile isn't there.
            let Ok(metadata) = entry.metadata() else { continue };
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            listed.push(Listed { key, bytes: metadata.len(), modified });
            if listed.len() > 2 * self.bounds.files {
                return Err(self.full());
            }
        }
        Ok(listed)
    }

    fn make_room(&self, key: &Key, bytes: u64) -> Result<(), DirectoryError> {
        let mut listed = self.list()?;
        listed.retain(|other| other.key != *key);
        let mut files = listed.len() + 1;
        let mut total = bytes + listed.iter().map(|other| other.bytes).sum::<u64>();
        let over = |files: usize, total: u64| files > self.bounds.files || total > self.bounds.bytes;
        if !over(files, total) {
            return Ok(());
        }
        listed.retain(|other| matches!(other.key, Key::Vcek { .. } | Key::Cek(_)));
        listed.sort_by_key(|other| other.modified);
        for oldest in listed {
            let path = self.path(&oldest.key);
            std::fs::remove_file(&path).map_err(failed(&path, "removed"))?;
            files -= 1;
            total = total.saturating_sub(oldest.bytes);
            if !over(files, total) {
                return Ok(());
            }
        }
        Err(self.full())
    }

    fn full(&self) -> DirectoryError {
        DirectoryError::Full(self.path.clone(), self.bounds.files, self.bounds.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use tee_evidence::snp::{Product, RawTcb};

    use super::*;
    use crate::key::Line;

    fn vcek(n: u8) -> Key {
        Key::vcek(Product::Milan, &[n; 64], RawTcb([1; 8].map(|_| 0))).unwrap()
    }

    fn chain() -> Key {
        Key::Chain(Product::Milan, Line::Vcek)
    }

    #[test]
    fn files_are_whole_public_and_leave_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Directory::open(&dir.path().join("a/b"), Bounds::default()).unwrap();
        assert_eq!(cache.read(&chain()).unwrap(), None);
        cache.write(&chain(), b"old").unwrap();
        cache.write(&chain(), b"new").unwrap();
        assert_eq!(cache.read(&chain()).unwrap().unwrap(), b"new");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("a/b")), 0o700);
        assert_eq!(mode(&cache.path(&chain())), 0o644);
        assert_eq!(std::fs::read_dir(dir.path().join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn a_full_cache_drops_the_oldest_chip_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Directory::open(dir.path(), Bounds { files: 3, bytes: 100 }).unwrap();
        cache.write(&chain(), &[0; 10]).unwrap();
        cache.write(&vcek(1), &[0; 10]).unwrap();
        cache.write(&vcek(2), &[0; 10]).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        for key in [chain(), vcek(2)] {
            File::open(cache.path(&key)).unwrap().set_modified(long_ago).unwrap();
        }
        cache.write(&vcek(1), &[0; 11]).unwrap();
        assert!(cache.read(&vcek(2)).unwrap().is_some(), "replacing a file needs no room");
        cache.write(&vcek(3), &[0; 10]).unwrap();
        assert!(cache.read(&vcek(2)).unwrap().is_none());
        assert!(cache.read(&vcek(1)).unwrap().is_some() && cache.read(&chain()).unwrap().is_some());
        cache.write(&vcek(4), &[0; 85]).unwrap();
        assert_eq!(cache.list().unwrap().len(), 2, "bytes count as well");
        let error = cache.write(&vcek(5), &[0; 95]).unwrap_err();
        assert!(matches!(error, DirectoryError::Full(..)), "{error}");
    }

    #[test]
    fn an_oversized_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Directory::open(dir.path(), Bounds::default()).unwrap();
        std::fs::write(cache.path(&vcek(1)), vec![0; vcek(1).limit() + 1]).unwrap();
        assert!(matches!(cache.read(&vcek(1)), Err(DirectoryError::Length(_))));
        std::fs::write(dir.path().join("stranger"), b"").unwrap();
        assert_eq!(cache.list().unwrap().len(), 1, "what has no name of ours is not looked at");
    }
}
