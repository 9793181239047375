//! Sparse files as GNU tar stores them: a map of the segments that have data, then that data without the holes
//! (GNU tar manual, "Storing Sparse Files": the old format, and PAX 0.0, 0.1 and 1.0).

use std::io::Read;

use crate::header::BLOCK;
use crate::pax;

/// Segments of one file: 16 bytes each while it is unpacked.
const MAX_SEGMENTS: usize = 1 << 18;
/// Largest size with holes, bytes: no file system in the guest holds more.
const MAX_SIZE: u64 = 16 << 40;

/// A run of bytes that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// A file with holes: segments in order, apart, inside of its size, and as long together as the data stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sparse {
    size: u64,
    segments: Vec<Segment>,
}

impl Sparse {
    /// `stored` bytes of data belong to the segments.
    pub(crate) fn new(size: u64, segments: Vec<Segment>, stored: u64) -> Result<Self, String> {
        if size > MAX_SIZE {
            return Err(format!("a sparse file of {size} bytes, at most {MAX_SIZE} are allowed"));
        }
        few_enough(segments.len())?;
        let (mut end, mut data) = (0, 0u64);
        for segment in &segments {
            let next = segment.offset.checked_add(segment.length).filter(|next| *next <= size);
            match next {
                Some(next) if segment.offset >= end => end = next,
                _ => return Err("a sparse file whose segments overlap or lie outside of it".into()),
            }
            // Bounded by the size, since they don't overlap.
            data += segment.length;
        }
        if data != stored {
            return Err(format!("a sparse file with {stored} bytes of data for segments of {data}"));
        }
        Ok(Self { size, segments })
    }

    /// Bytes, holes included.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

pub(crate) fn few_enough(segments: usize) -> Result<(), String> {
    if segments > MAX_SEGMENTS {
        return Err(format!("a sparse file of more than {MAX_SEGMENTS} segments"));
    }
    Ok(())
}

/// What pax records say about a sparse file.
#[derive(Default)]
pub(crate) struct Records {
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    real_size: Option<u64>,
    count: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
    seen: bool,
}

/// Where a file's map is.
pub(crate) enum Map {
    /// In the headers.
    Known { size: u64, segments: Vec<Segment> },
    /// Before the data.
    InData { size: u64 },
}

impl Records {
    /// Takes the record `GNU.sparse.KEY`; the file's name is the caller's.
    pub(crate) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.seen = true;
        match key {
            b"major" => self.major = Some(pax::number(value)?),
            b"minor" => self.minor = Some(pax::number(value)?),
            b"size" => self.size = Some(pax::number(value)?),
            b"realsize" => self.real_size = Some(pax::number(value)?),
            b"numblocks" => self.count = Some(pax::number(value)?),
            // 0.0: a pair of records a segment, in this order.
            b"offset" if self.numbers.len().is_multiple_of(2) => self.numbers.push(pax::number(value)?),
            b"numbytes" if self.numbers.len() % 2 == 1 => self.numbers.push(pax::number(value)?),
            b"map" if self.numbers.is_empty() => {
                for text in value.split(|byte| *byte == b',').filter(|text| !text.is_empty()) {
                    self.numbers.push(pax::number(text)?);
                    few_enough(self.numbers.len() / 2)?;
                }
            }
            _ => return Err("malformed records of a sparse file".into()),
        }
        few_enough(self.numbers.len() / 2)
    }

    /// What they come to, if there were any.
    pub(crate) fn finish(self) -> Result<Option<Map>, String> {
        let malformed = || "malformed records of a sparse file".to_owned();
        if !self.seen {
            return Ok(None);
        }
        match (self.major, self.minor) {
            (Some(1), Some(0)) => {
                let plain = self.numbers.is_empty();
                let size = self.real_size.filter(|_| plain).ok_or_else(malformed)?;
                Ok(Some(Map::InData { size }))
            }
            (None, None) | (Some(0), Some(0 | 1)) => {
                let size = self.size.or(self.real_size).ok_or_else(malformed)?;
                let segments = paired(&self.numbers).ok_or_else(malformed)?;
                if self.count.is_some_and(|count| count != segments.len() as u64) {
                    return Err(malformed());
                }
                Ok(Some(Map::Known { size, segments }))
            }
            _ => Err("a sparse file of an unknown version; write the layer without --sparse".into()),
        }
    }
}

fn paired(numbers: &[u64]) -> Option<Vec<Segment>> {
    let whole = numbers.len().is_multiple_of(2);
    let segments = numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] });
    whole.then(|| segments.collect())
}

/// PAX 1.0: the map comes before the data, a decimal number a line, padded to a whole block. The result has
/// the number of bytes that it took.
pub(crate) fn map_in(data: &mut impl Read) -> Result<(Vec<Segment>, u64), String> {
    let malformed = || "malformed map of a sparse file".to_owned();
    let mut numbers: Vec<u64> = Vec::new();
    let mut wanted = 1;
    let (mut digits, mut taken) = (0, 0);
    let mut value = 0u64;
    let mut block = [0; BLOCK];
    while numbers.len() < wanted {
        data.read_exact(&mut block).map_err(|_| malformed())?;
        taken += BLOCK as u64;
        for byte in block {
            match byte {
                b'0'..=b'9' => {
                    let next = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(byte - b'0')));
                    value = next.ok_or_else(malformed)?;
                    digits += 1;
                }
                b'\n' if digits > 0 => {
                    if numbers.is_empty() {
                        let count = usize::try_from(value).map_err(|_| malformed())?;
                        few_enough(count)?;
                        wanted = 1 + 2 * count;
                    }
                    numbers.push(value);
                    (value, digits) = (0, 0);
                }
                _ => return Err(malformed()),
            }
            if numbers.len() == wanted {
                break;
            }
        }
    }
    let segments = paired(&numbers[1..]).ok_or_else(malformed)?;
    Ok((segments, taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(offset: u64, length: u64) -> Segment {
        Segment { offset, length }
    }

    #[test]
    fn segments_are_in_order_apart_and_inside() {
        Sparse::new(100, vec![segment(0, 10), segment(10, 5), segment(90, 10), segment(100, 0)], 25).unwrap();
        Sparse::new(1 << 43, vec![], 0).unwrap();
        for (size, segments, stored) in [
            (100, vec![segment(0, 10), segment(9, 5)], 15),
            (100, vec![segment(50, 10), segment(0, 5)], 15),
            (100, vec![segment(95, 10)], 10),
            (100, vec![segment(u64::MAX, 10)], 10),
            (100, vec![segment(0, 10)], 11),
            (100, vec![segment(0, 10)], 9),
            (u64::MAX, vec![], 0),
        ] {
            Sparse::new(size, segments, stored).unwrap_err();
        }
    }

    #[test]
    fn a_map_in_the_data_is_read_to_its_block() {
        let mut data = b"2\n0\n512\n1024\n7\n".to_vec();
        data.resize(BLOCK, 0);
        data.extend_from_slice(b"rest");
        let mut reader = &data[..];
        let (segments, taken) = map_in(&mut reader).unwrap();
        assert_eq!((segments, taken), (vec![segment(0, 512), segment(1024, 7)], 512));
        assert_eq!(reader, b"rest");
        for bad in
            [&b"2\n0\n"[..], b"x\n", b"\n", b"999999999\n", b"99999999999999999999999\n", b"1\n-1\n2\n"]
        {
            let mut block = bad.to_vec();
            block.resize(BLOCK, 0);
            map_in(&mut &block[..]).unwrap_err();
        }
    }

    #[test]
    fn records_that_contradict_each_other_are_refused() {
        let finish = |records: &[(&[u8], &[u8])]| {
            let mut all = Records::default();
            records.iter().try_for_each(|(key, value)| all.record(key, value))?;
            all.finish()
        };
        assert!(matches!(finish(&[]), Ok(None)));
        assert!(matches!(finish(&[(b"size", b"9"), (b"map", b"0,1,5,2")]), Ok(Some(Map::Known { .. }))));
        for bad in [
            &[(&b"size"[..], &b"9"[..]), (b"map", b"0,1,5")][..],
            &[(b"size", b"9"), (b"numblocks", b"2"), (b"map", b"0,1")],
            &[(b"map", b"0,1")],
            &[(b"size", b"9"), (b"numbytes", b"1")],
            &[(b"size", b"9"), (b"offset", b"1"), (b"offset", b"1")],
            &[(b"major", b"2"), (b"minor", b"0"), (b"realsize", b"9")],
            &[(b"major", b"1"), (b"minor", b"0")],
            &[(b"other", b"1")],
        ] {
            assert!(finish(bad).is_err(), "{bad:?}");
        }
    }
}
