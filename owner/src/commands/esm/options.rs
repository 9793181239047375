//! The command line of `sealpod esm`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(crate) enum EsmCommand {
    /// Make the blob of a sealed pod, for these machines and this launch, and enrol it at the broker
    Make(MakeArgs),
    /// Let another machine open a blob, and tell the broker
    Authorize(ChangeArgs),
    /// Take a machine's lockbox out of a blob, and tell the broker; copies from before still open
    Revoke(ChangeArgs),
    /// Put a blob in front of an initrd, where the ultravisor looks for it
    Attach(AttachArgs),
    /// Print what anybody can read in a blob
    Show(ShowArgs),
    /// End a blob at the broker: its guests get nothing more
    Deny(DenyArgs),
}

#[derive(Args)]
pub(crate) struct MakeArgs {
    /// The key file that `seal` wrote
    pub(crate) key: PathBuf,
    /// The kernel: the uncompressed vmlinux, or its flat binary
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: PathBuf,
    /// The initrd, without a blob in front
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: PathBuf,
    /// The kernel's command line, exactly
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) append: String,
    /// Public key (PEM) of a machine's TPM; repeatable
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) machine: Vec<PathBuf>,
    /// Your RSA key, which can change the blob later [default: esm-origin.pem in the identity, made if needed]
    #[arg(long, value_name = "FILE")]
    pub(crate) origin: Option<PathBuf>,
    /// Where to write the blob [default: beside the key file, .esm]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write the blob and tell no broker; 'authorize' or 'revoke' will
    #[arg(long)]
    pub(crate) no_push: bool,
}

#[derive(Args)]
pub(crate) struct ChangeArgs {
    /// The blob; it is replaced
    pub(crate) blob: PathBuf,
    /// Public key (PEM) of the machine's TPM; repeatable
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) machine: Vec<PathBuf>,
    /// The RSA key that the blob was made with [default: esm-origin.pem in the identity]
    #[arg(long, value_name = "FILE")]
    pub(crate) origin: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct AttachArgs {
    /// The blob
    pub(crate) blob: PathBuf,
    /// The initrd that the blob was made with
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: PathBuf,
    /// Where to write the initrd that machines are given
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    /// The blob
    pub(crate) blob: PathBuf,
}

#[derive(Args)]
pub(crate) struct DenyArgs {
    /// The blob's id, 32 hexadecimal digits
    pub(crate) id: String,
}
