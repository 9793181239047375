//! `sealpod image …`: encrypted images, from layouts, archives and registries to the same.

mod access;
mod change;
mod check;
mod inspect;
mod options;
mod places;
mod progress;
mod show;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::image_key::{self, KeyCommand};
use crate::identity::IdentityDir;
use options::{AddArgs, CheckArgs, DecryptArgs, EncryptArgs, InspectArgs, RemoveArgs, RotateArgs};

#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// Encrypt layers for recipients; everything else stays as it is
    Encrypt(EncryptArgs),
    /// Decrypt all layers, and verify every one before anything is kept
    Decrypt(DecryptArgs),
    /// Show layers and who they are wrapped for; needs no key
    Inspect(InspectArgs),
    /// Change who can open an image without touching its layers
    #[command(subcommand)]
    Recipients(RecipientsCommand),
    /// Give encrypted layers new keys, for the recipients that are named
    Rotate(RotateArgs),
    /// Say which keys open which layers, of every platform
    Check(CheckArgs),
    /// Keys that layers' keys are wrapped with, kept here and at the broker
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Subcommand)]
pub(crate) enum RecipientsCommand {
    /// Let more recipients open the image; layers keep their digests
    Add(AddArgs),
    /// Take recipients off; what they have already they keep: 'image rotate' shuts them out
    Remove(RemoveArgs),
    /// The same as 'image rotate'
    #[command(hide = true)]
    Rotate(RotateArgs),
    /// The same as 'image check'
    #[command(hide = true)]
    Check(CheckArgs),
}

pub(crate) fn run(identity: &IdentityDir, command: &ImageCommand) -> Result<ExitCode> {
    match command {
        ImageCommand::Encrypt(args) => change::encrypt(identity, args),
        ImageCommand::Decrypt(args) => change::decrypt(identity, args),
        ImageCommand::Inspect(args) => inspect::run(args),
        ImageCommand::Recipients(RecipientsCommand::Add(args)) => change::add(identity, args),
        ImageCommand::Recipients(RecipientsCommand::Remove(args)) => change::remove(identity, args),
        ImageCommand::Rotate(args) | ImageCommand::Recipients(RecipientsCommand::Rotate(args)) => {
            change::rotate(identity, args)
        }
        ImageCommand::Check(args) | ImageCommand::Recipients(RecipientsCommand::Check(args)) => {
            check::run(identity, args)
        }
        ImageCommand::Key(command) => image_key::run(identity, command),
    }
}
