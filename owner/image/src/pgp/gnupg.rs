//! gpg's own key ring, had by `gpg --export` as ocicrypt has it. Nothing secret passes here.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::RING_LIMIT;

/// What of gpg's complaint is repeated, in bytes.
const COMPLAINT: u64 = 4096;

/// gpg could not be asked for its key ring.
#[derive(Debug, thiserror::Error)]
pub enum GnupgError {
    /// It is not there.
    #[error(
        "can't run {}: install GnuPG, or give the recipient's key as a file of 'gpg --export'", .program.display()
    )]
    Start {
        /// What was run.
        program: PathBuf,
        /// Why that failed.
        #[source]
        source: std::io::Error,
    },
    /// Its output can't be read.
    #[error("reading the output of {} failed", .program.display())]
    Read {
        /// What was run.
        program: PathBuf,
        /// Why that failed.
        #[source]
        source: std::io::Error,
    },
    /// The ring is larger than is read.
    #[error("gpg's key ring is larger than {RING_LIMIT} bytes: export the recipients' keys to a file")]
    TooLong,
    /// It ended with an error.
    #[error("'gpg --export' failed: {0}")]
    Failed(String),
}

/// Where gpg is, and which home it uses.
#[derive(Debug, Clone)]
pub struct Gnupg {
    /// The program.
    pub program: PathBuf,
    /// Instead of `$GNUPGHOME` or `~/.gnupg`.
    pub home: Option<PathBuf>,
}

impl Default for Gnupg {
    fn default() -> Self {
        Self { program: "gpg".into(), home: None }
    }
}

impl Gnupg {
    /// The whole public ring, as `gpg --export` writes it; empty when it has no key.
    ///
    /// # Errors
    /// When gpg is missing or fails, or its ring is too large.
    pub fn export(&self) -> Result<Vec<u8>, GnupgError> {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(home) = &self.home {
            arguments.extend(["--homedir".into(), home.into()]);
        }
        arguments.extend(["--batch".into(), "--no-tty".into(), "--export".into()]);
        let program = || self.program.clone();
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| GnupgError::Start { program: program(), source })?;
        let stderr = child.stderr.take();
        let complaint = std::thread::spawn(move || {
            let mut said = Vec::new();
            if let Some(mut stderr) = stderr {
                // What doesn't fit is read on, so that gpg is never stuck on a full pipe.
                let _ = stderr.by_ref().take(COMPLAINT).read_to_end(&mut said);
                let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            }
            String::from_utf8_lossy(&said).trim().to_owned()
        });
        let mut ring = Vec::new();
        let read = match child.stdout.take() {
            Some(stdout) => stdout.take(RING_LIMIT as u64 + 1).read_to_end(&mut ring),
            None => Ok(0),
        };
        if ring.len() > RING_LIMIT {
            let _ = child.kill();
        }
        let status = child.wait();
        let complaint = complaint.join().unwrap_or_default();
        read.map_err(|source| GnupgError::Read { program: program(), source })?;
        if ring.len() > RING_LIMIT {
            return Err(GnupgError::TooLong);
        }
        match status {
            Ok(status) if status.success() => Ok(ring),
            Ok(_) => {
                Err(GnupgError::Failed(complaint.lines().next().unwrap_or("no reason given").to_owned()))
            }
            Err(source) => Err(GnupgError::Read { program: program(), source }),
        }
    }
}
