//! Manifest, index and config documents (image-spec v1.1; Docker's schema 2 twins): from verified bytes to
//! the list of layers to fetch.

use std::collections::BTreeMap;
use std::fmt;

use encrypted_image::{Compression, Family, Layer, PrivateOptions, PublicOptions};
use oci_registry::Hasher;
use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use crate::keys::ImageKeys;
use crate::{Digest, ImageError, Limits};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Bytes that hash to the digest that named them. There is no other way to make one.
pub(crate) struct Verified(Vec<u8>);

impl Verified {
    pub(crate) fn check(bytes: Vec<u8>, expected: &Digest, what: &str) -> Result<Self, ImageError> {
        let actual = Digest::of(&bytes);
        if actual != *expected {
            return Err(ImageError::DigestMismatch {
                what: what.to_owned(),
                expected: expected.to_string(),
                actual: actual.to_string(),
            });
        }
        Ok(Self(bytes))
    }
}

/// A descriptor: what to fetch and what it must be.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// An image manifest.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// What the digest in the sealed spec named.
#[derive(Debug)]
pub(crate) enum Document {
    Image(Manifest),
    /// The one entry of an index that is for this machine.
    Index(Descriptor),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    // Schema 1 of Docker; a document with both could be read in two ways.
    fs_layers: Option<serde_json::Value>,
}

fn fail(what: &'static str, reason: impl Into<String>) -> ImageError {
    ImageError::Manifest { what, reason: reason.into() }
}

/// Reads a manifest or an index. A document that could pass for either is neither (CVE-2021-41190).
pub(crate) fn document(bytes: &Verified, limits: &Limits) -> Result<Document, ImageError> {
    const WHAT: &str = "image manifest";
    let raw: RawDocument = serde_json::from_slice(&bytes.0).map_err(|e| fail(WHAT, e.to_string()))?;
    if raw.schema_version != 2 || raw.fs_layers.is_some() {
        return Err(fail(
            WHAT,
            "only schema version 2 is supported; push the image again with a current tool",
        ));
    }
    let media_type = raw.media_type.as_deref();
    match (raw.config, raw.layers, raw.manifests) {
        (Some(config), Some(layers), None) => {
            if !matches!(media_type, None | Some(OCI_MANIFEST | DOCKER_MANIFEST)) {
                return Err(fail(WHAT, format!("media type {media_type:?} on an image manifest")));
            }
            if layers.len() > limits.layers {
                return Err(fail(
                    WHAT,
                    format!("{} layers, at most {} are allowed", layers.len(), limits.layers),
                ));
            }
            Ok(Document::Image(Manifest { config, layers }))
        }
        (None, None, Some(manifests)) => {
            if !matches!(media_type, None | Some(OCI_INDEX | DOCKER_LIST)) {
                return Err(fail(WHAT, format!("media type {media_type:?} on an image index")));
            }
            let wanted = |d: &Descriptor| {
                let ours = |p: &Platform| p.os == "linux" && p.architecture == "amd64";
                d.platform.as_ref().is_some_and(ours)
            };
            let chosen = manifests.into_iter().find(wanted);
            let chosen = chosen.ok_or_else(|| fail("image index", "no manifest for linux/amd64"))?;
            if !matches!(chosen.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST) {
                return Err(fail(
                    "image index",
                    format!("media type {:?} for linux/amd64", chosen.media_type),
                ));
            }
            Ok(Document::Index(chosen))
        }
        _ => Err(fail(WHAT, "neither an image manifest nor an index, or both")),
    }
}

/// A layer to fetch, and the two digests it must have.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    /// Digest of the blob as transferred.
    pub(crate) blob: Digest,
    /// Size of the blob, bytes.
    pub(crate) size: u64,
    pub(crate) compression: Compression,
    /// Digest of the tar stream.
    pub(crate) diff_id: Digest,
    /// Of an encrypted layer: what opens it.
    pub(crate) sealed: Option<Sealed>,
}

/// What opens an encrypted layer: to have it is to be authorised.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) public: PublicOptions,
    pub(crate) private: PrivateOptions,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

impl LayerPlan {
    /// Names the layer together with what entitles to it. An unpacked layer is taken by those only who could
    /// have made it: by the same diff id if nothing was encrypted, else by this encrypted blob and what opens
    /// it. A config can claim any diff id, and a wrapped key can hold anything: neither is a title to what
    /// another image's keys opened.
    pub(crate) fn title(&self) -> Digest {
        let mut hasher = Hasher::default();
        hasher.update(self.diff_id.to_string().as_bytes());
        if let Some(Sealed { public, private }) = &self.sealed {
            for part in [
                self.blob.as_bytes().as_slice(),
                &public.hmac,
                private.key(),
                private.nonce(),
                private.digest(),
            ] {
                hasher.update(part);
            }
        }
        hasher.finish()
    }
}

/// Checks the config against this machine and against the manifest, pairs layers with diff ids, and opens the
/// wrapped key of each encrypted one: an image isn't used, and nothing of it is fetched, unless all open. May
/// take a while: public-key operations for each layer.
pub(crate) fn plan(
    manifest: &Manifest,
    config: &Verified,
    keys: &ImageKeys,
    limits: &Limits,
) -> Result<(ImageConfiguration, Vec<LayerPlan>), ImageError> {
    const WHAT: &str = "image config";
    #[derive(Deserialize)]
    struct RawConfig {
        os: String,
        architecture: String,
        rootfs: RawRootfs,
    }
    #[derive(Deserialize)]
    struct RawRootfs {
        r#type: String,
        diff_ids: Vec<Digest>,
    }
    let raw: RawConfig = serde_json::from_slice(&config.0).map_err(|e| fail(WHAT, e.to_string()))?;
    if raw.os != "linux" || raw.architecture != "amd64" {
        return Err(fail(WHAT, format!("built for {}/{}, not for linux/amd64", raw.os, raw.architecture)));
    }
    let diff_ids = raw.rootfs.diff_ids;
    if raw.rootfs.r#type != "layers" || diff_ids.len() != manifest.layers.len() {
        return Err(fail(
            WHAT,
            format!("{} diff ids for the manifest's {} layers", diff_ids.len(), manifest.layers.len()),
        ));
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
        if layer.size > limits.layer_transfer_bytes {
            let what = format!("layer {}", layer.digest);
            return Err(ImageError::TooLarge { what, limit: limits.layer_transfer_bytes });
        }
        let (compression, sealed) = open(layer, keys)?;
        layers.push(LayerPlan { blob: layer.digest, size: layer.size, compression, diff_id, sealed });
    }
    let config = serde_json::from_slice(&config.0).map_err(|e| fail(WHAT, e.to_string()))?;
    Ok((config, layers))
}

fn open(layer: &Descriptor, keys: &ImageKeys) -> Result<(Compression, Option<Sealed>), ImageError> {
    let none = BTreeMap::new();
    let annotations = layer.annotations.as_ref().unwrap_or(&none);
    let read = Layer::of_descriptor(&layer.media_type, annotations);
    let read = read.map_err(|e| fail("image manifest", format!("layer {}: {e}", layer.digest)))?;
    let (media_type, sealed) = match read {
        Layer::Plain(media_type) => (media_type, None),
        Layer::Encrypted(media_type, encrypted) => {
            let private = keys.open(&layer.digest, &encrypted)?;
            (media_type, Some(Sealed { public: encrypted.public, private }))
        }
    };
    if media_type.family == Family::Wasm {
        let reason = format!("layer media type {:?} is not supported: it is no tar", layer.media_type);
        return Err(fail("image manifest", reason));
    }
    Ok((media_type.compression, sealed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use zeroize::Zeroizing;

    fn read(value: &serde_json::Value) -> Result<Document, ImageError> {
        let bytes = serde_json::to_vec(value).unwrap();
        let digest = Digest::of(&bytes);
        document(&Verified::check(bytes, &digest, "test").unwrap(), &Limits::default())
    }

    fn descriptor(media_type: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": Digest::of(media_type.as_bytes()).to_string(), "size": 3})
    }

    #[test]
    fn bytes_that_hash_to_something_else_are_refused() {
        let error = Verified::check(b"a".to_vec(), &Digest::of(b"b"), "image manifest").err().unwrap();
        assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    }

    #[test]
    fn an_ambiguous_document_is_refused() {
        let image = json!({"schemaVersion": 2, "config": descriptor("c"), "layers": []});
        assert!(matches!(read(&image), Ok(Document::Image(_))));
        let mut both = image.clone();
        both["manifests"] = json!([]);
        read(&both).unwrap_err();
        let mut schema1 = image.clone();
        schema1["fsLayers"] = json!([]);
        read(&schema1).unwrap_err();
        let mut typed = image.clone();
        typed["mediaType"] = json!(OCI_INDEX);
        read(&typed).unwrap_err();
        let mut old = image;
        old["schemaVersion"] = json!(1);
        read(&old).unwrap_err();
    }

    #[test]
    fn an_index_gives_the_entry_for_this_machine() {
        let entry = |arch: &str, media_type: &str| {
            let mut d = descriptor(media_type);
            d["platform"] = json!({"os": "linux", "architecture": arch});
            d
        };
        let index = |entries: serde_json::Value| json!({"schemaVersion": 2, "manifests": entries});
        let good = index(json!([entry("arm64", OCI_MANIFEST), entry("amd64", OCI_MANIFEST)]));
        assert!(matches!(read(&good), Ok(Document::Index(_))));
        read(&index(json!([entry("arm64", OCI_MANIFEST)]))).unwrap_err();
        read(&index(json!([entry("amd64", OCI_INDEX)]))).unwrap_err();
        read(&index(json!([descriptor(OCI_MANIFEST)]))).unwrap_err();
    }

    fn plan_for(layer_types: &[&str], config: &serde_json::Value) -> Result<Vec<LayerPlan>, ImageError> {
        let layers: Vec<_> = layer_types.iter().map(|t| descriptor(t)).collect();
        let manifest = json!({"schemaVersion": 2, "config": descriptor("c"), "layers": layers});
        let Document::Image(manifest) = read(&manifest)? else { unreachable!() };
        let bytes = serde_json::to_vec(config).unwrap();
        let digest = Digest::of(&bytes);
        let config = Verified::check(bytes, &digest, "config").unwrap();
        plan(&manifest, &config, &ImageKeys::default(), &Limits::default()).map(|(_, layers)| layers)
    }

    fn config(diff_ids: &[Digest]) -> serde_json::Value {
        let ids: Vec<_> = diff_ids.iter().map(ToString::to_string).collect();
        json!({"os": "linux", "architecture": "amd64", "config": {}, "history": [],
               "rootfs": {"type": "layers", "diff_ids": ids}})
    }

    #[test]
    fn layers_are_paired_with_diff_ids() {
        let id = Digest::of(b"1");
        let types = [
            ("application/vnd.oci.image.layer.v1.tar", Compression::None),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
        ];
        for (media_type, compression) in types {
            let layers = plan_for(&[media_type], &config(&[id])).unwrap();
            assert_eq!((layers[0].compression, layers[0].diff_id), (compression, id));
        }
    }

    #[test]
    fn a_config_that_does_not_fit_is_refused() {
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let id = Digest::of(b"1");
        plan_for(&[layer], &config(&[])).unwrap_err();
        plan_for(&[layer], &config(&[id, id])).unwrap_err();
        let mut arm = config(&[id]);
        arm["architecture"] = json!("arm64");
        plan_for(&[layer], &arm).unwrap_err();
        let mut windows = config(&[id]);
        windows["os"] = json!("windows");
        plan_for(&[layer], &windows).unwrap_err();
    }

    #[test]
    fn layers_of_other_kinds_are_refused_by_name() {
        let id = config(&[Digest::of(b"1")]);
        for media_type in [
            "application/vnd.wasm.content.layer.v1+wasm",
            "application/zip",
            "application/vnd.oci.image.layer.v1.tar+bzip2",
            // Encrypted, and nothing says how.
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted",
        ] {
            let error = plan_for(&[media_type], &id).unwrap_err();
            assert!(matches!(error, ImageError::Manifest { .. }), "{error}");
        }
    }

    #[test]
    fn a_title_is_of_what_was_encrypted_and_of_what_opens_it() {
        let plain = LayerPlan {
            blob: Digest::of(b"blob"),
            size: 4,
            compression: Compression::None,
            diff_id: Digest::of(b"tar"),
            sealed: None,
        };
        let with = |blob: &[u8], hmac: u8, key: u8, nonce: u8, digest: u8| {
            let private = PrivateOptions::from_parts(Zeroizing::new([key; 32]), [nonce; 16], [digest; 32]);
            let sealed = Some(Sealed { public: PublicOptions::new([hmac; 32]), private });
            LayerPlan { blob: Digest::of(blob), sealed, ..plain.clone() }.title()
        };
        let mut titles = vec![
            plain.title(),
            with(b"blob", 1, 1, 1, 1),
            with(b"other", 1, 1, 1, 1),
            with(b"blob", 2, 1, 1, 1),
            with(b"blob", 1, 2, 1, 1),
            with(b"blob", 1, 1, 2, 1),
            with(b"blob", 1, 1, 1, 2),
        ];
        assert_eq!(with(b"blob", 1, 1, 1, 1), titles[1]);
        titles.sort();
        titles.dedup();
        assert_eq!(titles.len(), 7);
        // Without encryption, the transferred form doesn't matter.
        let recompressed =
            LayerPlan { blob: Digest::of(b"other"), compression: Compression::Gzip, ..plain.clone() };
        assert_eq!(recompressed.title(), plain.title());
    }
}
