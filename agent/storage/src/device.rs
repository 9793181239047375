//! Device drivers: a device of the container's specification has the host's name and numbers; here it gets
//! the guest's.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::block;
use crate::error::clip;
use crate::machine::Machine;
use crate::pci::{PciAddress, PciPath};
use crate::request::DeviceRequest;
use crate::{DEVICE_HANDLERS, StorageError};

/// A device node of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Block, else character.
    pub block: bool,
    /// Its driver.
    pub major: i64,
    /// Which of the driver's.
    pub minor: i64,
}

/// What a device driver found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceUpdate {
    /// Path in the container's specification, as the host has it.
    pub container_path: String,
    /// The guest's node for it; a device that a driver of the guest's kernel takes over has none.
    pub node: Option<DeviceNode>,
    /// Another path in the container, where the device's name matters (vfio groups).
    pub path: Option<PathBuf>,
    /// The host's PCI addresses with the guest's, for variables of the environment that hold them.
    pub pci: Vec<(PciAddress, PciAddress)>,
}

/// Finds one device; waits for it if it is still coming.
pub fn add_device(machine: &Machine, request: &DeviceRequest) -> Result<DeviceUpdate, StorageError> {
    request.check()?;
    match request.driver.as_str() {
        "blk" | "scsi" => {
            let address = block::address(&request.driver, &request.id).map_err(|e| request.invalid(e))?;
            found(request, &address.wait(machine, None)?)
        }
        "mmioblk" | "nvdimm" => {
            let address =
                block::address(&request.driver, &request.vm_path).map_err(|e| request.invalid(e))?;
            found(request, &address.wait(machine, None)?)
        }
        "vfio-pci" => vfio(machine, request, true),
        "vfio-pci-gk" => vfio(machine, request, false),
        "vfio-ap" | "vfio-ap-cold" => Err(request.invalid("AP devices exist on s390x only")),
        other => Err(request.invalid(format!(
            "no driver '{}'; there are {}",
            clip(other),
            DEVICE_HANDLERS.join(", ")
        ))),
    }
}

fn found(request: &DeviceRequest, node: &Path) -> Result<DeviceUpdate, StorageError> {
    let container_path = request.container_path.clone();
    Ok(DeviceUpdate { container_path, node: Some(describe(node)?), path: None, pci: Vec::new() })
}

fn describe(node: &Path) -> Result<DeviceNode, StorageError> {
    let metadata = fs::metadata(node).map_err(|e| StorageError::kernel("looking at", node, e))?;
    let kind = metadata.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return Err(StorageError::invalid(node.display().to_string(), "it is not a device"));
    }
    let (major, minor) = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
    let number = |n: u64| i64::try_from(n).unwrap_or(-1);
    Ok(DeviceNode { block: kind.is_block_device(), major: number(major), minor: number(minor) })
}

/// Each option is `HOST ADDRESS=GUEST PATH`. For `vfio-pci` the container drives the devices itself,
/// through their IOMMU group; for `vfio-pci-gk` the guest's kernel does.
fn vfio(
    machine: &Machine,
    request: &DeviceRequest,
    in_container: bool,
) -> Result<DeviceUpdate, StorageError> {
    let mut wanted: Vec<(PciAddress, PciPath)> = Vec::new();
    for option in &request.options {
        let wrong = || request.invalid(format!("'{}' is not HOST ADDRESS=GUEST PATH", clip(option)));
        let (host, path) = option.split_once('=').ok_or_else(wrong)?;
        wanted.push((host.parse().map_err(|_| wrong())?, path.parse().map_err(|_| wrong())?));
    }
    if wanted.is_empty() {
        return Err(request.invalid("no option names a device"));
    }
    let mut pci = Vec::new();
    let mut group = None;
    for (host, path) in wanted {
        let guest = machine.pci_device(&path)?;
        if in_container {
            take_over(machine.sys(), guest)?;
            let of_this = iommu_group(machine.sys(), guest)?;
            if *group.get_or_insert(of_this) != of_this {
                return Err(
                    request.invalid(format!("{guest} is in another IOMMU group than the first device"))
                );
            }
        }
        pci.push((host, guest));
    }
    let container_path = request.container_path.clone();
    let Some(group) = group else {
        return Ok(DeviceUpdate { container_path, node: None, path: None, pci });
    };
    let node = machine.dev().join(format!("vfio/{group}"));
    machine.wait(&format!("IOMMU group {group}"), || node.exists().then_some(()))?;
    let described = describe(&node)?;
    Ok(DeviceUpdate { container_path, node: Some(described), path: Some(node), pci })
}

/// Binds a device to the vfio-pci driver.
fn take_over(sys: &Path, device: PciAddress) -> Result<(), StorageError> {
    const DRIVER: &str = "vfio-pci";
    let bus = sys.join("bus/pci");
    let directory = bus.join("devices").join(device.to_string());
    let write =
        |path: &Path, text: &str| fs::write(path, text).map_err(|e| StorageError::kernel("writing", path, e));
    write(&directory.join("driver_override"), DRIVER)?;
    match fs::read_link(directory.join("driver")) {
        Ok(driver) if driver.file_name().is_some_and(|name| name == DRIVER) => return Ok(()),
        Ok(_) => write(&directory.join("driver/unbind"), &device.to_string())?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(StorageError::kernel("reading", directory.join("driver"), e)),
    }
    write(&bus.join("drivers_probe"), &device.to_string())
}

fn iommu_group(sys: &Path, device: PciAddress) -> Result<u32, StorageError> {
    let link = sys.join("bus/pci/devices").join(device.to_string()).join("iommu_group");
    let target =
        fs::read_link(&link).map_err(|e| StorageError::kernel("finding the IOMMU group", &link, e))?;
    let number = target.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    number.ok_or_else(|| StorageError::invalid(device.to_string(), "its IOMMU group has no number"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    struct Guest {
        dir: tempfile::TempDir,
        machine: Machine,
    }

    fn guest() -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let (sys, dev) = (dir.path().join("sys"), dir.path().join("dev"));
        for (address, group) in [("0000:00:02.0", 7), ("0000:00:03.0", 8)] {
            fs::create_dir_all(sys.join("devices/pci0000:00").join(address)).unwrap();
            let device = sys.join("bus/pci/devices").join(address);
            fs::create_dir_all(&device).unwrap();
            symlink(format!("../../../kernel/iommu_groups/{group}"), device.join("iommu_group")).unwrap();
        }
        fs::create_dir_all(dev.join("vfio")).unwrap();
        let machine = Machine::at(sys, dev, Duration::ZERO);
        Guest { dir, machine }
    }

    fn request(driver: &str, options: &[&str]) -> DeviceRequest {
        DeviceRequest {
            id: "x".into(),
            driver: driver.into(),
            vm_path: String::new(),
            container_path: "/dev/vfio/12".into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        }
    }

    #[test]
    fn the_guests_kernel_keeps_a_gk_device() {
        let guest = guest();
        let update = add_device(&guest.machine, &request("vfio-pci-gk", &["0000:41:00.0=02"])).unwrap();
        assert_eq!(update.node, None);
        let pair = ("0000:41:00.0".parse().unwrap(), "0000:00:02.0".parse().unwrap());
        assert_eq!(update.pci, [pair]);
    }

    #[test]
    fn a_vfio_device_is_bound_and_known_by_its_group() {
        let guest = guest();
        // A character device that every machine has.
        symlink("/dev/null", guest.dir.path().join("dev/vfio/7")).unwrap();
        let update = add_device(&guest.machine, &request("vfio-pci", &["0000:41:00.0=02"])).unwrap();
        assert_eq!(update.node, Some(DeviceNode { block: false, major: 1, minor: 3 }));
        assert!(update.path.unwrap().ends_with("vfio/7"));
        let bus = guest.dir.path().join("sys/bus/pci");
        assert_eq!(fs::read_to_string(bus.join("drivers_probe")).unwrap(), "0000:00:02.0");
        let device = bus.join("devices/0000:00:02.0");
        assert_eq!(fs::read_to_string(device.join("driver_override")).unwrap(), "vfio-pci");
    }

    #[test]
    fn what_is_not_a_device_is_refused_by_name() {
        let guest = guest();
        let refused = |request: &DeviceRequest| add_device(&guest.machine, request).unwrap_err().to_string();
        for options in [&["0000:41:00.0"][..], &["02=02"], &["0000:41:00.0=99"], &[]] {
            assert!(
                refused(&request("vfio-pci", options)).starts_with("storage vfio-pci device"),
                "{options:?}"
            );
        }
        let two = ["0000:41:00.0=02", "0000:42:00.0=03"];
        assert!(refused(&request("vfio-pci", &two)).contains("another IOMMU group"));
        assert!(refused(&request("vfio-ap", &["04.0001"])).contains("s390x"));
        assert!(refused(&request("usb", &[])).contains("no driver 'usb'; there are blk, mmioblk"));
        assert!(refused(&request("mmioblk", &[])).contains("not a block device's path"));
        let nameless = DeviceRequest { id: String::new(), ..request("blk", &[]) };
        assert!(refused(&nameless).contains("neither an id nor a path"));
        let homeless = DeviceRequest { container_path: String::new(), ..request("blk", &[]) };
        assert!(refused(&homeless).contains("no device of the container"));
        let missing = DeviceRequest { id: "05".into(), ..request("blk", &[]) };
        assert_eq!(refused(&missing), "device PCI 05 did not appear within 0 s");
    }
}
