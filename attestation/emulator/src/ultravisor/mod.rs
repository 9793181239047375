//! Power's ultravisor as far as a secure VM's start needs it: opens the ESM blob with a machine's TPM key,
//! compares kernel, initrd and command line with the blob's digests, and hands out the blob's files, up to 64
//! bytes a call (open-power/ultravisor, `UV_ESM` and `UV_ESMB_GET_FILE`; open-power/svm-tools, README.ESM).
//!
//! The machine's key is software. Its public exponent is 257, which no TPM makes, so that production refuses it.

mod blob;
mod cpio;
mod faults;
mod fdt;
mod tpm;

pub use faults::{Fault, FaultError, KNOWN};
pub use fdt::FdtError;
pub use tpm::{EXPONENT, TpmError, TpmKey};

use blob::Blob;
use sha2::{Digest, Sha512};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Most bytes that one call hands out.
pub const CHUNK: usize = 64;
/// `U_PARAMETER`: there is no such file, or it was read before.
pub const PARAMETER: i64 = -4;

/// What was loaded into the VM's memory.
#[derive(Debug, Clone, Copy)]
pub struct Launched<'a> {
    /// The kernel as a flat binary.
    pub kernel: &'a [u8],
    /// The initrd, without the archive that holds the blob.
    pub initrd: &'a [u8],
    /// The kernel's command line.
    pub bootargs: &'a [u8],
}

/// Why the VM does not become secure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The initrd has no blob before it.
    #[error("the initrd does not begin with an archive that holds opt/ibm/pef/BLOB")]
    NoBlob,
    /// The blob, or a tree inside it, can't be read.
    #[error("ESM blob: {0}")]
    Fdt(#[from] FdtError),
    /// It lacks something.
    #[error("ESM blob: {0} is missing or has another form")]
    Form(&'static str),
    /// Nobody made it for this machine.
    #[error("ESM blob: no lockbox is for this machine's key")]
    NoLockbox,
    /// The lockbox is for this machine and can't be opened.
    #[error("ESM blob: the lockbox for this machine's key does not open")]
    Lockbox,
    /// Something was changed.
    #[error("ESM blob: {0} does not decrypt")]
    Decrypt(String),
    /// Something else was loaded than the blob is for.
    #[error("{0} is not the one that the ESM blob is for")]
    Digest(&'static str),
}

struct File {
    contents: Zeroizing<Vec<u8>>,
    /// From here on it wasn't read yet: each byte is handed out once.
    next: u64,
    /// Whoever read first.
    reader: Option<u32>,
}

/// A secure VM's ultravisor.
pub struct Ultravisor {
    files: BTreeMap<String, File>,
    faults: Vec<Fault>,
}

impl std::fmt::Debug for Ultravisor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Ultravisor").field("files", &self.files.keys()).finish_non_exhaustive()
    }
}

impl Ultravisor {
    /// `UV_ESM`: opens `blob` and compares what was loaded.
    pub fn launch(blob: &[u8], tpm: &TpmKey, launched: &Launched<'_>) -> Result<Self, Refusal> {
        Self::launch_with(blob, tpm, launched, Vec::new())
    }

    /// The same where the initrd still has the archive with the blob before it, as `svm add` leaves it.
    pub fn launch_from_initrd(tpm: &TpmKey, launched: &Launched<'_>) -> Result<Self, Refusal> {
        let (blob, initrd) = cpio::split(launched.initrd).ok_or(Refusal::NoBlob)?;
        Self::launch(blob, tpm, &Launched { initrd, ..*launched })
    }

    /// The same with something wrong.
    pub fn launch_with(
        blob: &[u8],
        tpm: &TpmKey,
        launched: &Launched<'_>,
        faults: Vec<Fault>,
    ) -> Result<Self, Refusal> {
        let mut blob = Blob::read(blob)?;
        for fault in &faults {
            if let Fault::SwappedFiles(one, other) = fault {
                blob.swap(one, other);
            }
        }
        let key = blob.key(tpm)?;
        let digests = blob.digests(&key)?;
        let size = digests.kernel_size as usize;
        let kernel = launched.kernel.get(..size).ok_or(Refusal::Digest("the kernel"))?;
        for (what, loaded, expected) in [
            ("the kernel", kernel, &digests.kernel),
            ("the initrd", launched.initrd, &digests.initrd),
            ("the kernel command line", launched.bootargs, &digests.bootargs),
        ] {
            if Sha512::digest(loaded)[..] != expected[..] {
                return Err(Refusal::Digest(what));
            }
        }
        let files = blob.files(&key)?;
        let files = files
            .into_iter()
            .map(|(name, contents)| (name, File { contents, next: 0, reader: None }))
            .collect();
        Ok(Self { files, faults })
    }

    /// `UV_ESMB_GET_FILE` by the guest's only process: see [`Ultravisor::get_file_for`].
    pub fn get_file(&mut self, name: &[u8; 64], offset: u64) -> (i64, [u8; CHUNK]) {
        self.get_file_for(1, name, offset)
    }

    /// `UV_ESMB_GET_FILE`: bytes of the file `name` (with a NUL behind it) from `offset` on. Their number, 0 at
    /// the end, or a negative error. The process that reads a file first is the only one that can, and only
    /// onwards.
    pub fn get_file_for(&mut self, process: u32, name: &[u8; 64], offset: u64) -> (i64, [u8; CHUNK]) {
        let mut data = [0; CHUNK];
        for fault in &self.faults {
            match fault {
                Fault::Error(code) => return (*code, data),
                Fault::Endless => return (CHUNK as i64, [b'x'; CHUNK]),
                _ => {}
            }
        }
        let length = name.iter().position(|byte| *byte == 0);
        let file = length
            .and_then(|length| std::str::from_utf8(&name[..length]).ok())
            .and_then(|name| self.files.get_mut(name));
        let Some(file) = file else { return (PARAMETER, data) };
        if offset < file.next || file.reader.is_some_and(|reader| reader != process) {
            return (PARAMETER, data);
        }
        file.reader = Some(process);
        let most = self.faults.iter().find_map(|fault| match fault {
            Fault::ShortReads(most) => Some(usize::from(*most).clamp(1, CHUNK)),
            _ => None,
        });
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.contents.len());
        let rest = &file.contents[start..];
        let chunk = &rest[..rest.len().min(most.unwrap_or(CHUNK))];
        data[..chunk.len()].copy_from_slice(chunk);
        file.next = (start + chunk.len()) as u64;
        let claimed = self.faults.iter().find_map(|fault| match fault {
            Fault::Length(length) => Some(*length),
            _ => None,
        });
        (claimed.unwrap_or(chunk.len() as i64), data)
    }

    /// Names and lengths of the files.
    pub fn files(&self) -> impl Iterator<Item = (&str, usize)> {
        self.files.iter().map(|(name, file)| (name.as_str(), file.contents.len()))
    }
}
