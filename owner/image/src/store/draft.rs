//! A file that nobody sees before it is whole: without a name where the file system can do that, so that
//! not even a killed process leaves it behind.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// A file that is being written.
pub(crate) struct Draft {
    file: File,
    directory: PathBuf,
    /// Its name meanwhile, where it must have one, and what others may do with it when it is done.
    name: Option<(PathBuf, Permissions)>,
}

impl Draft {
    /// In this directory, with these permissions for when it is done.
    pub(crate) fn new(directory: &Path, mode: u32) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::from_raw_mode(mode)) {
            Ok(descriptor) => Ok(Self { file: descriptor.into(), directory: directory.into(), name: None }),
            // A file system that has no files without names, or a kernel that answers so.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
                Self::named(directory, mode)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What has a name can be opened by whoever may: until it is done, nobody else.
    fn named(directory: &Path, mode: u32) -> io::Result<Self> {
        let name = directory.join(unused_name());
        let create = |mode| OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&name);
        // An empty file shows what the mask and the directory make of the mode.
        let permissions = create(mode).and_then(|empty| empty.metadata()).map(|found| found.permissions())?;
        fs::remove_file(&name)?;
        let file = create(mode & 0o600)?;
        Ok(Self { file, directory: directory.into(), name: Some((name, permissions)) })
    }

    /// The file itself, which never gets a name.
    pub(crate) fn into_file(self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Puts it, on disk for good, in the place of whatever `path` is now. Both are in one directory.
    pub(crate) fn rename_to(mut self, path: &Path) -> io::Result<()> {
        if let Some((_, permissions)) = &self.name {
            self.file.set_permissions(permissions.clone())?;
        }
        self.file.sync_data()?;
        let name = match self.name.take() {
            Some((name, _)) => name,
            None => {
                // A link never replaces a file, so it gets a name of its own first.
                let name = self.directory.join(unused_name());
                let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, own, CWD, &name, AtFlags::SYMLINK_FOLLOW)?;
                name
            }
        };
        fs::rename(&name, path).inspect_err(|_| drop(fs::remove_file(&name)))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some((name, _)) = &self.name {
            let _ = fs::remove_file(name);
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn unused_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!(".new-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn readable_by_others_only_when_done() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let usual = dir.path().join("usual");
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(&usual).unwrap();
        let mut draft = Draft::named(dir.path(), 0o644).unwrap();
        let (name, _) = draft.name.clone().unwrap();
        draft.write_all(b"secret").unwrap();
        assert_eq!(mode(&name), 0o600);
        let path = dir.path().join("blob");
        draft.rename_to(&path).unwrap();
        assert_eq!(mode(&path), mode(&usual));
        let draft = Draft::new(dir.path(), 0o644).unwrap();
        draft.rename_to(&path).unwrap();
        assert_eq!(mode(&path), mode(&usual));
        let draft = Draft::named(dir.path(), 0o600).unwrap();
        draft.rename_to(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn visible_only_when_done() {
        let dir = tempfile::tempdir().unwrap();
        for draft in [Draft::new, Draft::named] {
            let count = || fs::read_dir(dir.path()).unwrap().count();
            let mut dropped = draft(dir.path(), 0o644).unwrap();
            dropped.write_all(b"secret").unwrap();
            drop(dropped);
            assert_eq!(count(), 0);
            let path = dir.path().join("blob");
            fs::write(&path, b"damaged").unwrap();
            let mut done = draft(dir.path(), 0o644).unwrap();
            done.write_all(b"whole").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"damaged");
            done.rename_to(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"whole");
            assert_eq!(count(), 1, "nothing beside it");
            fs::remove_file(&path).unwrap();
        }
    }
}
