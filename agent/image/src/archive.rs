//! A layer's tar stream (image-spec, "Layer"; POSIX pax; GNU tar): members with their long names, owners,
//! times, holes and extended attributes, every length bounded. Says nothing about where a member may be
//! written. Where readers could disagree about what a stream holds, it is refused.

use std::io::{self, Read};

use crate::header::{self, BLOCK, Header};
use crate::pax::{self, Record};
use crate::sparse::{self, Map, Sparse};

/// Long names and pax records of one member, bytes.
const MAX_EXTENSION: u64 = 1 << 20;
/// PATH_MAX of Linux, with its NUL.
const MAX_PATH: usize = 4095;
/// What eleven octal digits hold: writers state larger sizes in a pax record and anything in the header.
const MAX_OCTAL: u64 = 0o77_777_777_777;

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// Regular file with this many bytes.
    File(u64),
    /// Regular file with holes; the data is that of its segments.
    Sparse(Sparse),
    /// Symbolic link with this target, verbatim.
    Symlink(Vec<u8>),
    /// Another name for an earlier member.
    HardLink(Vec<u8>),
    Fifo,
}

/// One member of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Path as written, at most 4095 bytes, no NUL.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Extended attributes as pax records gave them, each name once.
    pub(crate) xattrs: Vec<Record>,
}

/// Visits each member in order with its data. The reader is left after the archive's end marker.
pub(crate) fn read<R: Read>(
    mut reader: R,
    max_entries: u64,
    mut visit: impl FnMut(&Member, &mut dyn Read) -> Result<(), String>,
) -> Result<(), String> {
    let mut extensions = Extensions::default();
    let mut count = 0u64;
    while let Some(header) = next_header(&mut reader)? {
        count += 1;
        if count > max_entries {
            return Err(format!("more than {max_entries} entries"));
        }
        let size = header.size()?;
        match header.kind() {
            b'L' => extensions.long_name = Some(extension(&mut reader, size)?),
            b'K' => extensions.long_link = Some(extension(&mut reader, size)?),
            b'x' => extensions.pax(&extension(&mut reader, size)?)?,
            b'g' => pax::global(&extension(&mut reader, size)?)?,
            _ => {
                let stored = extensions.stored(&header, size)?;
                let (old_sparse, extensions) =
                    (old_sparse(&header, &mut reader)?, std::mem::take(&mut extensions));
                let mut data = reader.by_ref().take(stored);
                let member = extensions.member(&header, &mut data, stored, old_sparse)?;
                let named = |e: String| format!("{}: {e}", printable(&member.path));
                visit(&member, &mut data).map_err(named)?;
                finish(&mut data, stored).map_err(named)?;
            }
        }
    }
    if extensions.is_empty() { Ok(()) } else { Err("tar stream: ended after a header for a member".into()) }
}

/// The next header, or `None` at the end: two blocks of zeros, or where the stream ends.
fn next_header(reader: &mut impl Read) -> Result<Option<Header>, String> {
    let Some(block) = next_block(reader)? else { return Ok(None) };
    if block != [0; BLOCK] {
        return Header::check(block).map(Some).map_err(|e| format!("tar stream: {e}"));
    }
    match next_block(reader)? {
        None | Some([0, ..]) => Ok(None),
        Some(_) => Err("tar stream: goes on after a block of zeros".into()),
    }
}

fn next_block(reader: &mut impl Read) -> Result<Option<[u8; BLOCK]>, String> {
    let mut block = [0; BLOCK];
    let mut have = 0;
    while have < BLOCK {
        match reader.read(&mut block[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err("tar stream: ended in a block".into()),
            Ok(read) => have += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("tar stream: {e}")),
        }
    }
    Ok(Some(block))
}

/// Passes what is left of a member's data, and its padding.
fn finish<R: Read>(data: &mut io::Take<R>, stored: u64) -> Result<(), String> {
    io::copy(data, &mut io::sink()).map_err(|e| format!("tar stream: {e}"))?;
    if data.limit() > 0 {
        return Err(format!("tar stream: ended {} bytes early", data.limit()));
    }
    let padding = stored.next_multiple_of(BLOCK as u64) - stored;
    let reader = data.get_mut();
    let passed =
        io::copy(&mut reader.take(padding), &mut io::sink()).map_err(|e| format!("tar stream: {e}"))?;
    if passed == padding { Ok(()) } else { Err("tar stream: ended in a block".into()) }
}

/// A path for a message: host-visible text, so no control characters.
pub(crate) fn printable(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    format!("{:?}", text.chars().take(200).collect::<String>())
}

fn extension(reader: &mut impl Read, size: u64) -> Result<Vec<u8>, String> {
    if size > MAX_EXTENSION {
        return Err(format!(
            "a long name or pax header of {size} bytes, at most {MAX_EXTENSION} are allowed"
        ));
    }
    let mut data = Vec::new();
    let mut taken = reader.take(size);
    taken.read_to_end(&mut data).map_err(|e| format!("tar stream: {e}"))?;
    finish(&mut taken, size)?;
    Ok(data)
}

/// The map of GNU's old form, which goes on in blocks after the header.
fn old_sparse(header: &Header, reader: &mut impl Read) -> Result<Option<Map>, String> {
    if header.kind() != b'S' {
        return Ok(None);
    }
    if !header.is_gnu() {
        return Err("a sparse file without GNU's magic".into());
    }
    let (mut segments, mut more) = header.segments()?;
    while more {
        let block = next_block(reader)?.ok_or("tar stream: ended in a header")?;
        let (next, again) = header::more_segments(&block)?;
        segments.extend(next);
        // A block that adds none could be repeated for ever.
        sparse::few_enough(segments.len())?;
        more = again;
        if more && block[0] == 0 {
            return Err("malformed map of a sparse file".into());
        }
    }
    Ok(Some(Map::Known { size: header.real_size()?, segments }))
}

/// What the headers before a member said about it.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    mtime: Option<(i64, u32)>,
    sparse: sparse::Records,
    sparse_name: Option<Vec<u8>>,
    xattrs: Vec<Record>,
    any: bool,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        !self.any && self.long_name.is_none() && self.long_link.is_none()
    }

    fn pax(&mut self, data: &[u8]) -> Result<(), String> {
        self.any = true;
        for (key, value) in pax::records(data)? {
            match key.as_slice() {
                b"path" => self.path = Some(value),
                b"linkpath" => self.link = Some(value),
                b"uid" => self.uid = Some(pax::number(&value)?),
                b"gid" => self.gid = Some(pax::number(&value)?),
                b"size" => self.size = Some(pax::number(&value)?),
                b"mtime" => self.mtime = Some(pax::time(&value)?),
                b"GNU.sparse.name" => self.sparse_name = Some(value),
                sparse if sparse.starts_with(b"GNU.sparse.") => {
                    self.sparse.record(&sparse[b"GNU.sparse.".len()..], &value)?;
                }
                // Names of users, access times, comments and vendors' records don't describe content.
                other => {
                    if let Some(xattr) = pax::xattr(other, &value)? {
                        self.xattr(xattr)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, xattr: Record) -> Result<(), String> {
        match self.xattrs.iter().find(|(name, _)| *name == xattr.0) {
            None => self.xattrs.push(xattr),
            Some(known) if *known == xattr => {}
            Some((name, _)) => return Err(format!("extended attribute {} with two values", printable(name))),
        }
        Ok(())
    }

    /// Bytes that follow the header. A pax record says more only where the header can't.
    fn stored(&self, header: &Header, size: u64) -> Result<u64, String> {
        match self.size {
            Some(pax) if pax != size && pax <= MAX_OCTAL => {
                let path = self.path.clone().unwrap_or_else(|| header.path());
                Err(format!("{}: the pax size differs from the header's", printable(&path)))
            }
            Some(pax) => Ok(pax),
            None => Ok(size),
        }
    }

    fn member(
        self,
        header: &Header,
        data: &mut impl Read,
        stored: u64,
        old_sparse: Option<Map>,
    ) -> Result<Member, String> {
        let path = self.sparse_name.or(self.path).or_else(|| self.long_name.as_deref().map(until_nul));
        let path = checked(path.unwrap_or_else(|| header.path()), "path")?;
        let named = |e: String| format!("{}: {e}", printable(&path));
        let link = self.link.or_else(|| self.long_link.as_deref().map(until_nul));
        let link = || checked(link.unwrap_or_else(|| header.link()), "link target").map_err(named);
        let map = match (self.sparse.finish().map_err(named)?, old_sparse) {
            (Some(_), Some(_)) => return Err(named("a sparse file in two forms".into())),
            (pax, old) => pax.or(old),
        };
        let regular = matches!(header.kind(), b'0' | b'7' | b'S' | 0);
        if map.is_some() && !regular {
            return Err(named("only regular files may be sparse".into()));
        }
        let kind = match header.kind() {
            // Before there was a type for them.
            b'0' | b'7' | 0 if path.ends_with(b"/") && map.is_none() => Kind::Directory,
            b'0' | b'7' | b'S' | 0 => file(map, data, stored).map_err(named)?,
            b'5' => Kind::Directory,
            b'2' => Kind::Symlink(link()?),
            b'1' => Kind::HardLink(link()?),
            b'6' => Kind::Fifo,
            b'3' | b'4' => {
                return Err(named(
                    "device nodes are not allowed; build the image without it: a container's /dev is made by the agent".into(),
                ));
            }
            other => return Err(named(format!("tar entry type {other:#04x} is not supported"))),
        };
        if stored != 0 && (!regular || kind == Kind::Directory) {
            return Err(named("only regular files may have data".into()));
        }
        let uid = self.uid.map_or_else(|| header.uid(), Ok).map_err(named)?;
        let gid = self.gid.map_or_else(|| header.gid(), Ok).map_err(named)?;
        let mtime = match self.mtime {
            Some(mtime) => mtime,
            None => (header.mtime().map_err(named)?, 0),
        };
        let mode = header.mode().map_err(named)? & 0o7777;
        Ok(Member {
            kind,
            mode: u32::try_from(mode).unwrap_or(0),
            uid: id(uid).map_err(named)?,
            gid: id(gid).map_err(named)?,
            mtime,
            xattrs: self.xattrs,
            path,
        })
    }
}

fn file(map: Option<Map>, data: &mut impl Read, stored: u64) -> Result<Kind, String> {
    let sparse = match map {
        None => return Ok(Kind::File(stored)),
        Some(Map::Known { size, segments }) => Sparse::new(size, segments, stored)?,
        Some(Map::InData { size }) => {
            let (segments, taken) = sparse::map_in(data)?;
            Sparse::new(size, segments, stored - taken)?
        }
    };
    Ok(Kind::Sparse(sparse))
}

fn until_nul(name: &[u8]) -> Vec<u8> {
    header::text(name).to_vec()
}

fn checked(path: Vec<u8>, what: &str) -> Result<Vec<u8>, String> {
    if path.len() > MAX_PATH {
        return Err(format!("a {what} longer than {MAX_PATH} bytes"));
    }
    if path.contains(&0) {
        return Err(format!("a {what} with a NUL byte"));
    }
    Ok(path)
}

/// `u32::MAX` means "leave as is" to chown.
fn id(id: u64) -> Result<u32, String> {
    u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| format!("owner {id} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn hostile_streams_end_in_a_value(data in proptest::collection::vec(proptest::num::u8::ANY, 0..2048)) {
            let _ = read(&data[..], 16, |_, data| {
                let mut sink = Vec::new();
                data.take(4096).read_to_end(&mut sink).map(drop).map_err(|e| e.to_string())
            });
            let _ = pax::records(&data);
        }

        /// Each byte of a header in turn, with a checksum that fits.
        #[test]
        fn hostile_headers_end_in_a_value(
            at in 0usize..512,
            with in proptest::num::u8::ANY,
            kind in proptest::sample::select(&b"0123456789LKxgSZ\0"[..]),
        ) {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_size(40);
            header.as_mut_bytes()[0] = b'a';
            header.as_mut_bytes()[at] = with;
            header.set_cksum();
            let mut stream = header.as_bytes().to_vec();
            stream.resize(4096, b'7');
            let _ = read(&stream[..], 16, |_, data| {
                io::copy(data, &mut io::sink()).map(drop).map_err(|e| e.to_string())
            });
        }
    }
}
