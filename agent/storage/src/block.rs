//! Block devices: from an address to the device's node.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::StorageError;
use crate::error::clip;
use crate::machine::Machine;
use crate::pci::PciPath;

/// How a block device is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BlockAddress {
    /// By its way from the root complex (virtio-blk).
    Pci(PciPath),
    /// By its node, as `/dev/vda` or `/dev/pmem0`.
    Node(String),
    /// By host, channel, target and unit; without the first two any host and channel 0.
    Scsi(Option<(u32, u32)>, u32, u32),
}

impl BlockAddress {
    /// For the driver blk: a PCI path, or a node.
    pub(crate) fn blk(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Self::node(text);
        }
        text.parse().map(Self::Pci).map_err(|e: crate::pci::PciError| e.to_string())
    }

    /// For mmioblk, nvdimm: a node.
    pub(crate) fn node(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{}' is not a block device's path, as /dev/vda", clip(text));
        let name = text.strip_prefix("/dev/").ok_or_else(wrong)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(wrong());
        }
        Ok(Self::Node(name.to_owned()))
    }

    /// For scsi: `target:unit`, or `host:channel:target:unit`.
    pub(crate) fn scsi(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{}' is not a SCSI address, as 0:0 or 0:0:0:0", clip(text));
        let number = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) {
            true if (1..=5).contains(&part.len()) => part.parse::<u32>().map_err(|_| wrong()),
            _ => Err(wrong()),
        };
        let parts = text.split(':').map(number).collect::<Result<Vec<_>, _>>()?;
        match parts.as_slice() {
            [target, unit] => Ok(Self::Scsi(None, *target, *unit)),
            [host, channel, target, unit] => Ok(Self::Scsi(Some((*host, *channel)), *target, *unit)),
            _ => Err(wrong()),
        }
    }

    /// Waits for the device, or for one of its partitions; returns its node.
    pub(crate) fn wait(&self, machine: &Machine, partition: Option<u32>) -> Result<PathBuf, StorageError> {
        if let Self::Scsi(at, target, unit) = self {
            scan(machine.sys(), *at, *target, *unit);
        }
        let part = partition.map(|n| format!(", partition {n}")).unwrap_or_default();
        machine.wait(&format!("{self}{part}"), || {
            let name = self.look(machine.sys())?;
            let name = match partition {
                None => name,
                Some(number) => find_partition(machine.sys(), &name, number)?,
            };
            let node = machine.dev().join(name);
            is_block_device(&node).then_some(node)
        })
    }

    /// The kernel's name of the device, if it is there.
    fn look(&self, sys: &Path) -> Option<String> {
        match self {
            Self::Pci(path) => {
                let (directory, _) = path.find(sys)?;
                entries(&directory)
                    .filter(|name| name.starts_with("virtio"))
                    .find_map(|name| entries(&directory.join(name).join("block")).next())
            }
            Self::Node(name) => sys.join("class/block").join(name).exists().then(|| name.clone()),
            Self::Scsi(at, target, unit) => {
                let devices = sys.join("class/scsi_device");
                let (host, channel) = at.unzip();
                let tail = format!(":{}:{target}:{unit}", channel.unwrap_or(0));
                let found = entries(&devices).find(|name| {
                    name.strip_suffix(&tail)
                        .is_some_and(|h| host.is_none_or(|host| h == host.to_string()) && !h.contains(':'))
                })?;
                entries(&devices.join(found).join("device/block")).next()
            }
        }
    }
}

impl std::fmt::Display for BlockAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pci(path) => write!(f, "PCI {path}"),
            Self::Node(name) => write!(f, "/dev/{name}"),
            Self::Scsi(None, target, unit) => write!(f, "SCSI {target}:{unit}"),
            Self::Scsi(Some((host, channel)), target, unit) => {
                write!(f, "SCSI {host}:{channel}:{target}:{unit}")
            }
        }
    }
}

/// Has the hosts look for the unit. One that can't may find it by itself.
fn scan(sys: &Path, at: Option<(u32, u32)>, target: u32, unit: u32) {
    let hosts = sys.join("class/scsi_host");
    let (host, channel) = at.unzip();
    let wanted = format!("{} {target} {unit}", channel.unwrap_or(0));
    for name in entries(&hosts) {
        if host.is_none_or(|host| name == format!("host{host}")) {
            let _ = fs::write(hosts.join(name).join("scan"), &wanted);
        }
    }
}

/// The partition's name, as sysfs lists it below the device.
fn find_partition(sys: &Path, device: &str, number: u32) -> Option<String> {
    let directory = sys.join("class/block").join(device);
    entries(&directory).find(|name| {
        fs::read_to_string(directory.join(name).join("partition"))
            .is_ok_and(|text| text.trim() == number.to_string())
    })
}

/// Names in a directory, in their order, if there is one.
fn entries(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter()
}

/// A node that leads to a block device.
pub(crate) fn is_block_device(node: &Path) -> bool {
    fs::metadata(node).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// The address that a driver's source holds.
pub(crate) fn address(driver: &str, source: &str) -> Result<BlockAddress, String> {
    match driver {
        "blk" => BlockAddress::blk(source),
        "scsi" => BlockAddress::scsi(source),
        "mmioblk" | "nvdimm" => BlockAddress::node(source),
        _ => Err(format!("'{}' drives no block device", clip(driver))),
    }
}

/// Whether a file system may be mounted from a block device; names are what the kernel's table has.
pub(crate) fn check_fstype(fstype: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if fstype.is_empty() || fstype.len() > 32 || !fstype.chars().all(plain) {
        return Err(format!("'{}' is not a file system type", clip(fstype)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    #[test]
    fn addresses_are_as_the_drivers_have_them() {
        assert!(matches!(address("blk", "02/03"), Ok(BlockAddress::Pci(_))));
        assert_eq!(address("blk", "/dev/vda"), Ok(BlockAddress::Node("vda".into())));
        assert_eq!(address("scsi", "1:2"), Ok(BlockAddress::Scsi(None, 1, 2)));
        assert_eq!(address("scsi", "0:0:1:2"), Ok(BlockAddress::Scsi(Some((0, 0)), 1, 2)));
        assert_eq!(address("nvdimm", "/dev/pmem0"), Ok(BlockAddress::Node("pmem0".into())));
        for (driver, source) in [
            ("blk", ""),
            ("blk", "/dev/../etc/passwd"),
            ("blk", "/dev/mapper/x"),
            ("blk", "/etc/passwd"),
            ("mmioblk", "vda"),
            ("mmioblk", "02/03"),
            ("scsi", "1"),
            ("scsi", "1:2:3"),
            ("scsi", "-1:2"),
            ("scsi", "1:2 3"),
            ("nvdimm", "/dev/"),
            ("floppy", "/dev/fd0"),
        ] {
            assert!(address(driver, source).is_err(), "{driver} {source}");
        }
    }

    /// A sysfs with one virtio disk behind a bridge and one SCSI disk. No node is a block device here, so
    /// only names are looked up.
    fn sysfs() -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let disk = sys.path().join("devices/pci0000:00/0000:00:02.0/0000:01:03.0/virtio4/block/vdb");
        fs::create_dir_all(disk.join("vdb2")).unwrap();
        fs::write(disk.join("vdb2/partition"), "2\n").unwrap();
        fs::create_dir_all(sys.path().join("devices/pci0000:00/0000:00:02.0/pci_bus/0000:01")).unwrap();
        fs::create_dir_all(sys.path().join("class/block")).unwrap();
        symlink(&disk, sys.path().join("class/block/vdb")).unwrap();
        fs::create_dir_all(sys.path().join("class/scsi_device/1:0:3:4/device/block/sda")).unwrap();
        fs::create_dir_all(sys.path().join("class/scsi_host/host1")).unwrap();
        fs::write(sys.path().join("class/scsi_host/host1/scan"), "").unwrap();
        sys
    }

    #[test]
    fn devices_are_looked_up_by_address() {
        let sys = sysfs();
        let look = |driver, source| address(driver, source).unwrap().look(sys.path());
        assert_eq!(look("blk", "02/03").as_deref(), Some("vdb"));
        assert_eq!(look("blk", "02/04"), None);
        assert_eq!(look("mmioblk", "/dev/vdb").as_deref(), Some("vdb"));
        assert_eq!(look("mmioblk", "/dev/vda"), None);
        assert_eq!(look("scsi", "3:4").as_deref(), Some("sda"));
        assert_eq!(look("scsi", "1:0:3:4").as_deref(), Some("sda"));
        assert_eq!(look("scsi", "0:0:3:4"), None);
        assert_eq!(look("scsi", "3:5"), None);
        assert_eq!(find_partition(sys.path(), "vdb", 2).as_deref(), Some("vdb2"));
        assert_eq!(find_partition(sys.path(), "vdb", 1), None);
    }

    #[test]
    fn a_file_in_place_of_a_device_is_not_taken_for_one() {
        let sys = sysfs();
        let dev = tempfile::tempdir().unwrap();
        fs::write(dev.path().join("vdb"), "not a device").unwrap();
        let machine = Machine::at(sys.path().into(), dev.path().into(), Duration::ZERO);
        let error = address("blk", "02/03").unwrap().wait(&machine, Some(2)).unwrap_err();
        assert_eq!(error.to_string(), "device PCI 02/03, partition 2 did not appear within 0 s");
        let error = address("scsi", "3:4").unwrap().wait(&machine, None).unwrap_err();
        assert_eq!(error.to_string(), "device SCSI 3:4 did not appear within 0 s");
        // The host was told to look.
        assert_eq!(fs::read_to_string(sys.path().join("class/scsi_host/host1/scan")).unwrap(), "0 3 4");
    }
}
