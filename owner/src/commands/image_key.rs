//! `sealpod image key`: keys that image layers' keys are wrapped with, kept here and at the broker.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use encrypted_image::keys::MAX_KEY_FILE;
use protocols::owner::{OwnerKey, Registration};
use sealed_spec::Lineage;

use super::resource::{Signed, initdata_digests};
use crate::broker::Broker;
use crate::files;
use crate::identity::{Identity, IdentityDir};
use crate::keystore::{ImageKey, KeyStore};

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key of 32 random bytes, for 'provider:sealpod:'
    New(NewArgs),
    /// Keep a key that was made elsewhere: 32 bytes, or a private key (PEM, DER, JWK) without a password
    Import(ImportArgs),
    /// List the keys that are kept here; what they are is never printed
    List,
    /// Hand keys to the broker, which gives them to guests whose sealed spec names them
    Push(PushKeyArgs),
}

#[derive(Args)]
pub(crate) struct NewArgs {
    /// Its address, or its tag alone
    #[arg(value_name = "kbs:///REPOSITORY/image-key/TAG")]
    key: String,
    /// Hand it to the broker as well
    #[arg(long)]
    push: bool,
}

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// Its address, or its tag alone
    #[arg(value_name = "kbs:///REPOSITORY/image-key/TAG")]
    key: String,
    /// The file
    file: PathBuf,
    /// Hand it to the broker as well
    #[arg(long)]
    push: bool,
}

#[derive(Args)]
pub(crate) struct PushKeyArgs {
    /// Addresses or tags
    #[arg(value_name = "kbs:///REPOSITORY/image-key/TAG", required = true)]
    keys: Vec<String>,
    /// Initdata (TOML) of guests under a policy that get them too; only with the first push; repeatable
    #[arg(long, value_name = "FILE", requires = "lineage")]
    initdata: Vec<PathBuf>,
    /// Whose release policy those guests are held against
    #[arg(long, requires = "initdata")]
    lineage: Option<Lineage>,
}

pub(crate) fn run(directory: &IdentityDir, command: &KeyCommand) -> Result<ExitCode> {
    let store = KeyStore::of(directory)?;
    match command {
        KeyCommand::New(args) => made(directory, &store.create(&store.uri(&args.key)?)?, args.push)?,
        KeyCommand::Import(args) => {
            let bytes = files::read(&args.file, MAX_KEY_FILE)?;
            let uri = store.uri(&args.key)?;
            let key = store.import(&uri, bytes).with_context(|| args.file.display().to_string())?;
            made(directory, &key, args.push)?;
        }
        KeyCommand::List => {
            let keys = store.list()?;
            ensure!(
                !keys.is_empty(),
                "no image keys are kept here; make one with 'sealpod image key new TAG'"
            );
            for key in keys {
                println!("{}  {}", key.uri, key.kind());
            }
        }
        KeyCommand::Push(args) => {
            let keys: Vec<_> =
                args.keys.iter().map(|key| store.get(&store.uri(key)?)).collect::<Result<_>>()?;
            let listed = initdata_digests(&args.initdata)?;
            let lineage = args.lineage.as_ref().map(Lineage::as_str);
            let pusher = Pusher::of(directory)?;
            for key in keys {
                println!("{}", pusher.push(&key, lineage, &listed)?);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn made(directory: &IdentityDir, key: &ImageKey, push: bool) -> Result<()> {
    println!(
        "image key {} ({}) is kept in {directory}; keep a copy where only you can read it",
        key.uri,
        key.kind()
    );
    if push {
        println!("{}", Pusher::of(directory)?.push(key, None, &[])?);
    }
    Ok(())
}

/// Hands image keys to the broker.
pub(crate) struct Pusher {
    directory: IdentityDir,
    identity: Identity,
    key: OwnerKey,
    broker: Broker,
}

impl Pusher {
    pub(crate) fn of(directory: &IdentityDir) -> Result<Self> {
        let identity = directory.load()?;
        let (key, broker) = (directory.key()?, Broker::of(&identity)?);
        Ok(Self { directory: directory.clone(), identity, key, broker })
    }

    /// Pushes one, and says so. The same key again is fine; another one under its address is refused.
    pub(crate) fn push(&self, key: &ImageKey, lineage: Option<&str>, listed: &[String]) -> Result<String> {
        let uri = key.uri.as_kbs();
        let signed = Signed::new(&self.identity, &self.key, lineage, uri, key.bytes(), listed.to_vec())?;
        signed.send(&self.broker, &self.directory).with_context(|| format!("image key {uri}"))
    }
}

/// The image keys of a registration that are kept here, for `sealpod push`. Those that aren't have to be at the broker,
/// which says so if they are not.
pub(super) fn of_registration(store: &KeyStore, registration: &Registration) -> Result<Vec<ImageKey>> {
    let uris = registration.image_keys.iter().filter_map(|uri| store.own(&uri.parse().ok()?).ok());
    uris.filter_map(|uri| store.find(&uri).transpose()).collect()
}
