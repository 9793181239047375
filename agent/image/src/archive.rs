//! A layer's tar stream (image-spec, "Layer"; POSIX pax): members with their long names, owners, times and
//! extended attributes, every length bounded. Says nothing about where a member may be written.

use std::io::Read;

use tar::{EntryType, Header};

/// Long names and pax records of one member, bytes.
const MAX_EXTENSION: u64 = 1 << 20;
/// PATH_MAX of Linux, with its NUL.
const MAX_PATH: usize = 4095;

/// A pax record: key and value, both bytes.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// Regular file with this many bytes.
    File(u64),
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
    /// Extended attributes as pax records gave them.
    pub(crate) xattrs: Vec<Record>,
}

/// Visits each member in order with its data. The reader is left after the archive's end marker.
pub(crate) fn read<R: Read>(
    reader: R,
    max_entries: u64,
    mut visit: impl FnMut(&Member, &mut dyn Read) -> Result<(), String>,
) -> Result<(), String> {
    let mut archive = tar::Archive::new(reader);
    let entries = archive.entries().map_err(|e| e.to_string())?;
    let mut extensions = Extensions::default();
    let mut count = 0u64;
    // Raw: the tar crate would read long names and pax records of any size into memory.
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|e| format!("tar stream: {e}"))?;
        count += 1;
        if count > max_entries {
            return Err(format!("more than {max_entries} entries"));
        }
        let size = entry.header().entry_size().map_err(|e| format!("tar header: {e}"))?;
        match entry.header().entry_type() {
            EntryType::GNULongName => extensions.long_name = Some(bounded(&mut entry, size)?),
            EntryType::GNULongLink => extensions.long_link = Some(bounded(&mut entry, size)?),
            EntryType::XHeader => extensions.pax(&bounded(&mut entry, size)?)?,
            EntryType::XGlobalHeader => global(&bounded(&mut entry, size)?)?,
            _ => {
                let member = std::mem::take(&mut extensions).member(entry.header(), size)?;
                visit(&member, &mut entry).map_err(|e| format!("{}: {e}", printable(&member.path)))?;
            }
        }
    }
    Ok(())
}

/// A path for a message: host-visible text, so no control characters.
pub(crate) fn printable(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    format!("{:?}", text.chars().take(200).collect::<String>())
}

fn bounded(entry: &mut impl Read, size: u64) -> Result<Vec<u8>, String> {
    if size > MAX_EXTENSION {
        return Err(format!(
            "a long name or pax header of {size} bytes, at most {MAX_EXTENSION} are allowed"
        ));
    }
    let mut data = Vec::new();
    entry.take(MAX_EXTENSION).read_to_end(&mut data).map_err(|e| format!("tar stream: {e}"))?;
    if data.len() as u64 != size {
        return Err("tar stream: ended in a header".into());
    }
    Ok(data)
}

/// A global header may only hold a comment (as `git archive` writes): anything else would change members
/// that other readers see unchanged.
fn global(data: &[u8]) -> Result<(), String> {
    match records(data)?.iter().find(|(key, _)| key != b"comment") {
        None => Ok(()),
        Some((key, _)) => Err(format!("global pax header with {}", printable(key))),
    }
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
    xattrs: Vec<Record>,
}

impl Extensions {
    fn pax(&mut self, data: &[u8]) -> Result<(), String> {
        const XATTR: &[u8] = b"SCHILY.xattr.";
        for (key, value) in records(data)? {
            match key.as_slice() {
                b"path" => self.path = Some(value),
                b"linkpath" => self.link = Some(value),
                b"uid" => self.uid = Some(number(&value)?),
                b"gid" => self.gid = Some(number(&value)?),
                b"size" => self.size = Some(number(&value)?),
                b"mtime" => self.mtime = Some(time(&value)?),
                sparse if sparse.starts_with(b"GNU.sparse.") => {
                    return Err("sparse files are not supported".into());
                }
                xattr if xattr.starts_with(XATTR) => {
                    self.xattrs.push((xattr[XATTR.len()..].to_vec(), value));
                }
                // Names of users, access times, comments and vendors' records don't describe content.
                _ => {}
            }
        }
        Ok(())
    }

    fn member(self, header: &Header, size: u64) -> Result<Member, String> {
        let path = self.path.or_else(|| self.long_name.map(until_nul));
        let path = checked(path.unwrap_or_else(|| header.path_bytes().into_owned()), "path")?;
        let named = |e: String| format!("{}: {e}", printable(&path));
        let link = self.link.or_else(|| self.long_link.map(until_nul));
        let link = || {
            let link = link.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
            checked(link, "link target").map_err(named)
        };
        // The stream is walked by the header's size: a record that differs would let readers disagree.
        if self.size.is_some_and(|pax| pax != size) {
            return Err(named("the pax size differs from the header's".into()));
        }
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File(size),
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link()?),
            EntryType::Link => Kind::HardLink(link()?),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => return Err(named("device nodes are not allowed".into())),
            EntryType::GNUSparse => return Err(named("sparse files are not supported".into())),
            other => return Err(named(format!("tar entry type {:#04x} is not supported", other.as_byte()))),
        };
        if !matches!(kind, Kind::File(_)) && size != 0 {
            return Err(named("only regular files may have data".into()));
        }
        let field =
            |name: &str, value: std::io::Result<u64>| value.map_err(|e| named(format!("{name}: {e}")));
        let uid = self.uid.map_or_else(|| field("uid", header.uid()), Ok)?;
        let gid = self.gid.map_or_else(|| field("gid", header.gid()), Ok)?;
        let mtime = match self.mtime {
            Some(mtime) => mtime,
            None => (i64::try_from(field("mtime", header.mtime())?).unwrap_or(i64::MAX), 0),
        };
        Ok(Member {
            kind,
            mode: header.mode().map_err(|e| named(format!("mode: {e}")))? & 0o7777,
            uid: id(uid).map_err(named)?,
            gid: id(gid).map_err(named)?,
            mtime,
            xattrs: self.xattrs,
            path,
        })
    }
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|b| *b == 0) {
        name.truncate(end);
    }
    name
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

/// `LENGTH KEY=VALUE\n`, LENGTH counting the whole record. Values are bytes and may hold line breaks.
fn records(mut data: &[u8]) -> Result<Vec<Record>, String> {
    let malformed = || "malformed pax header".to_owned();
    let mut found = Vec::new();
    while !data.is_empty() {
        // GNU tar pads with NULs.
        if data.iter().all(|b| *b == 0) {
            break;
        }
        let space = data.iter().take(8).position(|b| *b == b' ').ok_or_else(malformed)?;
        let length = usize::try_from(number(&data[..space])?).map_err(|_| malformed())?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        found.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = &data[length..];
    }
    Ok(found)
}

fn number(text: &[u8]) -> Result<u64, String> {
    std::str::from_utf8(text)
        .ok()
        .filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| format!("malformed number {} in a pax header", printable(text)))
}

/// Decimal seconds with an optional sign and fraction.
fn time(text: &[u8]) -> Result<(i64, u32), String> {
    let malformed = || format!("malformed time {} in a pax header", printable(text));
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (negative, whole) = whole.strip_prefix('-').map_or((false, whole), |w| (true, w));
    let seconds = i64::try_from(number(whole.as_bytes())?).map_err(|_| malformed())?;
    let mut nanoseconds = 0;
    if !fraction.is_empty() {
        let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        nanoseconds = u32::try_from(number(digits.as_bytes())?).map_err(|_| malformed())?;
    }
    match (negative, nanoseconds) {
        (false, n) => Ok((seconds, n)),
        (true, 0) => Ok((-seconds, 0)),
        // -1.25 s is -2 s and 750 ms.
        (true, n) => Ok((-seconds - 1, 1_000_000_000 - n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_values_may_hold_line_breaks() {
        let record = b"23 SCHILY.xattr.a=x\ny=\0\n";
        assert_eq!(record.len(), 24);
        let record = b"24 SCHILY.xattr.a=x\ny=\0\n";
        assert_eq!(records(record).unwrap(), [(b"SCHILY.xattr.a".to_vec(), b"x\ny=\0".to_vec())]);
    }

    #[test]
    fn malformed_pax_headers_are_refused() {
        for bad in [
            &b"5 a=b"[..],
            b"x a=b\n",
            b"0 a=b\n",
            b"99 a=b\n",
            b"6 ab\n\n\n",
            b"\n",
            b"99999999999 a=b\n",
            b"3 \n",
        ] {
            records(bad).unwrap_err();
        }
    }

    #[test]
    fn times_round_down() {
        assert_eq!(time(b"12.5").unwrap(), (12, 500_000_000));
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"7").unwrap(), (7, 0));
        for bad in [&b""[..], b"x", b"1.x", b"1e3", b"99999999999999999999"] {
            time(bad).unwrap_err();
        }
    }

    proptest::proptest! {
        #[test]
        fn hostile_streams_end_in_a_value(data in proptest::collection::vec(proptest::num::u8::ANY, 0..2048)) {
            let _ = read(&data[..], 16, |_, data| {
                let mut sink = Vec::new();
                data.take(4096).read_to_end(&mut sink).map(drop).map_err(|e| e.to_string())
            });
            let _ = records(&data);
        }
    }
}
