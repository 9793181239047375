//! `sealpod esm authorize`, `revoke` and `deny`.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use protocols::broker::{BLOB_DENIALS_PATH, BlobDenialRequest};
use protocols::owner::{BlobDenial, PefBlob};
use protocols::pef::{ESM_FILE, ESM_VERSION, EsmSecret};
use tee_evidence::pef::{Digests, EsmBlob, Place};

use super::options::{ChangeArgs, DenyArgs};
use super::{make, record};
use crate::broker::Broker;
use crate::esm::{Machine, Origin, SymmetricKey};
use crate::identity::IdentityDir;

pub(super) fn authorize(directory: &IdentityDir, args: &ChangeArgs) -> Result<()> {
    let mut statement = record::load(directory, &args.blob)?;
    let mut blob = record::load_blob(&args.blob)?;
    let machines = machines(&args.machine)?;
    let origin = args.origin.clone().unwrap_or_else(|| directory.origin_file());
    let key = Origin::load(&origin)?.open(&blob)?;
    check(&blob, &key, &statement).with_context(|| {
        format!(
            "{}: not the blob of its signed record; restore your own copies of both, or make another blob and end this \
             one with 'sealpod esm deny {}'",
            args.blob.display(),
            statement.blob
        )
    })?;
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
    let record = record::sign(directory, &statement)?;
    record::push(directory, &statement, &record)?;
    record::save(&args.blob, &blob, &record)?;
    make::warn(&machines);
    println!("next: sealpod esm attach {} again, for the machines that were added", args.blob.display());
    Ok(())
}

pub(super) fn revoke(directory: &IdentityDir, args: &ChangeArgs) -> Result<()> {
    let mut statement = record::load(directory, &args.blob)?;
    let mut blob = record::load_blob(&args.blob)?;
    for machine in machines(&args.machine)? {
        let fingerprint = machine.key.fingerprint();
        let own = blob.lockbox(fingerprint).with_context(|| {
            format!("machine {} can't open the blob: it has no lockbox", hex::encode(fingerprint))
        })?;
        ensure!(
            own.place != Place::Origin,
            "the origin lockbox stays: without it the blob could not be changed"
        );
        ensure!(
            statement.machines.contains(&machine.pem),
            "{} is for blob {} and doesn't list machine {}: not this blob's record; restore your own copy, or make \
             another blob and end this one with 'sealpod esm deny'",
            record::path_of(&args.blob).display(),
            statement.blob,
            hex::encode(fingerprint)
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
    // The broker first: if it refuses, nothing here has changed, and the same can be asked again.
    let record = record::sign(directory, &statement)?;
    record::push(directory, &statement, &record)?;
    record::save(&args.blob, &blob, &record)?;
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

/// Before another machine gets the key: is this the blob of the owner's statement, file for file? Anybody can make a
/// whole blob that the origin key opens, but not one with the seed of the statement's key.
fn check(blob: &EsmBlob, key: &SymmetricKey, statement: &PefBlob) -> Result<()> {
    let digests = key.open(&blob.digests).context("its digests don't decrypt")?;
    Digests::parse(&digests).context("its digests are not digests")?;
    ensure!(
        blob.files.len() == 1 && blob.files[0].name.as_str() == ESM_FILE,
        "it holds other files than '{ESM_FILE}'"
    );
    let text = key.open(&blob.files[0].sealed).context("its file doesn't decrypt")?;
    // The error must not quote the file.
    let secret: Option<EsmSecret> = serde_json::from_slice(&text).ok();
    same(&secret.context("its file is not what 'sealpod esm make' puts in")?, statement)
}

fn same(secret: &EsmSecret, statement: &PefBlob) -> Result<()> {
    let key = secret.key().is_ok_and(|key| key.public() == statement.key);
    for (same, what) in [
        (secret.version == ESM_VERSION, "version"),
        (secret.name == ESM_FILE, "name"),
        (secret.blob == statement.blob, "blob id"),
        (secret.init_data == statement.init_data, "initdata digest"),
        (secret.sealed_spec == statement.spec_digest, "sealed spec digest"),
        (key, "key"),
    ] {
        ensure!(same, "its file has another {what}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocols::pef::BlobKey;

    use super::*;

    #[test]
    fn a_file_with_any_other_value_than_the_statements_is_refused() {
        let ((key, seed), (_, other)) = (BlobKey::generate().unwrap(), BlobKey::generate().unwrap());
        let statement = PefBlob {
            repository: "acme".into(),
            lineage: "web".into(),
            blob: "0".repeat(32),
            serial: 1,
            key: key.public(),
            init_data: "sha256:1".into(),
            spec_digest: "sha256:2".into(),
            machines: Vec::new(),
        };
        let good = EsmSecret {
            version: ESM_VERSION,
            name: ESM_FILE.into(),
            blob: statement.blob.clone(),
            init_data: statement.init_data.clone(),
            sealed_spec: statement.spec_digest.clone(),
            key: seed.to_string(),
        };
        same(&good, &statement).unwrap();
        let refused = |what: &str, change: &dyn Fn(&mut EsmSecret)| {
            let mut secret = good.clone();
            change(&mut secret);
            assert_eq!(
                same(&secret, &statement).unwrap_err().to_string(),
                format!("its file has another {what}")
            );
        };
        refused("version", &|secret| secret.version += 1);
        refused("name", &|secret| secret.name.push('2'));
        refused("blob id", &|secret| secret.blob = "1".repeat(32));
        refused("initdata digest", &|secret| secret.init_data = "sha256:2".into());
        refused("sealed spec digest", &|secret| secret.sealed_spec = "sha256:1".into());
        refused("key", &|secret| secret.key = other.to_string());
        refused("key", &|secret| secret.key.clear());
    }
}
