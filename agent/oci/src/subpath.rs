//! Volume mounts with a subPath. Another container can change what a path in a shared volume leads to
//! between the look and the mount (CVE-2021-25741), so the path is resolved once, inside the volume and
//! with no symbolic links, and what was found is bound by its descriptor to a place only the agent reaches.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use sealed_spec::podspec::Container;

use crate::{HostVolume, OciError};

/// The bound subPaths of one container, by index of the volume mount. Dropping it unbinds them: keep it
/// until the container has its own mounts.
#[derive(Debug, Default)]
pub struct SubPaths {
    bound: BTreeMap<usize, PathBuf>,
}

impl SubPaths {
    pub(crate) fn source(&self, index: usize) -> Option<&Path> {
        self.bound.get(&index).map(PathBuf::as_path)
    }
}

impl Drop for SubPaths {
    fn drop(&mut self) {
        for path in self.bound.values() {
            // Lazily: the container's own mount goes on. There is nobody to tell if it fails.
            let _ = rustix::mount::unmount(path.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// Binds each volume mount that has a subPath below `dir`, which must be the agent's alone and is made if
/// missing. Missing directories of a subPath are made with the mode and group of their volume. Volumes that
/// the host fills are left out: of those it copies the subPath alone.
pub fn bind_sub_paths(
    container: &Container,
    volumes: &BTreeMap<String, PathBuf>,
    host_volumes: &BTreeMap<usize, HostVolume>,
    dir: &Path,
) -> Result<SubPaths, OciError> {
    let mut sub_paths = SubPaths::default();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let Some(sub_path) = mount.sub_path.as_deref().filter(|path| !path.is_empty()) else { continue };
        if host_volumes.contains_key(&index) {
            continue;
        }
        let field = format!("volumeMounts[{index}].subPath");
        let volume = volumes.get(&mount.name).ok_or_else(|| OciError::NotPrepared(mount.name.clone()))?;
        let found = resolve(volume, sub_path, &field)?;
        let stat = rustix::fs::fstat(&found).map_err(|e| OciError::io(field.clone(), e))?;
        let target = dir.join(index.to_string());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| OciError::io("directory for subPaths", e))?;
        let made = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => fs::DirBuilder::new().mode(0o700).create(&target),
            FileType::RegularFile => fs::File::create_new(&target).map(drop),
            _ => return Err(OciError::refused(field, "it is neither a directory nor a file")),
        };
        match made {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(OciError::io("mount point for a subPath", e));
            }
            _ => {}
        }
        let source = format!("/proc/self/fd/{}", found.as_raw_fd());
        rustix::mount::mount_bind(source, &target).map_err(|e| OciError::io(format!("{field}: bind"), e))?;
        sub_paths.bound.insert(index, target);
    }
    Ok(sub_paths)
}

/// Walks down from the volume a component at a time; a symbolic link anywhere ends it.
fn resolve(volume: &Path, sub_path: &str, field: &str) -> Result<OwnedFd, OciError> {
    let refused = |reason: &str| OciError::refused(field, reason);
    if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") || sub_path.contains('\0') {
        return Err(refused("a relative path without .. is needed"));
    }
    let fail = |e: Errno| OciError::io(format!("{field}: open"), e);
    let root =
        rustix::fs::openat(CWD, volume, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(fail)?;
    let volume_stat = rustix::fs::fstat(&root).map_err(fail)?;
    let parts: Vec<&str> = sub_path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let mut at = root;
    for (number, part) in parts.iter().enumerate() {
        let last = number + 1 == parts.len();
        // Only named, not opened: a FIFO or device in its place does nothing.
        let kind = if last { OFlags::PATH } else { OFlags::PATH | OFlags::DIRECTORY };
        let open = |at: &OwnedFd| {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            rustix::fs::openat2(at, *part, kind | OFlags::CLOEXEC, Mode::empty(), resolve)
        };
        let next = match open(&at) {
            Err(Errno::NOENT) => {
                make_directory(&at, part, volume_stat.st_mode, volume_stat.st_gid).map_err(fail)?;
                open(&at)
            }
            other => other,
        };
        at = match next {
            Ok(next) => next,
            Err(Errno::LOOP | Errno::XDEV | Errno::NOTDIR) => {
                return Err(refused("it leads through a symbolic link or a file"));
            }
            Err(e) => return Err(fail(e)),
        };
    }
    Ok(at)
}

fn make_directory(at: &OwnedFd, name: &str, mode: RawMode, gid: u32) -> Result<(), Errno> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o700)) {
        // Another container was faster.
        Err(Errno::EXIST) => return Ok(()),
        other => other?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(at, name, flags, Mode::empty())?;
    rustix::fs::chownat(&made, c"", None, Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn volume() -> tempfile::TempDir {
        let volume = tempfile::tempdir().unwrap();
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o2777)).unwrap();
        volume
    }

    #[test]
    fn missing_directories_are_made_like_their_volume() {
        let volume = volume();
        resolve(volume.path(), "a/./b//c", "f").unwrap();
        let mode = fs::metadata(volume.path().join("a/b/c")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o2777);
        resolve(volume.path(), ".", "f").unwrap();
    }

    #[test]
    fn escapes_are_refused() {
        let volume = volume();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), volume.path().join("absolute")).unwrap();
        symlink("../..", volume.path().join("up")).unwrap();
        symlink("real", volume.path().join("inside")).unwrap();
        fs::create_dir(volume.path().join("real")).unwrap();
        fs::write(volume.path().join("file"), "x").unwrap();
        for bad in
            ["..", "a/../../b", "/etc", "absolute", "absolute/x", "up/etc", "inside/x", "file/x", "a\0b"]
        {
            let error = resolve(volume.path(), bad, "f").unwrap_err();
            assert!(matches!(error, OciError::Refused { .. }), "{bad:?}: {error}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        resolve(volume.path(), "file", "f").unwrap();
    }

    #[test]
    fn what_was_found_stays_bound_whatever_the_path_becomes() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root to mount");
            return;
        }
        let (volume, place) = (volume(), tempfile::tempdir().unwrap());
        let mount = |sub_path: &str| sealed_spec::podspec::VolumeMount {
            name: "v".into(),
            mount_path: "/m".into(),
            sub_path: Some(sub_path.into()),
            read_only: None,
        };
        let container = Container { volume_mounts: vec![mount(""), mount("a/b")], ..Default::default() };
        let volumes = BTreeMap::from([("v".to_owned(), volume.path().to_owned())]);
        let bound = match bind_sub_paths(&container, &volumes, &BTreeMap::new(), &place.path().join("sub")) {
            Err(OciError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                println!("skipped: can't mount here");
                return;
            }
            other => other.unwrap(),
        };
        assert_eq!(bound.source(0), None);
        let source = bound.source(1).unwrap().to_owned();
        // Another container swaps the path for a link to somewhere else.
        fs::rename(volume.path().join("a"), volume.path().join("old")).unwrap();
        symlink("/etc", volume.path().join("a")).unwrap();
        fs::write(source.join("file"), "x").unwrap();
        assert!(volume.path().join("old/b/file").is_file());
        drop(bound);
        assert_eq!(fs::read_dir(source).unwrap().count(), 0);
    }
}
