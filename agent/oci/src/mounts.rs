//! What a container sees in its file system beside its image: the kernel's own file systems, the agent's
//! files for the pod, and the pod's volumes.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};
use sealed_spec::podspec::VolumeSource;

use crate::{ContainerInput, OciError, volumes};

/// Destination, type, options. As CRI runtimes mount them.
const KERNEL: [(&str, &str, &[&str]); 6] = [
    ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
];

/// Places that the kernel's file systems own: a volume on them would hide what the masks protect.
const RESERVED: [&str; 2] = ["/proc", "/sys"];

/// All mounts, in the order to make them.
pub(crate) fn mounts(input: &ContainerInput<'_>) -> Result<Vec<Mount>, OciError> {
    let mut mounts = Vec::new();
    for (destination, kind, options) in KERNEL {
        mounts.push(mount(Path::new(destination), kind, Path::new(kind), options)?);
    }
    let files = input.files;
    let log = Path::new(input.container.effective_termination_message_path());
    let read_only_root = input
        .container
        .security_context
        .as_ref()
        .and_then(|context| context.read_only_root_filesystem)
        .unwrap_or(false);
    // CRI runtimes leave these three writable unless the root isn't.
    let writable = if read_only_root { "ro" } else { "rw" };
    let own: [(&Path, &Path, &[&str]); 5] = [
        (Path::new("/dev/shm"), &files.shm, &["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"]),
        (Path::new("/etc/hosts"), &files.hosts, &["bind", "rprivate", "nosuid", "nodev", writable]),
        (Path::new("/etc/hostname"), &files.hostname, &["bind", "rprivate", "nosuid", "nodev", writable]),
        (
            Path::new("/etc/resolv.conf"),
            &files.resolv_conf,
            &["bind", "rprivate", "nosuid", "nodev", writable],
        ),
        (log, &files.termination_log, &["bind", "rprivate", "nosuid", "noexec", "nodev", "rw"]),
    ];
    let mut bound = Vec::new();
    for (destination, source, options) in own {
        bound.push(bind(destination, source, options)?);
    }
    for (index, volume) in input.container.volume_mounts.iter().enumerate() {
        let field = format!("volumeMounts[{index}].mountPath");
        let destination =
            destination(&volume.mount_path).map_err(|reason| OciError::refused(&field, reason))?;
        if bound[5..].iter().any(|other: &Mount| *other.destination() == destination) {
            return Err(OciError::refused(field, "another volume is mounted there"));
        }
        if destination == log {
            return Err(OciError::refused(field, "the termination message is written there"));
        }
        let missing = || OciError::NotPrepared(volume.name.clone());
        let host = input.host_volumes.get(&index);
        let source = match (host, volume.sub_path.as_deref()) {
            (Some(host), _) => &host.source,
            (None, Some(path)) if !path.is_empty() => input.sub_paths.source(index).ok_or_else(missing)?,
            _ => input.volumes.get(&volume.name).map(PathBuf::as_path).ok_or_else(missing)?,
        };
        let sealed = volumes::source(input.pod, &volume.name);
        let only_read = volume.read_only == Some(true)
            || host.is_some()
            || matches!(sealed, Some(VolumeSource::SealedFiles(_)));
        let mut options = vec!["rbind", "rprivate", "nosuid", "nodev", if only_read { "ro" } else { "rw" }];
        if host.is_some_and(|host| !host.executable) {
            options.push("noexec");
        }
        // The volume replaces what the agent or the kernel would have there: /dev/shm is the usual case.
        bound[..5].iter_mut().filter(|other| *other.destination() == destination).for_each(|other| {
            other.set_source(None);
        });
        mounts.retain(|other| *other.destination() != destination);
        bound.push(bind(&destination, source, &options)?);
    }
    for extra in input.extra_mounts {
        if bound.iter().any(|other| *other.destination() == extra.destination) {
            return Err(OciError::refused("volumeMounts", "a volume is mounted where the agent has its own"));
        }
        let options = ["rbind", "rprivate", "nosuid", "nodev", "noexec", "ro"];
        bound.push(bind(&extra.destination, &extra.source, &options)?);
    }
    // Parents before children; the order within a depth stays.
    mounts.extend(bound.into_iter().filter(|mount| mount.source().is_some()));
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

fn mount(destination: &Path, kind: &str, source: &Path, options: &[&str]) -> Result<Mount, OciError> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let mount = MountBuilder::default().destination(destination).typ(kind).source(source).options(options);
    Ok(mount.build()?)
}

fn bind(destination: &Path, source: &Path, options: &[&str]) -> Result<Mount, OciError> {
    mount(destination, "bind", source, options)
}

/// A volume's place: absolute, without `..`, and not the kernel's.
fn destination(path: &str) -> Result<PathBuf, &'static str> {
    // Kubernetes takes relative paths as below the root.
    let path = Path::new("/").join(path);
    let clean: PathBuf = path.components().collect();
    if clean.components().any(|part| part == std::path::Component::ParentDir) {
        return Err("paths with .. are not allowed");
    }
    if clean == Path::new("/") || clean == Path::new("/dev") {
        return Err("a volume can't replace / or /dev");
    }
    if RESERVED.iter().any(|reserved| clean.starts_with(reserved)) {
        return Err("a volume can't be mounted below /proc or /sys");
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_volumes() {
        assert_eq!(destination("/data//x/").unwrap(), Path::new("/data/x"));
        assert_eq!(destination("data").unwrap(), Path::new("/data"));
        assert_eq!(destination("/dev/shm").unwrap(), Path::new("/dev/shm"));
        for bad in [
            "/",
            "",
            "/..",
            "/data/../..",
            "/proc",
            "/proc/sys",
            "/sys/firmware",
            "/dev",
            "/./proc/x",
            "//sys",
        ] {
            destination(bad).unwrap_err();
        }
    }
}
