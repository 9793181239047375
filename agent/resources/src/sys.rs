//! Calls for which no safe wrapper is at hand.
#![expect(unsafe_code, reason = "swapon, sysconf, one ioctl, and descriptors for the reactor")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Clock ticks of `cpuacct.stat` and `/proc/self/stat`.
pub(crate) fn ticks_per_second() -> u64 {
    // SAFETY: no pointers are passed.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// Bytes of a page.
pub(crate) fn page_size() -> u64 {
    // SAFETY: no pointers are passed.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).ok().filter(|size| *size > 0).unwrap_or(4096)
}

/// Starts swapping to a device that holds a swap signature.
pub(crate) fn swap_on(device: &Path) -> io::Result<()> {
    let path = CString::new(device.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string that lives until the call returns.
    match unsafe { libc::swapon(path.as_ptr(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Grows a mounted ext4 file system; `directory` is any of its directories.
pub(crate) fn grow_ext4(directory: impl AsFd, blocks: u64) -> io::Result<()> {
    /// `EXT4_IOC_RESIZE_FS`, `_IOW('f', 16, __u64)`.
    const RESIZE: libc::Ioctl = 0x4008_6610;
    // SAFETY: the request reads one u64 through the pointer, which is valid until the call returns.
    match unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), RESIZE, &raw const blocks) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A file for whose descriptor the reactor waits.
pub(crate) fn watched(file: File, interest: Interest) -> io::Result<AsyncFd<File>> {
    // SAFETY: a file owns its descriptor and gives the same one until it is dropped.
    unsafe { AsyncFd::register_with_interest(file, interest) }.map_err(Into::into)
}
