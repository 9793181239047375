//! The guest's file systems: one row a mount, with the reason for it.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// One mount of the guest.
pub struct Mount {
    /// File system type, also used as the source's name.
    fstype: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const NO_EXEC: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const NO_SUID: MsFlags = MsFlags::MS_NOSUID;

/// In order: later rows lie below earlier ones.
pub(super) const TABLE: &[Mount] = &[
    // processes, mount table, sysctls
    Mount { fstype: "proc", target: "/proc", flags: NO_EXEC, options: "" },
    // devices, network links, block devices to be searched for initdata
    Mount { fstype: "sysfs", target: "/sys", flags: NO_EXEC, options: "" },
    // device nodes made by the kernel
    Mount { fstype: "devtmpfs", target: "/dev", flags: NO_SUID, options: "mode=0755" },
    // pseudo terminals of the agent's own namespace; containers get instances of their own
    Mount { fstype: "devpts", target: "/dev/pts", flags: NO_SUID, options: "mode=0620,gid=5,ptmxmode=0666" },
    // shared memory of the agent's own programs
    Mount { fstype: "tmpfs", target: "/dev/shm", flags: NO_EXEC, options: "mode=1777,size=1m" },
    // container state and bundles; not NODEV: root file systems below it carry no device nodes of images. An image
    // that unpacks to more than there is must find the end of this before the end of memory
    Mount { fstype: "tmpfs", target: "/run", flags: NO_SUID, options: "mode=0755,size=70%" },
    // scratch files of libraries
    Mount { fstype: "tmpfs", target: "/tmp", flags: NO_EXEC, options: "mode=1777,size=16m" },
    // secrets that were injected at launch (SEV, SEV-ES)
    Mount { fstype: "securityfs", target: SECRETS, flags: NO_EXEC, options: "" },
    // reports of the TEE's firmware, on kernels that have no device for them
    Mount { fstype: "configfs", target: REPORTS, flags: NO_EXEC, options: "" },
    // containers' resources; version 2 only
    Mount { fstype: "cgroup2", target: "/sys/fs/cgroup", flags: NO_EXEC, options: "nsdelegate" },
];

const SECRETS: &str = "/sys/kernel/security";
const REPORTS: &str = "/sys/kernel/config";
/// A kernel without them has no directory for them, and a guest that needs them then finds no TEE.
const OPTIONAL: [&str; 2] = [SECRETS, REPORTS];

/// Links that programs expect below `/dev`.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/dev/pts/ptmx", "/dev/ptmx"),
];

/// A file system of the table that can't be mounted.
#[derive(Debug, thiserror::Error)]
#[error("mounting {fstype} on {target}: {source}; is it in the guest kernel's configuration?")]
pub struct MountError {
    fstype: &'static str,
    target: &'static str,
    #[source]
    source: io::Error,
}

/// Mounts every row; one that is there already (a kernel with DEVTMPFS_MOUNT) is fine.
pub fn mount_all(table: &[Mount]) -> Result<(), MountError> {
    for row in table {
        let failed = |source| MountError { fstype: row.fstype, target: row.target, source };
        match OPTIONAL.contains(&row.target) {
            // One with something in it is mounted already.
            true if !is_empty_directory(row.target) => continue,
            true => {}
            false => std::fs::create_dir_all(row.target).map_err(failed)?,
        }
        match mount(Some(row.fstype), row.target, Some(row.fstype), row.flags, Some(row.options)) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Ok(())
}

fn is_empty_directory(path: &str) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

pub(super) fn link_all() -> io::Result<()> {
    for (target, link) in LINKS {
        // devtmpfs has a ptmx node of its own, for the first instance of devpts only.
        if Path::new(link).symlink_metadata().is_ok() {
            std::fs::remove_file(link)?;
        }
        symlink(target, link)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_lies_below_a_later_one() {
        for (at, row) in TABLE.iter().enumerate() {
            for later in &TABLE[at + 1..] {
                assert!(
                    !row.target.starts_with(later.target),
                    "{} would be hidden by {}",
                    row.target,
                    later.target
                );
            }
        }
    }

    #[test]
    fn what_a_kernel_may_lack_is_no_reason_to_stop() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name).display().to_string();
        std::fs::create_dir(path("empty")).unwrap();
        assert!(is_empty_directory(&path("empty")));
        assert!(!is_empty_directory(&path("")));
        assert!(!is_empty_directory(&path("none")));
        for target in OPTIONAL {
            assert!(TABLE.iter().any(|row| row.target == target && row.flags == NO_EXEC));
        }
    }

    #[test]
    fn only_devtmpfs_run_and_ptys_may_hold_devices() {
        let with_devices: Vec<_> =
            TABLE.iter().filter(|row| !row.flags.contains(MsFlags::MS_NODEV)).map(|row| row.target).collect();
        assert_eq!(with_devices, ["/dev", "/dev/pts", "/run"]);
    }
}
