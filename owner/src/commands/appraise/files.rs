//! Certificates and revocation lists as the caller keeps them: one file, or a directory with any number.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tee_evidence::snp::CertEntry;
use verifier::snp::pile;

/// Files of a directory that are looked at.
const MAX_FILES: usize = 1024;

/// Everything in a file, or in those files of a directory that hold certificates.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertEntry>> {
    let shown = || path.display().to_string();
    if !path.is_dir() {
        let bytes = crate::files::read(path, pile::MAX_BYTES)?;
        return pile::read(&bytes).with_context(shown);
    }
    let mut found = Vec::new();
    let mut paths = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        .with_context(shown)?;
    paths.sort();
    if paths.len() > MAX_FILES {
        bail!("{}: more than {MAX_FILES} files; name the ones that matter", path.display());
    }
    for file in paths.iter().filter(|file| file.is_file()) {
        // What else lies there is nobody's business.
        let Ok(bytes) = crate::files::read(file, pile::MAX_BYTES) else { continue };
        found.extend(pile::read(&bytes).unwrap_or_default());
    }
    if found.is_empty() {
        bail!("{}: no file in it holds a certificate or revocation list", path.display());
    }
    Ok(found)
}
