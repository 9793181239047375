//! Swap devices that the host prepared. A sealed VM has none: the host could read what is swapped out.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path};

use super::Machine;
use crate::error::{ResourceError, Result};
use crate::sys;

impl Machine {
    /// Starts swapping to a block device that holds a swap signature.
    pub fn swap_on(&self, device: &Path) -> Result<()> {
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let below = device.strip_prefix(&self.dev).ok();
        if below.is_none_or(|path| path.as_os_str().is_empty() || !path.components().all(plain)) {
            return Err(ResourceError::malformed("a swap device is a path below /dev"));
        }
        let kind = fs::metadata(device).map_err(ResourceError::file("looking at the swap device", device))?;
        if !kind.file_type().is_block_device() {
            return Err(ResourceError::malformed("the swap device is not a block device"));
        }
        sys::swap_on(device).map_err(ResourceError::file("swapping to", device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_block_devices_are_swapped_to() {
        let machine = Machine::this();
        for path in ["", "/dev", "/etc/passwd", "/dev/../etc/passwd", "dev/vda", "/dev/null"] {
            assert!(matches!(machine.swap_on(Path::new(path)), Err(ResourceError::Malformed(_))), "{path}");
        }
        assert!(matches!(machine.swap_on(Path::new("/dev/no-such")), Err(ResourceError::Kernel { .. })));
    }
}
