//! `sealpod image check`.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use encrypted_image::Keyring;
use owner_image::operation::check;
use owner_image::places::Place;

use super::access::Access;
use super::options::CheckArgs;
use super::{places, show};
use crate::identity::IdentityDir;

pub(super) fn run(identity: &IdentityDir, args: &CheckArgs) -> Result<ExitCode> {
    let access = Access::new(identity, &args.access)?;
    let keys = access.named(&args.keys.key)?;
    ensure!(!keys.is_empty(), "no key to check; give --key");
    let rings: Vec<(String, Keyring)> =
        keys.into_iter().map(|key| (key.name, Keyring::new(key.unwraps))).collect();
    let source = Place::source_of(&args.image, &places::registries(&args.registry)?)?;
    let found = check(source.source(), &args.chosen.selection(), &rings)?;
    if args.json {
        show::json(&found)?;
    } else {
        for layer in &found.layers {
            let platform = layer.platform.as_deref().unwrap_or("no platform");
            let manifest = layer.manifest.short();
            let (verdict, names) = match layer.opened_by.as_slice() {
                [] => ("opened by none", layer.refused.join("; ")),
                names => ("opened by", names.join(", ")),
            };
            println!("manifest {manifest} ({platform}) layer {}: {verdict}: {names}", layer.layer);
        }
    }
    let closed = found.layers.iter().filter(|layer| layer.opened_by.is_empty()).count();
    match closed {
        0 => Ok(ExitCode::SUCCESS),
        closed => {
            let of = found.layers.len();
            eprintln!(
                "sealpod: you are not authorized to use this image: no key opens {closed} of {of} layers"
            );
            Ok(ExitCode::FAILURE)
        }
    }
}
