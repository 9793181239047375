//! The disk for image layers: a block device that the host gives, recognised by its serial number, taken whole
//! under a key of this boot (see crate `agent-scratch`), with a file system for the image store on it. Nothing
//! on it is believed, and there is no other place where layers would go instead.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agent_scratch::{Scratch, ScratchError};
use nix::mount::MsFlags;

/// What the host gives the disk as its serial number (virtio-blk, at most 20 bytes).
pub(crate) const SERIAL: &str = "sealpod-layers";
/// The volume's name.
const VOLUME: &str = "sealpod-layers";
/// More block devices than any guest has.
const MAX_DEVICES: usize = 256;

/// Why layers can't be kept on the disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerDiskError {
    /// The host gave none.
    #[error(
        "the sealed spec keeps image layers on a disk, and the host gave none with the serial number {SERIAL}; add one to the VM, or seal with the layer store in memory"
    )]
    Missing,
    /// The host gave several.
    #[error("{0} disks have the serial number {SERIAL}; give the VM one")]
    Several(usize),
    /// The kernel's list of devices can't be read, or the directory not be made.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// It can't be encrypted, formatted or mounted.
    #[error("{}", chained(.0))]
    Scratch(#[source] ScratchError),
}

/// The disk, mounted. Its key is the kernel's, and gone with the VM.
#[derive(Debug)]
pub(crate) struct LayerDisk {
    volume: Scratch,
}

impl LayerDisk {
    /// Takes the disk and mounts it at `directory`, which is made if missing. Blocks.
    pub(crate) fn make(directory: &Path) -> Result<Self, LayerDiskError> {
        let device = find(Path::new("/sys/block"), Path::new("/dev"))?;
        fs::create_dir_all(directory)
            .map_err(|source| LayerDiskError::Io { operation: "making the layers' directory", source })?;
        let volume = Scratch::make(&device, VOLUME).map_err(LayerDiskError::Scratch)?;
        volume.format_ext4().map_err(LayerDiskError::Scratch)?;
        // No noexec: programs are mapped from here. Devices that a layer might hold are dead in any case.
        volume.mount(directory, MsFlags::MS_NODEV | MsFlags::MS_NOSUID).map_err(LayerDiskError::Scratch)?;
        Ok(Self { volume })
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.volume.size()
    }
}

/// The one device with the serial number.
fn find(sys_block: &Path, dev: &Path) -> Result<PathBuf, LayerDiskError> {
    let failed = |source| LayerDiskError::Io { operation: "listing block devices", source };
    let mut found = Vec::new();
    for entry in fs::read_dir(sys_block).map_err(failed)?.take(MAX_DEVICES) {
        let entry = entry.map_err(failed)?;
        // Most devices have none.
        let serial = fs::read(entry.path().join("serial")).unwrap_or_default();
        if serial.trim_ascii_end() == SERIAL.as_bytes() {
            found.push(dev.join(entry.file_name()));
        }
    }
    match found.len() {
        0 => Err(LayerDiskError::Missing),
        1 => Ok(found.swap_remove(0)),
        several => Err(LayerDiskError::Several(several)),
    }
}

/// An error with what caused it: the kernel's word is the last.
fn chained(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(disks: &[(&str, Option<&str>)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (name, serial) in disks {
            fs::create_dir(sys.path().join(name)).unwrap();
            if let Some(serial) = serial {
                fs::write(sys.path().join(name).join("serial"), serial).unwrap();
            }
        }
        sys
    }

    #[test]
    fn the_disk_is_the_one_with_the_serial_number() {
        let dev = Path::new("/dev");
        let sys = machine(&[("vda", Some("other\n")), ("vdb", Some("sealpod-layers")), ("loop0", None)]);
        assert_eq!(find(sys.path(), dev).unwrap(), Path::new("/dev/vdb"));
        let sys = machine(&[("vda", Some("sealpod-layers\n"))]);
        assert_eq!(find(sys.path(), dev).unwrap(), Path::new("/dev/vda"));
    }

    #[test]
    fn none_and_several_are_refused() {
        let dev = Path::new("/dev");
        let sys = machine(&[("vda", Some("")), ("vdb", None), ("vdc", Some("sealpod-layers2"))]);
        let error = find(sys.path(), dev).unwrap_err();
        assert!(matches!(error, LayerDiskError::Missing) && error.to_string().contains("sealpod-layers"));
        let sys = machine(&[("vda", Some("sealpod-layers")), ("vdb", Some("sealpod-layers"))]);
        assert!(matches!(find(sys.path(), dev).unwrap_err(), LayerDiskError::Several(2)));
    }
}
