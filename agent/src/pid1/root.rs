//! Leaves the kernel's initial root: pivot_root(2) fails on it for every container run-time, because it
//! has no parent mount. A bind mount of it, moved over `/`, has one, costs no copy and no re-execution.

use std::fs;
use std::io;

use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

const STAGE: &str = "/.root";

/// The root file system can't be made one that containers can pivot from.
#[derive(Debug, thiserror::Error)]
#[error("leaving the initial root: {step}: {source}")]
pub struct RootError {
    step: &'static str,
    #[source]
    source: io::Error,
}

/// Moves a bind mount of the initial root over `/`, once.
pub fn leave_rootfs() -> Result<(), RootError> {
    let failed = |step| move |source: io::Error| RootError { step, source };
    let errno = |step| move |source: nix::errno::Errno| RootError { step, source: source.into() };
    fs::create_dir_all(STAGE).map_err(failed("making the stage"))?;
    // With what was mounted before this process was started: nothing, where it is the kernel that did.
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some("/"), STAGE, None::<&str>, flags, None::<&str>).map_err(errno("binding"))?;
    chdir(STAGE).map_err(errno("entering the stage"))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(errno("moving"))?;
    chroot(".").map_err(errno("changing root"))?;
    chdir("/").map_err(errno("entering the root"))?;
    // Containers' mounts never travel to the agent, nor the agent's to containers that run already.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(errno("making it private"))
}
