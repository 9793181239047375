//! One storage or device as the runtime names it. Bounds that hold for every driver are checked here.

use std::path::{Path, PathBuf};

use crate::error::{StorageError, clip};
use crate::path;

/// Options of one storage or device.
const MAX_OPTIONS: usize = 512;
/// Bytes of one option: an overlay names its layers in one, an image pull its metadata.
const MAX_OPTION: usize = 64 * 1024;
const MAX_WORD: usize = 4096;

/// When the ownership of a volume is changed to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupChange {
    /// Each time.
    Always,
    /// When the volume's root directory has another group or lacks the permissions.
    OnRootMismatch,
}

/// The group that owns a volume's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsGroup {
    /// The group.
    pub id: u32,
    /// When it is applied.
    pub change: GroupChange,
}

/// A storage (`grpc.Storage`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StorageRequest {
    /// Name of the driver.
    pub driver: String,
    /// For the driver.
    pub driver_options: Vec<String>,
    /// Device, directory, tag or image, as the driver has it.
    pub source: String,
    /// File system type.
    pub fstype: String,
    /// For mount(2), mostly.
    pub options: Vec<String>,
    /// Where it is wanted.
    pub mount_point: String,
    /// Who owns its files.
    pub fs_group: Option<FsGroup>,
    /// It outlives the container that it came with.
    pub shared: bool,
}

/// A device (`grpc.Device`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceRequest {
    /// Address, as the driver has it.
    pub id: String,
    /// Name of the driver.
    pub driver: String,
    /// Its node in the guest, where the runtime knows it.
    pub vm_path: String,
    /// The device of the container's specification that it is.
    pub container_path: String,
    /// For the driver.
    pub options: Vec<String>,
}

impl StorageRequest {
    /// For messages.
    pub(crate) fn name(&self) -> String {
        clip(&format!("{} on {}", self.driver, self.mount_point))
    }

    pub(crate) fn invalid(&self, reason: impl Into<String>) -> StorageError {
        StorageError::invalid(self.name(), reason)
    }

    /// What holds for every driver; returns the mount point.
    pub(crate) fn check(&self, private: &[PathBuf]) -> Result<PathBuf, StorageError> {
        let words = [&self.driver, &self.source, &self.fstype, &self.mount_point];
        if words.iter().any(|word| word.contains('\0') || word.len() > MAX_WORD) {
            return Err(self.invalid("a field holds a NUL or is longer than 4096 bytes"));
        }
        for list in [&self.options, &self.driver_options] {
            if list.len() > MAX_OPTIONS {
                return Err(self.invalid("more than 512 options"));
            }
            if list.iter().any(|option| option.contains('\0') || option.len() > MAX_OPTION) {
                return Err(self.invalid("an option holds a NUL or is longer than 64 KiB"));
            }
        }
        let point = path::absolute(&self.mount_point).map_err(|reason| self.invalid(reason))?;
        path::not_ours(&point, private).map_err(|reason| self.invalid(reason))?;
        Ok(point)
    }

    /// The value of `key=value` among the options.
    pub(crate) fn option<'a>(options: &'a [String], key: &str) -> Option<&'a str> {
        options.iter().find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    }

    /// A source that is a path below the root directory.
    pub(crate) fn source_path(&self) -> Result<&Path, StorageError> {
        path::absolute(&self.source).map_err(|reason| self.invalid(format!("source: {reason}")))?;
        Ok(Path::new(&self.source))
    }
}

impl DeviceRequest {
    pub(crate) fn invalid(&self, reason: impl Into<String>) -> StorageError {
        StorageError::invalid(clip(&format!("{} device for {}", self.driver, self.container_path)), reason)
    }

    /// What holds for every driver.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let words = [&self.id, &self.driver, &self.vm_path, &self.container_path];
        if words.iter().any(|word| word.contains('\0') || word.len() > MAX_WORD) {
            return Err(self.invalid("a field holds a NUL or is longer than 4096 bytes"));
        }
        if self.options.len() > MAX_OPTIONS || self.options.iter().any(|o| o.len() > MAX_WORD) {
            return Err(self.invalid("more than 512 options, or one longer than 4096 bytes"));
        }
        if self.driver.is_empty() {
            return Err(self.invalid("it names no driver"));
        }
        if self.id.is_empty() && self.vm_path.is_empty() {
            return Err(self.invalid("it has neither an id nor a path in the guest"));
        }
        if self.container_path.is_empty() {
            return Err(self.invalid("it names no device of the container"));
        }
        Ok(())
    }
}
