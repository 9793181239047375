//! What the commands about images take.

use std::path::PathBuf;

use clap::Args;
use encrypted_image::Scheme;
use owner_image::access::{Key, Recipient};
use owner_image::document::Platform;
use owner_image::{ImageName, Selection};

use crate::commands::seal::RegistryOption;

const IMAGE: &str = "oci:DIR[:REF]|docker-archive:FILE[:REF]|docker://HOST/REPOSITORY:TAG";
const RECIPIENT: &str = "jwe:FILE|pkcs7:FILE|pgp:NAME|pkcs11:FILE|provider:NAME[:PARAMETERS]|kbs:///…";
const KEY: &str = "FILE[:PASSWORD]|provider:NAME[:PARAMETERS]|kbs:///…";

#[derive(Args)]
pub(crate) struct EncryptArgs {
    /// The image: oci:DIR[:REF], docker-archive:FILE[:REF] or docker://HOST/REPOSITORY:TAG
    #[arg(value_name = "SOURCE")]
    pub(crate) source: ImageName,
    /// Where the encrypted one goes
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: ImageName,
    /// Who can open it: jwe:PUBLIC_KEY, pkcs7:CERTIFICATE, pgp:NAME[@KEYRING], pkcs11:FILE, provider:NAME[:PARAMETERS], kbs:///REPOSITORY/image-key/TAG; repeatable
    #[arg(short, long, value_name = RECIPIENT)]
    pub(crate) recipient: Vec<Recipient>,
    #[command(flatten)]
    pub(crate) chosen: ChosenArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Args)]
pub(crate) struct DecryptArgs {
    /// The image: oci:DIR[:REF], docker-archive:FILE[:REF] or docker://HOST/REPOSITORY:TAG
    #[arg(value_name = "SOURCE")]
    pub(crate) source: ImageName,
    /// Where the plain one goes
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: ImageName,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) chosen: ChosenArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Args)]
pub(crate) struct InspectArgs {
    /// The image
    #[arg(value_name = IMAGE)]
    pub(crate) image: ImageName,
    /// Only manifests for this platform; repeatable
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    pub(crate) platform: Vec<Platform>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// The image
    #[arg(value_name = IMAGE)]
    pub(crate) image: ImageName,
    /// Leave it as it is, and write the changed one there
    #[arg(long, value_name = IMAGE)]
    pub(crate) to: Option<ImageName>,
    /// Who can open it too; repeatable
    #[arg(short, long, value_name = RECIPIENT)]
    pub(crate) recipient: Vec<Recipient>,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) chosen: ChosenArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Args)]
pub(crate) struct RemoveArgs {
    /// The image
    #[arg(value_name = IMAGE)]
    pub(crate) image: ImageName,
    /// Leave it as it is, and write the changed one there
    #[arg(long, value_name = IMAGE)]
    pub(crate) to: Option<ImageName>,
    /// Take all recipients of this scheme off; repeatable
    #[arg(long, value_name = "jwe|pkcs7|pgp|pkcs11|provider:NAME", value_parser = scheme, required_unless_present = "keep")]
    pub(crate) scheme: Vec<Scheme>,
    /// Take everybody off but this recipient (with --scheme: everybody of these schemes); needs a key; repeatable
    #[arg(long, value_name = RECIPIENT)]
    pub(crate) keep: Vec<Recipient>,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) chosen: ChosenArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Args)]
pub(crate) struct RotateArgs {
    /// The image
    #[arg(value_name = IMAGE)]
    pub(crate) image: ImageName,
    /// Leave it as it is, and write the changed one there
    #[arg(long, value_name = IMAGE)]
    pub(crate) to: Option<ImageName>,
    /// Who can open it from now on, all of them; repeatable
    #[arg(short, long, value_name = RECIPIENT)]
    pub(crate) recipient: Vec<Recipient>,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) chosen: ChosenArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The image
    #[arg(value_name = IMAGE)]
    pub(crate) image: ImageName,
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) chosen: ChosenArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// What opens layers.
#[derive(Args)]
pub(crate) struct KeyArgs {
    /// What opens it: FILE[:pass=…|:file=…|:fd=…] (private key, certificate beside one, OpenPGP secret keys, PKCS #11 key file, 32 bytes of a broker's key), provider:NAME[:PARAMETERS], kbs:///REPOSITORY/image-key/TAG; repeatable
    #[arg(short, long, value_name = KEY)]
    pub(crate) key: Vec<Key>,
}

/// What an operation is about.
#[derive(Args)]
pub(crate) struct ChosenArgs {
    /// Only manifests for this platform; repeatable [default: all]
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Vec<Platform>,
    /// Only this layer: 0 is the base, -1 the topmost; repeatable [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    layer: Vec<i64>,
}

impl ChosenArgs {
    pub(super) fn selection(&self) -> Selection {
        Selection { platforms: self.platform.clone(), layers: self.layer.clone() }
    }
}

/// What recipients and keys are found with.
#[derive(Args)]
pub(crate) struct AccessArgs {
    /// The 32 bytes of the key behind kbs:///…, instead of those in the identity's key store
    #[arg(long, value_name = "FILE")]
    pub(crate) kek: Option<PathBuf>,
    /// Key providers [default: what OCICRYPT_KEYPROVIDER_CONFIG names]
    #[arg(long, value_name = "FILE")]
    pub(crate) keyprovider_config: Option<PathBuf>,
    /// The program for keys on PKCS #11 tokens [default: sealpod-pkcs11 beside this one]
    #[arg(long, value_name = "FILE", env = "SEALPOD_PKCS11", hide_env = true)]
    pub(crate) pkcs11_helper: Option<PathBuf>,
}

/// How much is said.
#[derive(Args)]
pub(crate) struct OutputArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How registries are reached.
#[derive(Args)]
pub(crate) struct RegistryArgs {
    /// How to reach a registry; http:// must be said; repeatable
    #[arg(long, value_name = "HOST=URL[,ca=FILE][,user=NAME,password-file=FILE]")]
    pub(crate) registry: Vec<RegistryOption>,
    /// Logins for registries [default: $REGISTRY_AUTH_FILE, else containers' auth.json and docker's config.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

fn scheme(text: &str) -> Result<Scheme, String> {
    let known = match text {
        "jwe" => Some(Scheme::Jwe),
        "pkcs7" => Some(Scheme::Pkcs7),
        "pgp" => Some(Scheme::Pgp),
        "pkcs11" => Some(Scheme::Pkcs11),
        other => other
            .strip_prefix("provider:")
            .or_else(|| other.strip_prefix("provider."))
            .and_then(Scheme::provider),
    };
    known.ok_or_else(|| format!("'{text}' is none of jwe, pkcs7, pgp, pkcs11, provider:NAME"))
}
