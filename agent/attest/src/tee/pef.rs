//! Power PEF: the key from this VM's ESM blob, which the ultravisor hands out to a secure VM that was launched
//! as the blob says. A file can be read once a boot, by one process: whoever comes later, a container say,
//! gets nothing.

mod file;
#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
mod hardware;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use protocols::pef::{BlobKey, ESM_FILE, ESM_VERSION, EsmSecret, MAX_ESM_FILE};
use protocols::rcar::TeeKind;
use sealed_spec::SpecDigest;
use serde_json::Value;
use thiserror::Error;

use super::{Binding, Tee, TeeError};
pub use file::read_file;
#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
pub use hardware::Hardware;

/// What the ultravisor calls are made through; tests stand in for it here.
pub trait Ultravisor {
    /// `UV_ESMB_GET_FILE`: up to 64 bytes of the file from `offset` on. The name has a NUL after it. `None` if
    /// nobody answers the call: this is no secure VM.
    fn get_file(&mut self, name: &[u8; 64], offset: u64) -> Option<Chunk>;
}

/// The answer to [`Ultravisor::get_file`], as it came.
pub struct Chunk {
    /// Bytes of data; 0 at the end of the file, below 0 is an error.
    pub length: i64,
    /// The data, at its start.
    pub data: [u8; 64],
}

/// Why the ESM blob's file is not used. Says nothing of what it held.
#[derive(Debug, Error)]
pub enum EsmError {
    /// The kernel says that this is a secure VM, and nobody answers.
    #[error("the kernel says that this is a secure VM, but the ultravisor doesn't answer")]
    NoAnswer,
    /// The kernel's word can't be read.
    #[error("{path} can't be read")]
    Hint {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The ultravisor refused, or there is no such file.
    #[error(
        "the ultravisor refused to hand out file '{ESM_FILE}' of the ESM blob (error {0}); was it read before?"
    )]
    Refused(i64),
    /// An answer that no ultravisor gives.
    #[error("the ultravisor's answer says that it has {0} bytes, more than 64")]
    Chunk(i64),
    /// No bytes at all.
    #[error("file '{ESM_FILE}' of the ESM blob is empty")]
    Empty,
    /// Longer than any.
    #[error("file '{ESM_FILE}' of the ESM blob has more than {MAX_ESM_FILE} bytes")]
    Long,
    /// Not the JSON that owners write.
    #[error(
        "file '{ESM_FILE}' of the ESM blob is not what 'sealpod esm make' writes (line {line}, column {column})"
    )]
    Json {
        /// Where in it.
        line: usize,
        /// Where in it.
        column: usize,
    },
    /// Another version.
    #[error("file '{ESM_FILE}' of the ESM blob has version {0}; this agent reads {ESM_VERSION}")]
    Version(u32),
    /// Another file's contents under this name.
    #[error("file '{ESM_FILE}' of the ESM blob holds the contents of another file: files were swapped")]
    Name,
    /// A digest, name or key of another form.
    #[error("the {0} in the ESM blob is malformed")]
    Field(&'static str),
    /// Evidence for a sealed spec that the blob isn't for.
    #[error("the ESM blob is for another sealed spec")]
    OtherSpec,
}

/// Power PEF. Its key is silent and wiped with it.
pub struct Pef {
    blob: String,
    init_data: [u8; 32],
    sealed_spec: [u8; 32],
    key: BlobKey,
}

impl Pef {
    /// Reads this VM's file. `None` if this is no secure VM.
    pub fn take(ultravisor: &mut dyn Ultravisor) -> Result<Option<Self>, EsmError> {
        match read_file(ultravisor, ESM_FILE)? {
            Some(bytes) => Self::parse(&bytes).map(Some),
            None => Ok(None),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, EsmError> {
        // The parser's own message could quote the key.
        let secret: EsmSecret = serde_json::from_slice(bytes)
            .map_err(|error| EsmError::Json { line: error.line(), column: error.column() })?;
        if secret.version != ESM_VERSION {
            return Err(EsmError::Version(secret.version));
        }
        if secret.name != ESM_FILE {
            return Err(EsmError::Name);
        }
        if secret.blob.len() != 32 || !secret.blob.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(EsmError::Field("blob id"));
        }
        Ok(Self {
            init_data: digest(&secret.init_data, "initdata digest")?,
            sealed_spec: digest(&secret.sealed_spec, "sealed spec digest")?,
            key: secret.key().map_err(|_| EsmError::Field("key"))?,
            blob: secret.blob.clone(),
        })
    }
}

impl Tee for Pef {
    fn kind(&self) -> TeeKind {
        TeeKind::Pef
    }

    fn init_data_digest(&self) -> Result<[u8; 32], TeeError> {
        Ok(self.init_data)
    }

    fn evidence(&self, binding: &Binding<'_>) -> Result<Value, TeeError> {
        if *binding.sealed_spec != self.sealed_spec {
            return Err(EsmError::OtherSpec.into());
        }
        let evidence = self.key.evidence(binding.report_data, binding.sealed_spec, &self.blob);
        serde_json::to_value(evidence).map_err(TeeError::Evidence)
    }

    fn sealed_spec(&self) -> Option<&[u8; 32]> {
        Some(&self.sealed_spec)
    }
}

/// Where the guest's kernel says that this is a secure VM.
pub(super) struct Places {
    /// Says `1` there. The kernel's word is a hint: what counts is who answers.
    #[cfg_attr(not(target_arch = "powerpc64"), expect(dead_code, reason = "PEF is Power's"))]
    pub(super) hint: PathBuf,
}

impl Places {
    pub(super) fn guest() -> Self {
        Self { hint: "/sys/devices/system/cpu/svm".into() }
    }
}

/// Power PEF, if this guest has it.
#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
pub(super) fn find(places: &Places) -> Result<Option<Arc<dyn Tee>>, TeeError> {
    let found = Pef::take(&mut Hardware)?;
    if found.is_none() && says_secure(&places.hint)? {
        return Err(EsmError::NoAnswer.into());
    }
    Ok(found.map(|tee| Arc::new(tee) as Arc<dyn Tee>))
}

/// No other processor has an ultravisor.
#[cfg(not(all(target_arch = "powerpc64", target_endian = "little")))]
#[expect(clippy::unnecessary_wraps, reason = "as on Power")]
pub(super) fn find(_: &Places) -> Result<Option<Arc<dyn Tee>>, TeeError> {
    Ok(None)
}

#[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
fn says_secure(path: &std::path::Path) -> Result<bool, EsmError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim() == "1"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(EsmError::Hint { path: path.display().to_string(), source }),
    }
}

fn digest(text: &str, field: &'static str) -> Result<[u8; 32], EsmError> {
    let digest: SpecDigest = text.parse().map_err(|_| EsmError::Field(field))?;
    Ok(*digest.as_bytes())
}

#[cfg(test)]
mod tests;
