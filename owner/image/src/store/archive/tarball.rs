//! Where the files of a tar file are, without unpacking any of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path};
use std::sync::Arc;

/// Most members that are looked at: the largest images have a few hundred.
const MEMBERS: usize = 100_000;
/// Links that lead to links.
const LINKS: usize = 8;

/// A tar file, indexed.
pub(super) struct Tarball {
    file: Arc<File>,
    members: BTreeMap<String, Member>,
}

enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

impl Tarball {
    /// Reads all headers.
    pub(super) fn open(file: File) -> io::Result<Self> {
        let mut members = BTreeMap::new();
        let mut archive = tar::Archive::new(&file);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let Some(path) = entry.path()?.to_str().and_then(plain) else { continue };
            let kind = entry.header().entry_type();
            let member = if kind.is_file() || kind.is_contiguous() {
                Member::File { offset: entry.raw_file_position(), size: entry.size() }
            } else if kind.is_symlink() || kind.is_hard_link() {
                let Some(target) = entry.link_name()?.and_then(|target| target.to_str().map(str::to_owned))
                else {
                    continue;
                };
                let base =
                    if kind.is_symlink() { path.rsplit_once('/').map_or("", |(base, _)| base) } else { "" };
                match plain(&format!("{base}/{target}")) {
                    Some(target) => Member::Link(target),
                    None => continue,
                }
            } else {
                continue;
            };
            members.insert(path, member);
            if members.len() > MEMBERS {
                return Err(io::Error::other(format!("more than {MEMBERS} members")));
            }
        }
        Ok(Self { file: Arc::new(file), members })
    }

    /// Where a file is, links followed: offset and size.
    pub(super) fn find(&self, path: &str) -> Option<(u64, u64)> {
        let mut path = plain(path)?;
        for _ in 0..LINKS {
            match self.members.get(&path)? {
                Member::File { offset, size } => return Some((*offset, *size)),
                Member::Link(target) => path.clone_from(target),
            }
        }
        None
    }

    /// Reads from there.
    pub(super) fn reader(&self, (offset, size): (u64, u64)) -> Portion {
        Portion { file: Arc::clone(&self.file), offset, left: size }
    }

    /// A small file, whole.
    pub(super) fn small(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(place) = self.find(path) else { return Ok(None) };
        if place.1 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{path} is longer than {limit} bytes"),
            ));
        }
        let mut bytes = Vec::new();
        self.reader(place).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// `./a/../b/c` is `b/c`; what leaves the archive is nothing.
fn plain(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path.trim_start_matches('/')).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()?),
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// Part of a file, read apart from other readers of it.
pub(super) struct Portion {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Portion {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
