//! Mounting and unmounting, and what is mounted.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};

use crate::error::StorageError;
use crate::options::MountOptions;
use crate::path::Place;

/// A mount table longer than this belongs to nobody's pod.
const MAX_TABLE: u64 = 16 * 1024 * 1024;
/// Flags of propagation, which the kernel takes only on their own.
const PROPAGATION: MsFlags =
    MsFlags::MS_PRIVATE.union(MsFlags::MS_SHARED).union(MsFlags::MS_SLAVE).union(MsFlags::MS_UNBINDABLE);

/// Mounts `source` on `target`, which exists. A bind mount with flags takes a second step, as the kernel
/// ignores them in the first; so does propagation.
pub(crate) fn mount(
    source: &Path,
    target: &Path,
    fstype: &str,
    options: &MountOptions,
) -> Result<(), StorageError> {
    let place = Place::open(target)?;
    let failed = |errno: Errno| StorageError::kernel("mounting", target, errno);
    let propagation = options.flags & PROPAGATION;
    let recursive = options.flags & MsFlags::MS_REC;
    let mut flags = options.flags - PROPAGATION;
    let is_bind = fstype == "bind" || flags.contains(MsFlags::MS_BIND);
    if is_bind {
        flags |= MsFlags::MS_BIND;
    } else {
        flags -= MsFlags::MS_REC;
    }
    let fstype = if is_bind { None } else { Some(fstype) };
    let data = (!options.data.is_empty() && !is_bind).then_some(options.data.as_str());
    nix::mount::mount(Some(source), &place.name(), fstype, flags, data).map_err(failed)?;
    let more = flags - MsFlags::MS_BIND - MsFlags::MS_REC - MsFlags::MS_REMOUNT;
    let finished = || {
        if is_bind && !more.is_empty() && !flags.contains(MsFlags::MS_REMOUNT) {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | more | kept(target)?;
            nix::mount::mount(None::<&str>, target, None::<&str>, flags, None::<&str>).map_err(failed)?;
        }
        if !propagation.is_empty() {
            let flags = propagation | recursive;
            nix::mount::mount(None::<&str>, target, None::<&str>, flags, None::<&str>).map_err(failed)?;
        }
        Ok(())
    };
    finished().inspect_err(|_| {
        let _ = unmount(target);
    })
}

/// Flags that a bind mount inherits and a remount would lose.
fn kept(target: &Path) -> Result<MsFlags, StorageError> {
    let stat = nix::sys::statvfs::statvfs(target)
        .map_err(|e| StorageError::kernel("reading the flags of", target, e))?;
    let mut kept = MsFlags::empty();
    for (has, flag) in [
        (nix::sys::statvfs::FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (nix::sys::statvfs::FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (nix::sys::statvfs::FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (nix::sys::statvfs::FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (nix::sys::statvfs::FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (nix::sys::statvfs::FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
    ] {
        if stat.flags().contains(has) {
            kept |= flag;
        }
    }
    Ok(kept)
}

/// Binds one file or directory to another place, which exists.
pub fn bind(source: &Path, target: &Path) -> Result<(), StorageError> {
    mount(source, target, "bind", &MountOptions { flags: MsFlags::MS_BIND, data: String::new() })
}

/// Takes the topmost mount at `target` away, without waiting for those who still use it. Nothing mounted
/// there is fine.
pub fn unmount(target: &Path) -> Result<(), StorageError> {
    match nix::mount::umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(StorageError::kernel("unmounting", target, errno)),
    }
}

/// Where something is mounted, and what: mount points with their file system types, as the kernel lists
/// them.
pub fn mounts() -> io::Result<Vec<(PathBuf, String)>> {
    let mut table = Vec::new();
    fs::File::open("/proc/thread-self/mountinfo")?.take(MAX_TABLE).read_to_end(&mut table)?;
    Ok(table.split(|b| *b == b'\n').filter_map(entry).collect())
}

/// Whether something is mounted on exactly that path.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    Ok(mounts()?.iter().any(|(point, _)| point == path))
}

/// One line: six fields, optional ones, a dash, the type.
fn entry(line: &[u8]) -> Option<(PathBuf, String)> {
    let mut fields = line.split(|b| *b == b' ');
    let point = unescape(fields.nth(4)?);
    let fstype = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some((PathBuf::from(std::ffi::OsString::from_vec(point)), String::from_utf8_lossy(fstype).into_owned()))
}

/// The kernel writes blanks, tabs, line breaks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match code {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_the_mount_table_are_read() {
        let line = b"36 35 98:0 /mnt1 /mnt\\040two rw,noatime master:1 shared:2 - ext3 /dev/root rw";
        assert_eq!(entry(line), Some((PathBuf::from("/mnt two"), "ext3".into())));
        assert_eq!(entry(b"36 35 98:0 / /x rw - tmpfs tmpfs rw").unwrap().1, "tmpfs");
        assert_eq!(entry(b"36 35 98:0"), None);
        assert!(is_mount_point(Path::new("/proc")).unwrap());
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_left_out(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = entry(&line);
        }
    }
}
