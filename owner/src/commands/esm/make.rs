//! `sealpod esm make`.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use protocols::owner::PefBlob;
use protocols::pef::{BlobKey, ESM_FILE, ESM_VERSION, EsmSecret};
use ring::digest::{SHA512, digest};
use tee_evidence::pef::{Digests, EsmBlob, EsmFile, Place};
use zeroize::Zeroizing;

use super::options::MakeArgs;
use super::record;
use crate::commands::push::read_key_file;
use crate::esm::{Machine, Origin, SymmetricKey, in_memory};
use crate::files;
use crate::identity::IdentityDir;

const FILE_LIMIT: usize = 1024 * 1024 * 1024;
/// The instructions that QEMU's firmware leaves for calls to RTAS: mr r4,r3; lis r3,0; ori r3,r3,0xf000; sc 1; blr.
const RTAS: [u8; 20] = [
    0x7c, 0x64, 0x1b, 0x78, 0x3c, 0x60, 0x00, 0x00, 0x60, 0x63, 0xf0, 0x00, 0x44, 0x00, 0x00, 0x22, 0x4e,
    0x80, 0x00, 0x20,
];
/// An initrd that carries a blob starts like that.
const ATTACHED: &[u8] = b"opt/ibm/pef/";

pub(super) fn run(directory: &IdentityDir, args: &MakeArgs) -> Result<()> {
    let identity = directory.load()?;
    let registration = read_key_file(&args.key)?.registration;
    ensure!(
        registration.repository == identity.repository.as_str(),
        "{} was sealed for repository '{}', this identity is '{}'; name the right one with --identity",
        args.key.display(),
        registration.repository,
        identity.repository
    );
    let init_data = registration.init_data.with_context(|| {
        format!("{} names no initdata: it was sealed with an old version; seal again", args.key.display())
    })?;
    let machines: Vec<Machine> =
        args.machine.iter().map(|path| Machine::load(path)).collect::<Result<_>>()?;
    let output = args.output.clone().unwrap_or_else(|| args.key.with_extension("esm"));
    ensure!(output != args.key, "--output {} would replace the key file", output.display());
    let digests = measure(args)?;
    let origin = match &args.origin {
        Some(path) => Origin::load(path)?,
        None => Origin::load_or_make(&directory.origin_file())?,
    };

    let mut id = [0; 16];
    getrandom::fill(&mut id).context("no randomness from the kernel")?;
    let (key, seed) = BlobKey::generate()?;
    let secret = EsmSecret {
        version: ESM_VERSION,
        name: ESM_FILE.to_owned(),
        blob: hex::encode(id),
        init_data,
        sealed_spec: registration.spec_digest,
        key: seed.to_string(),
    };
    let blob = seal(&secret, &digests, &origin, &machines)?;
    let statement = PefBlob {
        repository: registration.repository,
        lineage: registration.lineage,
        blob: secret.blob.clone(),
        serial: 1,
        key: key.public(),
        init_data: secret.init_data.clone(),
        spec_digest: secret.sealed_spec.clone(),
        machines: machines.iter().map(|machine| machine.pem.clone()).collect(),
    };
    let record = record::sign(directory, &statement)?;
    record::save(&output, &blob, &record)?;
    println!("blob {} is in {}", statement.blob, output.display());
    warn(&machines);
    if args.no_push {
        println!(
            "not enrolled: its guests get nothing before 'sealpod esm authorize' or 'revoke' tells the broker, or \
             somebody hands in the record"
        );
    } else {
        record::push(directory, &statement, &record)?;
    }
    println!("next: sealpod esm attach {} --initrd FILE --output FILE", output.display());
    Ok(())
}

/// What software TPMs and several machines mean.
pub(super) fn warn(machines: &[Machine]) {
    if machines.iter().any(|machine| machine.key.is_software()) {
        println!(
            "warning: a machine's key is an emulator's: it proves nothing about a machine; for tests only"
        );
    }
    if machines.len() > 1 {
        println!(
            "note: published firmware tries lockbox-1 alone, the first machine's; for such firmware make a blob a machine"
        );
    }
}

/// The digests that the ultravisor compares.
fn measure(args: &MakeArgs) -> Result<Digests> {
    let read = |path: &Path| files::read(path, FILE_LIMIT);
    let kernel = in_memory(&read(&args.kernel)?)?;
    let initrd = read(&args.initrd)?;
    let start = &initrd[..initrd.len().min(4096)];
    ensure!(
        !start.windows(ATTACHED.len()).any(|window| window == ATTACHED),
        "{} has a blob in front already; give the initrd without it",
        args.initrd.display()
    );
    ensure!(!args.append.contains('\0'), "--append holds a NUL, which no kernel command line does");
    Ok(Digests {
        rtas: sha512(&RTAS),
        kernel_size: u32::try_from(kernel.len()).context("the kernel is larger than 4 GiB")?,
        kernel: sha512(&kernel),
        initrd: sha512(&initrd),
        bootargs: sha512(args.append.as_bytes()),
    })
}

fn seal(secret: &EsmSecret, digests: &Digests, origin: &Origin, machines: &[Machine]) -> Result<EsmBlob> {
    let key = SymmetricKey::generate()?;
    let mut blob = EsmBlob {
        lockboxes: vec![origin.machine().lockbox(Place::Origin, &key)?],
        digests: key.seal(&digests.encode()?)?,
        files: Vec::new(),
    };
    for machine in machines {
        let lockbox = machine.lockbox(blob.next_place(), &key)?;
        blob.lockboxes.push(lockbox);
    }
    let text = Zeroizing::new(serde_json::to_vec(secret)?);
    blob.files.push(EsmFile { name: ESM_FILE.parse()?, sealed: key.seal(&text)? });
    Ok(blob)
}

fn sha512(bytes: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    out.copy_from_slice(digest(&SHA512, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest that svm-tools has as a constant: SHA-512 of the same instructions.
    const SVM_TOOLS: &str = "189698638580422ea58a0968ecce2436daeb2c91a339c14b0ab2bc623c1649fe274074a4a92679dc61e5528d68778ba3c82f1b1f7e9a5958238b80497fc37f48";

    #[test]
    fn rtas_has_the_digest_that_svm_tools_gives_it() {
        assert_eq!(hex::encode(sha512(&RTAS)), SVM_TOOLS);
    }
}
