//! SEV and SEV-ES: the secret that the host injected, encrypted by the broker for this launch alone (SEV
//! API 55766 section 6.6), as Linux' `efi_secret` shows it. One entry is ours; it is wiped as soon as it was
//! looked at, whatever it held, and no other is opened.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocols::rcar::TeeKind;
use protocols::sev::{
    CONNECTION_KEY, ConnectionEvidence, LaunchKey, LaunchSecret, MAX_SECRET, SECRET_GUID, SECRET_VERSION,
    connection_mac,
};
use sealed_spec::{SpecDigest, SpecKey};
use serde_json::Value;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Binding, Tee, TeeError};

/// Where `efi_secret` has an entry a file.
pub(super) const DIRECTORY: &str = "/sys/kernel/security/secrets/coco";
/// `efi_secret` shows no more.
const MAX_ENTRIES: usize = 64;
/// Hex digits of a connection's name.
const ID_LENGTH: usize = 32;

/// Why an injected secret is not used. Says nothing of what it held.
#[derive(Debug, Error)]
pub enum LaunchSecretError {
    /// The directory can't be read.
    #[error("{path} can't be listed")]
    List {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More entries than there can be.
    #[error("there are more than {MAX_ENTRIES} injected secrets")]
    Entries,
    /// Two entries that could be ours.
    #[error("there are {0} entries {SECRET_GUID}, one is expected")]
    Several(usize),
    /// It can't be read.
    #[error("entry {SECRET_GUID} can't be read")]
    Read(#[source] io::Error),
    /// It can't be wiped, so containers could find it.
    #[error("entry {SECRET_GUID} can't be wiped from the guest's memory")]
    Wipe(#[source] io::Error),
    /// Longer than any.
    #[error("entry {SECRET_GUID} has more than {MAX_SECRET} bytes")]
    Long,
    /// Not the JSON that the broker writes.
    #[error("entry {SECRET_GUID} is no launch secret (line {line}, column {column})")]
    Json {
        /// Where in it.
        line: usize,
        /// Where in it.
        column: usize,
    },
    /// Another version.
    #[error("the launch secret has version {0}; this agent reads {SECRET_VERSION}")]
    Version(u32),
    /// A digest, name or key of another form.
    #[error("the launch secret's {0} is malformed")]
    Field(&'static str),
    /// Evidence for a sealed spec that the secret isn't for.
    #[error("the launch secret is for another sealed spec")]
    OtherSpec,
    /// An offline bundle proves nothing to anybody.
    #[error("the launch secret is an offline bundle, which makes no evidence")]
    Bundle,
}

/// SEV or SEV-ES. Its key is silent and wiped with it.
pub struct SevSecret {
    init_data: [u8; 32],
    sealed_spec: [u8; 32],
    key: Key,
}

enum Key {
    Bundle(SpecKey),
    Connection { id: String, key: Zeroizing<[u8; CONNECTION_KEY]> },
}

impl SevSecret {
    /// Reads and wipes our entry below `directory`; None if there is none.
    pub fn take(directory: &Path) -> Result<Option<Self>, TeeError> {
        let own = own_entries(directory)?;
        let mut contents = Vec::new();
        // All are wiped before any of them is judged.
        for path in &own {
            let content = read(path);
            std::fs::remove_file(path).map_err(LaunchSecretError::Wipe)?;
            contents.push(content);
        }
        let count = contents.len();
        match (contents.pop(), count) {
            (None, _) => Ok(None),
            (Some(content), 1) => Ok(Some(Self::parse(&content?)?)),
            _ => Err(LaunchSecretError::Several(count).into()),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, LaunchSecretError> {
        if bytes.len() > MAX_SECRET {
            return Err(LaunchSecretError::Long);
        }
        // The parser's own message could quote a key.
        let secret: LaunchSecret = serde_json::from_slice(bytes)
            .map_err(|error| LaunchSecretError::Json { line: error.line(), column: error.column() })?;
        if secret.version != SECRET_VERSION {
            return Err(LaunchSecretError::Version(secret.version));
        }
        let key = match &secret.key {
            LaunchKey::Bundle { key } => {
                let key = decode(key, "bundle key")?;
                Key::Bundle(
                    SpecKey::from_bytes(key.as_ref()).map_err(|_| LaunchSecretError::Field("bundle key"))?,
                )
            }
            LaunchKey::Connection { id, key } => {
                if id.len() != ID_LENGTH || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(LaunchSecretError::Field("connection id"));
                }
                Key::Connection { id: id.clone(), key: decode(key, "connection key")? }
            }
        };
        Ok(Self {
            init_data: digest(&secret.init_data, "initdata digest")?,
            sealed_spec: digest(&secret.sealed_spec, "sealed spec digest")?,
            key,
        })
    }
}

impl Tee for SevSecret {
    fn kind(&self) -> TeeKind {
        TeeKind::Sev
    }

    fn init_data_digest(&self) -> Result<[u8; 32], TeeError> {
        Ok(self.init_data)
    }

    fn evidence(&self, binding: &Binding<'_>) -> Result<Value, TeeError> {
        if *binding.sealed_spec != self.sealed_spec {
            return Err(LaunchSecretError::OtherSpec.into());
        }
        let Key::Connection { id, key } = &self.key else { return Err(LaunchSecretError::Bundle.into()) };
        let mac = connection_mac(key, binding.report_data, binding.sealed_spec);
        serde_json::to_value(ConnectionEvidence { connection: id.clone(), mac }).map_err(TeeError::Evidence)
    }

    fn sealed_spec(&self) -> Option<&[u8; 32]> {
        Some(&self.sealed_spec)
    }

    fn spec_key(&self) -> Option<SpecKey> {
        match &self.key {
            Key::Bundle(key) => Some(key.clone()),
            Key::Connection { .. } => None,
        }
    }
}

/// Our entry's files: `efi_secret` writes GUIDs in one case, other file systems could hold several.
fn own_entries(directory: &Path) -> Result<Vec<PathBuf>, LaunchSecretError> {
    let failed = |source| LaunchSecretError::List { path: directory.display().to_string(), source };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let (mut own, mut seen) = (Vec::new(), 0);
    for entry in entries {
        let entry = entry.map_err(failed)?;
        seen += 1;
        if seen > MAX_ENTRIES {
            return Err(LaunchSecretError::Entries);
        }
        if entry.file_name().eq_ignore_ascii_case(SECRET_GUID) {
            own.push(entry.path());
        }
    }
    Ok(own)
}

/// A byte more than there may be, at most.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, LaunchSecretError> {
    // Room enough from the start: a buffer that grows leaves its contents behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 64));
    let file = File::open(path).map_err(LaunchSecretError::Read)?;
    file.take(MAX_SECRET as u64 + 1).read_to_end(&mut bytes).map_err(LaunchSecretError::Read)?;
    Ok(bytes)
}

fn digest(text: &str, field: &'static str) -> Result<[u8; 32], LaunchSecretError> {
    let digest: SpecDigest = text.parse().map_err(|_| LaunchSecretError::Field(field))?;
    Ok(*digest.as_bytes())
}

fn decode(text: &str, field: &'static str) -> Result<Zeroizing<[u8; 32]>, LaunchSecretError> {
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| LaunchSecretError::Field(field))?);
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return Err(LaunchSecretError::Field(field));
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

#[cfg(test)]
mod tests;
