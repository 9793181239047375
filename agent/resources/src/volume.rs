//! File systems of volumes: how full they are, and growing them. A path is looked up below one
//! directory, without following links: what a container writes into a volume leads nowhere else.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::fstatvfs;
use protocols::csi::volume_usage::Unit;
use protocols::csi::{VolumeCondition, VolumeStatsResponse, VolumeUsage};

use crate::error::{ResourceError, Result};
use crate::sys;

/// Below it a runtime's guest paths are.
pub const VOLUMES: &str = "/run/kata-containers";

/// Space and files of the file system that is mounted at `path`, which must be below `base`.
pub fn stats(base: &Path, path: &str) -> Result<VolumeStatsResponse> {
    let volume = below(base, path)?;
    let found = fstatvfs(&volume).map_err(|e| ResourceError::kernel("looking at the volume")(e.into()))?;
    let size = found.fragment_size();
    let bytes = usage(Unit::BYTES, found.blocks(), found.blocks_free(), found.blocks_available(), size);
    let files = usage(Unit::INODES, found.files(), found.files_free(), found.files_available(), 1);
    let mut response = VolumeStatsResponse::new();
    response.usage = vec![bytes, files];
    response.volume_condition = Some(VolumeCondition::new()).into();
    Ok(response)
}

/// Grows the ext4 file system at `path` to `size` bytes; its device must be as large already.
pub fn grow(base: &Path, path: &str, size: u64) -> Result<()> {
    let volume = below(base, path)?;
    let volume = File::from(volume);
    let system = fstatfs(&volume).map_err(|e| ResourceError::kernel("looking at the volume")(e.into()))?;
    if system.filesystem_type() != EXT4_SUPER_MAGIC {
        return Err(ResourceError::Missing("way to grow a volume that is not ext4".into()));
    }
    let block = u64::try_from(system.block_size()).ok().filter(|block| *block > 0).unwrap_or(4096);
    let blocks = size / block;
    // The kernel counts without its own tables, so this is a lower bound of what is there.
    if blocks < system.blocks() {
        return Err(ResourceError::malformed(format!("a mounted volume can't shrink to {size} bytes")));
    }
    sys::grow_ext4(&volume, blocks).map_err(ResourceError::kernel("growing the volume"))
}

fn below(base: &Path, path: &str) -> Result<OwnedFd> {
    let outside = || ResourceError::malformed(format!("the volume is not below {}", base.display()));
    let relative = Path::new(path).strip_prefix(base).map_err(|_| outside())?;
    if relative.as_os_str().is_empty() || path.contains('\0') {
        return Err(outside());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opening = |errno: nix::errno::Errno| ResourceError::kernel("opening the volume")(errno.into());
    let base = open(base, flags | OFlag::O_DIRECTORY, Mode::empty()).map_err(opening)?;
    let inside = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    openat2(&base, relative, OpenHow::new().flags(flags | OFlag::O_DIRECTORY).resolve(inside))
        .map_err(opening)
}

fn usage(unit: Unit, total: u64, free: u64, available: u64, size: u64) -> VolumeUsage {
    let mut usage = VolumeUsage::new();
    usage.unit = unit.into();
    usage.total = total.saturating_mul(size);
    usage.used = total.saturating_sub(free).saturating_mul(size);
    usage.available = available.saturating_mul(size);
    usage
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn space_and_files_are_counted() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("shared/volume")).unwrap();
        let path = base.path().join("shared/volume");
        let found = stats(base.path(), path.to_str().unwrap()).unwrap().usage;
        assert_eq!(found[0].unit, Unit::BYTES.into());
        assert_eq!(found[1].unit, Unit::INODES.into());
        assert!(found[0].total >= found[0].used + found[0].available && found[0].total > 0);
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(base.path().join("volume")).unwrap();
        symlink("/etc", base.path().join("volume/link")).unwrap();
        assert!(stats(base.path(), &at("volume")).is_ok());
        for path in
            [at(""), at("volume/link"), at("volume/../.."), at("no-such"), "/etc".into(), String::new()]
        {
            assert!(stats(base.path(), &path).is_err(), "{path}");
            assert!(grow(base.path(), &path, u64::MAX).is_err(), "{path}");
        }
    }

    #[test]
    fn only_ext4_grows_and_nothing_shrinks() {
        let base = Path::new("/dev");
        assert!(matches!(grow(base, "/dev/shm", 1 << 40), Err(ResourceError::Missing(_))));
    }
}
