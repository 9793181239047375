//! The host's device: opened once exclusively, its size taken once and bounded.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Result, ScratchError};
use crate::sys;

/// Below this, a file system has no room for files.
pub(crate) const SMALLEST: u64 = 8 << 20;
/// ext4 with 32-bit block numbers.
pub(crate) const LARGEST: u64 = 16 << 40;

/// What is used of the host's device from here on: numbers that were checked once.
#[derive(Debug)]
pub(crate) struct HostDevice {
    pub(crate) path: PathBuf,
    /// Major and minor, as tables name it: a path could lead elsewhere later.
    pub(crate) numbers: String,
    pub(crate) bytes: u64,
}

impl HostDevice {
    /// Nobody else may have it; device-mapper claims it in turn when a table names it.
    pub(crate) fn open(path: &Path) -> Result<HostDevice> {
        let failed = |step| move |source| ScratchError::Device { device: path.to_owned(), step, source };
        let file = exclusively(path)?;
        let metadata = file.metadata().map_err(failed("look at it"))?;
        if !metadata.file_type().is_block_device() {
            return Err(ScratchError::NotBlock { device: path.to_owned() });
        }
        let bytes = sys::block_device_size(file.as_fd()).map_err(failed("ask for its size"))?;
        let bytes = bounded(path, bytes)?;
        let number = metadata.rdev();
        let numbers = format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number));
        Ok(HostDevice { path: path.to_owned(), numbers, bytes })
    }
}

fn exclusively(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    // O_NOFOLLOW: device nodes are devtmpfs's own. O_NONBLOCK: a FIFO in its place must not hang the agent.
    options.read(true).write(true).custom_flags(libc::O_EXCL | libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options.open(path).map_err(|source| {
        let device = path.to_owned();
        match source.raw_os_error() {
            Some(libc::EBUSY) => ScratchError::Busy { device },
            Some(libc::EISDIR) => ScratchError::NotBlock { device },
            _ => ScratchError::Device { device, step: "open it", source },
        }
    })
}

fn bounded(path: &Path, bytes: u64) -> Result<u64> {
    if (SMALLEST..=LARGEST).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(ScratchError::Size { device: path.to_owned(), bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_block_devices_are_taken() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, vec![0; 1 << 20]).unwrap();
        for path in [file.as_path(), directory.path(), Path::new("/dev/null")] {
            let error = HostDevice::open(path).unwrap_err();
            assert!(matches!(error, ScratchError::NotBlock { .. }), "{error}");
        }
        let missing = HostDevice::open(&directory.path().join("vdz")).unwrap_err();
        assert!(matches!(missing, ScratchError::Device { step: "open it", .. }), "{missing}");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(HostDevice::open(&link).unwrap_err(), ScratchError::Device { step: "open it", .. }));
    }

    #[test]
    fn sizes_are_bounded() {
        let path = Path::new("/dev/vdb");
        for good in [SMALLEST, SMALLEST + 512, LARGEST] {
            assert_eq!(bounded(path, good).unwrap(), good);
        }
        for bad in [0, SMALLEST - 1, LARGEST + 1, u64::MAX] {
            let error = bounded(path, bad).unwrap_err().to_string();
            assert!(error.contains("/dev/vdb") && error.contains(&bad.to_string()), "{error}");
        }
    }
}
