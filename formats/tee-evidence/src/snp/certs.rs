//! The certificate table that an extended report request returns. The host wrote it, so every offset
//! and length is hostile. GHCB 56421 §4.1.8.1: {GUID 16 (text order), offset u32, length u32}…, zero GUID.

use crate::guid::Guid;
use crate::reader::{ReadError, Reader};

/// What a certificate is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertKind {
    /// AMD root key.
    Ark,
    /// AMD signing key: ASK for VCEKs, ASVK for VLEKs.
    Ask,
    /// Chip's own key.
    Vcek,
    /// Key loaded by the cloud provider.
    Vlek,
    /// Revocation list.
    Crl,
    /// Anything else a host puts there.
    Other(Guid),
}

impl CertKind {
    /// The kind that a GUID stands for.
    pub fn from_guid(guid: Guid) -> Self {
        [Self::Ark, Self::Ask, Self::Vcek, Self::Vlek, Self::Crl]
            .into_iter()
            .find(|kind| kind.guid() == guid)
            .unwrap_or(Self::Other(guid))
    }

    /// The GUID of a kind.
    pub const fn guid(self) -> Guid {
        match self {
            Self::Ark => Guid::new(0xc0b406a4_a803_4952_9743_3fb6014cd0ae),
            Self::Ask => Guid::new(0x4ab7b379_bbac_4fe4_a02f_05aef327c782),
            Self::Vcek => Guid::new(0x63da758d_e664_4564_adc5_f4b93be8accd),
            Self::Vlek => Guid::new(0xa8074bc2_a25a_483e_aae6_39c045a0b8a1),
            Self::Crl => Guid::new(0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea),
            Self::Other(guid) => guid,
        }
    }
}

/// One certificate, as bytes (DER, or PEM on some hosts), and what it is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertEntry {
    /// What the host says it is.
    pub kind: CertKind,
    /// The bytes, unparsed.
    pub data: Vec<u8>,
}

/// Why bytes are not a certificate table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Larger than any table has a reason to be.
    #[error("certificate table has {0} bytes, more than {max}", max = CertificateTable::MAX_BYTES)]
    Size(usize),
    /// More entries than any table has a reason to have.
    #[error("certificate table has more than {max} entries", max = CertificateTable::MAX_ENTRIES)]
    Entries,
    /// The table stops before its zero GUID.
    #[error("certificate table has no end: {0}")]
    NoEnd(#[source] ReadError),
    /// An entry points outside the table's data.
    #[error("certificate {guid}: bytes {offset}+{length} are outside the table")]
    Range {
        /// Whose entry.
        guid: Guid,
        /// Its offset.
        offset: u32,
        /// Its length.
        length: u32,
    },
    /// Two entries share bytes.
    #[error("certificates {0} and {1} overlap")]
    Overlap(Guid, Guid),
    /// One GUID stands there twice.
    #[error("certificate {0} stands in the table twice")]
    Duplicate(Guid),
}

/// A parsed certificate table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateTable {
    entries: Vec<CertEntry>,
}

impl CertificateTable {
    /// Most bytes we read: KVM passes at most a few pages.
    pub const MAX_BYTES: usize = 64 * 1024;
    /// Most entries we read.
    pub const MAX_ENTRIES: usize = 16;
    const HEADER: usize = 24;

    /// Reads a table. Bytes after the last certificate are page padding and are not looked at. An empty
    /// buffer is an empty table: the host had no certificates.
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        if bytes.len() > Self::MAX_BYTES {
            return Err(TableError::Size(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let mut headers: Vec<(Guid, u32, u32)> = Vec::new();
        loop {
            let guid = Guid::from_be_bytes(reader.array().map_err(TableError::NoEnd)?);
            let offset = reader.u32().map_err(TableError::NoEnd)?;
            let length = reader.u32().map_err(TableError::NoEnd)?;
            if guid == Guid::ZERO {
                break;
            }
            if headers.len() == Self::MAX_ENTRIES {
                return Err(TableError::Entries);
            }
            if headers.iter().any(|(other, ..)| *other == guid) {
                return Err(TableError::Duplicate(guid));
            }
            headers.push((guid, offset, length));
        }
        let data_start = (headers.len() + 1) * Self::HEADER;
        let mut ranges = Vec::with_capacity(headers.len());
        for &(guid, offset, length) in &headers {
            let end = (offset as usize).checked_add(length as usize).filter(|&end| end <= bytes.len());
            match end {
                Some(end) if length > 0 && offset as usize >= data_start => {
                    ranges.push((guid, offset as usize, end));
                }
                _ => return Err(TableError::Range { guid, offset, length }),
            }
        }
        let mut sorted = ranges.clone();
        sorted.sort_by_key(|&(_, start, _)| start);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].2 > pair[1].1) {
            return Err(TableError::Overlap(pair[0].0, pair[1].0));
        }
        let entries = ranges
            .into_iter()
            .map(|(guid, start, end)| CertEntry {
                kind: CertKind::from_guid(guid),
                data: bytes[start..end].to_vec(),
            })
            .collect();
        Ok(Self { entries })
    }

    /// The certificates, in the table's order.
    pub fn entries(&self) -> &[CertEntry] {
        &self.entries
    }

    /// The certificates by value.
    pub fn into_entries(self) -> Vec<CertEntry> {
        self.entries
    }

    /// Writes a table for the given certificates, within the limits that [`CertificateTable::parse`] has.
    pub fn encode(entries: &[CertEntry]) -> Result<Vec<u8>, TableError> {
        if entries.len() > Self::MAX_ENTRIES {
            return Err(TableError::Entries);
        }
        let data_start = (entries.len() + 1) * Self::HEADER;
        let total = entries.iter().fold(data_start, |sum, entry| sum.saturating_add(entry.data.len()));
        if total > Self::MAX_BYTES {
            return Err(TableError::Size(total));
        }
        let mut out = Vec::with_capacity(total);
        let mut at = data_start;
        for entry in entries {
            out.extend_from_slice(&entry.kind.guid().to_be_bytes());
            // Below MAX_BYTES, so both fit.
            out.extend_from_slice(&(at as u32).to_le_bytes());
            out.extend_from_slice(&(entry.data.len() as u32).to_le_bytes());
            at += entry.data.len();
        }
        out.extend_from_slice(&[0; Self::HEADER]);
        for entry in entries {
            out.extend_from_slice(&entry.data);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> Vec<CertEntry> {
        vec![
            CertEntry { kind: CertKind::Ark, data: vec![1; 5] },
            CertEntry { kind: CertKind::Ask, data: vec![2; 7] },
            CertEntry { kind: CertKind::Vcek, data: vec![3; 9] },
        ]
    }

    /// A table whose header `index` has another offset and length.
    fn with(index: usize, offset: u32, length: u32) -> Vec<u8> {
        let mut table = CertificateTable::encode(&entries()).unwrap();
        table[index * 24 + 16..index * 24 + 20].copy_from_slice(&offset.to_le_bytes());
        table[index * 24 + 20..index * 24 + 24].copy_from_slice(&length.to_le_bytes());
        table
    }

    #[test]
    fn a_table_round_trips_with_page_padding() {
        let mut table = CertificateTable::encode(&entries()).unwrap();
        table.resize(4096, 0);
        assert_eq!(CertificateTable::parse(&table).unwrap().entries(), entries());
        assert_eq!(table[..4], [0xc0, 0xb4, 0x06, 0xa4]);
        assert_eq!(CertificateTable::parse(&[]).unwrap().entries(), []);
        assert_eq!(CertificateTable::parse(&[0; 4096]).unwrap().entries(), []);
    }

    #[test]
    fn hostile_offsets_and_lengths_are_refused() {
        assert!(CertificateTable::parse(&with(0, 96, 5)).is_ok());
        for (offset, length) in [
            (96, u32::MAX),
            (u32::MAX, u32::MAX),
            (u32::MAX, 1),
            (96, 1000),
            (96, 0),
            (95, 5),
            (0, 24),
            (117, 1),
        ] {
            let error = CertificateTable::parse(&with(0, offset, length)).unwrap_err();
            assert!(matches!(error, TableError::Range { .. }), "{offset}+{length}: {error}");
        }
        assert!(matches!(CertificateTable::parse(&with(0, 97, 5)), Err(TableError::Overlap(..))));
        assert!(matches!(CertificateTable::parse(&with(2, 96, 21)), Err(TableError::Overlap(..))));
    }

    #[test]
    fn a_table_without_an_end_is_refused() {
        let table = CertificateTable::encode(&entries()).unwrap();
        for cut in [1, 23, 24, 72, 95] {
            assert!(matches!(CertificateTable::parse(&table[..cut]), Err(TableError::NoEnd(_))), "{cut}");
        }
        assert!(matches!(CertificateTable::parse(&vec![7; 65537]), Err(TableError::Size(65537))));
    }

    #[test]
    fn many_or_repeated_entries_are_refused() {
        let mut table = CertificateTable::encode(&entries()).unwrap();
        table.copy_within(0..16, 24);
        assert_eq!(CertificateTable::parse(&table), Err(TableError::Duplicate(CertKind::Ark.guid())));
        let many: Vec<_> =
            (1..=17).map(|n| CertEntry { kind: CertKind::Other(Guid::new(n)), data: vec![0] }).collect();
        assert_eq!(CertificateTable::encode(&many), Err(TableError::Entries));
        let mut headers = Vec::new();
        for n in 1..=17u128 {
            headers.extend_from_slice(&n.to_be_bytes());
            headers.extend_from_slice(&[0; 8]);
        }
        assert_eq!(CertificateTable::parse(&headers), Err(TableError::Entries));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = CertificateTable::parse(&bytes);
        }

        #[test]
        fn arbitrary_headers_never_panic(
            index in 0usize..3, offset in any::<u32>(), length in any::<u32>(), small in any::<bool>(),
        ) {
            let (offset, length) = if small { (offset % 130, length % 130) } else { (offset, length) };
            if let Ok(table) = CertificateTable::parse(&with(index, offset, length)) {
                prop_assert_eq!(table.entries().len(), 3);
            }
        }
    }
}
