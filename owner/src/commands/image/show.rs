//! What became of an image, on standard output.

use anyhow::Result;
use owner_image::{Done, ImageName, Report};
use serde::Serialize;

use super::progress::size;

pub(super) fn json<T: Serialize>(value: &T) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

pub(super) fn report(report: &Report, name: &ImageName, as_json: bool) -> Result<()> {
    for note in &report.notes {
        eprintln!("note: {note}");
    }
    if as_json {
        return json(report);
    }
    for image in &report.images {
        let platform = image.platform.as_deref().unwrap_or("no platform");
        println!("manifest {} ({platform})", image.digest);
        for (at, layer) in image.layers.iter().enumerate() {
            println!("  layer {at}: {} {} ({})", word(layer.done), layer.digest, size(layer.size));
        }
    }
    println!("{name} is {}", report.digest);
    Ok(())
}

fn word(done: Done) -> &'static str {
    match done {
        Done::Kept => "kept",
        Done::Encrypted => "encrypted",
        Done::Decrypted => "decrypted",
        Done::Rewrapped => "same bytes, keys wrapped anew:",
        Done::Rotated => "encrypted with a new key",
    }
}
