//! The commands that write: encrypt, decrypt, recipients add and remove, rotate.

use std::process::ExitCode;

use anyhow::Result;
use owner_image::operation::{self, Job, Removal};
use owner_image::places::Place;
use owner_image::{ImageName, Report, Selection};

use super::access::Access;
use super::options::{AddArgs, DecryptArgs, EncryptArgs, OutputArgs, RegistryArgs, RemoveArgs, RotateArgs};
use super::progress::watched;
use super::{places, show};
use crate::identity::IdentityDir;

pub(super) fn encrypt(identity: &IdentityDir, args: &EncryptArgs) -> Result<ExitCode> {
    let access = Access::new(identity, &args.access)?;
    let recipients = access.recipients(&args.recipient)?;
    let to = Some(&args.destination);
    change(&args.source, to, &args.chosen.selection(), &args.registry, &args.output, |job| {
        operation::encrypt(job, &recipients)
    })
}

pub(super) fn decrypt(identity: &IdentityDir, args: &DecryptArgs) -> Result<ExitCode> {
    let keys = Access::new(identity, &args.access)?.keyring(&args.keys.key)?;
    let to = Some(&args.destination);
    change(&args.source, to, &args.chosen.selection(), &args.registry, &args.output, |job| {
        operation::decrypt(job, &keys)
    })
}

pub(super) fn add(identity: &IdentityDir, args: &AddArgs) -> Result<ExitCode> {
    let access = Access::new(identity, &args.access)?;
    let recipients = access.recipients(&args.recipient)?;
    let keys = access.keyring(&args.keys.key)?;
    change(&args.image, args.to.as_ref(), &args.chosen.selection(), &args.registry, &args.output, |job| {
        operation::add(job, &keys, &recipients)
    })
}

pub(super) fn remove(identity: &IdentityDir, args: &RemoveArgs) -> Result<ExitCode> {
    let access = Access::new(identity, &args.access)?;
    let keep = access.recipients(&args.keep)?;
    let keys = access.keyring(&args.keys.key)?;
    let removal = match keep.as_slice() {
        [] => Removal::Schemes(&args.scheme),
        keep => Removal::AllBut { schemes: &args.scheme, keep, keys: &keys },
    };
    let outcome = change(
        &args.image,
        args.to.as_ref(),
        &args.chosen.selection(),
        &args.registry,
        &args.output,
        |job| operation::remove(job, &removal),
    )?;
    if !args.output.quiet {
        eprintln!(
            "who could open the image before still can with a copy of it, or of its layer keys; \
             'sealpod image rotate' gives it new keys"
        );
    }
    Ok(outcome)
}

pub(super) fn rotate(identity: &IdentityDir, args: &RotateArgs) -> Result<ExitCode> {
    let access = Access::new(identity, &args.access)?;
    let recipients = access.recipients(&args.recipient)?;
    let keys = access.keyring(&args.keys.key)?;
    change(&args.image, args.to.as_ref(), &args.chosen.selection(), &args.registry, &args.output, |job| {
        operation::rotate(job, &keys, &recipients)
    })
}

/// From one place to another, or in place.
fn change(
    from: &ImageName,
    to: Option<&ImageName>,
    selection: &Selection,
    registry: &RegistryArgs,
    output: &OutputArgs,
    operation: impl FnOnce(Job<'_>) -> Result<Report, owner_image::ImageError>,
) -> Result<ExitCode> {
    let registries = places::registries(registry)?;
    let place = Place::open(from, to, &registries)?;
    let report = watched(output.quiet, |observer| {
        let (source, destination) = (place.source(), place.destination());
        operation(Job { source, destination, selection, observer })
    })?;
    show::report(&report, to.unwrap_or(from), output.json)?;
    Ok(ExitCode::SUCCESS)
}
