//! Where the tags of a volume live, and the loop device over guest memory that holds dm-integrity's own structures.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Result, ScratchError};
use crate::sys::{self, LOOP_CONFIG};
use crate::table::{BLOCK, HEAD, TAG};

/// Part of the guest's memory that one volume's tags may come to fill.
const SHARE: u64 = 16;
/// Others may take the loop device that was free a moment ago.
const TRIES: u32 = 16;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Where the tags of a volume live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tags {
    /// In memory when they could never fill more than a sixteenth of it, else on the device.
    #[default]
    Auto,
    /// In the guest's memory, which grows by 8 MiB for each GiB that is written: the host can't bring back an older
    /// version of a block.
    Memory,
    /// At the end of the device, whatever its size: within one life of the guest the host can bring back what a block
    /// held earlier. dm-integrity's superblock and journal are in memory all the same.
    Device,
}

impl Tags {
    /// What it comes to for a device of `bytes` bytes in a guest with `memory` bytes.
    pub(crate) fn in_memory(self, bytes: u64, memory: u64) -> bool {
        match self {
            Tags::Auto => bytes / BLOCK * TAG <= memory / SHARE,
            Tags::Memory => true,
            Tags::Device => false,
        }
    }
}

/// The guest's memory in bytes; 0 when it isn't known, and then tags go to the device.
pub(crate) fn guest_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    memory_total(&text)
}

fn memory_total(meminfo: &str) -> u64 {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// A block device on guest memory. It goes away when this and device-mapper have closed it.
pub(crate) struct MemoryDevice {
    /// Keeps it until a table has it.
    _open: File,
    number: i32,
}

impl MemoryDevice {
    /// For `blocks` tags, or for none; memory is taken as it is written.
    pub(crate) fn make(volume: &str, bytes: u64) -> Result<MemoryDevice> {
        let failed = |step| move |source| ScratchError::Memory { volume: volume.to_owned(), step, source };
        let memory = memfd_create(c"sealpod-scratch", MFdFlags::MFD_CLOEXEC)
            .map_err(|errno| failed("take guest memory for its tags")(errno.into()))?;
        let memory = File::from(memory);
        memory.set_len(bytes).map_err(failed("size the memory for its tags"))?;
        let control = File::options()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .map_err(failed("open /dev/loop-control; is the loop driver in this kernel?"))?;
        let config = config(&memory);
        for _ in 0..TRIES {
            let number = sys::free_loop_device(control.as_fd()).map_err(failed("find a loop device"))?;
            let device = File::options()
                .read(true)
                .write(true)
                .open(format!("/dev/loop{number}"))
                .map_err(failed("open its loop device"))?;
            match sys::configure_loop_device(device.as_fd(), &config) {
                Ok(()) => return Ok(MemoryDevice { _open: device, number }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(failed("set its loop device up")(error)),
            }
        }
        Err(failed("find a loop device")(io::ErrorKind::ResourceBusy.into()))
    }

    /// As tables name it.
    pub(crate) fn numbers(&self) -> String {
        format!("7:{}", self.number)
    }
}

/// `struct loop_config`: the file, blocks of 4 KiB, and gone when nobody has it open.
fn config(memory: &File) -> [u8; LOOP_CONFIG] {
    let mut config = [0; LOOP_CONFIG];
    config[0..4].copy_from_slice(&memory.as_raw_fd().to_ne_bytes());
    config[4..8].copy_from_slice(&(BLOCK as u32).to_ne_bytes());
    // lo_flags: after five u64 and three u32 of loop_info64, which begins at 8.
    config[60..64].copy_from_slice(&LO_FLAGS_AUTOCLEAR.to_ne_bytes());
    config
}

/// Bytes of memory for dm-integrity's structures, and for `blocks` tags.
pub(crate) fn memory_bytes(blocks: u64) -> u64 {
    HEAD + (blocks * TAG).next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_stay_in_memory_while_they_are_few() {
        let gib = 1 << 30;
        assert!(Tags::Auto.in_memory(16 * gib, 2 * gib));
        assert!(!Tags::Auto.in_memory(16 * gib + (1 << 20), 2 * gib));
        assert!(!Tags::Auto.in_memory(8 << 20, 0));
        assert!(Tags::Memory.in_memory(1024 * gib, 1));
        assert!(!Tags::Device.in_memory(1, gib));
        assert_eq!(memory_total("MemTotal:        2048 kB\nMemFree: 1 kB\n"), 2048 * 1024);
        assert_eq!(memory_total("nonsense"), 0);
        assert!(guest_memory() > 0);
    }
}
