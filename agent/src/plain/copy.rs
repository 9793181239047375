//! CopyFile on the plain path: files, directories and links below the runtime's shared directory. Paths are
//! resolved by openat2(2) with that directory as root, as the runtime's own links expect it, so no link and
//! no `..` leads out of it. A file becomes visible when its last byte has come.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat};
use protocols::agent as wire;

use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::quarantine::SHARED;

/// A directory that the host gives no mode.
const DIRECTORY: u32 = 0o750;
const MAX_PATH: usize = 4095;
const MAX_DEPTH: usize = 64;
/// Of what replaces a directory.
const MAX_REMOVED: usize = 100_000;

impl Agent {
    /// Puts a file where the host says, below its shared directory.
    pub async fn copy_plain(self: &Arc<Self>, request: wire::CopyFileRequest) -> Result<()> {
        let root = self.paths.quarantine.clone();
        super::blocking(move || copy(&root, &request)).await
    }
}

/// Where a copy goes.
struct Place {
    directory: OwnedFd,
    name: PathBuf,
}

fn copy(root: &Path, request: &wire::CopyFileRequest) -> Result<()> {
    let names = names(&request.path)?;
    let kind = SFlag::from_bits_truncate(request.file_mode) & SFlag::S_IFMT;
    let (Ok(size), Ok(offset)) = (u64::try_from(request.file_size), u64::try_from(request.offset)) else {
        return Err(refused("size and offset are not negative"));
    };
    let is_file = kind == SFlag::S_IFREG || kind.is_empty();
    if !is_file && kind != SFlag::S_IFDIR && kind != SFlag::S_IFLNK {
        return Err(refused("only files, directories and links are copied"));
    }
    if is_file && offset.checked_add(request.data.len() as u64).is_none_or(|end| end > size) {
        return Err(refused("data beyond the file's size"));
    }
    if kind == SFlag::S_IFLNK && (request.data.is_empty() || request.data.contains(&0)) {
        return Err(refused("a link's target is empty or holds a NUL"));
    }
    let place = place(root, &names, request.dir_mode & 0o7777)?;
    let owner = Owner { uid: id(request.uid).map(Uid::from_raw), gid: id(request.gid).map(Gid::from_raw) };
    let mode = Mode::from_bits_truncate(request.file_mode & 0o7777);
    match kind {
        SFlag::S_IFDIR => place.directory(mode, owner),
        SFlag::S_IFLNK => place.link(&request.data, owner),
        _ => place.part(&request.data, offset, size, mode, owner),
    }
}

#[derive(Clone, Copy)]
struct Owner {
    uid: Option<Uid>,
    gid: Option<Gid>,
}

/// -1 leaves it as it is, as for chown(2).
fn id(number: i32) -> Option<u32> {
    (number != -1).then_some(number.cast_unsigned())
}

impl Place {
    fn directory(&self, mode: Mode, owner: Owner) -> Result<()> {
        match unlinkat(&self.directory, &self.name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT | Errno::EISDIR) => {}
            Err(errno) => return Err(failed("replacing a file", errno)),
        }
        match mkdirat(&self.directory, &self.name, Mode::from_bits_truncate(0o700)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed("making a directory", errno)),
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let made = openat(&self.directory, &self.name, flags, Mode::empty())
            .map_err(|errno| failed("opening a directory", errno))?;
        fchown(&made, owner.uid, owner.gid).map_err(|errno| failed("giving a directory away", errno))?;
        fchmod(&made, mode).map_err(|errno| failed("setting a mode", errno))
    }

    /// Made beside its place and moved there: kubelet's `..data` is never missing.
    fn link(&self, target: &[u8], owner: Owner) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let next = self.beside();
        remove_file(&self.directory, &next)?;
        let target = std::ffi::OsStr::from_bytes(target);
        symlinkat(target, &self.directory, &next).map_err(|errno| failed("making a link", errno))?;
        fchownat(&self.directory, &next, owner.uid, owner.gid, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| failed("giving a link away", errno))?;
        self.replace(&next)
    }

    fn part(&self, data: &[u8], offset: u64, size: u64, mode: Mode, owner: Owner) -> Result<()> {
        let next = self.beside();
        let mut flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if offset == 0 {
            remove_file(&self.directory, &next)?;
            flags |= OFlag::O_EXCL;
        }
        let file = openat(&self.directory, &next, flags, Mode::from_bits_truncate(0o600))
            .map_err(|errno| failed("making a file", errno))?;
        let file = File::from(file);
        let io = |e: io::Error| Error::Internal(format!("CopyFile: writing: {}", e.kind()));
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(refused("something else stands where the file is being made"));
        }
        file.write_all_at(data, offset).map_err(io)?;
        if metadata.len().max(offset + data.len() as u64) < size {
            return Ok(());
        }
        fchown(&file, owner.uid, owner.gid).map_err(|errno| failed("giving a file away", errno))?;
        // After the change of owner, which takes set-id bits away.
        fchmod(&file, mode).map_err(|errno| failed("setting a mode", errno))?;
        self.replace(&next)
    }

    fn replace(&self, next: &Path) -> Result<()> {
        match renameat(&self.directory, next, &self.directory, &self.name) {
            Err(Errno::EISDIR | Errno::ENOTEMPTY | Errno::EEXIST) => {
                let mut left = MAX_REMOVED;
                remove_tree(&self.directory, &self.name, &mut left, 0)?;
                renameat(&self.directory, next, &self.directory, &self.name)
            }
            moved => moved,
        }
        .map_err(|errno| failed("putting it in its place", errno))
    }

    /// What a thing is called until it is whole.
    fn beside(&self) -> PathBuf {
        let mut name = self.name.clone().into_os_string();
        name.push(".tmp");
        name.into()
    }
}

fn remove_file(directory: &OwnedFd, name: &Path) -> Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(failed("removing what was left", errno)),
    }
}

/// Follows no link, and has an end.
fn remove_tree(parent: &OwnedFd, name: &Path, left: &mut usize, depth: usize) -> Result<()> {
    let failed = |errno| failed("removing a directory", errno);
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let opened = openat(parent, name, flags, Mode::empty()).map_err(failed)?;
    let again = opened.try_clone().map_err(|e| Error::Internal(format!("CopyFile: {}", e.kind())))?;
    let mut entries = Dir::from_fd(again).map_err(failed)?;
    for entry in entries.iter() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        *left = left.checked_sub(1).ok_or_else(|| refused("the directory to be replaced is too large"))?;
        match unlinkat(&opened, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {}
            Err(Errno::EISDIR) if depth < MAX_DEPTH && entry.file_type() != Some(Type::Symlink) => {
                use std::os::unix::ffi::OsStrExt;
                let name = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
                remove_tree(&opened, name, left, depth + 1)?;
            }
            Err(errno) => return Err(failed(errno)),
        }
    }
    unlinkat(parent, name, UnlinkatFlags::RemoveDir).map_err(failed)
}

/// Opens the directory that the last name is in, making what is missing.
fn place(root: &Path, names: &[&str], mode: u32) -> Result<Place> {
    let (name, above) = names.split_last().ok_or_else(|| refused("no file name"))?;
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let top = nix::fcntl::open(root, flags, Mode::empty())
        .map_err(|e| failed("opening the shared directory", e))?;
    let mode = Mode::from_bits_truncate(if mode == 0 { DIRECTORY } else { mode });
    let mut reached = PathBuf::new();
    let mut directory = open(&top, Path::new(".")).map_err(|e| failed("opening the shared directory", e))?;
    for name in above {
        reached.push(name);
        directory = match open(&top, &reached) {
            Err(Errno::ENOENT) => {
                match mkdirat(&directory, *name, mode) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(failed("making a directory", errno)),
                }
                let made = open(&top, &reached).map_err(|e| failed("opening a directory", e))?;
                // The agent's own umask isn't the host's.
                fchmod(made.as_fd(), mode).map_err(|e| failed("setting a mode", e))?;
                made
            }
            opened => opened.map_err(|e| failed("opening a directory", e))?,
        };
    }
    Ok(Place { directory, name: PathBuf::from(name) })
}

fn open(top: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(top, path, how)
}

/// Names below the shared directory.
fn names(path: &str) -> Result<Vec<&str>> {
    let below = path.strip_prefix(SHARED).and_then(|rest| rest.strip_prefix('/'));
    let below = below.ok_or_else(|| refused(&format!("the path is not below {SHARED}")))?;
    if path.len() > MAX_PATH || path.contains('\0') {
        return Err(refused("the path is longer than 4095 bytes or holds a NUL"));
    }
    let names: Vec<&str> = below.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if names.is_empty() || names.len() > MAX_DEPTH || names.contains(&"..") {
        return Err(refused("the path names no file, leads up, or is too deep"));
    }
    Ok(names)
}

fn refused(reason: &str) -> Error {
    Error::Internal(format!("CopyFile: {reason}"))
}

fn failed(step: &'static str, errno: Errno) -> Error {
    Error::Internal(format!("CopyFile: {step}: {}", errno.desc()))
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
