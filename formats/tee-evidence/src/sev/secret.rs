//! LAUNCH_SECRET: the packet's header, what its code covers, and the table of secrets inside. AMD 55766 §6.6;
//! table: OVMF's SEV launch secret area, as Linux' `efi_secret` reads it.

use std::fmt;

use crate::guid::Guid;
use crate::reader::{ReadError, Reader};

/// The header of a packet. QMP's `sev-inject-launch-secret` takes it as base64 (`packet-header`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretHeader {
    /// Bit 0: the data is compressed. Always zero here.
    pub flags: u32,
    /// Initial counter of the data.
    pub iv: [u8; 16],
    /// HMAC-SHA256 under TIK of [`SecretHeader::message`].
    pub mac: [u8; 32],
}

impl SecretHeader {
    /// Bytes of a header.
    pub const LEN: usize = 52;

    /// Reads exactly [`SecretHeader::LEN`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let header = Self { flags: reader.u32()?, iv: reader.array()?, mac: reader.array()? };
        reader.finish()?;
        Ok(header)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&self.flags.to_le_bytes());
        out[4..20].copy_from_slice(&self.iv);
        out[20..].copy_from_slice(&self.mac);
        out
    }

    /// The bytes that the code is computed over. `measure` ties the packet to one launch.
    pub fn message(
        flags: u32,
        iv: &[u8; 16],
        guest_len: u32,
        ciphertext: &[u8],
        measure: &[u8; 32],
    ) -> Vec<u8> {
        let mut out = vec![1];
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(iv);
        out.extend_from_slice(&guest_len.to_le_bytes());
        // No compression: what is transferred is as long as what the guest gets.
        out.extend_from_slice(&(ciphertext.len() as u32).to_le_bytes());
        out.extend_from_slice(ciphertext);
        out.extend_from_slice(measure);
        out
    }
}

/// A secret and its name.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretEntry<'a> {
    /// Its name: the file that `efi_secret` shows.
    pub guid: Guid,
    /// The secret.
    pub data: &'a [u8],
}

impl fmt::Debug for SecretEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretEntry({}, {} bytes)", self.guid, self.data.len())
    }
}

/// Why there is no table for some secrets, or in some bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretTableError {
    /// The firmware injects at most this much.
    #[error("table of launch secrets has {0} bytes, more than {max}", max = SecretTable::MAX)]
    Size(usize),
    /// `efi_secret` shows no more.
    #[error("table of launch secrets has more than {max} entries", max = SecretTable::MAX_ENTRIES)]
    Entries,
    /// One name twice, or a name that ends the table.
    #[error("launch secret {0} stands there twice or is no name")]
    Name(Guid),
    /// It does not begin with the table's name.
    #[error("launch secrets begin with {0}, which is not the table")]
    NoTable(Guid),
    /// A length does not fit.
    #[error("table of launch secrets: a length does not fit")]
    Length,
    /// It ends too soon, or is not padded with zeros.
    #[error("table of launch secrets: {0}")]
    Read(#[from] ReadError),
}

/// The table that is injected.
#[derive(Debug)]
pub struct SecretTable;

impl SecretTable {
    /// Most bytes of a table, with its padding.
    pub const MAX: usize = 16 * 1024;
    /// Most entries of a table.
    pub const MAX_ENTRIES: usize = 64;
    const GUID: Guid = Guid::new(0x1e74f542_71dd_4d66_963e_ef4287ff173b);
    const HEADER: usize = 20;
    const BLOCK: usize = 16;

    /// Bytes of the table for these secrets, with its padding.
    pub fn len(entries: &[SecretEntry<'_>]) -> Result<usize, SecretTableError> {
        if entries.len() > Self::MAX_ENTRIES {
            return Err(SecretTableError::Entries);
        }
        let used = entries.iter().fold(Self::HEADER, |sum, entry| {
            sum.saturating_add(Self::HEADER).saturating_add(entry.data.len())
        });
        let padded = used.saturating_add(Self::BLOCK - 1) / Self::BLOCK * Self::BLOCK;
        if padded > Self::MAX {
            return Err(SecretTableError::Size(padded));
        }
        Ok(padded)
    }

    /// Writes a table into `out`, which has to have exactly [`SecretTable::len`] bytes: whoever owns the buffer
    /// wipes it.
    pub fn write(entries: &[SecretEntry<'_>], out: &mut [u8]) -> Result<(), SecretTableError> {
        if out.len() != Self::len(entries)? {
            return Err(SecretTableError::Length);
        }
        for (n, SecretEntry { guid, .. }) in entries.iter().enumerate() {
            if *guid == Guid::ZERO || entries[..n].iter().any(|other| other.guid == *guid) {
                return Err(SecretTableError::Name(*guid));
            }
        }
        out.fill(0);
        let mut at = Self::HEADER;
        for SecretEntry { guid, data } in entries {
            let len = Self::HEADER + data.len();
            out[at..at + 16].copy_from_slice(&guid.to_efi_bytes());
            out[at + 16..at + 20].copy_from_slice(&(len as u32).to_le_bytes());
            out[at + 20..at + len].copy_from_slice(data);
            at += len;
        }
        out[..16].copy_from_slice(&Self::GUID.to_efi_bytes());
        out[16..20].copy_from_slice(&(at as u32).to_le_bytes());
        Ok(())
    }

    /// Reads a table. Only padding may follow it.
    pub fn parse(bytes: &[u8]) -> Result<Vec<SecretEntry<'_>>, SecretTableError> {
        if bytes.len() > Self::MAX {
            return Err(SecretTableError::Size(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let guid = Guid::from_efi_bytes(reader.array()?);
        if guid != Self::GUID {
            return Err(SecretTableError::NoTable(guid));
        }
        let total = reader.u32()? as usize;
        let inside = total.checked_sub(Self::HEADER).ok_or(SecretTableError::Length)?;
        let mut table = Reader::new(reader.take(inside)?);
        let mut left = inside;
        let mut entries: Vec<SecretEntry<'_>> = Vec::new();
        while left > 0 {
            if entries.len() == Self::MAX_ENTRIES {
                return Err(SecretTableError::Entries);
            }
            let guid = Guid::from_efi_bytes(table.array()?);
            let len = table.u32()? as usize;
            let data = len.checked_sub(Self::HEADER).ok_or(SecretTableError::Length)?;
            if guid == Guid::ZERO || entries.iter().any(|other| other.guid == guid) {
                return Err(SecretTableError::Name(guid));
            }
            entries.push(SecretEntry { guid, data: table.take(data)? });
            left -= len;
        }
        reader.zero(bytes.len() - total)?;
        reader.finish()?;
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Guid = Guid::new(0x736869e5_84f0_4973_92ec_06879ce3da0b);
    const TWO: Guid = Guid::new(0x1ee27366_0c87_43a6_af48_28543eaf7cb0);

    fn table(entries: &[SecretEntry<'_>]) -> Vec<u8> {
        let mut out = vec![0xff; SecretTable::len(entries).unwrap()];
        SecretTable::write(entries, &mut out).unwrap();
        out
    }

    fn both() -> [SecretEntry<'static>; 2] {
        [SecretEntry { guid: ONE, data: b"correct horse" }, SecretEntry { guid: TWO, data: b"" }]
    }

    #[test]
    fn what_is_written_reads_back() {
        let bytes = table(&both());
        assert_eq!(bytes.len() % 16, 0);
        assert_eq!(bytes[..4], [0x42, 0xf5, 0x74, 0x1e]);
        assert_eq!(u32::from_le_bytes(bytes[16..20].try_into().unwrap()), 20 + 33 + 20);
        assert_eq!(SecretTable::parse(&bytes).unwrap(), both());
        assert_eq!(SecretTable::parse(&table(&[])).unwrap(), []);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let good = table(&both());
        for (at, value) in
            [(16, 19u32), (16, 21), (16, 200), (16, u32::MAX), (36, 19), (36, 0), (36, 500), (36, u32::MAX)]
        {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(SecretTable::parse(&bytes).is_err(), "{at} {value}");
        }
        for len in 0..good.len() {
            let cut = SecretTable::parse(&good[..len]);
            assert!(cut.is_err() || len >= 73, "{len}");
        }
        let mut padded = good;
        *padded.last_mut().unwrap() = 1;
        assert!(SecretTable::parse(&padded).is_err());
    }

    #[test]
    fn what_is_too_much_or_named_twice_is_refused() {
        let big = vec![0; SecretTable::MAX - 40];
        assert!(SecretTable::len(&[SecretEntry { guid: ONE, data: &big }]).is_ok());
        let bigger = vec![0; SecretTable::MAX - 39];
        assert!(SecretTable::len(&[SecretEntry { guid: ONE, data: &bigger }]).is_err());
        let many: Vec<_> = (0..65).map(|n| SecretEntry { guid: Guid::new(n + 1), data: b"" }).collect();
        assert_eq!(SecretTable::len(&many), Err(SecretTableError::Entries));
        let twice = [SecretEntry { guid: ONE, data: b"a" }, SecretEntry { guid: ONE, data: b"b" }];
        let mut out = vec![0; SecretTable::len(&twice).unwrap()];
        assert_eq!(SecretTable::write(&twice, &mut out), Err(SecretTableError::Name(ONE)));
        let mut bytes = table(&both());
        bytes.copy_within(20..36, 53);
        assert_eq!(SecretTable::parse(&bytes), Err(SecretTableError::Name(ONE)));
    }

    #[test]
    fn debug_prints_no_secret() {
        assert!(!format!("{:?}", both()).contains("horse"));
    }

    #[test]
    fn a_header_has_52_bytes() {
        let bytes: Vec<u8> = (0..52).collect();
        let header = SecretHeader::parse(&bytes).unwrap();
        assert_eq!((header.flags, header.iv[0], header.mac[0]), (0x0302_0100, 4, 20));
        assert_eq!(header.to_bytes(), *bytes);
        assert!(SecretHeader::parse(&bytes[1..]).is_err());
    }
}
