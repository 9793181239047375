//! Disk images for guests, made by `mkfs.ext4 -d`: a root file system with busybox, or an empty volume.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::image;
use crate::process::Finished;

/// Writes an ext4 image with the test image's files and `extra` ones (path in the image and what is copied there,
/// executable) to `path`.
///
/// # Errors
/// When busybox or mkfs.ext4 is missing or fails.
pub fn root(path: &Path, extra: &[(&str, PathBuf)]) -> Result<()> {
    let tree = tempfile::tempdir().context("cannot make a directory")?;
    let root = tree.path().join("root");
    for directory in ["bin", "etc", "proc", "sys", "dev", "tmp", "run", "mnt", "data", "work", "config"] {
        fs::create_dir_all(root.join(directory)).context("cannot make the image's directories")?;
    }
    let copy = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
    };
    copy(Path::new(image::BUSYBOX), "bin/busybox")?;
    for applet in image::APPLETS {
        symlink("busybox", root.join("bin").join(applet)).context("cannot link an applet")?;
    }
    fs::write(root.join("etc/passwd"), image::PASSWD).context("cannot write passwd")?;
    fs::write(root.join("etc/group"), image::GROUP).context("cannot write group")?;
    // Where runtimes mount the node's own.
    for file in ["hosts", "hostname", "resolv.conf"] {
        fs::write(root.join("etc").join(file), "").context("cannot write a standard file")?;
    }
    // Where the agent mounts a container's way to its resources: this root can't be written to.
    let socket = root.join("run/confidential-containers/cdh.sock");
    fs::create_dir_all(socket.with_file_name("")).context("cannot make the socket's directory")?;
    fs::write(&socket, "").context("cannot write the socket's place")?;
    // Runtimes name it as the sandbox's own process.
    let pause = root.join("pause");
    fs::write(&pause, "#!/bin/sh\nexec sleep 1000000\n").context("cannot write pause")?;
    executable(&pause)?;
    for (to, from) in extra {
        copy(from, to)?;
        executable(&root.join(to.trim_start_matches('/')))?;
    }
    // Twice the content: the file is sparse.
    let bytes: u64 = walk(&root)?;
    make(path, bytes * 2 + (8 << 20), Some(&root))
}

/// Writes an empty ext4 image of `bytes` to `path`.
///
/// # Errors
/// When mkfs.ext4 is missing or fails.
pub fn empty(path: &Path, bytes: u64) -> Result<()> {
    make(path, bytes, None)
}

/// A file of zeros: a disk that nobody has written to.
///
/// # Errors
/// When it can't be written.
pub fn blank(path: &Path, bytes: u64) -> Result<()> {
    let file = fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.set_len(bytes).context("cannot set the disk's size")
}

fn make(path: &Path, bytes: u64, content: Option<&Path>) -> Result<()> {
    blank(path, bytes)?;
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "root_owner=0:0,lazy_itable_init=1"]);
    if let Some(content) = content {
        command.arg("-d").arg(content);
    }
    command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    Finished::of(command.arg(path))?.success("mkfs.ext4").map(drop)
}

fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context("cannot set a mode")
}

fn walk(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).context("cannot list the image's files")? {
        let entry = entry.context("cannot list the image's files")?;
        let metadata = fs::symlink_metadata(entry.path()).context("cannot look at the image's files")?;
        bytes += if metadata.is_dir() { walk(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
