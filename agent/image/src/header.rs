//! A tar header: one block of 512 bytes in the layouts of POSIX ustar, GNU tar, star and V7 (POSIX.1-2017, pax,
//! "ustar Interchange Format"; GNU tar manual, "Basic Tar Format").

use std::ops::Range;

use crate::sparse::Segment;

/// Bytes of a block; headers are one, data is padded to whole ones.
pub(crate) const BLOCK: usize = 512;

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const PREFIX: Range<usize> = 345..500;
/// star keeps times in the last 24 bytes of ustar's prefix, and says so at the block's end.
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_MAGIC: Range<usize> = 508..512;
/// GNU's old sparse files: four segments, whether more follow, the size with its holes.
const GNU_SPARSE: Range<usize> = 386..482;
const GNU_EXTENDED: usize = 482;
const GNU_REAL_SIZE: Range<usize> = 483..495;
/// The blocks with more segments.
const MORE_SPARSE: Range<usize> = 0..504;
const MORE_EXTENDED: usize = 504;

/// One header whose checksum fits.
#[derive(Clone)]
pub(crate) struct Header([u8; BLOCK]);

impl Header {
    /// Checks the sum over the block; some tars of old summed signed bytes.
    pub(crate) fn check(block: [u8; BLOCK]) -> Result<Self, String> {
        let header = Self(block);
        let sum = number(header.field(CHECKSUM)).map_err(|e| format!("checksum: {e}"))?;
        let counted = |at: usize| if CHECKSUM.contains(&at) { b' ' } else { header.0[at] };
        let unsigned: i64 = (0..BLOCK).map(|at| i64::from(counted(at))).sum();
        let signed: i64 = (0..BLOCK).map(|at| i64::from(counted(at).cast_signed())).sum();
        if sum != unsigned && sum != signed {
            return Err("a header whose checksum doesn't fit".into());
        }
        Ok(header)
    }

    fn field(&self, range: Range<usize>) -> &[u8] {
        &self.0[range]
    }

    /// What the member is.
    pub(crate) fn kind(&self) -> u8 {
        self.0[TYPE]
    }

    fn is_ustar(&self) -> bool {
        self.field(MAGIC).starts_with(b"ustar\0")
    }

    pub(crate) fn is_gnu(&self) -> bool {
        self.field(MAGIC) == b"ustar  \0"
    }

    /// The path, put together with ustar's prefix.
    pub(crate) fn path(&self) -> Vec<u8> {
        let name = text(self.field(NAME));
        if !self.is_ustar() {
            return name.to_vec();
        }
        let star = self.field(STAR_MAGIC) == b"tar\0";
        let prefix = text(self.field(if star { STAR_PREFIX } else { PREFIX }));
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(crate) fn link(&self) -> Vec<u8> {
        text(self.field(LINK)).to_vec()
    }

    pub(crate) fn mode(&self) -> Result<i64, String> {
        number(self.field(MODE)).map_err(|e| format!("mode: {e}"))
    }

    /// Bytes of data that follow.
    pub(crate) fn size(&self) -> Result<u64, String> {
        size(self.field(SIZE)).map_err(|e| format!("size: {e}"))
    }

    pub(crate) fn uid(&self) -> Result<u64, String> {
        size(self.field(UID)).map_err(|e| format!("uid: {e}"))
    }

    pub(crate) fn gid(&self) -> Result<u64, String> {
        size(self.field(GID)).map_err(|e| format!("gid: {e}"))
    }

    /// Seconds since the epoch; before it, negative (GNU's base-256 form).
    pub(crate) fn mtime(&self) -> Result<i64, String> {
        number(self.field(MTIME)).map_err(|e| format!("mtime: {e}"))
    }

    /// Of GNU's old sparse files: the size with holes.
    pub(crate) fn real_size(&self) -> Result<u64, String> {
        size(self.field(GNU_REAL_SIZE)).map_err(|e| format!("sparse file: {e}"))
    }

    /// Of GNU's old sparse files: the first segments, and whether a block with more follows.
    pub(crate) fn segments(&self) -> Result<(Vec<Segment>, bool), String> {
        Ok((segments(self.field(GNU_SPARSE))?, self.0[GNU_EXTENDED] != 0))
    }
}

/// A block with more segments of GNU's old sparse files.
pub(crate) fn more_segments(block: &[u8; BLOCK]) -> Result<(Vec<Segment>, bool), String> {
    Ok((segments(&block[MORE_SPARSE])?, block[MORE_EXTENDED] != 0))
}

fn segments(field: &[u8]) -> Result<Vec<Segment>, String> {
    let named = |e| format!("sparse file: {e}");
    field
        .chunks_exact(24)
        .take_while(|entry| entry[0] != 0)
        .map(|entry| {
            let offset = size(&entry[..12]).map_err(named)?;
            Ok(Segment { offset, length: size(&entry[12..]).map_err(named)? })
        })
        .collect()
}

/// Up to the first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.iter().position(|byte| *byte == 0).map_or(field, |end| &field[..end])
}

fn size(field: &[u8]) -> Result<u64, String> {
    u64::try_from(number(field)?).map_err(|_| "a negative number".to_owned())
}

/// Octal digits between spaces and NULs, or GNU's base-256: the first bit set, the rest a big-endian two's
/// complement.
fn number(field: &[u8]) -> Result<i64, String> {
    let Some(first) = field.first() else { return Ok(0) };
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let start: i128 = i128::from(first & 0x7f) - if negative { 0x80 } else { 0 };
        let mut value = start;
        for byte in &field[1..] {
            // Twelve bytes at most: far below what an i128 holds.
            value = value * 256 + i128::from(*byte);
        }
        return i64::try_from(value).map_err(|_| "a number of more than 63 bits".to_owned());
    }
    let digits = text(field.trim_ascii_start()).trim_ascii_end();
    let mut value = 0i64;
    for digit in digits {
        if !matches!(digit, b'0'..=b'7') {
            return Err("a number that is not octal".into());
        }
        // Eleven digits at most.
        value = value * 8 + i64::from(digit - b'0');
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"77777777777\0", 0o77_777_777_777),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", 0x2_0000_0000),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX),
        ] {
            assert_eq!(number(field), Ok(value), "{field:?}");
        }
        for bad in [
            &b"0000648\0"[..],
            b"-1\0",
            b"6 4\0",
            b"0x1\0",
            b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
            b"\xbf\xff\xff\xff\0\0\0\0\0\0\0\0",
        ] {
            number(bad).unwrap_err();
        }
        size(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe").unwrap_err();
    }

    #[test]
    fn a_header_with_another_checksum_is_refused() {
        let mut block = [0u8; BLOCK];
        block[0] = b'a';
        let sum: u32 = u32::from(b'a') + 8 * u32::from(b' ');
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(Header::check(block).ok().map(|header| header.path()), Some(b"a".to_vec()));
        block[0] = b'b';
        assert!(Header::check(block).is_err());
    }
}
