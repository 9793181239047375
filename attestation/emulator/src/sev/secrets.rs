//! The table that LAUNCH_SECRET leaves in guest memory, as the kernel's `efi_secret` shows it: a file an
//! entry, named by its GUID (kernel documentation, "coco/efi_secret").

use crate::guid::uefi;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const TABLE: [u8; 16] = uefi("1e74f542-71dd-4d66-963e-ef4287ff173b");
/// GUID and length.
const HEADER: usize = 20;
/// The kernel shows no more.
const ENTRIES_MAX: usize = 64;

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its GUID in lower case.
    pub guid: String,
    /// What the owner put there.
    pub data: &'a [u8],
}

/// Bytes that are not a table of secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("injected secret: {0}")]
pub struct TableError(&'static str);

/// Reads a table; what stands behind its own length is padding.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry<'_>>, TableError> {
    let (guid, length) = header(bytes).ok_or(TableError("shorter than its header"))?;
    if guid != TABLE {
        return Err(TableError("has another GUID than a table of secrets"));
    }
    let mut rest = bytes.get(HEADER..length).ok_or(TableError("its length is not in the area"))?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (guid, length) = header(rest).ok_or(TableError("an entry is shorter than its header"))?;
        let data = rest.get(HEADER..length).ok_or(TableError("an entry is longer than the table"))?;
        rest = &rest[length..];
        if guid != [0; 16] {
            entries.push(Entry { guid: text(&guid), data });
        }
        if entries.len() > ENTRIES_MAX {
            return Err(TableError("has more than 64 entries"));
        }
    }
    Ok(entries)
}

/// GUID, length with the header.
fn header(bytes: &[u8]) -> Option<([u8; 16], usize)> {
    let (header, _) = bytes.split_at_checked(HEADER)?;
    let (guid, length) = header.split_at(16);
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    Some((guid.try_into().ok()?, length))
}

/// The inverse of the order in which UEFI stores a GUID.
fn text(guid: &[u8; 16]) -> String {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map(|index| guid[index]);
    let digits = hex::encode(order);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// Makes the files below `root`, for the owner and root's group to read.
pub fn show(entries: &[Entry<'_>], root: &Path) -> io::Result<()> {
    let directory = root.join("secrets/coco");
    DirBuilder::new().recursive(true).mode(0o755).create(&directory)?;
    for entry in entries {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o440);
        options.open(directory.join(&entry.guid))?.write_all(entry.data)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    const SECRET: &str = "a42dd9c0-5257-4689-8fe2-390a1cbb18c4";

    fn table(entries: &[(&[u8; 16], &[u8])]) -> Vec<u8> {
        let total: usize = HEADER + entries.iter().map(|(_, data)| HEADER + data.len()).sum::<usize>();
        let mut out = TABLE.to_vec();
        out.extend_from_slice(&(total as u32).to_le_bytes());
        for (guid, data) in entries {
            out.extend_from_slice(*guid);
            out.extend_from_slice(&((HEADER + data.len()) as u32).to_le_bytes());
            out.extend_from_slice(data);
        }
        out
    }

    #[test]
    fn entries_become_files_that_root_reads_and_unlinks() {
        let mut bytes = table(&[(&uefi(SECRET), b"{}"), (&[0; 16], b"nothing"), (&[0xff; 16], b"")]);
        bytes.extend_from_slice(&[0; 13]);
        let entries = parse(&bytes).unwrap();
        assert_eq!(entries[0], Entry { guid: SECRET.to_owned(), data: b"{}" });
        assert_eq!((entries.len(), &entries[1].guid[..8]), (2, "ffffffff"));
        let root = tempfile::tempdir().unwrap();
        show(&entries, root.path()).unwrap();
        let path = root.path().join("secrets/coco").join(SECRET);
        assert_eq!(std::fs::read(&path).unwrap(), b"{}");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o440);
        assert!(show(&entries, root.path()).is_err(), "one GUID is one file");
    }

    #[test]
    fn lengths_that_dont_add_up_are_refused() {
        let good = table(&[(&uefi(SECRET), b"secret")]);
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            assert!(parse(&bytes).is_err());
        };
        refused(&|bytes| bytes.clear());
        refused(&|bytes| bytes[0] ^= 1);
        refused(&|bytes| bytes.truncate(30));
        refused(&|bytes| bytes[16] += 1);
        refused(&|bytes| bytes[36] += 1);
        refused(&|bytes| bytes[36] = 19);
        refused(&|bytes| bytes[39] = 0xff);
        assert!(parse(&table(&[(&[1; 16], &b""[..]); 65])).is_err());
        assert!(parse(&table(&[(&[1; 16], &b""[..]); 64])).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = parse(&[&TABLE[..], &tail].concat());
        }
    }
}
