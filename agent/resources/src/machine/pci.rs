//! Block devices by their place on the PCI bus: a slot on the root bus, then a slot behind each bridge.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{LOOK, Machine};
use crate::error::{ResourceError, Result};

/// Bridges behind bridges; no machine that a runtime makes is deeper.
const MAX_DEPTH: usize = 8;
/// Slots of a bus.
const SLOTS: u32 = 32;

impl Machine {
    /// The block device at a place, waited for.
    pub async fn pci_block_device(&self, slots: &[u32], patience: Duration) -> Result<PathBuf> {
        if slots.is_empty() || slots.len() > MAX_DEPTH || slots.iter().any(|slot| *slot >= SLOTS) {
            return Err(ResourceError::malformed("the PCI path is not one of slots from 0 to 31"));
        }
        let end = Instant::now() + patience;
        loop {
            if let Some(name) = self.block_name(slots) {
                return Ok(self.dev.join(name));
            }
            if Instant::now() >= end {
                let place = slots.iter().map(|slot| format!("{slot:02x}")).collect::<Vec<_>>().join("/");
                return Err(ResourceError::State(format!(
                    "no block device came at PCI path {place} within {} s",
                    patience.as_secs()
                )));
            }
            sleep(LOOK).await;
        }
    }

    fn block_name(&self, slots: &[u32]) -> Option<String> {
        let mut directory = self.sys.join("devices/pci0000:00");
        let mut bus = "0000:00".to_owned();
        for (number, slot) in slots.iter().enumerate() {
            directory.push(format!("{bus}:{slot:02x}.0"));
            if number + 1 < slots.len() {
                bus = only_entry(&directory.join("pci_bus"))?;
            }
        }
        // virtio-blk: 0000:00:05.0/virtio3/block/vdb
        let virtio = fs::read_dir(&directory).ok()?.flatten().map(|entry| entry.path());
        let mut functions = virtio.filter(|path| name(path).is_some_and(|name| name.starts_with("virtio")));
        functions.find_map(|path| only_entry(&path.join("block")))
    }
}

fn only_entry(directory: &Path) -> Option<String> {
    fs::read_dir(directory).ok()?.flatten().next()?.file_name().into_string().ok()
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_device_is_found_behind_a_bridge() {
        let dir = tempfile::tempdir().unwrap();
        let bridge = dir.path().join("devices/pci0000:00/0000:00:02.0");
        fs::create_dir_all(bridge.join("pci_bus/0000:01")).unwrap();
        fs::create_dir_all(bridge.join("0000:01:03.0/virtio7/block/vdc")).unwrap();
        let machine = Machine::at(dir.path(), "/dev");
        let patience = Duration::ZERO;
        assert_eq!(machine.pci_block_device(&[2, 3], patience).await.unwrap(), Path::new("/dev/vdc"));
        let error = machine.pci_block_device(&[2, 4], patience).await.unwrap_err().to_string();
        assert_eq!(error, "no block device came at PCI path 02/04 within 0 s");
    }

    #[tokio::test]
    async fn a_place_that_no_bus_has_is_refused() {
        let machine = Machine::at("/nonexistent", "/dev");
        for slots in [&[][..], &[32], &[0; 9]] {
            let refused = machine.pci_block_device(slots, Duration::ZERO).await;
            assert!(matches!(refused, Err(ResourceError::Malformed(_))), "{slots:?}");
        }
    }
}
