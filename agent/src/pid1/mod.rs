//! What the first process of the VM does before it serves anybody: file systems, sysctls, a root that
//! can be left. Tables with a reason a row; nothing here depends on what the host asks for.

mod mounts;
mod power;
mod root;
mod sysctl;

pub use mounts::{MountError, mount_all};
pub use power::{PowerOff, Switch};
pub use root::{RootError, leave_rootfs};

/// Everything that must have happened before the agent may look at a device.
pub fn prepare() -> Result<(), PrepareError> {
    leave_rootfs()?;
    mount_all(mounts::TABLE)?;
    mounts::link_all().map_err(PrepareError::Links)?;
    // A sysctl that this kernel lacks leaves the VM no weaker than the kernel's own default.
    sysctl::apply(sysctl::TABLE);
    Ok(())
}

/// Why the VM can't come up.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The root file system.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A mount of the table.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A link below `/dev`.
    #[error("making links below /dev: {0}")]
    Links(#[source] std::io::Error),
}
