//! The guest's devices: what sysfs has, and what the kernel says is coming.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{StorageError, clip};
use crate::pci::{PciAddress, PciPath};
use crate::uevent::Listener;

/// Between two looks into sysfs when no message comes: messages can be lost, and outside of the first
/// network namespace none come at all.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Where the guest keeps its devices.
#[derive(Debug, Clone)]
pub struct Machine {
    sys: PathBuf,
    dev: PathBuf,
    patience: Duration,
}

impl Machine {
    /// A guest; `patience` is how long a hot-plugged device may take to appear.
    pub fn guest(patience: Duration) -> Self {
        Self::at("/sys".into(), "/dev".into(), patience)
    }

    /// With sysfs and devtmpfs elsewhere.
    pub fn at(sys: PathBuf, dev: PathBuf, patience: Duration) -> Self {
        Self { sys, dev, patience }
    }

    pub(crate) fn sys(&self) -> &Path {
        &self.sys
    }

    pub(crate) fn dev(&self) -> &Path {
        &self.dev
    }

    /// Waits for a PCI device; returns where it is.
    pub fn pci_device(&self, path: &PciPath) -> Result<PciAddress, StorageError> {
        self.wait(&format!("PCI {path}"), || path.find(&self.sys).map(|(_, address)| address))
    }

    /// Waits until `look` finds something: first in what is there, then after each message of the kernel.
    pub(crate) fn wait<T>(
        &self,
        device: &str,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T, StorageError> {
        if let Some(found) = look() {
            return Ok(found);
        }
        // Before the second look: what comes in between is heard or seen.
        let listener = Listener::new().ok();
        let _ = std::fs::write(self.sys.join("bus/pci/rescan"), "1");
        let end = Instant::now() + self.patience;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StorageError::Missing { device: clip(device), patience: self.patience });
            }
            let pause = left.min(BETWEEN_LOOKS);
            match &listener {
                Some(listener) => {
                    listener.something_came(pause);
                }
                None => std::thread::sleep(pause),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_device_that_never_comes_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::at(dir.path().into(), dir.path().into(), Duration::ZERO);
        let error = machine.pci_device(&"02/03".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "device PCI 02/03 did not appear within 0 s");
    }

    #[test]
    fn a_device_that_comes_later_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::at(dir.path().into(), dir.path().into(), Duration::from_secs(60));
        let device = dir.path().join("devices/pci0000:00/0000:00:02.0");
        let mut looks = 0;
        // The third look is after the first wait.
        let found = machine.wait("PCI 02", || {
            looks += 1;
            if looks == 3 {
                fs::create_dir_all(&device).unwrap();
            }
            "02".parse::<PciPath>().unwrap().find(dir.path())
        });
        assert_eq!(found.unwrap().1.to_string(), "0000:00:02.0");
        assert_eq!(looks, 3);
    }
}
