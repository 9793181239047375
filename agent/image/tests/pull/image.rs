//! Small images made to measure, and a store to pull them into.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent_image::{Digest, ImageError, ImageStore, Limits, Resources, Settings};
use sealed_spec::{ImageRef, Proxy, RegistrySource};
use serde_json::{Value, json};

use crate::registry::{Answer, Registry};

pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer: its tar stream and what is transferred of it.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) media_type: String,
    pub(crate) tar: Vec<u8>,
    pub(crate) blob: Vec<u8>,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Layer {
    pub(crate) fn new(media_type: &str, tar: Vec<u8>) -> Self {
        let blob = match media_type {
            GZIP => gzip(&tar),
            ZSTD => zstd::encode_all(&tar[..], 3).unwrap(),
            _ => tar.clone(),
        };
        Self { media_type: media_type.into(), tar, blob, annotations: BTreeMap::new() }
    }

    /// One file.
    pub(crate) fn file(media_type: &str, path: &str, data: &[u8]) -> Self {
        Self::new(media_type, tar_of(&[(path, data)]))
    }

    pub(crate) fn diff_id(&self) -> Digest {
        Digest::of(&self.tar)
    }

    pub(crate) fn blob_path(&self) -> String {
        blob_path(&Digest::of(&self.blob))
    }
}

pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, data).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An image's documents, to be bent before they are served.
pub(crate) struct Image {
    pub(crate) layers: Vec<Layer>,
    pub(crate) config: Value,
    pub(crate) manifest: Value,
}

impl Image {
    pub(crate) fn new(layers: Vec<Layer>) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id().to_string()).collect();
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": {"Cmd": ["/bin/true"]}, "history": [],
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let mut image = Self { layers, config, manifest: Value::Null };
        image.describe();
        image
    }

    /// Writes the manifest for the config and layers as they are now.
    pub(crate) fn describe(&mut self) {
        let config = serde_json::to_vec(&self.config).unwrap();
        let layer = |layer: &Layer| {
            let mut described = descriptor(&layer.media_type, &layer.blob);
            if !layer.annotations.is_empty() {
                described["annotations"] = json!(layer.annotations);
            }
            described
        };
        let layers: Vec<Value> = self.layers.iter().map(layer).collect();
        self.manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        });
    }

    /// Serves everything as it should be; the result names it.
    pub(crate) fn serve(&self, registry: &Registry) -> ImageRef {
        let config = serde_json::to_vec(&self.config).unwrap();
        registry.answer(&blob_path(&Digest::of(&config)), &[Answer::Body(config)]);
        for layer in &self.layers {
            registry.answer(&layer.blob_path(), &[Answer::Body(layer.blob.clone())]);
        }
        serve_manifest(registry, &self.manifest)
    }

    pub(crate) fn config_path(&self) -> String {
        blob_path(&Digest::of(&serde_json::to_vec(&self.config).unwrap()))
    }
}

pub(crate) fn descriptor(media_type: &str, data: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(data).to_string(), "size": data.len()})
}

pub(crate) fn serve_manifest(registry: &Registry, manifest: &Value) -> ImageRef {
    let manifest = serde_json::to_vec(manifest).unwrap();
    let digest = Digest::of(&manifest);
    registry.answer(&manifest_path(&digest), &[Answer::Body(manifest)]);
    named(&digest)
}

pub(crate) fn named(digest: &Digest) -> ImageRef {
    ImageRef::pinned("registry.test/team/app:1", digest.to_string())
}

/// The digest that an image is named by.
pub(crate) fn pinned(image: &ImageRef) -> &str {
    image.digest.as_deref().unwrap()
}

pub(crate) fn manifest_path(digest: &Digest) -> String {
    format!("/v2/team/app/manifests/{digest}")
}

pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// Bounds for tests: small, and no waiting between attempts.
pub(crate) fn limits() -> Limits {
    Limits {
        layer_unpacked_bytes: 4 << 20,
        layer_transfer_bytes: 8 << 20,
        layer_entries: 100,
        registry: oci_registry::Limits {
            document_bytes: 64 << 10,
            attempts: 3,
            backoff: Duration::from_millis(1),
            ..oci_registry::Limits::default()
        },
        ..Limits::default()
    }
}

pub(crate) struct Store {
    pub(crate) root: tempfile::TempDir,
    pub(crate) images: ImageStore,
}

impl Store {
    pub(crate) fn new(source: RegistrySource) -> Self {
        Self::of(|settings| settings.registries = vec![source])
    }

    /// With what the broker has.
    pub(crate) fn with_broker(source: RegistrySource, broker: Arc<dyn Resources>) -> Self {
        Self::of(|settings| {
            settings.registries = vec![source];
            settings.resources = broker;
        })
    }

    /// Behind a proxy.
    pub(crate) fn behind(source: RegistrySource, proxy: Proxy) -> Self {
        Self::of(|settings| {
            settings.registries = vec![source];
            settings.proxy = Some(proxy);
        })
    }

    pub(crate) fn of(set: impl FnOnce(&mut Settings)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut settings = Settings { limits: limits(), ..Settings::new(root.path().join("images")) };
        set(&mut settings);
        Self { root, images: ImageStore::new(settings).unwrap() }
    }

    /// Pulls and expects a refusal that leaves nothing behind.
    pub(crate) async fn refusal(&self, image: &ImageRef) -> ImageError {
        let error = self.images.pull(image).await.expect_err("pulled what must be refused");
        let text = error.to_string();
        assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
        assert_eq!(self.layers(), 0, "{text}");
        self.settled().await;
        error
    }

    /// Layers that can be seen.
    pub(crate) fn layers(&self) -> usize {
        entries(&self.root.path().join("images/layers"))
    }

    /// What is in this file of a layer in the making; nothing, if it isn't there yet.
    pub(crate) fn staged(&self, file: &str) -> Vec<u8> {
        let mut stages = std::fs::read_dir(self.root.path().join("images/stage")).unwrap();
        let found = stages.find_map(|stage| std::fs::read(stage.unwrap().path().join(file)).ok());
        found.unwrap_or_default()
    }

    /// Waits until no half-made layer is left: a pull that failed may have others to stop.
    pub(crate) async fn settled(&self) {
        for _ in 0..1000 {
            if entries(&self.root.path().join("images/stage")) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the staging directory isn't empty");
    }
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}
