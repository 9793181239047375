//! What is kept beside a blob (`.json`): the owner's signed statement that enrols it, as the broker is sent it.
//! Nothing in it is secret, and whoever is handed the blob may have changed it: no value of it is used unverified.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use protocols::broker::{BLOBS_PATH, BlobRequest};
use protocols::owner::PefBlob;
use tee_evidence::pef::EsmBlob;

use crate::broker::Broker;
use crate::files::{self, Access};
use crate::identity::IdentityDir;

const NEXT: &str = "restore your own copy, name the identity that made it with --identity, or make another blob and \
                    end this one with 'sealpod esm deny'";
const RECORD_LIMIT: usize = 1024 * 1024;
const BLOB_LIMIT: usize = 256 * 1024;

pub(super) fn path_of(blob: &Path) -> PathBuf {
    let mut name = blob.file_name().unwrap_or_default().to_os_string();
    name.push(".json");
    blob.with_file_name(name)
}

/// The statement, if this identity signed it.
pub(super) fn load(directory: &IdentityDir, blob: &Path) -> Result<PefBlob> {
    let path = path_of(blob);
    let text = files::read_text(&path, RECORD_LIMIT)?;
    let record: BlobRequest = serde_json::from_str(&text).with_context(|| {
        format!("{}: not the signed record that 'sealpod esm make' writes; {NEXT}", path.display())
    })?;
    let statement = directory.key()?.public().verify::<PefBlob>(&record.blob).with_context(|| {
        format!("{}: not signed by this identity ({directory}), or changed since; {NEXT}", path.display())
    })?;
    let repository = directory.load()?.repository;
    ensure!(
        statement.repository == repository.as_str(),
        "{}: it speaks for repository '{}', this identity is '{repository}'; name the right one with --identity",
        path.display(),
        statement.repository
    );
    Ok(statement.into_inner())
}

pub(super) fn load_blob(path: &Path) -> Result<EsmBlob> {
    EsmBlob::parse(&files::read(path, BLOB_LIMIT)?).with_context(|| path.display().to_string())
}

/// Both files, the record first: a blob without one can't be changed any more.
pub(super) fn save(path: &Path, blob: &EsmBlob, record: &BlobRequest) -> Result<()> {
    let bytes = blob.encode()?;
    let text = serde_json::to_string_pretty(record)? + "\n";
    files::write(&path_of(path), text.as_bytes(), Access::Public)?;
    Ok(files::write(path, &bytes, Access::Public)?)
}

pub(super) fn sign(directory: &IdentityDir, statement: &PefBlob) -> Result<BlobRequest> {
    Ok(BlobRequest { blob: directory.key()?.sign_statement(statement)? })
}

/// Tells the broker, which takes each serial once, and the same statement again.
pub(super) fn push(directory: &IdentityDir, statement: &PefBlob, record: &BlobRequest) -> Result<()> {
    let identity = directory.load()?;
    let accepted = crate::block_on(Broker::of(&identity)?.post(BLOBS_PATH, record))??;
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
