//! What only Linux has: namespaces, devices, system calls.

use protocols::oci as wire;
use serde_json::{Value, json};

use super::resources::resources_value;
use super::{Controllers, MAX_ENTRIES, Notes, Result, bounded, malformed, path, text};

pub(super) fn linux_value(linux: &wire::Linux, controllers: Controllers, notes: &mut Notes) -> Result<Value> {
    let namespaces = namespaces(linux, notes)?;
    let with_users = namespaces.iter().any(|namespace| namespace["type"] == "user");
    for (key, value) in &linux.Sysctl {
        text("sysctl", key)?;
        text("sysctl", value)?;
        // The name becomes a path.
        if key.is_empty() || key.starts_with(['/', '.']) || key.contains("..") {
            return Err(malformed("sysctl", format!("'{key}' is not a name")));
        }
    }
    for masked in linux.MaskedPaths.iter().chain(&linux.ReadonlyPaths) {
        path("masked and read-only paths", masked)?;
    }
    let mut value = json!({
        "namespaces": namespaces,
        "cgroupsPath": linux.CgroupsPath,
        "maskedPaths": bounded("masked paths", &linux.MaskedPaths)?,
        "readonlyPaths": bounded("read-only paths", &linux.ReadonlyPaths)?,
    });
    if !linux.Sysctl.is_empty() {
        value["sysctl"] = json!(linux.Sysctl);
    }
    if !linux.RootfsPropagation.is_empty() {
        // libcontainer knows the recursive ones by the others' names, and means those.
        let name = linux.RootfsPropagation.strip_prefix('r').unwrap_or(&linux.RootfsPropagation);
        if !["private", "slave", "shared", "unbindable"].contains(&name) {
            return Err(malformed("propagation", "it is none of private, slave, shared, unbindable"));
        }
        value["rootfsPropagation"] = json!(name);
    }
    if with_users {
        value["uidMappings"] = json!(linux.UIDMappings.iter().map(mapping).collect::<Vec<_>>());
        value["gidMappings"] = json!(linux.GIDMappings.iter().map(mapping).collect::<Vec<_>>());
    }
    let devices = bounded("devices", &linux.Devices)?.iter().map(device).collect::<Result<Vec<_>>>()?;
    if !devices.is_empty() {
        value["devices"] = json!(devices);
    }
    if let Some(resources) = linux.Resources.as_ref() {
        value["resources"] = resources_value(resources, controllers, notes)?;
    }
    if let Some(filter) = linux.Seccomp.as_ref() {
        value["seccomp"] = seccomp(filter)?;
    }
    notes.unless(linux.MountLabel.is_empty(), "SELinux mount label");
    notes.unless(linux.IntelRdt.is_none(), "Intel RDT");
    Ok(value)
}

/// Networks are the guest's, and which processes a container sees is the agent's to say.
fn namespaces(linux: &wire::Linux, notes: &mut Notes) -> Result<Vec<Value>> {
    let mapped = !linux.UIDMappings.is_empty() && !linux.GIDMappings.is_empty();
    let mut namespaces: Vec<Value> = Vec::new();
    for namespace in bounded("namespaces", &linux.Namespaces)? {
        let kind = match namespace.Type.as_str() {
            "mnt" | "mount" => "mount",
            "pid" | "network" | "net" => continue,
            "user" if !mapped => {
                notes.unless(false, "user namespace without mappings");
                continue;
            }
            kind @ ("ipc" | "uts" | "cgroup" | "user") => kind,
            "time" => {
                notes.unless(false, "time namespace");
                continue;
            }
            _ => return Err(malformed("namespaces", "one is of a type that nobody knows")),
        };
        // A path names one of the host's.
        if !namespaces.iter().any(|namespace| namespace["type"] == kind) {
            namespaces.push(json!({ "type": kind }));
        }
    }
    if !namespaces.iter().any(|namespace| namespace["type"] == "mount") {
        namespaces.push(json!({ "type": "mount" }));
    }
    Ok(namespaces)
}

fn mapping(mapping: &wire::LinuxIDMapping) -> Value {
    json!({ "hostID": mapping.HostID, "containerID": mapping.ContainerID, "size": mapping.Size })
}

fn device(device: &wire::LinuxDevice) -> Result<Value> {
    path("devices", &device.Path)?;
    if !matches!(device.Type.as_str(), "b" | "c" | "u" | "p") {
        return Err(malformed("devices", "one is neither block, nor character, nor pipe"));
    }
    let mut value = json!({
        "path": device.Path,
        "type": device.Type,
        "major": device.Major,
        "minor": device.Minor,
        "uid": device.UID,
        "gid": device.GID,
    });
    if device.FileMode != 0 {
        value["fileMode"] = json!(device.FileMode & 0o7777);
    }
    Ok(value)
}

fn seccomp(filter: &wire::LinuxSeccomp) -> Result<Value> {
    let mut calls = Vec::with_capacity(filter.Syscalls.len().min(MAX_ENTRIES));
    let mut names = 0;
    for call in bounded("seccomp", &filter.Syscalls)? {
        names += call.Names.len();
        if names > MAX_ENTRIES {
            return Err(malformed("seccomp", format!("more than {MAX_ENTRIES} names")));
        }
        let mut value = json!({ "names": call.Names, "action": call.Action });
        if call.has_errnoret() {
            value["errnoRet"] = json!(call.errnoret());
        }
        let arguments: Vec<_> = call
            .Args
            .iter()
            .map(|a| json!({ "index": a.Index, "value": a.Value, "valueTwo": a.ValueTwo, "op": a.Op }))
            .collect();
        if !arguments.is_empty() {
            value["args"] = json!(arguments);
        }
        calls.push(value);
    }
    let mut value = json!({ "defaultAction": filter.DefaultAction, "syscalls": calls });
    for (key, list) in [("architectures", &filter.Architectures), ("flags", &filter.Flags)] {
        if !list.is_empty() {
            value[key] = json!(list);
        }
    }
    Ok(value)
}
