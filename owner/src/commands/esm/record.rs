//! What is kept beside a blob (`.json`): the statement that enrols it. Nothing in it is secret.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use protocols::broker::{BLOBS_PATH, BlobRequest};
use protocols::owner::{PefBlob, Statement as _};
use tee_evidence::pef::EsmBlob;

use crate::broker::Broker;
use crate::files::{self, Access};
use crate::identity::IdentityDir;

const RECORD_LIMIT: usize = 1024 * 1024;
const BLOB_LIMIT: usize = 256 * 1024;

pub(super) fn path_of(blob: &Path) -> PathBuf {
    let mut name = blob.file_name().unwrap_or_default().to_os_string();
    name.push(".json");
    blob.with_file_name(name)
}

pub(super) fn load(blob: &Path) -> Result<PefBlob> {
    let path = path_of(blob);
    let text = files::read_text(&path, RECORD_LIMIT)?;
    let statement: PefBlob = serde_json::from_str(&text)
        .with_context(|| format!("{}: not what 'sealpod esm make' writes beside a blob", path.display()))?;
    statement.validate().with_context(|| path.display().to_string())?;
    Ok(statement)
}

pub(super) fn load_blob(path: &Path) -> Result<EsmBlob> {
    EsmBlob::parse(&files::read(path, BLOB_LIMIT)?).with_context(|| path.display().to_string())
}

/// Both files, the record first: a blob without one can't be changed any more.
pub(super) fn save(path: &Path, blob: &EsmBlob, statement: &PefBlob) -> Result<()> {
    let bytes = blob.encode()?;
    statement.validate()?;
    let text = serde_json::to_string_pretty(statement)? + "\n";
    files::write(&path_of(path), text.as_bytes(), Access::Public)?;
    Ok(files::write(path, &bytes, Access::Public)?)
}

/// Tells the broker, which takes each serial once.
pub(super) fn push(directory: &IdentityDir, statement: &PefBlob) -> Result<()> {
    let identity = directory.load()?;
    let request = BlobRequest { blob: directory.key()?.sign_statement(statement)? };
    let accepted = crate::block_on(Broker::of(&identity)?.post(BLOBS_PATH, &request))??;
    directory.keep_checkpoint(&accepted.checkpoint)?;
    println!(
        "enrolled blob {} (serial {}) for lineage '{}', {} machine(s)",
        statement.blob,
        statement.serial,
        statement.lineage,
        statement.machines.len()
    );
    Ok(())
}
