//! What people hand over to be imported: a bundle, a directory like a cache's, or one certificate file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::bundle::{BundleError, MAX_BYTES, MAX_ENTRIES, identify, read};
use crate::key::{Key, SevProduct};

/// Why something can't be imported.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The system said no.
    #[error("{path} can't be read")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Neither a bundle nor a certificate.
    #[error("{path} is neither a bundle of 'sealpod collateral export' nor a certificate of AMD's")]
    Unknown {
        /// Which file.
        path: PathBuf,
        /// Why it is no bundle.
        source: BundleError,
    },
    /// Nothing in a directory.
    #[error("{0} holds no file that is named like a piece of collateral")]
    Empty(PathBuf),
    /// Too much.
    #[error("{0} holds more than a cache has room for")]
    TooMuch(PathBuf),
}

/// Reads pieces of collateral from a file or directory, unchecked and bounded.
///
/// # Errors
/// [`SourceError`], naming the file.
pub fn gather(path: &Path) -> Result<Vec<(Key, Vec<u8>)>, SourceError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SourceError::Io { path, source }
    };
    if !std::fs::metadata(path).map_err(failed(path))?.is_dir() {
        let bytes = bounded(path, MAX_BYTES)?;
        if let Some(key) = named(path).or_else(|| identify(&bytes)) {
            return Ok(vec![(key, bytes)]);
        }
        return read(&bytes).map_err(|source| SourceError::Unknown { path: path.to_owned(), source });
    }
    let mut pieces = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed(path))? {
        let file = entry.map_err(failed(path))?.path();
        let Some(key) = named(&file) else { continue };
        if pieces.len() == MAX_ENTRIES {
            return Err(SourceError::TooMuch(path.to_owned()));
        }
        let limit = key.limit();
        pieces.push((key, bounded(&file, limit)?));
    }
    if pieces.is_empty() { Err(SourceError::Empty(path.to_owned())) } else { Ok(pieces) }
}

/// By a name of ours, or AMD's for SEV's ASK and ARK: `ask_ark_milan.cert`.
fn named(path: &Path) -> Option<Key> {
    let name = path.file_name()?.to_str()?;
    let amds = || {
        let product = name.strip_prefix("ask_ark_")?.strip_suffix(".cert")?;
        SevProduct::ALL.into_iter().find(|known| known.name() == product).map(Key::SevChain)
    };
    Key::from_file_name(name).or_else(amds)
}

fn bounded(path: &Path, limit: usize) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes))
        .map_err(|source| SourceError::Io { path: path.to_owned(), source })?;
    if bytes.len() > limit { Err(SourceError::TooMuch(path.to_owned())) } else { Ok(bytes) }
}
