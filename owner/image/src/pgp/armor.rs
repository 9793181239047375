//! ASCII armor (RFC 4880, section 6.2): a key file may hold one or more armored blocks instead of packets.

use std::borrow::Cow;
use std::io::Read;

use pgp::armor::Dearmor;

use super::{PgpError, RING_LIMIT};

const BEGIN: &[u8] = b"-----BEGIN PGP ";

/// The packets of a file, whether armored or not. A file is binary when its first bit is set, as a packet's is.
pub(super) fn packets_of<'a>(file: &str, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, PgpError> {
    if bytes.first().is_none_or(|first| first & 0x80 != 0) {
        return Ok(Cow::Borrowed(bytes));
    }
    let damaged = || PgpError::Armor { file: file.to_owned() };
    let text = bytes.get(..RING_LIMIT.min(bytes.len())).unwrap_or_default();
    let starts: Vec<usize> = text
        .windows(BEGIN.len())
        .enumerate()
        .filter(|(at, window)| *window == BEGIN && (*at == 0 || text[at - 1] == b'\n'))
        .map(|(at, _)| at)
        .collect();
    let mut packets = Vec::new();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(text.len());
        let mut block = Dearmor::new(&text[*start..end]).take(RING_LIMIT as u64);
        block.read_to_end(&mut packets).map_err(|_| damaged())?;
    }
    if packets.is_empty() { Err(damaged()) } else { Ok(Cow::Owned(packets)) }
}

/// Does the file begin like armor of this kind?
pub(super) fn announces(bytes: &[u8], kind: &str) -> bool {
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(bytes.len());
    bytes[start..].strip_prefix(BEGIN).is_some_and(|rest| rest.starts_with(kind.as_bytes()))
}
