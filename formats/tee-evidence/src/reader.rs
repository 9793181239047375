//! The one cursor over hostile bytes: every length is checked against what is left, and a caller that
//! has read everything says so with [`Reader::finish`].

/// Why bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The input ends before the field does.
    #[error("input ends at byte {at}: {wanted} more bytes expected, {left} left")]
    Short {
        /// Offset of the field.
        at: usize,
        /// Its length.
        wanted: usize,
        /// What is left of the input.
        left: usize,
    },
    /// Bytes that the format reserves are not zero.
    #[error("reserved bytes {at:#x}..{end:#x} are not zero")]
    Reserved {
        /// Offset of the first reserved byte.
        at: usize,
        /// Offset after the last one.
        end: usize,
    },
    /// Bytes after the end of the structure.
    #[error("{left} trailing bytes at {at:#x}")]
    Trailing {
        /// Offset of the first one.
        at: usize,
        /// How many.
        left: usize,
    },
}

/// A little-endian, bounds-checked cursor.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], ReadError> {
        let left = self.bytes.len() - self.at;
        if count > left {
            return Err(ReadError::Short { at: self.at, wanted: count, left });
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, ReadError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> Result<u16, ReadError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> Result<u32, ReadError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> Result<u64, ReadError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Skips `count` reserved bytes, which must be zero.
    pub fn zero(&mut self, count: usize) -> Result<(), ReadError> {
        let at = self.at;
        if self.take(count)?.iter().any(|&byte| byte != 0) {
            return Err(ReadError::Reserved { at, end: at + count });
        }
        Ok(())
    }

    /// Ends reading: an error if bytes are left.
    pub fn finish(self) -> Result<(), ReadError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(ReadError::Trailing { at: self.at, left }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_nothing_else() {
        let mut reader = Reader::new(&[1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(reader.u16(), Ok(0x0201));
        assert_eq!(reader.zero(4), Ok(()));
        assert_eq!(reader.clone().finish(), Err(ReadError::Trailing { at: 6, left: 1 }));
        assert_eq!(reader.clone().zero(1), Err(ReadError::Reserved { at: 6, end: 7 }));
        assert_eq!(reader.u32(), Err(ReadError::Short { at: 6, wanted: 4, left: 1 }));
        assert_eq!(reader.take(usize::MAX), Err(ReadError::Short { at: 6, wanted: usize::MAX, left: 1 }));
        assert_eq!(reader.u8(), Ok(9));
        assert_eq!(reader.finish(), Ok(()));
    }
}
