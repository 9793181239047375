//! A cache in one file, for sites without a network: a tar archive of regular files that are named as in
//! a cache directory. Read whole and bounded; what it holds is checked as if a service had sent it.

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::time::SystemTime;

use crate::collateral::{Added, Collateral, Reach};
use crate::directory::DirectoryError;
use crate::item::Item;
use crate::key::{Csp, Key, Line};
use crate::note::Note;
use crate::x509::{Certificate, pem_pair};

/// Most bytes of a bundle.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Most pieces in it.
pub const MAX_ENTRIES: usize = 16_384;
/// Time that a look at the directory may take.
const LONG: std::time::Duration = std::time::Duration::from_secs(60);

/// Why bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Too long.
    #[error("bundle has more than {MAX_BYTES} bytes")]
    Length,
    /// Too many.
    #[error("bundle has more than {MAX_ENTRIES} pieces")]
    Entries,
    /// Not a tar archive.
    #[error("bundle is not a tar archive: {0}")]
    Tar(#[source] std::io::Error),
    /// A name that no piece has.
    #[error("bundle holds '{0}', which is no name of a piece of collateral")]
    Name(String),
    /// Not a regular file, or longer than its kind.
    #[error("bundle holds '{0}', which is no file of its kind's length")]
    Entry(String),
    /// A name that stands there twice.
    #[error("bundle holds '{0}' twice")]
    Twice(String),
    /// Nothing in it.
    #[error("bundle holds nothing")]
    Empty,
    /// The cache that it is made of.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// Reads a bundle into its pieces, unchecked, chains first: the others are checked against them.
///
/// # Errors
/// [`BundleError`]; then nothing of it counts.
pub fn read(bytes: &[u8]) -> Result<Vec<(Key, Vec<u8>)>, BundleError> {
    if bytes.len() > MAX_BYTES {
        return Err(BundleError::Length);
    }
    let mut archive = tar::Archive::new(bytes);
    let mut pieces: Vec<(Key, Vec<u8>)> = Vec::new();
    let mut names = std::collections::HashSet::new();
    for entry in archive.entries().map_err(BundleError::Tar)? {
        if pieces.len() == MAX_ENTRIES {
            return Err(BundleError::Entries);
        }
        let mut entry = entry.map_err(BundleError::Tar)?;
        let shown: String = String::from_utf8_lossy(&entry.path_bytes()).chars().take(256).collect();
        let key = std::str::from_utf8(&entry.path_bytes()).ok().and_then(Key::from_file_name);
        let Some(key) = key else { return Err(BundleError::Name(shown)) };
        if !entry.header().entry_type().is_file() || entry.size() > key.limit() as u64 {
            return Err(BundleError::Entry(shown));
        }
        if !names.insert(shown.clone()) {
            return Err(BundleError::Twice(shown));
        }
        let mut data = Vec::with_capacity(key.limit().min(4096));
        let size = entry.size();
        entry.read_to_end(&mut data).map_err(BundleError::Tar)?;
        if data.len() as u64 != size {
            return Err(BundleError::Entry(shown));
        }
        pieces.push((key, data));
    }
    if pieces.is_empty() {
        return Err(BundleError::Empty);
    }
    pieces.sort_by_key(|(key, _)| !matches!(key, Key::Chain(..)));
    Ok(pieces)
}

/// Writes pieces as a bundle: the same pieces give the same bytes.
///
/// # Errors
/// [`BundleError`] beyond the bounds.
pub fn write<'a>(pieces: impl IntoIterator<Item = (&'a Key, &'a [u8])>) -> Result<Vec<u8>, BundleError> {
    let mut named: Vec<_> = pieces.into_iter().map(|(key, data)| (key.file_name(), data)).collect();
    if named.is_empty() {
        return Err(BundleError::Empty);
    }
    if named.len() > MAX_ENTRIES {
        return Err(BundleError::Entries);
    }
    named.sort();
    let mut builder = tar::Builder::new(Cursor::new(Vec::new()));
    for (name, data) in named {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        builder.append_data(&mut header, name, data).map_err(BundleError::Tar)?;
    }
    let bytes = builder.into_inner().map_err(BundleError::Tar)?.into_inner();
    if bytes.len() > MAX_BYTES { Err(BundleError::Length) } else { Ok(bytes) }
}

/// What a single certificate file is, by what it says itself: a report-signing key's certificate, or the
/// two of a chain. Whether that is true is checked when it is added.
#[must_use]
pub fn identify(bytes: &[u8]) -> Option<Key> {
    if bytes.len() > 64 * 1024 {
        return None;
    }
    if let Ok((ask, _)) = pem_pair(bytes) {
        let name = ask.common_name();
        let line = if name.contains("VLEK") { Line::Vlek } else { Line::Vcek };
        let product =
            tee_evidence::snp::Product::ALL.into_iter().find(|known| name.ends_with(known.name()))?;
        return Some(Key::Chain(product, line));
    }
    let vek = Certificate::parse(bytes).ok()?;
    let product = vek.product().ok()?;
    let tcb = vek.tcb(product).ok()?.encode();
    if let Some(csp) = vek.csp().ok().and_then(|csp| Csp::new(&csp)) {
        return Some(Key::Vlek { product, csp, tcb: tcb.0 });
    }
    let id = vek.hardware_id().ok().filter(|id| id.len() == product.chip_id_len())?;
    let mut chip_id = [0; 64];
    chip_id[..id.len()].copy_from_slice(id);
    Key::vcek(product, &chip_id, tcb)
}

/// What an import did.
#[derive(Debug, Default)]
pub struct Imported {
    /// Kept.
    pub new: usize,
    /// There already, or older than what is there.
    pub same: usize,
    /// Not kept, and why.
    pub refused: Vec<Note>,
}

/// A piece of a cache, checked.
#[derive(Debug)]
pub struct Piece {
    /// What it is for.
    pub key: Key,
    /// The piece.
    pub item: Arc<Item>,
    /// When its file was written.
    pub written: SystemTime,
}

impl Collateral {
    /// Adds pieces, chains first; what fails its check is left out and named.
    pub async fn import(self: &Arc<Self>, pieces: &[(Key, Vec<u8>)], now: SystemTime) -> Imported {
        let mut imported = Imported::default();
        let chain = |key: &Key| matches!(key, Key::Chain(..));
        let (first, then): (Vec<_>, Vec<_>) = pieces.iter().partition(|(key, _)| chain(key));
        for (key, bytes) in first.into_iter().chain(then) {
            match self.add(key, bytes, now).await {
                Ok(Added::New) => imported.new += 1,
                Ok(Added::Same | Added::Older) => imported.same += 1,
                Err(note) => imported.refused.push(note),
            }
        }
        imported
    }

    /// Everything in the directory that passes its check, in order of names, and what doesn't.
    ///
    /// # Errors
    /// [`DirectoryError`] when it can't be listed.
    pub async fn pieces(
        self: &Arc<Self>,
        now: SystemTime,
    ) -> Result<(Vec<Piece>, Vec<Note>), DirectoryError> {
        let mut listed = self.directory.list()?;
        listed.sort_by_cached_key(|listed| listed.key.file_name());
        let (mut pieces, mut notes) = (Vec::new(), Vec::new());
        for listed in listed {
            let found = self.get(&listed.key, Reach::Cache, now, LONG).await;
            match found.item {
                Some(item) => pieces.push(Piece { key: listed.key, item, written: listed.modified }),
                None => notes.extend(found.note),
            }
        }
        Ok((pieces, notes))
    }

    /// The whole cache as a bundle.
    ///
    /// # Errors
    /// [`BundleError`].
    pub async fn export(self: &Arc<Self>, now: SystemTime) -> Result<(Vec<u8>, Vec<Note>), BundleError> {
        let (pieces, notes) = self.pieces(now).await?;
        let bytes = write(pieces.iter().map(|piece| (&piece.key, piece.item.bytes())))?;
        Ok((bytes, notes))
    }
}
