//! The group of a volume (Kubernetes' fsGroup): files below it get the group and its permissions, as the
//! kubelet does it. Links are never followed, and other file systems below aren't entered.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstat, fstatat};
use nix::unistd::{Gid, Uid, fchown, fchownat};

use crate::error::StorageError;
use crate::request::{FsGroup, GroupChange};

const SETGID: u32 = 0o2000;
/// For directories also: enter.
const ENTER: u32 = 0o110;
/// A volume with more files than this isn't walked to its end.
const MAX_ENTRIES: usize = 1_000_000;

/// Gives the volume at `root` to its group.
pub(crate) fn give(root: &Path, group: FsGroup, read_only: bool) -> Result<(), StorageError> {
    if group.change == GroupChange::OnRootMismatch && fits(root, group.id, read_only)? {
        return Ok(());
    }
    let gid = Gid::from_raw(group.id);
    let mut left = MAX_ENTRIES;
    let mut waiting = vec![PathBuf::from(".")];
    while let Some(path) = waiting.pop() {
        let failed = |errno: Errno| StorageError::kernel("giving to its group", root.join(&path), errno);
        let directory = match open_below(root, &path) {
            // Another file system below isn't this volume's.
            Err(Errno::EXDEV) => continue,
            opened => opened.map_err(failed)?,
        };
        let again =
            directory.try_clone().map_err(|e| StorageError::kernel("reading", root.join(&path), e))?;
        let mut entries = Dir::from_fd(again).map_err(failed)?;
        for entry in entries.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            left = left.checked_sub(1).ok_or_else(|| {
                StorageError::invalid(
                    root.display().to_string(),
                    "more than a million files in a volume with a group",
                )
            })?;
            let status = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
            let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
            if kind == SFlag::S_IFDIR || entry.file_type() == Some(Type::Directory) {
                waiting.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            } else if kind != SFlag::S_IFLNK {
                fchownat(&directory, name, None, Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
                let mode = Mode::from_bits_truncate(status.st_mode | mask(read_only));
                fchmodat(&directory, name, mode, FchmodatFlags::FollowSymlink).map_err(failed)?;
            }
        }
        own_directory(&directory, gid, read_only).map_err(failed)?;
    }
    Ok(())
}

/// What the runtime's own `fsgid` option asks for: the root directory alone.
pub(crate) fn give_root(root: &Path, gid: u32) -> Result<(), StorageError> {
    let failed = |errno: Errno| StorageError::kernel("giving to its group", root, errno);
    let directory = open_below(root, Path::new(".")).map_err(failed)?;
    fchown(&directory, None::<Uid>, Some(Gid::from_raw(gid))).map_err(failed)?;
    let mode = fstat(&directory).map_err(failed)?.st_mode;
    fchmod(&directory, Mode::from_bits_truncate(mode | SETGID)).map_err(failed)
}

fn own_directory(directory: &OwnedFd, gid: Gid, read_only: bool) -> nix::Result<()> {
    fchown(directory, None::<Uid>, Some(gid))?;
    let mode = fstat(directory)?.st_mode | mask(read_only) | ENTER | SETGID;
    fchmod(directory, Mode::from_bits_truncate(mode))
}

/// Whether the root directory shows that nothing is to be done.
fn fits(root: &Path, gid: u32, read_only: bool) -> Result<bool, StorageError> {
    let status = fs::metadata(root).map_err(|e| StorageError::kernel("looking at", root, e))?;
    let wanted = mask(read_only) | ENTER | SETGID;
    Ok(status.gid() == gid && status.mode() & wanted == wanted)
}

fn mask(read_only: bool) -> u32 {
    if read_only { 0o440 } else { 0o660 }
}

fn open_below(root: &Path, path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let top = nix::fcntl::open(root, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    let how = OpenHow::new().flags(flags).resolve(
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
    );
    openat2(&top, path, how)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn volume() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("sub/deep")).unwrap();
        fs::write(volume.join("sub/file"), "x").unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "x").unwrap();
        for path in [&outside, &volume.join("sub/file")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink(&outside, volume.join("sub/link")).unwrap();
        (dir, volume, outside)
    }

    fn root() -> bool {
        Uid::effective().is_root()
    }

    #[test]
    fn everything_below_gets_the_group_and_its_permissions() {
        if !root() {
            return;
        }
        let (_dir, volume, outside) = volume();
        give(&volume, FsGroup { id: 2000, change: GroupChange::Always }, false).unwrap();
        for (path, mode) in [("", 0o2770), ("sub", 0o2770), ("sub/deep", 0o2770), ("sub/file", 0o660)] {
            let status = fs::metadata(volume.join(path)).unwrap();
            assert_eq!(status.gid(), 2000, "{path}");
            assert_eq!(status.mode() & mode, mode, "{path}");
        }
        // What a link points to is somebody else's.
        let status = fs::metadata(outside).unwrap();
        assert_eq!((status.gid() == 2000, status.mode() & 0o777), (false, 0o600));
    }

    #[test]
    fn a_root_that_fits_is_left_alone_only_when_asked() {
        if !root() {
            return;
        }
        let (_dir, volume, _) = volume();
        give_root(&volume, 2000).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2770)).unwrap();
        let file = volume.join("sub/file");
        give(&volume, FsGroup { id: 2000, change: GroupChange::OnRootMismatch }, false).unwrap();
        assert_ne!(fs::metadata(&file).unwrap().gid(), 2000);
        // A read-only volume needs less.
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2550)).unwrap();
        give(&volume, FsGroup { id: 2000, change: GroupChange::OnRootMismatch }, true).unwrap();
        assert_ne!(fs::metadata(&file).unwrap().gid(), 2000);
        give(&volume, FsGroup { id: 2000, change: GroupChange::OnRootMismatch }, false).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().gid(), 2000);
    }
}
