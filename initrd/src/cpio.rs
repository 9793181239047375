//! The `newc` cpio format that Linux unpacks as initramfs
//! (kernel documentation, "initramfs buffer format").

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;

/// One archive member's type with what belongs to it.
pub(crate) enum Member<'a> {
    Directory,
    File(&'a [u8]),
    Symlink(&'a str),
    Character(u32, u32),
    Block(u32, u32),
}

/// Writes members in the order given; inode numbers count from 1, everything else that could differ
/// between two builds (times, owners, device of the source) is zero.
pub(crate) struct Writer<W: Write> {
    out: W,
    written: usize,
    inode: u32,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0 }
    }

    /// `path` is relative to the root, without a leading slash; `permissions` are the low twelve bits.
    pub(crate) fn member(&mut self, path: &str, permissions: u32, member: &Member<'_>) -> io::Result<()> {
        self.inode += 1;
        let (kind, links, body, device) = match member {
            Member::Directory => (DIRECTORY, 2, &b""[..], (0, 0)),
            Member::File(bytes) => (REGULAR, 1, *bytes, (0, 0)),
            Member::Symlink(target) => (SYMLINK, 1, target.as_bytes(), (0, 0)),
            Member::Character(major, minor) => (CHARACTER, 1, &b""[..], (*major, *minor)),
            Member::Block(major, minor) => (BLOCK, 1, &b""[..], (*major, *minor)),
        };
        self.record(self.inode, kind | permissions, links, path, body, device)
    }

    /// Ends the archive and pads it to 512 bytes.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.record(0, 0, 1, "TRAILER!!!", b"", (0, 0))?;
        self.pad(512)?;
        Ok(self.out)
    }

    fn record(
        &mut self,
        inode: u32,
        mode: u32,
        links: u32,
        path: &str,
        body: &[u8],
        device: (u32, u32),
    ) -> io::Result<()> {
        let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, "a cpio member holds at most 4 GiB");
        let size = u32::try_from(body.len()).map_err(too_large)?;
        let name = u32::try_from(path.len() + 1).map_err(too_large)?;
        // inode, mode, uid, gid, links, mtime, size, device of the source (2), device (2), name, checksum
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(b"\0")?;
        self.pad(4)?;
        self.put(body)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len();
        Ok(())
    }

    fn pad(&mut self, to: usize) -> io::Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&[0; 512][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_laid_out_as_the_kernel_reads_it() {
        let mut writer = Writer::new(Vec::new());
        writer.member("ab", 0o755, &Member::File(b"hello")).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[6..14], b"00000001", "inode");
        assert_eq!(&bytes[14..22], b"000081ED", "regular file, 0755");
        assert_eq!(&bytes[46..54], b"00000000", "mtime");
        assert_eq!(&bytes[54..62], b"00000005", "size");
        assert_eq!(
            &bytes[110..116],
            b"ab\0\0\0\0",
            "name, padded so that the body starts on a multiple of 4"
        );
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(&bytes[234..244], b"TRAILER!!!");
    }

    #[test]
    fn a_node_carries_its_device_number() {
        let mut writer = Writer::new(Vec::new());
        writer.member("c", 0o600, &Member::Character(5, 1)).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(&bytes[14..22], b"00002180");
        assert_eq!(&bytes[78..94], b"0000000500000001");
    }
}
