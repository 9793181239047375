//! Bodies of the fuzz targets of `agent/storage`: what the host says of devices and storages.

#![allow(dead_code)] // Each target uses one of them.

use std::path::{Component, Path, PathBuf};

use agent_storage::{FsGroup, GroupChange, StorageRequest, Uevent, mount_points};

/// A message on the kernel's uevent socket: any bytes. What is read stays below sysfs.
pub(crate) fn uevent(data: &[u8]) {
    let Some(event) = Uevent::parse(data) else { return };
    assert!(event.path.starts_with('/') && !event.path.split('/').any(|name| name == ".."), "{}", event.path);
    let text = String::from_utf8_lossy(data);
    assert!(text.contains(&event.path) && text.contains(&event.subsystem) && text.contains(&event.name));
}

/// Storages of one request, a line each, with their fields between tabs: driver, source, file system, mount point,
/// options, and options for the driver. What passes the checks lands where it may.
pub(crate) fn storage_requests(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let requests: Vec<StorageRequest> = text.lines().take(16).map(request).collect();
    let private = [PathBuf::from("/run/sealpod")];
    let Ok(points) = mount_points(&requests, Path::new("/run/kata-containers"), &private) else { return };
    for point in points {
        assert!(point.is_absolute(), "{}", point.display());
        let plain = point.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        assert!(plain, "{}", point.display());
        assert!(!point.starts_with("/run/sealpod") && point != Path::new("/"), "{}", point.display());
    }
}

fn request(line: &str) -> StorageRequest {
    let mut fields = line.split('\t');
    let mut field = || fields.next().unwrap_or_default().to_owned();
    let (driver, source, fstype, mount_point) = (field(), field(), field(), field());
    let list = |text: String| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let (options, driver_options): (Vec<String>, Vec<String>) = (list(field()), list(field()));
    let fs_group = (options.len() % 3 == 2)
        .then_some(FsGroup { id: driver_options.len() as u32, change: GroupChange::Always });
    let shared = driver_options.len() % 2 == 1;
    StorageRequest { driver, source, fstype, mount_point, options, driver_options, fs_group, shared }
}
