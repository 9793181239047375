//! `sealpod esm authorize`, `revoke` and `deny`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use protocols::broker::{BLOB_DENIALS_PATH, BlobDenialRequest};
use protocols::owner::BlobDenial;
use protocols::pef::{ESM_FILE, EsmSecret};
use tee_evidence::pef::{Digests, EsmBlob, Place};

use super::options::{ChangeArgs, DenyArgs};
use super::{make, record};
use crate::broker::Broker;
use crate::esm::{Machine, Origin, SymmetricKey};
use crate::identity::IdentityDir;

pub(super) fn authorize(directory: &IdentityDir, args: &ChangeArgs) -> Result<()> {
    let (mut blob, mut statement) = (record::load_blob(&args.blob)?, record::load(&args.blob)?);
    let machines = machines(&args.machine)?;
    let origin = args.origin.clone().unwrap_or_else(|| directory.origin_file());
    let key = Origin::load(&origin)?.open(&blob)?;
    check(&blob, &key, &statement.blob).with_context(|| args.blob.display().to_string())?;
    for machine in &machines {
        ensure!(
            blob.lockbox(machine.key.fingerprint()).is_none(),
            "machine {} can open the blob already",
            hex::encode(machine.key.fingerprint())
        );
        let lockbox = machine.lockbox(blob.next_place(), &key)?;
        blob.lockboxes.push(lockbox);
        statement.machines.push(machine.pem.clone());
    }
    statement.serial += 1;
    // The broker first: a machine that it doesn't know of would be trusted as the others are.
    record::push(directory, &statement)?;
    record::save(&args.blob, &blob, &statement)?;
    make::warn(&machines);
    println!("next: sealpod esm attach {} again, for the machines that were added", args.blob.display());
    Ok(())
}

pub(super) fn revoke(directory: &IdentityDir, args: &ChangeArgs) -> Result<()> {
    let (mut blob, mut statement) = (record::load_blob(&args.blob)?, record::load(&args.blob)?);
    for machine in machines(&args.machine)? {
        let fingerprint = machine.key.fingerprint();
        let own = blob.lockbox(fingerprint).with_context(|| {
            format!("machine {} can't open the blob: it has no lockbox", hex::encode(fingerprint))
        })?;
        ensure!(
            own.place != Place::Origin,
            "the origin lockbox stays: without it the blob could not be changed"
        );
        blob.lockboxes.retain(|lockbox| lockbox.fingerprint != *fingerprint);
        statement.machines.retain(|pem| *pem != machine.pem);
    }
    ensure!(
        !statement.machines.is_empty(),
        "no machine would be left; end the blob with 'sealpod esm deny {}'",
        statement.blob
    );
    statement.serial += 1;
    record::save(&args.blob, &blob, &statement)?;
    record::push(directory, &statement)?;
    println!(
        "warning: who kept the blob from before can still start guests on that machine; if it must not be, end it with \
         'sealpod esm deny {}' and make another",
        statement.blob
    );
    Ok(())
}

pub(super) fn deny(directory: &IdentityDir, args: &DenyArgs) -> Result<()> {
    let identity = directory.load()?;
    let denial = BlobDenial { repository: identity.repository.to_string(), blob: args.id.clone() };
    let request = BlobDenialRequest { denial: directory.key()?.sign_statement(&denial)? };
    let accepted = crate::block_on(Broker::of(&identity)?.post(BLOB_DENIALS_PATH, &request))??;
    directory.keep_checkpoint(&accepted.checkpoint)?;
    println!("blob {} is denied: its guests get nothing more", args.id);
    println!("pods that run already keep running; delete them to end them");
    Ok(())
}

fn machines(paths: &[PathBuf]) -> Result<Vec<Machine>> {
    paths.iter().map(|path| Machine::load(path)).collect()
}

/// Before another machine gets the key: is this still the blob that was made here, file for file? Whoever had it
/// in hand could have put in other contents only with the key, but could have removed or swapped.
fn check(blob: &EsmBlob, key: &SymmetricKey, id: &str) -> Result<()> {
    let digests = key.open(&blob.digests).context("its digests don't decrypt: the blob was changed")?;
    Digests::parse(&digests).context("its digests are not digests: the blob was changed")?;
    ensure!(
        blob.files.len() == 1 && blob.files[0].name.as_str() == ESM_FILE,
        "it holds other files than '{ESM_FILE}': the blob was changed"
    );
    let text = key.open(&blob.files[0].sealed).context("its file doesn't decrypt: the blob was changed")?;
    // The error must not quote the file.
    let secret: Option<EsmSecret> = serde_json::from_slice(&text).ok();
    let same = secret.is_some_and(|secret| secret.name == ESM_FILE && secret.blob == id);
    ensure!(same, "its file is another blob's: the blob was changed");
    Ok(())
}
