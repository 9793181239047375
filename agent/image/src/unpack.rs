//! Writes a layer's members below one directory, in the form overlayfs wants its layers.
//!
//! Nothing is ever written outside: paths are relative and free of `..`, parents are opened with
//! `RESOLVE_BENEATH` (a symbolic link in the layer is followed only while it stays inside), and the last
//! component is created exclusively, never followed. A directory is never replaced by something else, so
//! a name that was checked stays what it was. Setuid bits stay: the store itself is reachable by the agent
//! alone, and a container's no_new_privs decides whether they count.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::archive::{Kind, Member};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What overlayfs reads as "hide what is below this directory".
const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";
const COPY_BUFFER: usize = 128 << 10;
/// Directories and whiteouts are remembered until the end of the layer: bytes of their paths, with what a
/// place in a list costs.
const MAX_REMEMBERED: usize = 16 << 20;

/// A directory that is being filled.
pub(crate) struct Unpacker {
    root: OwnedFd,
    /// Parent of the last member: most members share it with the next.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories' times are set last: each member written into one changes it.
    directory_times: Vec<(Vec<u8>, (i64, u32))>,
    /// Whiteouts seen, for a directory of the same name that comes later.
    whiteouts: HashSet<Vec<u8>>,
    remembered: usize,
    buffer: Vec<u8>,
}

impl Unpacker {
    /// `directory` must exist and be empty.
    pub(crate) fn new(directory: &Path) -> Result<Self, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, directory, flags, Mode::empty())
            .map_err(|e| format!("staging directory: {e}"))?;
        Ok(Self {
            root,
            parent: None,
            directory_times: Vec::new(),
            whiteouts: HashSet::new(),
            remembered: 0,
            buffer: vec![0; COPY_BUFFER],
        })
    }

    /// Writes one member.
    pub(crate) fn member(&mut self, member: &Member, data: &mut dyn Read) -> Result<(), String> {
        let path = normalised(&member.path)?;
        let Some((parent_path, name)) = split(&path) else {
            return self.root_member(member);
        };
        let parent = self.parent(parent_path)?;
        if name == OPAQUE {
            return set_opaque(&parent);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, parent_path, hidden);
        }
        match &member.kind {
            Kind::Directory => self.directory(&parent, &path, name, member)?,
            Kind::File(size) => {
                let file = self.file(&parent, name)?;
                self.copy(&file, *size, data)?;
                set_file_metadata(&file, member)?;
            }
            Kind::Sparse(sparse) => {
                let mut file = self.file(&parent, name)?;
                for segment in sparse.segments() {
                    file.seek(SeekFrom::Start(segment.offset)).map_err(|e| no_room("seek", &e))?;
                    self.copy(&file, segment.length, data)?;
                }
                // The last hole.
                file.set_len(sparse.size()).map_err(|e| no_room("size", &e))?;
                set_file_metadata(&file, member)?;
            }
            Kind::Symlink(target) => {
                if target.is_empty() {
                    return Err("a symbolic link without a target".into());
                }
                self.clear(&parent, name)?;
                rustix::fs::symlinkat(target.as_slice(), &parent, name)
                    .map_err(|e| format!("symbolic link: {e}"))?;
                set_metadata(&parent, name, member)?;
            }
            Kind::HardLink(target) => {
                let target = normalised(target).map_err(|e| format!("hard link: {e}"))?;
                let (target_parent, target_name) = split(&target).ok_or("a hard link to the root")?;
                let from = beneath(&self.root, target_parent).map_err(|e| format!("hard link: {e}"))?;
                // Linking a name to itself would first remove it.
                if target == path {
                    return Err("a hard link to itself".into());
                }
                self.clear(&parent, name)?;
                rustix::fs::linkat(&from, target_name, &parent, name, AtFlags::empty())
                    .map_err(|e| format!("hard link: {e}"))?;
            }
            Kind::Fifo => {
                self.clear(&parent, name)?;
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(&parent, name, FileType::Fifo, mode, 0)
                    .map_err(|e| format!("fifo: {e}"))?;
                set_metadata(&parent, name, member)?;
            }
        }
        self.parent = Some((parent_path.to_vec(), parent));
        Ok(())
    }

    /// Sets what had to wait until every member was written.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        for (path, mtime) in std::mem::take(&mut self.directory_times).into_iter().rev() {
            let directory = beneath(&self.root, &path)?;
            rustix::fs::utimensat(&directory, c"", &times(mtime), AtFlags::EMPTY_PATH)
                .map_err(|e| format!("directory time: {e}"))?;
        }
        Ok(())
    }

    fn remember(&mut self, path: &[u8]) -> Result<(), String> {
        self.remembered += path.len() + 64;
        if self.remembered > MAX_REMEMBERED {
            return Err(format!(
                "the paths of the layer's directories are longer than {MAX_REMEMBERED} bytes"
            ));
        }
        Ok(())
    }

    fn root_member(&mut self, member: &Member) -> Result<(), String> {
        if member.kind != Kind::Directory {
            return Err("the root can only be a directory".into());
        }
        let root = reopen(&self.root)?;
        set_open_metadata(&root, member)?;
        self.remember(b"")?;
        self.directory_times.push((Vec::new(), member.mtime));
        Ok(())
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        path: &[u8],
        name: &[u8],
        member: &Member,
    ) -> Result<(), String> {
        let mut opaque = false;
        match file_type(parent, name)? {
            Some(FileType::Directory) => {}
            existing => {
                if existing.is_some() {
                    self.clear(parent, name)?;
                }
                opaque = self.whiteouts.remove(path);
                let mode = Mode::from_raw_mode(0o700);
                rustix::fs::mkdirat(parent, name, mode).map_err(|e| format!("directory: {e}"))?;
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory =
            rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|e| format!("directory: {e}"))?;
        if opaque {
            set_opaque(&directory)?;
        }
        set_open_metadata(&directory, member)?;
        self.remember(path)?;
        self.directory_times.push((path.to_vec(), member.mtime));
        Ok(())
    }

    /// A new file, in the place of an earlier one.
    fn file(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<File, String> {
        self.clear(parent, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600));
        file.map(File::from).map_err(|e| no_room("file", &e.into()))
    }

    /// Writes the next `length` bytes of the data.
    fn copy(&mut self, mut file: &File, length: u64, data: &mut dyn Read) -> Result<(), String> {
        let mut left = length;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(COPY_BUFFER).min(COPY_BUFFER);
            let got = data.read(&mut self.buffer[..want]).map_err(|e| format!("tar stream: {e}"))?;
            if got == 0 {
                return Err(format!("tar stream: ended {left} bytes early"));
            }
            file.write_all(&self.buffer[..got]).map_err(|e| no_room("write", &e))?;
            left -= got as u64;
        }
        Ok(())
    }

    /// `.wh.NAME` hides NAME of the layers below: a character device 0:0 in overlayfs' form. Beside a
    /// directory of that name in the same layer it makes that directory opaque.
    fn whiteout(&mut self, parent: &OwnedFd, parent_path: &[u8], hidden: &[u8]) -> Result<(), String> {
        if hidden.is_empty() || hidden == b"." || hidden == b".." || hidden.starts_with(WHITEOUT) {
            return Err("a whiteout of no valid name".into());
        }
        match file_type(parent, hidden)? {
            None => {
                let mode = Mode::from_raw_mode(0);
                rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, mode, 0)
                    .map_err(|e| format!("whiteout: {e}"))?;
                let mut path = parent_path.to_vec();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(hidden);
                self.remember(&path)?;
                self.whiteouts.insert(path);
                Ok(())
            }
            Some(FileType::Directory) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(parent, hidden, flags, Mode::empty())
                    .map_err(|e| format!("whiteout: {e}"))?;
                set_opaque(&directory)
            }
            // The layer's own file hides what is below anyway.
            Some(_) => Ok(()),
        }
    }

    /// The directory at `path`, missing ones made as root's with mode 0755.
    fn parent(&mut self, path: &[u8]) -> Result<OwnedFd, String> {
        if let Some((cached, fd)) = self.parent.take()
            && cached == path
        {
            return Ok(fd);
        }
        match open_beneath(&self.root, path) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(explain(e)),
        }
        let mut so_far = 0;
        let mut at = beneath(&self.root, b"")?;
        for part in path.split(|b| *b == b'/') {
            so_far += part.len() + usize::from(so_far > 0);
            at = match open_beneath(&self.root, &path[..so_far]) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    let mode = Mode::from_raw_mode(0o755);
                    rustix::fs::mkdirat(&at, part, mode).map_err(|e| format!("parent directory: {e}"))?;
                    beneath(&self.root, &path[..so_far])?
                }
                Err(e) => return Err(explain(e)),
            };
        }
        Ok(at)
    }

    /// Removes an earlier member of this name. Directories stay: a layer that replaces one with something
    /// else is out to redirect the members that follow.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), String> {
        match file_type(parent, name)? {
            None => Ok(()),
            Some(FileType::Directory) => Err("replaces a directory of the same layer".into()),
            Some(_) => {
                self.parent = None;
                rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(|e| format!("replace: {e}"))
            }
        }
    }
}

/// The failure that people meet and can mend.
fn no_room(operation: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::StorageFull => {
            format!(
                "{operation}: the guest has no room left for images; give it more memory or use a smaller image"
            )
        }
        _ => format!("{operation}: {error}"),
    }
}

/// The path without `.` components and doubled slashes; the root is the empty path.
fn normalised(path: &[u8]) -> Result<Vec<u8>, String> {
    if path.starts_with(b"/") {
        return Err("absolute paths are not allowed".into());
    }
    let mut out = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("paths with .. are not allowed".into()),
            part if part.len() > 255 => return Err("a name longer than 255 bytes".into()),
            part => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(part);
            }
        }
    }
    Ok(out)
}

fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((b"", path)),
    }
}

fn open_beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    loop {
        // EAGAIN: a rename elsewhere made the kernel unsure; it says to try again.
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, String> {
    open_beneath(root, path).map_err(explain)
}

fn reopen(directory: &OwnedFd) -> Result<OwnedFd, String> {
    beneath(directory, b"")
}

fn explain(error: Errno) -> String {
    match error {
        Errno::XDEV | Errno::LOOP => "leads outside of the layer through a symbolic link".into(),
        Errno::NOTDIR => "its parent is not a directory".into(),
        other => format!("parent directory: {other}"),
    }
}

fn file_type(parent: &OwnedFd, name: &[u8]) -> Result<Option<FileType>, String> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(format!("status: {e}")),
    }
}

fn set_opaque(directory: &OwnedFd) -> Result<(), String> {
    rustix::fs::fsetxattr(directory, OVERLAY_OPAQUE, b"y", XattrFlags::empty())
        .map_err(|e| format!("opaque directory: {e}"))
}

/// Owner, mode and attributes of an open file or directory. Owner first: changing it clears setuid bits
/// and capabilities.
fn set_open_metadata(file: impl AsFd, member: &Member) -> Result<(), String> {
    let (uid, gid) = owner(member);
    rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(|e| format!("owner: {e}"))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(member.mode)).map_err(|e| format!("mode: {e}"))?;
    for (name, value) in &member.xattrs {
        let attempt = match xattr(name)? {
            Xattr::Skip => continue,
            Xattr::Set => rustix::fs::fsetxattr(&file, name.as_slice(), value, XattrFlags::empty()),
        };
        match attempt {
            Ok(()) => {}
            // tmpfs before Linux 6.6 has no user attributes; nothing in a container needs them to run.
            Err(Errno::NOTSUP) if name.starts_with(b"user.") => {}
            Err(e) => return Err(format!("extended attribute {}: {e}", crate::archive::printable(name))),
        }
    }
    Ok(())
}

fn set_file_metadata(file: &File, member: &Member) -> Result<(), String> {
    set_open_metadata(file, member)?;
    rustix::fs::futimens(file, &times(member.mtime)).map_err(|e| format!("file time: {e}"))
}

/// Owner, mode and time of something that can't be opened.
fn set_metadata(parent: &OwnedFd, name: &[u8], member: &Member) -> Result<(), String> {
    let (uid, gid) = owner(member);
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), nofollow).map_err(|e| format!("owner: {e}"))?;
    if member.kind == Kind::Fifo {
        // Exclusively made a moment ago in a directory that nobody else can reach.
        let mode = Mode::from_raw_mode(member.mode);
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(|e| format!("mode: {e}"))?;
    }
    for (name, _) in &member.xattrs {
        xattr(name)?;
    }
    rustix::fs::utimensat(parent, name, &times(member.mtime), nofollow).map_err(|e| format!("time: {e}"))
}

enum Xattr {
    Set,
    Skip,
}

/// Which extended attributes a layer may carry.
fn xattr(name: &[u8]) -> Result<Xattr, String> {
    match name {
        b"security.capability" => Ok(Xattr::Set),
        // Labels of the machine that built the image mean nothing to a guest without that module.
        b"security.selinux" | b"security.ima" | b"security.evm" => Ok(Xattr::Skip),
        user if user.starts_with(b"user.") && !user.starts_with(b"user.overlay.") => Ok(Xattr::Set),
        // trusted.overlay.* would redirect overlayfs; ACLs would say more than the mode that was checked.
        other => Err(format!("extended attribute {} is not allowed", crate::archive::printable(other))),
    }
}

fn owner(member: &Member) -> (Uid, Gid) {
    (Uid::from_raw(member.uid), Gid::from_raw(member.gid))
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "unpack_tool_tests.rs"]
mod tool_tests;
