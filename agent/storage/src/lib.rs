//! Storages and devices of the plain path: what the runtime hands to the guest is checked, found, mounted,
//! shared between containers, and taken away again. Everything here blocks; callers use a blocking thread.
//!
//! | module | job |
//! |---|---|
//! | [`Storages`] | which storages there are, who uses them, in which order they go |
//! | [`StorageRequest`] | one storage as the runtime names it |
//! | [`Machine`] | sysfs, devtmpfs and the kernel's uevents: devices that are there, or come in time |
//! | [`add_device`] | device drivers: what a container's device is called in this guest |
//! | [`Watcher`] | ConfigMap and Secret directories that are copied for as long as they change |

mod block;
mod check;
mod device;
mod erofs;
mod error;
mod machine;
mod mount;
mod options;
mod ownership;
mod path;
mod pci;
mod plan;
mod request;
mod storages;
mod uevent;
mod watch;

pub use check::mount_points;
pub use device::{DeviceNode, DeviceUpdate, add_device};
pub use error::StorageError;
pub use machine::Machine;
pub use mount::{bind, is_mount_point, mounts, unmount};
pub use pci::{PciAddress, PciError, PciPath};
pub use request::{DeviceRequest, FsGroup, GroupChange, StorageRequest};
pub use storages::{Added, ImagePull, ImageRequest, Settings, Storages, update_ephemeral};
pub use uevent::{Action, Uevent};
pub use watch::Watcher;

/// Storage drivers that exist, as GetGuestDetails lists them.
pub const STORAGE_HANDLERS: [&str; 12] = [
    "blk",
    "mmioblk",
    "scsi",
    "nvdimm",
    "virtio-fs",
    "overlayfs",
    "ephemeral",
    "local",
    "bind",
    "watchable-bind",
    "image_guest_pull",
    "erofs.multi-layer",
];

/// Device drivers that exist, as GetGuestDetails lists them.
pub const DEVICE_HANDLERS: [&str; 6] = ["blk", "mmioblk", "scsi", "nvdimm", "vfio-pci", "vfio-pci-gk"];
