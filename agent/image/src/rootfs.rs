//! A container's root file system: the image's layers, read-only, under a writable layer of its own
//! (overlayfs). Both live in guest memory.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::Image;

/// The kernel copies one page of options.
const MAX_OPTIONS: usize = 4095;

/// A mounted root file system; unmounted when dropped.
#[derive(Debug)]
pub struct Rootfs {
    path: PathBuf,
    mounted: bool,
}

/// Why a root file system can't be made.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// A directory or layer can't be made or opened.
    #[error("root file system: {operation} {path}: {source}", path = .path.display())]
    Directory {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The image has more layers than one mount can name.
    #[error("root file system: {0} layers are too many for one mount")]
    TooManyLayers(usize),
    /// Mounting or unmounting failed.
    #[error("root file system: {operation} {path}: {source}", path = .path.display())]
    Mount {
        /// `mount` or `unmount`.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Rootfs {
    /// Mounts the image below `dir`, which is made if missing and must be on a tmpfs: `dir/rootfs` is the
    /// root, `dir/upper` what the container writes. Device nodes in it don't work (`nodev`); the
    /// container's `/dev` is a mount of its own.
    pub fn mount(image: &Image, dir: &Path) -> Result<Self, RootfsError> {
        let [root, upper, work, empty] = ["rootfs", "upper", "work", "empty"].map(|name| dir.join(name));
        for path in [dir, &root, &upper, &work, &empty] {
            let mode = if path == upper { 0o755 } else { 0o700 };
            fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| {
                RootfsError::Directory { operation: "make", path: path.to_owned(), source }
            })?;
        }
        // Named by descriptor: a page of options holds few paths with two digests in them, and no path has
        // to be free of colons and commas. Top layer first; overlayfs wants one at least.
        let mut lower: Vec<&Path> = image.layers().iter().rev().map(PathBuf::as_path).collect();
        if lower.is_empty() {
            lower.push(&empty);
        }
        let held = lower.iter().copied().chain([upper.as_path(), work.as_path()]);
        let held: Vec<OwnedFd> = held.map(open).collect::<Result<_, _>>()?;
        let names: Vec<String> = held.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
        let (lower, writable) = names.split_at(names.len() - 2);
        let mut options = format!("lowerdir={}", lower.join(":"));
        options.push_str(&format!(",upperdir={},workdir={}", writable[0], writable[1]));
        if options.len() > MAX_OPTIONS {
            return Err(RootfsError::TooManyLayers(lower.len()));
        }
        copy_root_attributes(image, &upper)?;
        let fail = |e: rustix::io::Errno| RootfsError::Mount {
            operation: "mount",
            path: root.clone(),
            source: e.into(),
        };
        let options = std::ffi::CString::new(options).map_err(|_| fail(rustix::io::Errno::INVAL))?;
        rustix::mount::mount("overlay", &root, "overlay", MountFlags::NODEV, Some(options.as_c_str()))
            .map_err(fail)?;
        Ok(Self { path: root, mounted: true })
    }

    /// The root directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts; what the container wrote is still in `dir/upper` for the caller to remove.
    pub fn unmount(mut self) -> Result<(), RootfsError> {
        self.mounted = false;
        detach(&self.path).map_err(|source| RootfsError::Mount {
            operation: "unmount",
            path: self.path.clone(),
            source,
        })
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        if self.mounted {
            // There is nobody to tell; the guest's memory goes with the guest.
            let _ = detach(&self.path);
        }
    }
}

/// Waits for nobody: a process that is still dying may hold the root.
fn detach(path: &Path) -> io::Result<()> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(io::Error::from)
}

fn open(path: &Path) -> Result<OwnedFd, RootfsError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| RootfsError::Directory { operation: "open", path: path.to_owned(), source: e.into() })
}

/// The merged root has the attributes of the upper directory: give it those of the top layer's root.
fn copy_root_attributes(image: &Image, upper: &Path) -> Result<(), RootfsError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let Some(top) = image.layers().last() else { return Ok(()) };
    let copy = || {
        let from = fs::metadata(top)?;
        chown(upper, Some(from.uid()), Some(from.gid()))?;
        fs::set_permissions(upper, fs::Permissions::from_mode(from.mode() & 0o7777))
    };
    copy().map_err(|source| RootfsError::Directory { operation: "prepare", path: upper.to_owned(), source })
}
