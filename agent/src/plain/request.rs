//! Storages and devices of the wire, as their drivers take them.

use agent_storage::{DeviceRequest, FsGroup, GroupChange, StorageRequest};
use protocols::agent as wire;
use protocols::types::FSGroupChangePolicy;

/// Storages in their order.
pub fn storages(list: Vec<wire::Storage>) -> Vec<StorageRequest> {
    list.into_iter().map(storage).collect()
}

fn storage(storage: wire::Storage) -> StorageRequest {
    let fs_group = storage.fs_group.as_ref().map(|group| FsGroup {
        id: group.group_id,
        // A policy that this agent doesn't know gets the one that leaves no file out.
        change: match group.group_change_policy.enum_value() {
            Ok(FSGroupChangePolicy::OnRootMismatch) => GroupChange::OnRootMismatch,
            _ => GroupChange::Always,
        },
    });
    StorageRequest {
        driver: storage.driver,
        driver_options: storage.driver_options,
        source: storage.source,
        fstype: storage.fstype,
        options: storage.options,
        mount_point: storage.mount_point,
        fs_group,
        shared: storage.shared,
    }
}

/// Devices in their order.
pub fn devices(list: Vec<wire::Device>) -> Vec<DeviceRequest> {
    list.into_iter()
        .map(|device| DeviceRequest {
            id: device.id,
            driver: device.type_,
            vm_path: device.vm_path,
            container_path: device.container_path,
            options: device.options,
        })
        .collect()
}
