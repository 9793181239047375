//! System calls that no crate of ours wraps: device-mapper, loop and block ioctls, kernel keys.

#![expect(unsafe_code, reason = "ioctls and key system calls")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::{request_code_read, request_code_readwrite};

/// Bytes of `struct dm_ioctl` (`linux/dm-ioctl.h`, version 4).
pub(crate) const DM_HEADER: usize = 312;
/// Bytes of `struct loop_config` (`linux/loop.h`).
pub(crate) const LOOP_CONFIG: usize = 304;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const DM_TYPE: u8 = 0xfd;
const THREAD_KEYRING: libc::c_long = -1;
const KEYCTL_REVOKE: libc::c_long = 3;
const KEYCTL_UNLINK: libc::c_long = 9;

/// One device-mapper ioctl. `buffer` begins with a `struct dm_ioctl` whose `data_size` must be the buffer's length.
pub(crate) fn device_mapper(control: BorrowedFd<'_>, command: u8, buffer: &mut [u8]) -> io::Result<()> {
    let declared = buffer.get(12..16).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    if buffer.len() < DM_HEADER || declared.map(|size| size as usize) != Some(buffer.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let request = request_code_readwrite!(DM_TYPE, command, DM_HEADER);
    // SAFETY: the kernel reads and writes at most `data_size` bytes of the buffer, which is its length (checked above),
    // and keeps no pointer to it.
    done(unsafe { libc::ioctl(control.as_raw_fd(), request, buffer.as_mut_ptr()) }).map(drop)
}

/// The size of a block device in bytes.
pub(crate) fn block_device_size(device: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes = 0u64;
    let request = request_code_read!(0x12, 114, size_of::<libc::size_t>());
    // SAFETY: BLKGETSIZE64 writes one u64 (its number is made with size_t, for history's sake).
    done(unsafe { libc::ioctl(device.as_raw_fd(), request, &raw mut bytes) })?;
    Ok(bytes)
}

/// The number of a loop device that nobody uses, made if need be.
pub(crate) fn free_loop_device(control: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: it takes no argument.
    done(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })
}

/// Puts a file behind a loop device.
pub(crate) fn configure_loop_device(device: BorrowedFd<'_>, config: &[u8; LOOP_CONFIG]) -> io::Result<()> {
    // SAFETY: the kernel reads one `struct loop_config`, which is as long as the array, and keeps no pointer to it.
    done(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()) }).map(drop)
}

/// Adds a `logon` key to the calling thread's keyring: the kernel can use it, nobody can read it.
pub(crate) fn add_logon_key(description: &CStr, payload: &[u8]) -> io::Result<i32> {
    // SAFETY: two C strings and a buffer with its length; the kernel copies all three.
    let id = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"logon".as_ptr(),
            description.as_ptr(),
            payload.as_ptr(),
            payload.len(),
            THREAD_KEYRING,
        )
    };
    i32::try_from(id).ok().filter(|id| *id > 0).ok_or_else(io::Error::last_os_error)
}

/// Makes the key unusable, which wipes its payload, and takes it out of the calling thread's keyring.
pub(crate) fn revoke_key(id: i32) -> io::Result<()> {
    // SAFETY: integers only.
    let revoked = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_REVOKE, libc::c_long::from(id)) };
    let revoked = if revoked < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // It may be linked in another thread's keyring only; then there is nothing to take out.
    // SAFETY: integers only.
    let _ = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_UNLINK, libc::c_long::from(id), THREAD_KEYRING) };
    revoked
}

fn done(result: libc::c_int) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_buffer_that_lies_about_its_length_never_reaches_the_kernel() {
        let file = tempfile::tempfile().unwrap();
        let mut buffer = vec![0; DM_HEADER];
        for (length, declared) in
            [(DM_HEADER, DM_HEADER + 1), (DM_HEADER, 0), (DM_HEADER - 1, DM_HEADER - 1), (4, 4)]
        {
            buffer.resize(length.max(16), 0);
            buffer[12..16].copy_from_slice(&u32::try_from(declared).unwrap().to_ne_bytes());
            let error = device_mapper(file.as_fd(), 0, &mut buffer[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_file_has_no_block_device_size() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(block_device_size(file.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
