//! What goes wrong with scratch: each names the device and the step.

use std::io;
use std::path::PathBuf;

/// Why there is no scratch on a device.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// A step on the host's device failed.
    #[error("scratch device {device}: cannot {step}")]
    Device {
        /// The host's device.
        device: PathBuf,
        /// What was being done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else has it.
    #[error("scratch device {device} is in use: it is mounted, or is another volume's already")]
    Busy {
        /// The host's device.
        device: PathBuf,
    },
    /// It is a file, a directory, a character device.
    #[error("scratch device {device} is not a block device")]
    NotBlock {
        /// What was named.
        device: PathBuf,
    },
    /// It is too small or too large.
    #[error(
        "scratch device {device} has {bytes} bytes; scratch takes {} to {}",
        crate::device::SMALLEST,
        crate::device::LARGEST
    )]
    Size {
        /// The host's device.
        device: PathBuf,
        /// What it says it has.
        bytes: u64,
    },
    /// The volume's name can't be one of device-mapper.
    #[error(
        "scratch volume name of {length} bytes: 1 to {} letters, digits, '.', '_' and '-' are needed",
        crate::dm::LONGEST_NAME
    )]
    Name {
        /// Length of the name.
        length: usize,
    },
    /// Guest memory for tags.
    #[error("scratch volume {volume}: cannot {step}")]
    Memory {
        /// The volume.
        volume: String,
        /// What was being done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The key.
    #[error("scratch volume {volume}: cannot {step}")]
    Key {
        /// The volume.
        volume: String,
        /// What was being done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Device-mapper refused.
    #[error("scratch volume {volume}: device-mapper can't {step}")]
    Mapper {
        /// The volume, or the layer of it.
        volume: String,
        /// What was being done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel took up something else than what it was given.
    #[error("scratch volume {volume}: the kernel's {target} table is not the one that was asked for")]
    Table {
        /// The volume, or the layer of it.
        volume: String,
        /// The target.
        target: &'static str,
    },
    /// The file system could not be made.
    #[error("scratch volume {volume}: cannot make a file system")]
    Format {
        /// The volume.
        volume: String,
        /// Why not.
        source: io::Error,
    },
    /// The file system could not be mounted.
    #[error("scratch volume {volume}: cannot mount it at {directory}")]
    Mount {
        /// The volume.
        volume: String,
        /// Where.
        directory: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The result of this crate's functions.
pub(crate) type Result<T> = std::result::Result<T, ScratchError>;
