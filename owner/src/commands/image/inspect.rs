//! `sealpod image inspect`.

use std::process::ExitCode;

use anyhow::Result;
use owner_image::operation::{InspectedLayer, inspect};
use owner_image::places::Place;
use owner_image::{ImageName, Selection};

use super::options::InspectArgs;
use super::progress::size;
use super::{places, show};

pub(super) fn run(args: &InspectArgs) -> Result<ExitCode> {
    let source = Place::source_of(&args.image, &places::registries(&args.registry)?)?;
    let selection = Selection { platforms: args.platform.clone(), layers: Vec::new() };
    let seen = inspect(source.source(), &selection)?;
    if args.json {
        show::json(&seen)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", heading(&args.image, &seen.digest.to_string(), &seen.media_type));
    for image in &seen.images {
        let platform = image.platform.as_deref().unwrap_or("no platform");
        println!("manifest {} ({platform})", image.digest);
        image.layers.iter().for_each(layer);
    }
    Ok(ExitCode::SUCCESS)
}

fn heading(name: &ImageName, digest: &str, media_type: &str) -> String {
    let kind = if media_type.contains("index") || media_type.contains("list") { "index" } else { "manifest" };
    format!("{name} is {kind} {digest}")
}

fn layer(layer: &InspectedLayer) {
    let state = if layer.encrypted { "encrypted" } else { "plain" };
    println!("  layer {}: {state} {} ({}) {}", layer.layer, layer.digest, size(layer.size), layer.media_type);
    for key in &layer.wrapped_for {
        let count = match key.recipients {
            Some(1) => "1 recipient".to_owned(),
            Some(count) => format!("{count} recipients"),
            None => "recipients not shown".to_owned(),
        };
        let shows = if key.shows.is_empty() { String::new() } else { format!(": {}", key.shows.join(", ")) };
        println!("    {} for {count}{shows}", key.scheme);
    }
    for warning in layer.warnings.iter().chain(&layer.problem) {
        println!("    {warning}");
    }
}
