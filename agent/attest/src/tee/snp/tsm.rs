//! Reports by configfs-tsm (Linux 6.7 and later, `Documentation/ABI/testing/configfs-tsm`): a directory of
//! our own a request, with the request's data written to one file and the answer read from others.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use tee_evidence::snp::{CertificateTable, RawReport, TableError};
use thiserror::Error;

use super::{LEAST_PRIVILEGED, Reports};
use crate::tee::TeeError;

/// Where the kernel has report directories.
pub(super) const DIRECTORY: &str = "/sys/kernel/config/tsm/report";

/// What the provider of SEV-SNP's reports calls itself.
const PROVIDER: &str = "sev_guest";
/// Names and numbers are shorter.
const MAX_TEXT: usize = 64;
/// Somebody else's write into our directory is answered with another directory, this often.
const RACE_ATTEMPTS: u32 = 4;
/// A busy firmware is asked again this often.
const BUSY_ATTEMPTS: u32 = 20;

/// Why configfs gave no report.
#[derive(Debug, Error)]
pub enum TsmError {
    /// No directory for the request.
    #[error("a report directory can't be made")]
    Make(#[source] io::Error),
    /// A file of it.
    #[error("'{attribute}' of the report directory failed")]
    Attribute {
        /// Which.
        attribute: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that is longer than it can be.
    #[error("'{attribute}' of the report directory has more than {limit} bytes")]
    Long {
        /// Which.
        attribute: &'static str,
        /// What it may have.
        limit: usize,
    },
    /// A file that holds no number, or one out of range.
    #[error("'{0}' of the report directory is not a number in range")]
    Number(&'static str),
    /// Reports of another TEE.
    #[error("the provider is '{0}'; only {PROVIDER} is supported")]
    Provider(String),
    /// The guest runs at a level that the provider refuses to speak for.
    #[error("the guest's privilege level is {level}, the provider's reports begin at {floor}")]
    Level {
        /// The guest's.
        level: u32,
        /// The provider's lowest.
        floor: u32,
    },
    /// Each time somebody else wrote into our directory.
    #[error(
        "something else in this guest wrote into the report directory during each of {RACE_ATTEMPTS} requests"
    )]
    Race,
    /// The firmware said 'busy' each time.
    #[error("the firmware stayed busy")]
    Busy,
    /// The host's certificates are malformed.
    #[error("the host's certificate table is malformed")]
    Certificates(#[source] TableError),
}

/// Report directories; tests stand in for the kernel here.
pub trait Directories: Send + Sync {
    /// Whether the kernel has the interface at all.
    fn available(&self) -> bool;
    /// Makes one; the kernel puts its files into it.
    fn make(&self, name: &str) -> io::Result<()>;
    /// The first `limit` bytes of a file.
    fn read(&self, name: &str, attribute: &str, limit: usize) -> io::Result<Vec<u8>>;
    /// Writes a file, at once.
    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()>;
    /// Removes one.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// The kernel's own.
pub struct Configfs(PathBuf);

impl Configfs {
    /// Below that directory.
    pub fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }
}

impl Directories for Configfs {
    fn available(&self) -> bool {
        self.0.is_dir()
    }

    fn make(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir(self.0.join(name))
    }

    fn read(&self, name: &str, attribute: &str, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.0.join(name).join(attribute))?.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        // One call of write(2) is one store; a second would be another request.
        let written = OpenOptions::new().write(true).open(self.0.join(name).join(attribute))?.write(bytes)?;
        if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_dir(self.0.join(name))
    }
}

/// configfs-tsm with SEV-SNP's provider.
pub struct Tsm {
    directories: Box<dyn Directories>,
    /// None: as low as the provider goes.
    vmpl: Option<u32>,
    pause: Duration,
}

/// The report, and what came beside it.
type Blobs = (Vec<u8>, Vec<u8>);

impl Tsm {
    /// None if the kernel lacks the interface, or no TEE has registered with it.
    pub fn open(directories: Box<dyn Directories>, vmpl: Option<u32>) -> Result<Option<Self>, TeeError> {
        if !directories.available() {
            return Ok(None);
        }
        match Entry::make(directories.as_ref()) {
            Err(TsmError::Make(error)) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
            entry => entry?.require_provider()?,
        }
        Ok(Some(Self { directories, vmpl, pause: Duration::from_millis(100) }))
    }

    /// One request in a directory of its own. None if something else wrote there.
    fn request(&self, report_data: &[u8; 64]) -> Result<Option<Blobs>, TsmError> {
        let entry = Entry::make(self.directories.as_ref())?;
        entry.require_provider()?;
        let before = entry.generation()?;
        let mut writes = 1;
        // Absent where the provider has no levels.
        if let Some(floor) = entry.optional("privlevel_floor", MAX_TEXT)? {
            let floor = number(&floor, LEAST_PRIVILEGED.into()).ok_or(TsmError::Number("privlevel_floor"))?;
            let floor = u32::try_from(floor).map_err(|_| TsmError::Number("privlevel_floor"))?;
            let level = self.vmpl.unwrap_or(floor);
            if level < floor {
                return Err(TsmError::Level { level, floor });
            }
            entry.write("privlevel", level.to_string().as_bytes())?;
            writes += 1;
        }
        entry.write("inblob", report_data)?;
        let report = self.patiently(&entry)?;
        let certificates = entry.optional("auxblob", CertificateTable::MAX_BYTES)?.unwrap_or_default();
        // Each write counts one: ours and nobody else's.
        Ok((before.checked_add(writes) == Some(entry.generation()?)).then_some((report, certificates)))
    }

    /// The report, asked for again while the firmware is busy: the data that it is over stays written.
    fn patiently(&self, entry: &Entry<'_>) -> Result<Vec<u8>, TsmError> {
        for _ in 0..BUSY_ATTEMPTS {
            match entry.read("outblob", RawReport::LEN) {
                Err(TsmError::Attribute { source, .. }) if is_busy(&source) => sleep(self.pause),
                other => return other,
            }
        }
        Err(TsmError::Busy)
    }
}

impl Reports for Tsm {
    fn report(&self, report_data: &[u8; 64]) -> Result<(RawReport, CertificateTable), TeeError> {
        for _ in 0..RACE_ATTEMPTS {
            if let Some((report, certificates)) = self.request(report_data)? {
                let report = RawReport::from_bytes(&report).map_err(TeeError::Report)?;
                let table = CertificateTable::parse(&certificates).map_err(TsmError::Certificates)?;
                return Ok((report, table));
            }
        }
        Err(TsmError::Race.into())
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR))
}

/// Decimal digits and a line break.
fn number(bytes: &[u8], most: u64) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number <= most)
}

/// A report directory, removed with this value.
struct Entry<'a> {
    directories: &'a dyn Directories,
    name: String,
}

impl<'a> Entry<'a> {
    /// Under a name that nobody guesses, and that nobody else uses.
    fn make(directories: &'a dyn Directories) -> Result<Self, TsmError> {
        let random = getrandom::u64().map_err(|error| TsmError::Make(io::Error::other(error)))?;
        let name = format!("sealpod-{random:016x}");
        directories.make(&name).map_err(TsmError::Make)?;
        Ok(Self { directories, name })
    }

    fn require_provider(&self) -> Result<(), TsmError> {
        let provider = self.read("provider", MAX_TEXT)?;
        let provider = provider.strip_suffix(b"\n").unwrap_or(&provider);
        if provider == PROVIDER.as_bytes() {
            return Ok(());
        }
        Err(TsmError::Provider(provider.escape_ascii().to_string()))
    }

    fn generation(&self) -> Result<u64, TsmError> {
        number(&self.read("generation", MAX_TEXT)?, u64::MAX).ok_or(TsmError::Number("generation"))
    }

    fn read(&self, attribute: &'static str, limit: usize) -> Result<Vec<u8>, TsmError> {
        let bytes = self
            .directories
            .read(&self.name, attribute, limit + 1)
            .map_err(|source| TsmError::Attribute { attribute, source })?;
        if bytes.len() > limit { Err(TsmError::Long { attribute, limit }) } else { Ok(bytes) }
    }

    /// None where the provider has no such file.
    fn optional(&self, attribute: &'static str, limit: usize) -> Result<Option<Vec<u8>>, TsmError> {
        match self.read(attribute, limit) {
            Err(TsmError::Attribute { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn write(&self, attribute: &'static str, bytes: &[u8]) -> Result<(), TsmError> {
        self.directories
            .write(&self.name, attribute, bytes)
            .map_err(|source| TsmError::Attribute { attribute, source })
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        // A directory that stays costs memory of this guest, and there is nobody to tell.
        drop(self.directories.remove(&self.name));
    }
}

#[cfg(test)]
mod tests;
