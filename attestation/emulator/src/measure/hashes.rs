//! The kernel hash table that QEMU puts into guest memory with `kernel-hashes=on`: SHA-256 of kernel,
//! initrd and command line, so that the launch digest covers them.

use crate::guid::uefi;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const TABLE: [u8; 16] = uefi("9438d606-4f22-4cc9-b479-a793d411fd21");
const COMMAND_LINE: [u8; 16] = uefi("97d02dd8-bd20-4c94-aa78-e7714d36ab2a");
const INITRD: [u8; 16] = uefi("44baf731-3a2f-4bd7-9af1-41e29169781d");
const KERNEL: [u8; 16] = uefi("4de79437-abd2-427f-b835-d5b172d2045b");

/// GUID, length, SHA-256.
const ENTRY: u16 = 16 + 2 + 32;
const LENGTH: u16 = 16 + 2 + 3 * ENTRY;
/// The table's length rounded up to 16; the padding is measured.
const PADDED: usize = LENGTH.next_multiple_of(16) as usize;
/// Linux on x86 takes up to 2048 bytes; QEMU takes more.
const COMMAND_LINE_MAX: u64 = 64 * 1024;

/// SHA-256 of what is booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashTable {
    kernel: [u8; 32],
    initrd: [u8; 32],
    command_line: [u8; 32],
}

/// The files that QEMU boots.
#[derive(Debug, Clone)]
pub struct BootFiles<'a> {
    /// `-kernel`
    pub kernel: &'a Path,
    /// `-initrd`
    pub initrd: &'a Path,
    /// A file with the argument of `-append`, exactly.
    pub command_line: &'a Path,
}

/// Why a boot file can't be measured.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("reading {what} from {path}: {source}")]
    Read {
        /// Which of the files.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// A command line that other tools would measure differently.
    #[error(
        "the kernel command line in {0} must be UTF-8 without NUL, without a line end and without white space around it, up to 64 KiB"
    )]
    CommandLine(PathBuf),
}

impl HashTable {
    /// Hashes the files as they are now.
    pub fn of_files(files: &BootFiles<'_>) -> Result<Self, FileError> {
        Ok(Self {
            kernel: hash_file("the kernel", files.kernel)?,
            initrd: hash_file("the initrd", files.initrd)?,
            command_line: hash_command_line(&read_command_line(files.command_line)?),
        })
    }

    /// Hashes what QEMU is told to boot; without an initrd the hash is that of nothing.
    pub fn of_words(kernel: &Path, initrd: Option<&Path>, command_line: &[u8]) -> Result<Self, FileError> {
        Ok(Self {
            kernel: hash_file("the kernel", kernel)?,
            initrd: match initrd {
                Some(path) => hash_file("the initrd", path)?,
                None => Sha256::digest([]).into(),
            },
            command_line: Sha256::new().chain_update(command_line).chain_update([0]).finalize().into(),
        })
    }

    /// Hashes what is already in memory.
    pub fn of_bytes(kernel: &[u8], initrd: &[u8], command_line: &str) -> Self {
        Self {
            kernel: Sha256::digest(kernel).into(),
            initrd: Sha256::digest(initrd).into(),
            command_line: hash_command_line(command_line),
        }
    }

    pub(super) fn encode(&self) -> [u8; PADDED] {
        let mut table = Vec::with_capacity(PADDED);
        table.extend_from_slice(&TABLE);
        table.extend_from_slice(&LENGTH.to_le_bytes());
        for (guid, hash) in [(COMMAND_LINE, self.command_line), (INITRD, self.initrd), (KERNEL, self.kernel)]
        {
            table.extend_from_slice(&guid);
            table.extend_from_slice(&ENTRY.to_le_bytes());
            table.extend_from_slice(&hash);
        }
        let mut padded = [0; PADDED];
        padded[..table.len()].copy_from_slice(&table);
        padded
    }
}

/// QEMU hashes the command line with its terminating NUL.
fn hash_command_line(text: &str) -> [u8; 32] {
    Sha256::new().chain_update(text).chain_update([0]).finalize().into()
}

fn read_command_line(path: &Path) -> Result<String, FileError> {
    let failed = |source| FileError::Read { what: "the kernel command line", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(COMMAND_LINE_MAX + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    let refused = || FileError::CommandLine(path.to_owned());
    let text = String::from_utf8(bytes).map_err(|_| refused())?;
    if text.len() as u64 > COMMAND_LINE_MAX || text.contains(['\0', '\n', '\r']) || text.trim() != text {
        return Err(refused());
    }
    Ok(text)
}

fn hash_file(what: &'static str, path: &Path) -> Result<[u8; 32], FileError> {
    let failed = |source| FileError::Read { what, path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_table_has_the_order_and_lengths_that_qemu_writes() {
        let table = HashTable::of_bytes(b"k", b"i", "c").encode();
        assert_eq!(table.len(), 176);
        assert_eq!(table[16..18], 168_u16.to_le_bytes());
        assert_eq!(table[18..34], COMMAND_LINE);
        assert_eq!(table[34..36], 50_u16.to_le_bytes());
        assert_eq!(table[36..68], *Sha256::digest(b"c\0"));
        assert_eq!(table[168..], [0; 8]);
    }

    #[test]
    fn one_byte_of_the_initrd_changes_the_table() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, bytes) in [("k", "kernel"), ("i", "initrd"), ("c", "console=ttyS0")] {
            fs::write(path(name), bytes).unwrap();
        }
        let (kernel, initrd, command_line) = (path("k"), path("i"), path("c"));
        let files = BootFiles { kernel: &kernel, initrd: &initrd, command_line: &command_line };
        let before = HashTable::of_files(&files).unwrap();
        assert_eq!(before, HashTable::of_bytes(b"kernel", b"initrd", "console=ttyS0"));
        fs::write(&initrd, "initrc").unwrap();
        assert_ne!(before, HashTable::of_files(&files).unwrap());
    }

    #[test]
    fn command_lines_that_tools_would_trim_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("append");
        for text in ["quiet\n", " quiet", "a\0b", "a\nb", "\u{a0}quiet"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(read_command_line(&path), Err(FileError::CommandLine(_))), "{text:?}");
        }
        fs::write(&path, [0xff]).unwrap();
        assert!(matches!(read_command_line(&path), Err(FileError::CommandLine(_))));
        fs::write(&path, "a".repeat(64 * 1024 + 1)).unwrap();
        assert!(matches!(read_command_line(&path), Err(FileError::CommandLine(_))));
        fs::write(&path, "").unwrap();
        assert_eq!(read_command_line(&path).unwrap(), "");
    }
}
