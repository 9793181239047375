//! The initdata document of the guest: the one drive on the command line whose contents begin with Kata's magic
//! (`initdata`, length, gzip). The broker's session is for it, and the injected secret names its digest.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use thiserror::Error;

const MAGIC: &[u8; 8] = b"initdata";
const HEADER: usize = MAGIC.len() + 8;
/// Longest compressed document.
const MAX_PACKED: u64 = 4 * 1024 * 1024;
/// Longest document.
const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// Why there is no initdata.
#[derive(Debug, Error)]
pub enum InitdataError {
    /// No drive holds any.
    #[error(
        "no drive on qemu's command line holds initdata; the pod's annotation io.katacontainers.config.hypervisor.cc_init_data puts one there ('sealpod seal' writes it)"
    )]
    None,
    /// More than one does.
    #[error("two drives hold initdata, {first} and {second}; a guest has one")]
    Two {
        /// The first.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// A drive can't be read.
    #[error("drive {path} can't be read")]
    Read {
        /// The drive.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It begins like one and isn't.
    #[error("initdata on drive {path} {rule}")]
    Malformed {
        /// The drive.
        path: PathBuf,
        /// What is wrong.
        rule: &'static str,
    },
}

/// The text of the one document on these drives.
///
/// # Errors
/// [`InitdataError`]; drives that can't be opened are QEMU's to report, unless none holds initdata.
pub fn find(drives: &[PathBuf]) -> Result<String, InitdataError> {
    let mut found: Option<(&PathBuf, File, u64)> = None;
    let mut unreadable = None;
    for path in drives {
        let (file, length) = match open(path) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(source) => {
                unreadable = Some(InitdataError::Read { path: path.clone(), source });
                continue;
            }
        };
        match &found {
            // The same drive may be named twice, by its file and by its format.
            Some((first, ..)) if *first == path => {}
            Some((first, ..)) => {
                return Err(InitdataError::Two { first: (*first).clone(), second: path.clone() });
            }
            None => found = Some((path, file, length)),
        }
    }
    let Some((path, file, length)) = found else { return Err(unreadable.unwrap_or(InitdataError::None)) };
    read(path, file, length)
}

/// The file behind its header, and the header's length; `None` if it doesn't begin with the magic.
fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    // A pipe among the drives must not block.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Ok(None);
    }
    let mut header = [0; HEADER];
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (magic, length) = header.split_at(MAGIC.len());
    let length = length.try_into().map_or(u64::MAX, u64::from_le_bytes);
    Ok((magic == MAGIC).then_some((file, length)))
}

fn read(path: &Path, file: File, length: u64) -> Result<String, InitdataError> {
    let malformed = |rule| InitdataError::Malformed { path: path.to_owned(), rule };
    if length > MAX_PACKED {
        return Err(malformed("is longer than any real one"));
    }
    let mut packed = Vec::new();
    file.take(length)
        .read_to_end(&mut packed)
        .map_err(|source| InitdataError::Read { path: path.to_owned(), source })?;
    if packed.len() as u64 != length {
        return Err(malformed("is shorter than its header says"));
    }
    let mut document = Vec::new();
    let mut decoder = GzDecoder::new(packed.as_slice());
    decoder
        .by_ref()
        .take(MAX_DOCUMENT + 1)
        .read_to_end(&mut document)
        .map_err(|_| malformed("is not gzip"))?;
    if document.len() as u64 > MAX_DOCUMENT {
        return Err(malformed("unpacks to more than 4 MiB"));
    }
    if !decoder.into_inner().is_empty() {
        return Err(malformed("has bytes after its gzip member"));
    }
    String::from_utf8(document).map_err(|_| malformed("is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn device(packed: &[u8], length: u64) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &length.to_le_bytes(), packed].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn framed(document: &[u8]) -> Vec<u8> {
        let packed = gzip(document);
        device(&packed, packed.len() as u64)
    }

    fn drives(contents: &[&[u8]]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let paths = contents.iter().enumerate().map(|(index, bytes)| {
            let path = dir.path().join(index.to_string());
            std::fs::write(&path, bytes).unwrap();
            path
        });
        let paths = paths.collect();
        (dir, paths)
    }

    #[test]
    fn the_one_drive_with_the_magic_is_it() {
        let (dir, mut paths) = drives(&[b"", b"initdat", &[0; 4096], &framed(b"version = '0.1.0'")]);
        paths.push(dir.path().to_owned());
        paths.push(dir.path().join("missing"));
        // Named twice: by file and by node.
        paths.push(paths[3].clone());
        assert_eq!(find(&paths).unwrap(), "version = '0.1.0'");
    }

    #[test]
    fn none_and_two_are_refused() {
        let (_dir, paths) = drives(&[b"", &[0; 4096]]);
        assert!(matches!(find(&paths), Err(InitdataError::None)));
        assert!(matches!(find(&[]), Err(InitdataError::None)));
        assert!(matches!(find(&["/nonexistent".into()]), Err(InitdataError::Read { .. })));
        let (_dir, paths) = drives(&[&framed(b"a"), &framed(b"a")]);
        assert!(matches!(find(&paths), Err(InitdataError::Two { .. })));
    }

    #[test]
    fn each_damage_is_named() {
        let packed = gzip(b"text");
        let length = packed.len() as u64;
        let trailing = [packed.as_slice(), b"x"].concat();
        let bomb = gzip(&vec![0; MAX_DOCUMENT as usize + 1]);
        for (bytes, rule) in [
            (device(&packed, u64::MAX), "longer"),
            (device(&packed, MAX_PACKED + 1), "longer"),
            (device(&packed, 4096), "shorter"),
            (device(&packed, length - 1), "gzip"),
            (device(b"not gzip", 8), "gzip"),
            (device(&trailing, length + 1), "after"),
            (device(&bomb, bomb.len() as u64), "4 MiB"),
            (framed(b"\xff"), "UTF-8"),
        ] {
            let (_dir, paths) = drives(&[&bytes]);
            let error = find(&paths).unwrap_err().to_string();
            assert!(error.contains(rule), "{rule}: {error}");
        }
    }
}
