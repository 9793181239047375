//! Files that are in the sealed spec itself, written into guest memory once for the pod.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use nix::mount::MsFlags;
use sealed_spec::podspec::SealedFiles;

/// Makes the volume at `root`. `gid`: the pod's fsGroup.
pub fn write(root: &Path, files: &SealedFiles, gid: Option<u32>) -> io::Result<()> {
    crate::sandbox::tmpfs(root, "mode=755", MsFlags::empty())?;
    let group = gid.unwrap_or(0);
    let directory_mode = if gid.is_some() { 0o2755 } else { 0o755 };
    own(root, group, directory_mode)?;
    for (path, file) in &files.files {
        // The specification was checked when it was opened; the kernel is asked again below.
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut directory = root.to_owned();
        let mut parts: Vec<&str> = path.split('/').collect();
        let name = parts.pop().unwrap_or_default();
        for part in parts {
            directory.push(part);
            match fs::DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => own(&directory, group, directory_mode)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = file.bytes().ok_or(io::ErrorKind::InvalidData)?;
        let target = directory.join(name);
        fs::write(&target, bytes.as_slice())?;
        own(&target, group, file.mode & 0o777 | if gid.is_some() { 0o440 } else { 0 })?;
    }
    Ok(())
}

fn own(path: &Path, gid: u32, mode: u32) -> io::Result<()> {
    chown(path, Some(0), Some(gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
