//! Layouts with images in them, keys that cost nothing, and ways to tamper.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use encrypted_image::coco::BrokerKey;
use encrypted_image::{Keyring, Unwrap, Wrap};
use owner_image::document::Digest;
use owner_image::operation::{self, Job};
use owner_image::store::Layout;
use owner_image::{ImageError, Report, Selection, Silent};
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// A layout in a directory of its own.
pub(crate) struct Maker {
    dir: tempfile::TempDir,
}

/// A layer's contents and how it is stored.
#[derive(Clone, Copy)]
pub(crate) enum Layer<'a> {
    Gzip(&'a str),
    Plain(&'a str),
    Zstd(&'a str),
}

impl Maker {
    pub(crate) fn new() -> Self {
        let maker = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(maker.path().join("blobs/sha256")).unwrap();
        std::fs::write(maker.path().join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        maker.write_index(&json!({"schemaVersion": 2, "manifests": []}));
        maker
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        self.path().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    pub(crate) fn blob(&self, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        std::fs::write(self.blob_path(&digest), bytes).unwrap();
        digest
    }

    pub(crate) fn json_blob(&self, digest: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.blob_path(digest)).unwrap()).unwrap()
    }

    pub(crate) fn index(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path().join("index.json")).unwrap()).unwrap()
    }

    pub(crate) fn write_index(&self, index: &Value) {
        std::fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    /// Names of all blobs.
    pub(crate) fn blobs(&self) -> BTreeSet<String> {
        let names = std::fs::read_dir(self.path().join("blobs/sha256")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A manifest with its layers and configuration: its descriptor.
    pub(crate) fn image(&self, platform: &str, layers: &[Layer<'_>]) -> Value {
        let (os, architecture) = platform.split_once('/').unwrap();
        let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
        for layer in layers {
            let (media_type, tar, stored) = match layer {
                Layer::Gzip(text) => {
                    let tar = tar(text);
                    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    encoder.write_all(&tar).unwrap();
                    (GZIP, tar, encoder.finish().unwrap())
                }
                Layer::Plain(text) => (TAR, tar(text), tar(text)),
                Layer::Zstd(text) => (ZSTD, tar(text), zstd::encode_all(&tar(text)[..], 1).unwrap()),
            };
            diff_ids.push(Digest::of(&tar).to_string());
            let digest = self.blob(&stored);
            descriptors.push(json!({"mediaType": media_type, "digest": digest, "size": stored.len()}));
        }
        let config = json!({
            "os": os, "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        self.manifest(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": self.blob(config.as_bytes()), "size": config.len()},
            "layers": descriptors,
            "annotations": {"kept": "yes"},
        }))
    }

    /// Any manifest: its descriptor.
    pub(crate) fn manifest(&self, manifest: &Value) -> Value {
        let text = manifest.to_string();
        json!({"mediaType": MANIFEST, "digest": self.blob(text.as_bytes()), "size": text.len()})
    }

    /// Gives an image a name.
    pub(crate) fn name(&self, name: &str, mut descriptor: Value) {
        descriptor["annotations"]["org.opencontainers.image.ref.name"] = name.into();
        let mut index = self.index();
        let manifests = index["manifests"].as_array_mut().unwrap();
        manifests.retain(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] != *name);
        manifests.push(descriptor);
        self.write_index(&index);
    }

    /// An image of one manifest.
    pub(crate) fn single(&self, name: &str, layers: &[Layer<'_>]) {
        let descriptor = self.image("linux/amd64", layers);
        self.name(name, descriptor);
    }

    /// An index of an image for each platform.
    pub(crate) fn multi(&self, name: &str, images: &[(&str, &[Layer<'_>])]) {
        let manifests: Vec<Value> = images
            .iter()
            .map(|(platform, layers)| {
                let mut descriptor = self.image(platform, layers);
                let (os, architecture) = platform.split_once('/').unwrap();
                descriptor["platform"] = json!({"os": os, "architecture": architecture});
                descriptor["annotations"]["of"] = (*platform).into();
                descriptor
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": {"a": "b"}});
        let text = index.to_string();
        let digest = self.blob(text.as_bytes());
        self.name(name, json!({"mediaType": INDEX, "digest": digest, "size": text.len()}));
    }

    /// What a name stands for, read.
    pub(crate) fn root(&self, name: &str) -> Value {
        self.json_blob(&self.digest(name))
    }

    /// What a name stands for.
    pub(crate) fn digest(&self, name: &str) -> String {
        let index = self.index();
        let entry = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == *name);
        entry.unwrap_or_else(|| panic!("no image {name}"))["digest"].as_str().unwrap().to_owned()
    }

    /// Changes a manifest as its registry could, digests and all.
    pub(crate) fn tamper(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut manifest = self.root(name);
        change(&mut manifest);
        self.name(name, self.manifest(&manifest));
    }

    pub(crate) fn layout(&self, name: &str) -> Layout {
        Layout::new(self.path(), Some(name))
    }
}

fn tar(text: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, "file", text.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

/// A broker's key: its URI's tag tells keys apart.
pub(crate) fn key(tag: &str) -> BrokerKey {
    let mut bytes = [0; 32];
    bytes[..tag.len()].copy_from_slice(tag.as_bytes());
    BrokerKey::new(&format!("kbs:///acme/image-key/{tag}"), Zeroizing::new(bytes)).unwrap()
}

pub(crate) fn recipients(tags: &[&str]) -> Vec<Box<dyn Wrap>> {
    tags.iter().map(|tag| Box::new(key(tag)) as Box<dyn Wrap>).collect()
}

pub(crate) fn keys(tags: &[&str]) -> Keyring {
    Keyring::new(tags.iter().map(|tag| Box::new(key(tag)) as Box<dyn Unwrap>).collect())
}

pub(crate) fn all() -> Selection {
    Selection::default()
}

pub(crate) fn platform(platform: &str) -> Selection {
    Selection { platforms: vec![platform.parse().unwrap()], layers: Vec::new() }
}

pub(crate) fn layers(layers: &[i64]) -> Selection {
    Selection { platforms: Vec::new(), layers: layers.to_vec() }
}

type Outcome = Result<Report, ImageError>;

/// One operation from a name of a layout to a name of another.
pub(crate) fn run(
    from: (&Maker, &str),
    to: (&Maker, &str),
    selection: &Selection,
    operation: impl FnOnce(Job<'_>) -> Outcome,
) -> Outcome {
    let (source, destination) = (from.0.layout(from.1), to.0.layout(to.1));
    operation(Job { source: &source, destination: &destination, selection, observer: &Silent })
}

pub(crate) fn encrypt(maker: &Maker, from: &str, to: &str, tags: &[&str]) -> Report {
    encrypt_chosen(maker, from, to, tags, &all()).unwrap()
}

pub(crate) fn encrypt_chosen(
    maker: &Maker,
    from: &str,
    to: &str,
    tags: &[&str],
    selection: &Selection,
) -> Outcome {
    run((maker, from), (maker, to), selection, |job| operation::encrypt(job, &recipients(tags)))
}

/// Decrypts into a layout of its own; on failure nothing may be in it.
pub(crate) fn decrypt(maker: &Maker, name: &str, tags: &[&str]) -> Result<Maker, ImageError> {
    let to = Maker::new();
    let outcome = run((maker, name), (&to, "plain"), &all(), |job| operation::decrypt(job, &keys(tags)));
    match outcome {
        Ok(_) => Ok(to),
        Err(error) => {
            assert_eq!(to.index()["manifests"], json!([]), "named after a failure");
            let left: Vec<Vec<u8>> = to
                .blobs()
                .iter()
                .map(|name| std::fs::read(to.path().join("blobs/sha256").join(name)).unwrap())
                .collect();
            // What was never encrypted may have been copied before.
            for blob in left {
                let digest = Digest::of(&blob).to_string();
                assert!(maker.blob_path(&digest).exists(), "a decrypted blob was left: {digest}");
            }
            Err(error)
        }
    }
}

pub(crate) fn refusal(outcome: Result<Maker, ImageError>) -> String {
    match outcome {
        Ok(_) => panic!("was accepted"),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn layer_digests(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}
