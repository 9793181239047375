//! ConfigMap and Secret directories (driver `watchable-bind`): a shared directory has no inotify, so it is
//! looked at every two seconds and copied into guest memory, where programs can watch it. One that is too
//! large for that is bound instead, as the stock agent does.
//!
//! The source is the host's: it is opened without following links, read with bounds, and nothing but plain
//! files, directories and links is copied. Links are copied as such; kubelet's `..data` is changed by a
//! rename, after what it points to is there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use crate::error::StorageError;
use crate::mount::{bind, unmount};
use crate::path;

/// Files, directories and links of one source.
const MAX_ENTRIES: usize = 16;
/// Bytes of one source.
const MAX_BYTES: u64 = 1024 * 1024;
const MAX_DEPTH: usize = 8;
const INTERVAL: Duration = Duration::from_secs(2);
/// What a new version of an entry is called until it takes its place.
const NEXT: &str = "..sealpod-next";

/// Copies what changes.
#[derive(Default)]
pub struct Watcher {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pairs: Mutex<Books>,
    wake: Condvar,
}

#[derive(Default)]
struct Books {
    pairs: BTreeMap<PathBuf, Pair>,
    running: bool,
}

struct Pair {
    source: PathBuf,
    seen: Tree,
    /// Too large to be copied: bound.
    bound: bool,
}

/// What an entry looked like: enough to see that it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    changed: (i64, i64),
    inode: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link(PathBuf),
}

/// Entries by their path below the source; the source itself is the empty path.
type Tree = BTreeMap<PathBuf, Look>;

/// Why a source can't be copied.
enum TreeError {
    TooLarge,
    Io(io::Error),
}

impl From<io::Error> for TreeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Watcher {
    /// Copies `source` to `target` and keeps doing so.
    pub fn add(&self, source: &Path, target: &Path) -> Result<(), StorageError> {
        let failed = |e| StorageError::kernel("copying", source, e);
        let mut pair = Pair { source: source.to_owned(), seen: Tree::new(), bound: false };
        match pair.update(target) {
            Ok(()) => {}
            Err(TreeError::TooLarge) => pair.bind(target)?,
            Err(TreeError::Io(error)) => {
                let _ = remove(target);
                return Err(failed(error));
            }
        }
        let mut books = self.shared.books();
        books.pairs.insert(target.to_owned(), pair);
        if !books.running {
            books.running = true;
            let shared = Arc::downgrade(&self.shared);
            let named = std::thread::Builder::new().name("watcher".into()).stack_size(128 * 1024);
            if let Err(error) = named.spawn(move || watch(&shared)) {
                books.running = false;
                books.pairs.remove(target);
                return Err(failed(error));
            }
        }
        Ok(())
    }

    /// Forgets a pair and removes the copy.
    pub fn remove(&self, target: &Path) {
        let pair = self.shared.books().pairs.remove(target);
        if pair.is_some_and(|pair| pair.bound) {
            let _ = unmount(target);
        }
        let _ = remove(target);
        self.shared.wake.notify_all();
    }

    /// Looks at every source now.
    pub fn look(&self) {
        self.shared.look();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.books().pairs.clear();
        self.shared.wake.notify_all();
    }
}

/// Until nothing is left to watch.
fn watch(shared: &Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let books = shared.books();
        let waited = shared.wake.wait_timeout_while(books, INTERVAL, |books| !books.pairs.is_empty());
        let (mut books, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if books.pairs.is_empty() {
            books.running = false;
            return;
        }
        drop(books);
        shared.look();
    }
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A source that can't be read now may be read at the next look.
    fn look(&self) {
        let mut books = self.books();
        for (target, pair) in books.pairs.iter_mut().filter(|(_, pair)| !pair.bound) {
            if let Err(TreeError::TooLarge) = pair.update(target) {
                let _ = remove(target);
                let _ = pair.bind(target);
            }
        }
    }
}

impl Pair {
    /// Brings the copy up to date.
    fn update(&mut self, target: &Path) -> Result<(), TreeError> {
        let now = read_tree(&self.source)?;
        if now == self.seen {
            return Ok(());
        }
        let changed = |path: &Path, look: &Look| self.seen.get(path) != Some(look);
        // Directories and files first, links after what they point to; shorter paths come first by order.
        for links in [false, true] {
            for (path, look) in &now {
                if matches!(look.kind, Kind::Link(_)) == links && changed(path, look) {
                    place(&self.source, target, path, look)?;
                }
            }
        }
        for (path, _) in self.seen.iter().rev().filter(|(path, _)| !now.contains_key(*path)) {
            remove(&target.join(path))?;
        }
        self.seen = now;
        Ok(())
    }

    fn bind(&mut self, target: &Path) -> Result<(), StorageError> {
        if self.source.is_dir() {
            path::make_dirs(target, 0o755)?;
        } else {
            File::create(target).map_err(|e| StorageError::kernel("making", target, e))?;
        }
        bind(&self.source, target)?;
        self.bound = true;
        Ok(())
    }
}

/// What is there, without following a link.
fn read_tree(source: &Path) -> Result<Tree, TreeError> {
    let mut tree = Tree::new();
    let mut bytes = 0u64;
    let mut waiting = vec![(PathBuf::new(), 0)];
    while let Some((path, depth)) = waiting.pop() {
        let full = if path.as_os_str().is_empty() { source.to_owned() } else { source.join(&path) };
        let metadata = match full.symlink_metadata() {
            // It went while it was being looked at.
            Err(e) if e.kind() == io::ErrorKind::NotFound && depth > 0 => continue,
            metadata => metadata?,
        };
        let kind = if metadata.is_dir() {
            if depth >= MAX_DEPTH {
                return Err(TreeError::TooLarge);
            }
            let directory = open_beneath(source, &path, OFlag::O_DIRECTORY)?;
            for entry in fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))? {
                waiting.push((path.join(entry?.file_name()), depth + 1));
                if waiting.len() + tree.len() > MAX_ENTRIES {
                    return Err(TreeError::TooLarge);
                }
            }
            Kind::Directory
        } else if metadata.is_symlink() {
            Kind::Link(fs::read_link(&full)?)
        } else if metadata.is_file() {
            Kind::File
        } else {
            // Devices, sockets and pipes are no configuration.
            continue;
        };
        if kind == Kind::File {
            bytes += metadata.len();
        }
        let look = Look {
            kind,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            size: metadata.len(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
            inode: metadata.ino(),
        };
        tree.insert(path, look);
        if tree.len() > MAX_ENTRIES || bytes > MAX_BYTES {
            return Err(TreeError::TooLarge);
        }
    }
    Ok(tree)
}

/// Opens what is at `path` below the source, through no link: it may have become one since it was seen.
fn open_beneath(source: &Path, path: &Path, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    if path.as_os_str().is_empty() {
        return Ok(nix::fcntl::open(source, flags | OFlag::O_NOFOLLOW, Mode::empty())?.into());
    }
    let top = nix::fcntl::open(source, OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())?;
    let how =
        OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(openat2(&top, path, how)?.into())
}

/// Puts one entry in its place, by a rename where it replaces another.
fn place(source: &Path, target: &Path, path: &Path, look: &Look) -> io::Result<()> {
    let top = path.as_os_str().is_empty();
    let to = if top { target.to_owned() } else { target.join(path) };
    match &look.kind {
        Kind::Directory => {
            match fs::create_dir(&to) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && to.symlink_metadata()?.is_dir() => {}
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    remove(&to)?;
                    fs::create_dir(&to)?;
                }
                made => made?,
            }
            chown(&to, Some(look.owner.0), Some(look.owner.1))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(look.mode))
        }
        Kind::Link(points_to) => {
            let next = to.with_file_name(NEXT);
            let _ = fs::remove_file(&next);
            symlink(points_to, &next)?;
            lchown(&next, Some(look.owner.0), Some(look.owner.1))?;
            replace(&next, &to)
        }
        Kind::File => {
            let next = to.with_file_name(NEXT);
            let _ = fs::remove_file(&next);
            let input = open_beneath(source, path, OFlag::O_NONBLOCK)?;
            if !input.metadata()?.is_file() {
                return Err(io::Error::other("a file became something else"));
            }
            let mut output = File::options().write(true).create_new(true).mode(0o600).open(&next)?;
            io::copy(&mut input.take(MAX_BYTES), &mut output)?;
            chown(&next, Some(look.owner.0), Some(look.owner.1))?;
            output.set_permissions(fs::Permissions::from_mode(look.mode))?;
            replace(&next, &to)
        }
    }
}

/// Renames over whatever is there.
fn replace(next: &Path, to: &Path) -> io::Result<()> {
    if to.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        fs::remove_dir_all(to)?;
    }
    fs::rename(next, to)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
