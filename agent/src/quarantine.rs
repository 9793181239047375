//! Files that the host copies in (CopyFile): a bounded directory, never followed and never executed.
//!
//! Paths are resolved with openat2(2) beneath the directory, without symbolic links, so that no link
//! that the host made earlier leads out of it. A file becomes visible when its last byte has come.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::symlinkat;
use protocols::refusal::{Code, Refusal};

/// Where the stock runtime copies to; paths elsewhere are refused.
pub const SHARED: &str = "/run/kata-containers/shared/containers";

/// Bytes of all files together: standard files and ConfigMaps are at most 1 MiB each.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of one file.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Files, directories and links together.
const MAX_ENTRIES: usize = 4096;
/// Files whose last byte hasn't come yet.
const MAX_PARTIAL: usize = 64;
const MAX_DEPTH: usize = 16;
const MAX_PATH: usize = 1024;
/// Characters of a container's id in the Rust runtime's names.
const SHORT_ID: usize = 10;
/// Holds files until they are whole; the host can't name it.
const STAGE: &str = ".stage";

/// One CopyFile request.
#[derive(Debug)]
pub struct Copy<'a> {
    /// Absolute, below [`SHARED`].
    pub path: &'a str,
    /// Type and permissions as in stat(2).
    pub mode: u32,
    /// Size of the whole file in bytes.
    pub size: i64,
    /// Where `data` begins.
    pub offset: i64,
    /// This part.
    pub data: &'a [u8],
}

/// The directory and what was used of its bounds.
pub struct Quarantine {
    root: PathBuf,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    partial: HashMap<PathBuf, Partial>,
    next: u64,
    bytes: u64,
    entries: usize,
    /// Bytes beyond [`MAX_BYTES`] that the sealed spec grants.
    granted: u64,
}

struct Partial {
    staged: String,
    file: File,
    size: u64,
    written: u64,
}

impl Quarantine {
    /// An empty quarantine in the directory `root`.
    pub fn new(root: &Path) -> io::Result<Self> {
        crate::launch::private_dir(&root.join(STAGE))?;
        Ok(Self { root: root.to_owned(), books: Mutex::default() })
    }

    /// Takes one part of a file, a directory or a link.
    pub fn copy(&self, request: &Copy<'_>) -> Result<(), Refusal> {
        let path = relative(request.path)?;
        let mut books = self.books();
        match SFlag::from_bits_truncate(request.mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => self.directory(&mut books, &path),
            SFlag::S_IFLNK => self.link(&mut books, &path, request.data),
            // A client that sends permissions alone means a file.
            kind if kind == SFlag::S_IFREG || kind.is_empty() => self.part(&mut books, &path, request),
            _ => Err(denied("only files, directories and links are taken")),
        }
    }

    /// Files of at most `largest` bytes, whole, one after the other until `wanted` says yes.
    pub fn find(&self, largest: u64, mut wanted: impl FnMut(&[u8]) -> bool) -> io::Result<Option<Vec<u8>>> {
        let _books = self.books();
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() && entry.file_name() != STAGE {
                    directories.push(entry.path());
                } else if kind.is_file() && entry.metadata()?.len() <= largest {
                    let mut bytes = Vec::new();
                    File::open(entry.path())?.take(largest).read_to_end(&mut bytes)?;
                    if wanted(&bytes) {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Makes room for volumes that the sealed spec grants.
    pub fn grant(&self, bytes: u64) {
        self.books().granted = bytes;
    }

    /// Works with an entry while nothing changes in the quarantine.
    pub fn read<T>(&self, name: &str, work: impl FnOnce(&Path) -> T) -> T {
        let _books = self.books();
        work(&self.root.join(name))
    }

    /// Removes an entry, of plain names below the quarantine, with everything in it.
    pub fn remove(&self, path: &Path) {
        let mut books = self.books();
        if path.components().all(|part| matches!(part, Component::Normal(_))) {
            // What can't be removed still counts.
            let _ = self.drop_entry(&mut books, &self.root.join(path));
        }
    }

    /// How much was copied in, in bytes and entries.
    pub fn weight(&self) -> (u64, usize) {
        let books = self.books();
        (books.bytes, books.entries)
    }

    fn drop_entry(&self, books: &mut Books, path: &Path) -> io::Result<()> {
        let (bytes, entries) = weigh(path)?;
        match path.symlink_metadata()?.is_dir() {
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
        books.bytes = books.bytes.saturating_sub(bytes);
        books.entries = books.entries.saturating_sub(entries);
        Ok(())
    }

    /// Removes what was copied for a container: the runtimes' names begin with its id, or with as much of it
    /// as the Rust runtime takes.
    pub fn forget(&self, container: &str) -> io::Result<()> {
        let mut books = self.books();
        let short: String = container.chars().take(SHORT_ID).collect();
        let prefixes = [format!("{container}-"), format!("{short}-")];
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let begins = |prefix: &String| name.as_bytes().starts_with(prefix.as_bytes());
            if name == container || prefixes.iter().any(begins) {
                self.drop_entry(&mut books, &entry.path())?;
            }
        }
        Ok(())
    }

    fn part(&self, books: &mut Books, path: &Path, request: &Copy<'_>) -> Result<(), Refusal> {
        let (Ok(size), Ok(offset)) = (u64::try_from(request.size), u64::try_from(request.offset)) else {
            return Err(denied("size and offset must not be negative"));
        };
        if size > MAX_FILE {
            return Err(limit(&format!("a file of {size} bytes; at most {MAX_FILE} are taken")));
        }
        let end = offset.saturating_add(request.data.len() as u64);
        if end > size {
            return Err(denied("data beyond the file's size"));
        }
        if offset == 0 {
            if let Some(old) = books.partial.remove(path) {
                self.drop_partial(books, &old);
            }
            let new = self.stage(books, size)?;
            books.partial.insert(path.to_owned(), new);
        }
        let Some(partial) = books.partial.get_mut(path) else {
            return Err(denied("a file begins at offset 0"));
        };
        if partial.written != offset || partial.size != size {
            return Err(denied("parts of a file must follow each other"));
        }
        // At its place: a part that failed half-way is written again, not appended.
        partial.file.write_all_at(request.data, offset).map_err(|e| failed("writing", &e))?;
        partial.written = end;
        if end < size {
            return Ok(());
        }
        let Some(whole) = books.partial.remove(path) else {
            return Ok(());
        };
        let published = self.publish(books, path, &whole.staged);
        if published.is_err() {
            self.drop_partial(books, &whole);
        }
        published
    }

    fn stage(&self, books: &mut Books, size: u64) -> Result<Partial, Refusal> {
        if books.partial.len() >= MAX_PARTIAL {
            return Err(limit(&format!("more than {MAX_PARTIAL} unfinished files")));
        }
        let most = MAX_BYTES.saturating_add(books.granted);
        if books.bytes.saturating_add(size) > most {
            return Err(limit(&format!("more than {most} bytes")));
        }
        reserve(books)?;
        let staged = books.next.to_string();
        books.next += 1;
        let file = File::create(self.root.join(STAGE).join(&staged)).map_err(|e| failed("making a file", &e));
        let file = file.inspect_err(|_| books.entries -= 1)?;
        books.bytes += size;
        Ok(Partial { staged, file, size, written: 0 })
    }

    fn drop_partial(&self, books: &mut Books, partial: &Partial) {
        books.bytes = books.bytes.saturating_sub(partial.size);
        books.entries = books.entries.saturating_sub(1);
        let _ = fs::remove_file(self.root.join(STAGE).join(&partial.staged));
    }

    /// Moves a staged entry to its place; what it replaces leaves the books.
    fn publish(&self, books: &mut Books, path: &Path, staged: &str) -> Result<(), Refusal> {
        let (parent, name) = self.parent(books, path)?;
        let stage = self.open(Path::new(STAGE))?;
        let old = fstatat(&parent, name.as_path(), AtFlags::AT_SYMLINK_NOFOLLOW).ok();
        match renameat(&stage, staged, &parent, name.as_path()) {
            Ok(()) => {}
            Err(Errno::EISDIR | Errno::ENOTEMPTY | Errno::EEXIST) => {
                return Err(denied("a directory stands where the file should go"));
            }
            Err(errno) => return Err(failed("publishing", &errno)),
        }
        if let Some(old) = old {
            books.entries = books.entries.saturating_sub(1);
            if SFlag::from_bits_truncate(old.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG {
                books.bytes = books.bytes.saturating_sub(u64::try_from(old.st_size).unwrap_or(0));
            }
        }
        Ok(())
    }

    fn link(&self, books: &mut Books, path: &Path, target: &[u8]) -> Result<(), Refusal> {
        let text = std::str::from_utf8(target).map_err(|_| denied("a link's target must be UTF-8"))?;
        let target = Path::new(text);
        let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
        if text.is_empty() || text.len() > MAX_PATH || text.contains('\0') || !target.components().all(plain)
        {
            return Err(denied("a link must point below its own directory"));
        }
        reserve(books)?;
        let staged = books.next.to_string();
        books.next += 1;
        let made = self
            .open(Path::new(STAGE))
            .and_then(|stage| {
                symlinkat(target, &stage, staged.as_str()).map_err(|e| failed("making a link", &e))
            })
            .and_then(|()| self.publish(books, path, &staged));
        if made.is_err() {
            books.entries -= 1;
            let _ = fs::remove_file(self.root.join(STAGE).join(&staged));
        }
        made
    }

    fn directory(&self, books: &mut Books, path: &Path) -> Result<(), Refusal> {
        let (parent, name) = self.parent(books, path)?;
        make_directory(books, &parent, &name)
    }

    /// Opens the directory that `path` is in, making what is missing.
    fn parent(&self, books: &mut Books, path: &Path) -> Result<(OwnedFd, PathBuf), Refusal> {
        let name = path.file_name().map(PathBuf::from).ok_or_else(|| denied("no file name"))?;
        let mut reached = PathBuf::new();
        let mut directory = self.open(Path::new("."))?;
        for component in path.parent().into_iter().flat_map(Path::components) {
            make_directory(books, &directory, Path::new(&component))?;
            reached.push(component);
            directory = self.open(&reached)?;
        }
        Ok((directory, name))
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Refusal> {
        let root = Dir::open(&self.root, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| failed("opening the quarantine", &e))?;
        let how = OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV,
        );
        openat2(&root, path, how).map_err(|errno| match errno {
            Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV => denied("the path leads through a link or a file"),
            errno => failed("opening a directory", &errno),
        })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_directory(books: &mut Books, parent: &OwnedFd, name: &Path) -> Result<(), Refusal> {
    reserve(books)?;
    match mkdirat(parent, name, Mode::from_bits_truncate(0o700)) {
        Ok(()) => Ok(()),
        Err(errno) => {
            books.entries -= 1;
            match errno {
                Errno::EEXIST => Ok(()),
                errno => Err(failed("making a directory", &errno)),
            }
        }
    }
}

fn reserve(books: &mut Books) -> Result<(), Refusal> {
    if books.entries >= MAX_ENTRIES {
        return Err(limit(&format!("more than {MAX_ENTRIES} entries")));
    }
    books.entries += 1;
    Ok(())
}

/// The path below the quarantine, of plain names only.
fn relative(path: &str) -> Result<PathBuf, Refusal> {
    let below = path.strip_prefix(SHARED).and_then(|rest| rest.strip_prefix('/'));
    let Some(below) = below.filter(|below| !below.is_empty()) else {
        return Err(denied(format!("the path is not below {SHARED}")));
    };
    if path.len() > MAX_PATH || path.contains('\0') {
        return Err(denied("the path is too long or holds a NUL"));
    }
    let names: Vec<&str> = below.trim_end_matches('/').split('/').collect();
    // Path::components would normalise `a//b` and `a/./b`, which no honest client sends.
    if names.iter().any(|name| matches!(*name, "" | "." | "..")) || names.first() == Some(&STAGE) {
        return Err(denied(
            "the path has empty, '.' or '..' components, or leads to the agent's own directory",
        ));
    }
    if names.len() > MAX_DEPTH || names.iter().any(|name| name.len() > 255) {
        return Err(denied("the path is too deep or a name too long"));
    }
    Ok(names.iter().collect())
}

fn weigh(path: &Path) -> io::Result<(u64, usize)> {
    let metadata = path.symlink_metadata()?;
    if !metadata.is_dir() {
        return Ok((if metadata.is_file() { metadata.len() } else { 0 }, 1));
    }
    let mut total = (0, 1);
    for entry in fs::read_dir(path)? {
        let (bytes, entries) = weigh(&entry?.path())?;
        total = (total.0 + bytes, total.1 + entries);
    }
    Ok(total)
}

fn denied(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::CopyDenied, format!("CopyFile: {}", detail.into()))
}

fn limit(detail: &str) -> Refusal {
    Refusal::new(Code::CopyLimit, format!("CopyFile: {detail}"))
}

fn failed(step: &str, error: &dyn std::error::Error) -> Refusal {
    Refusal::new(Code::CopyDenied, format!("CopyFile: {step}: {error}"))
}

#[cfg(test)]
#[path = "quarantine_tests.rs"]
mod tests;
