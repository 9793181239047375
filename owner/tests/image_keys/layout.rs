//! Small images as OCI layouts, made here.

use std::path::Path;

use serde_json::{Value, json};

fn blob(layout: &Path, bytes: &[u8]) -> Value {
    let digest = protocols::name::sha256(bytes);
    let name = digest.strip_prefix("sha256:").unwrap();
    std::fs::write(layout.join("blobs/sha256").join(name), bytes).unwrap();
    json!({ "digest": digest, "size": bytes.len() })
}

fn typed(mut descriptor: Value, media_type: &str) -> Value {
    descriptor["mediaType"] = media_type.into();
    descriptor
}

/// An image `v1` of two layers: archives with nothing in them, of different lengths.
pub(crate) fn write(layout: &Path) {
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let layers = [vec![0; 1024], vec![0; 10240]];
    let diff_ids: Vec<_> = layers.iter().map(|layer| protocols::name::sha256(layer)).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config =
        typed(blob(layout, config.to_string().as_bytes()), "application/vnd.oci.image.config.v1+json");
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| typed(blob(layout, layer), "application/vnd.oci.image.layer.v1.tar"))
        .collect();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let mut manifest = typed(blob(layout, manifest.to_string().as_bytes()), media_type);
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

/// The bytes of the only image's manifest.
pub(crate) fn manifest_bytes(layout: &Path) -> Vec<u8> {
    let read = |path: &Path| std::fs::read(path).unwrap();
    let index: Value = serde_json::from_slice(&read(&layout.join("index.json"))).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    read(&layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap()))
}

/// The digests of the only image's layers, and the annotations of the first.
pub(crate) fn layers(layout: &Path) -> (Vec<String>, Value) {
    let manifest: Value = serde_json::from_slice(&manifest_bytes(layout)).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let digests = layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect();
    (digests, layers[0]["annotations"].clone())
}
