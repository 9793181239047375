//! The archive that `svm add` puts before an initrd (cpio, "newc"): its first file with contents is the blob.

const ENTRY: usize = 110;
const MAGIC: &[u8] = b"070701";
const TRAILER: &[u8] = b"TRAILER!!!";
const DIRECTORY: &[u8] = b"opt/ibm/pef";
/// The archive has a few directories and one file.
const ENTRIES_MAX: usize = 64;
/// What follows the archive begins at such a boundary.
const BLOCK: usize = 512;

/// The blob, and the initrd without the archive.
pub(super) fn split(initrd: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0_usize;
    let mut blob = None;
    for _ in 0..ENTRIES_MAX {
        let header = initrd.get(at..at.checked_add(ENTRY)?)?;
        if !header.starts_with(MAGIC) {
            return None;
        }
        let (length, name_length) = (field(header, 6)?, field(header, 11)?);
        let name_at = at + ENTRY;
        let name = initrd.get(name_at..name_at.checked_add(name_length)?)?.strip_suffix(&[0])?;
        let data_at = (name_at + name_length).checked_next_multiple_of(4)?;
        let data = initrd.get(data_at..data_at.checked_add(length)?)?;
        at = (data_at + length).checked_next_multiple_of(4)?;
        if name == TRAILER {
            let rest = initrd.get(at.next_multiple_of(BLOCK)..)?;
            return blob.map(|blob| (blob, rest));
        }
        if length > 0 && blob.is_none() {
            blob = Some(data).filter(|_| name.starts_with(DIRECTORY));
            blob?;
        }
    }
    None
}

/// The header's field of that index: eight hexadecimal digits.
fn field(header: &[u8], index: usize) -> Option<usize> {
    let digits = std::str::from_utf8(header.get(6 + index * 8..14 + index * 8)?).ok()?;
    usize::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::ultravisor) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, data) in entries.iter().chain([&("TRAILER!!!", &[][..])]) {
            let fields = [1, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
            out.extend_from_slice(MAGIC);
            for field in fields {
                out.extend_from_slice(format!("{field:08x}").as_bytes());
            }
            out.extend_from_slice(name.as_bytes());
            out.push(0);
            out.resize(out.len().next_multiple_of(4), 0);
            out.extend_from_slice(data);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    #[test]
    fn the_blob_is_the_first_file_and_the_initrd_what_follows() {
        let mut initrd =
            archive(&[("opt", b""), ("opt/ibm/pef/blob", b"the blob"), ("extra", b"unmeasured")]);
        initrd.extend_from_slice(b"initrd");
        assert_eq!(split(&initrd), Some((&b"the blob"[..], &b"initrd"[..])));
        for length in 0..initrd.len() - b"initrd".len() {
            assert!(split(&initrd[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn other_archives_hold_no_blob() {
        assert!(split(b"").is_none());
        assert!(split(&archive(&[])).is_none());
        assert!(split(&archive(&[("opt/ibm/other", b"x")])).is_none());
        assert!(split(&archive(&[("first", b"x"), ("opt/ibm/pef/blob", b"x")])).is_none());
    }

    proptest! {
        #[test]
        fn changed_archives_never_panic(changes in proptest::collection::vec((0..300_usize, any::<u8>()), 1..6)) {
            let mut bytes = archive(&[("opt/ibm/pef/blob", b"the blob")]);
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            let _ = split(&bytes);
        }
    }
}
