//! Measures pull and unpack over loopback: `cargo run --release -p agent-image --example pull-rate [MiB]`.
//!
//! One layer of half random, half repeating files, from a registry in this process, unpacked into a
//! temporary directory. Prints the rate over the unpacked bytes and the process' peak memory beyond what
//! the registry holds.

#![allow(clippy::unwrap_used, reason = "the tests' registry panics on failure")]

#[path = "../tests/pull/registry.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod registry;

use std::io::Write;
use std::time::Instant;

use agent_image::{Digest, ImageStore};
use registry::{Answer, Registry};
use sealed_spec::ImageRef;
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mebibytes: usize = std::env::args().nth(1).map_or(Ok(256), |text| text.parse())?;
    let tar = layer(mebibytes)?;
    for (name, media_type) in [("tar", ""), ("tar+gzip", "+gzip"), ("tar+zstd", "+zstd")] {
        let blob = match name {
            "tar" => tar.clone(),
            "tar+gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&tar)?;
                encoder.finish()?
            }
            _ => zstd::encode_all(&tar[..], 3)?,
        };
        let transferred = blob.len();
        let (registry, image) = serve(&tar, blob, media_type)?;
        // Resets the peak to what is held now (proc(5), clear_refs).
        std::fs::write("/proc/self/clear_refs", "5")?;
        let before = peak_memory()?;
        let root = tempfile::tempdir()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let start = Instant::now();
        runtime.block_on(async {
            let store = ImageStore::new(root.path().to_owned(), vec![registry.source()], None)?;
            store.pull(&image).await
        })?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{name:9} {transferred:>11} B transferred, {} B unpacked: {:.2} s, {:.0} MB/s, peak memory + {} KiB",
            tar.len(),
            seconds,
            tar.len() as f64 / seconds / 1e6,
            peak_memory()?.saturating_sub(before),
        );
    }
    Ok(())
}

fn layer(mebibytes: usize) -> Result<Vec<u8>, std::io::Error> {
    let mut builder = tar::Builder::new(Vec::with_capacity((mebibytes + 1) << 20));
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for number in 0..mebibytes {
        let mut data = vec![0u8; 1 << 20];
        for (at, word) in data.chunks_exact_mut(8).enumerate() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = if at % 2 == 0 { state } else { 0x6d61_6573_2064_6e61 };
            word.copy_from_slice(&value.to_le_bytes());
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, format!("files/{number}"), &data[..])?;
    }
    builder.into_inner()
}

fn serve(tar: &[u8], blob: Vec<u8>, suffix: &str) -> Result<(Registry, ImageRef), serde_json::Error> {
    let registry = Registry::start();
    let config = serde_json::to_vec(&json!({
        "os": "linux", "architecture": "amd64", "config": {}, "history": [],
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(tar).to_string()]},
    }))?;
    let layer = Digest::of(&blob);
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "config": {"mediaType": "c", "digest": Digest::of(&config).to_string(), "size": config.len()},
        "layers": [{
            "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            "digest": layer.to_string(), "size": blob.len(),
        }],
    }))?;
    let digest = Digest::of(&manifest);
    registry.answer(&format!("/v2/a/blobs/{}", Digest::of(&config)), &[Answer::Body(config)]);
    registry.answer(&format!("/v2/a/blobs/{layer}"), &[Answer::Body(blob)]);
    registry.answer(&format!("/v2/a/manifests/{digest}"), &[Answer::Body(manifest)]);
    let image = ImageRef::pinned("registry.test/a:1", digest.to_string());
    Ok((registry, image))
}

/// KiB, of this process.
fn peak_memory() -> Result<u64, std::io::Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse().unwrap_or(0))
}
