//! `sealpod esm show` and `attach`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tee_evidence::pef::{EsmBlob, FileName, Place};

use super::options::{AttachArgs, ShowArgs};
use super::record;
use crate::esm;
use crate::files::{self, Access};
use crate::identity::IdentityDir;

const INITRD_LIMIT: usize = 1024 * 1024 * 1024;

pub(super) fn show(directory: &IdentityDir, args: &ShowArgs) -> Result<()> {
    let blob = record::load_blob(&args.blob)?;
    println!("anybody can read this, and change comments; nothing of it is verified");
    for lockbox in &blob.lockboxes {
        let place =
            if lockbox.place == Place::Origin { "origin".to_owned() } else { lockbox.place.to_string() };
        println!("{place:12} {} {}", hex::encode(lockbox.fingerprint), lockbox.comment);
    }
    println!("{:12} {} bytes, encrypted", "digests", blob.digests.ciphertext.len());
    for file in &blob.files {
        println!("{:12} {} ({} bytes, encrypted)", "file", file.name, file.sealed.ciphertext.len());
    }
    let kept = record::path_of(&args.blob);
    if kept.exists() {
        let statement = match record::load(directory, &args.blob) {
            Ok(statement) => statement,
            Err(error) => {
                println!("its record can't be used: {error:#}");
                return Ok(());
            }
        };
        println!("as {} says, signed by this identity:", kept.display());
        println!("  blob        {}", statement.blob);
        println!("  lineage     {} of repository '{}'", statement.lineage, statement.repository);
        println!("  sealed spec {}", statement.spec_digest);
        println!("  initdata    {}", statement.init_data);
        println!("  key         {}", statement.key);
        println!("  serial      {}, for {} machine(s)", statement.serial, statement.machines.len());
    }
    Ok(())
}

pub(super) fn attach(args: &AttachArgs) -> Result<()> {
    let blob: EsmBlob = record::load_blob(&args.blob)?;
    let initrd = files::read(&args.initrd, INITRD_LIMIT)?;
    ensure!(
        args.output != args.initrd && args.output != args.blob,
        "--output {} would replace what it is made of; choose another name",
        args.output.display()
    );
    let whole = esm::attach(&blob.encode()?, name(&args.blob)?.as_str(), &initrd);
    files::write(&args.output, &whole, Access::Public)?;
    println!("{} carries the blob in front of the initrd; start the guest with it", args.output.display());
    Ok(())
}

fn name(blob: &Path) -> Result<FileName> {
    let name = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.parse().with_context(|| format!("rename the blob {}", blob.display()))
}
