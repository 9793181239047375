//! Paths that someone else chose: what they may look like, and how they are opened without following links.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use crate::error::StorageError;

const MAX_PATH: usize = 4095;
const MAX_DEPTH: usize = 128;

/// Nothing is mounted over or below these: the guest itself stands on them.
const SYSTEM: [&str; 12] =
    ["/bin", "/boot", "/dev", "/etc", "/init", "/lib", "/lib64", "/proc", "/root", "/sbin", "/sys", "/usr"];

/// An absolute path of plain names only.
pub(crate) fn absolute(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() {
        return Err("the path is empty".into());
    }
    if path.len() > MAX_PATH || path.contains('\0') {
        return Err("the path is longer than 4095 bytes or holds a NUL".into());
    }
    let Some(below) = path.strip_prefix('/') else {
        return Err(format!("'{}' is not an absolute path", crate::error::clip(path)));
    };
    let names: Vec<&str> = below.split('/').filter(|name| !name.is_empty()).collect();
    if names.iter().any(|name| matches!(*name, "." | "..") || name.len() > 255) || names.len() > MAX_DEPTH {
        return Err("the path has '.' or '..' in it, a name longer than 255 bytes, or is too deep".into());
    }
    Ok(Path::new("/").join(names.iter().collect::<PathBuf>()))
}

/// Refuses a mount point on which the guest or the agent stands. `private`: the agent's own directories.
pub(crate) fn not_ours(point: &Path, private: &[PathBuf]) -> Result<(), String> {
    if point == Path::new("/") || point == Path::new("/run") || point == Path::new("/tmp") {
        return Err(format!("nothing is mounted on {}", point.display()));
    }
    let system = SYSTEM.iter().map(Path::new);
    if let Some(taken) = system.chain(private.iter().map(PathBuf::as_path)).find(|d| point.starts_with(d)) {
        return Err(format!("nothing is mounted below {}, which is the guest's own", taken.display()));
    }
    if let Some(above) = private.iter().find(|directory| directory.starts_with(point)) {
        return Err(format!("it would cover {}, which is the agent's own", above.display()));
    }
    Ok(())
}

/// Makes a directory with its parents; existing ones stay as they are.
pub(crate) fn make_dirs(path: &Path, mode: u32) -> Result<(), StorageError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|e| StorageError::kernel("making directory", path, e))
}

/// A path that was opened without following a single link: what is mounted on it is mounted there.
pub(crate) struct Place {
    fd: OwnedFd,
}

impl Place {
    /// Opens what is at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let root = nix::fcntl::AT_FDCWD;
        let fd = openat2(root, path, how).map_err(|errno| match errno {
            Errno::ELOOP => StorageError::invalid(
                path.display().to_string(),
                "the path leads through a symbolic link; name what it points to",
            ),
            errno => StorageError::kernel("opening", path, errno),
        })?;
        Ok(Self { fd })
    }

    /// A name for it that no link can change.
    pub(crate) fn name(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

/// A path below a directory, of plain names only, for names that a host wrote into options.
pub(crate) fn relative(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    (path.components().all(plain) && path.components().next().is_some() && path.as_os_str().len() <= MAX_PATH)
        .then(|| path.to_owned())
}

/// Makes `below`, a path of plain names, under `root`, following no link. Returns the whole path.
pub(crate) fn make_below(root: &Path, below: &Path, mode: u32) -> Result<PathBuf, StorageError> {
    let failed = |errno: Errno| StorageError::kernel("making directory", root.join(below), errno);
    let how = || {
        OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        )
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let mut directory = nix::fcntl::open(root, flags, Mode::empty()).map_err(failed)?;
    for name in below.components() {
        let name = Path::new(&name);
        match nix::sys::stat::mkdirat(&directory, name, Mode::from_bits_truncate(mode)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        directory = openat2(&directory, name, how()).map_err(failed)?;
    }
    Ok(root.join(below))
}

/// Makes a directory of one name below another, both if they are missing.
pub(crate) fn make_below_all(root: &Path, name: &str) -> Result<PathBuf, StorageError> {
    make_dirs(root, 0o700)?;
    make_below(root, Path::new(name), 0o755)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_taken() {
        assert_eq!(absolute("/run//kata/x/").unwrap(), Path::new("/run/kata/x"));
        let long = format!("/{}", "x".repeat(256));
        for path in ["", "run/x", "/run/../etc", "/run/./x", "/run/\0", &long, &"/x".repeat(200)] {
            assert!(absolute(path).is_err(), "{path}");
        }
    }

    #[test]
    fn what_the_guest_stands_on_is_not_covered() {
        let private = [PathBuf::from("/run/sealpod")];
        for path in ["/run/kata-containers/shared/containers", "/run/sealpods", "/mnt/x", "/devices"] {
            not_ours(Path::new(path), &private).unwrap();
        }
        for path in ["/", "/run", "/dev", "/dev/shm", "/etc/ssl", "/proc/1", "/sys", "/usr", "/run/sealpod/x"]
        {
            assert!(not_ours(Path::new(path), &private).is_err(), "{path}");
        }
        let deep = [PathBuf::from("/srv/agent/state")];
        assert!(not_ours(Path::new("/srv/agent"), &deep).is_err());
    }

    #[test]
    fn a_place_behind_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        Place::open(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        assert!(Place::open(&dir.path().join("link")).unwrap_err_or_invalid());
        fs::create_dir(real.join("below")).unwrap();
        assert!(Place::open(&dir.path().join("link/below")).unwrap_err_or_invalid());
    }

    trait Refused {
        fn unwrap_err_or_invalid(self) -> bool;
    }
    impl Refused for Result<Place, StorageError> {
        fn unwrap_err_or_invalid(self) -> bool {
            self.is_err_and(|e| e.is_invalid())
        }
    }

    #[test]
    fn directories_below_are_made_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        let made = make_below(dir.path(), Path::new("a/b"), 0o755).unwrap();
        assert!(made.is_dir());
        std::os::unix::fs::symlink("/tmp", dir.path().join("out")).unwrap();
        assert!(make_below(dir.path(), Path::new("out/x"), 0o755).is_err());
        assert!(relative("a/../b").is_none() && relative("/a").is_none() && relative("").is_none());
    }
}
