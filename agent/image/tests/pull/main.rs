//! Pulling from a registry that is the host's: good images, and each way to serve a bad one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing test panics")]

mod encrypted;
mod image;
mod logins;
mod proof;
mod refusals;
mod registry;
mod rootfs;
mod sealed;
mod signed;
mod transfer;

use agent_image::{Digest, ErrorKind, ImageError};
use image::{GZIP, Image, Layer, Store, TAR, ZSTD, descriptor, pinned, serve_manifest};
use registry::Registry;
use serde_json::json;

/// Runs a test in a runtime of the agent's kind: one thread.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn layers_of_each_compression_arrive_in_order() {
    run(async {
        let registry = Registry::start();
        let image = Image::new(vec![
            Layer::file(GZIP, "a", b"bottom"),
            Layer::file(ZSTD, "b", b"middle"),
            Layer::file(TAR, "c", b"top"),
            Layer::file("application/vnd.docker.image.rootfs.diff.tar", "d", b"docker"),
        ]);
        let reference = image.serve(&registry);
        let store = Store::new(registry.source());
        let pulled = store.images.pull(&reference).await.unwrap();
        assert_eq!(pulled.digest().to_string(), pinned(&reference));
        assert_eq!(pulled.config().config().as_ref().unwrap().cmd().as_ref().unwrap(), &["/bin/true"]);
        for (layer, (name, data)) in
            pulled.layers().iter().zip([("a", "bottom"), ("b", "middle"), ("c", "top"), ("d", "docker")])
        {
            assert_eq!(std::fs::read_to_string(layer.join(name)).unwrap(), data);
        }
        assert_eq!(store.images.progress(&reference), Some(100));
        store.settled().await;
    });
}

#[test]
fn several_gzip_members_are_one_layer() {
    run(async {
        let registry = Registry::start();
        let tar = image::tar_of(&[("a", &[7; 3000])]);
        let mut layer = Layer::new(GZIP, tar.clone());
        layer.blob = [image::gzip(&tar[..1000]), image::gzip(&tar[1000..])].concat();
        let reference = Image::new(vec![layer]).serve(&registry);
        Store::new(registry.source()).images.pull(&reference).await.unwrap();
    });
}

#[test]
fn an_index_leads_to_this_machines_manifest() {
    run(async {
        let registry = Registry::start();
        let image = Image::new(vec![Layer::file(GZIP, "a", b"x")]);
        image.serve(&registry);
        let manifest = serde_json::to_vec(&image.manifest).unwrap();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let mut other = descriptor("application/vnd.oci.image.manifest.v1+json", b"other");
        other["platform"] = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
        let index = json!({"schemaVersion": 2, "manifests": [other, entry]});
        let reference = serve_manifest(&registry, &index);
        let store = Store::new(registry.source());
        let pulled = store.images.pull(&reference).await.unwrap();
        assert_eq!(pulled.digest().to_string(), pinned(&reference));

        // An index that leads to another index is refused.
        let index = serde_json::to_vec(&index).unwrap();
        let mut nested = descriptor("application/vnd.oci.image.manifest.v1+json", &index);
        nested["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let nested = serve_manifest(&registry, &json!({"schemaVersion": 2, "manifests": [nested]}));
        let error = store.images.pull(&nested).await.unwrap_err();
        assert!(error.to_string().contains("another index"), "{error}");
    });
}

#[test]
fn a_layer_that_two_images_share_is_fetched_once() {
    run(async {
        let registry = Registry::start();
        let base = Layer::file(GZIP, "base", b"shared");
        let first = Image::new(vec![base.clone(), Layer::file(GZIP, "one", b"1")]).serve(&registry);
        let second = Image::new(vec![base.clone(), Layer::file(GZIP, "two", b"2")]).serve(&registry);
        let store = Store::new(registry.source());
        let (first, second) = tokio::join!(store.images.pull(&first), store.images.pull(&second));
        assert_eq!(first.unwrap().layers()[0], second.unwrap().layers()[0]);
        assert_eq!(registry.count(&base.blob_path()), 1);
        assert_eq!(store.layers(), 3);
    });
}

#[test]
fn pulls_of_one_digest_are_joined() {
    run(async {
        let registry = Registry::start();
        let reference = Image::new(vec![Layer::file(GZIP, "a", b"x")]).serve(&registry);
        registry.hold("manifests");
        let store = Store::new(registry.source());
        store.images.start_pull(&reference).unwrap();
        let together = async { tokio::join!(store.images.pull(&reference), store.images.pull(&reference)) };
        let (pulled, ()) = tokio::join!(together, async {
            while registry.count("manifests") == 0 {
                tokio::task::yield_now().await;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            assert_eq!(store.images.progress(&reference), Some(0));
            registry.release();
        });
        assert!(std::sync::Arc::ptr_eq(&pulled.0.unwrap(), &pulled.1.unwrap()));
        assert_eq!(registry.count("manifests"), 1);
    });
}

#[test]
fn a_pull_outlives_its_caller() {
    run(async {
        let registry = Registry::start();
        let layer = Layer::file(GZIP, "a", b"x");
        let reference = Image::new(vec![layer.clone()]).serve(&registry);
        registry.hold(&layer.blob_path());
        let store = Store::new(registry.source());
        let cancelled = tokio::spawn({
            let (images, reference) = (store.images.clone(), reference.clone());
            async move { images.pull(&reference).await.map(drop) }
        });
        while registry.count(&layer.blob_path()) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
        registry.release();
        store.images.pull(&reference).await.unwrap();
        assert_eq!(registry.count(&layer.blob_path()), 1);
        assert_eq!(registry.count("manifests"), 1);
    });
}

#[test]
fn after_a_failure_the_next_pull_starts_anew() {
    run(async {
        let registry = Registry::start();
        let image = Image::new(vec![Layer::file(GZIP, "a", b"x")]);
        let reference = image.serve(&registry);
        let layer = &image.layers[0];
        registry.answer(&layer.blob_path(), &[registry::Answer::Body(b"nonsense".to_vec())]);
        let store = Store::new(registry.source());
        let error = store.refusal(&reference).await;
        assert_eq!(error.kind(), ErrorKind::Digest, "{error}");
        assert_eq!(store.images.progress(&reference), None);
        image.serve(&registry);
        store.images.pull(&reference).await.unwrap();
    });
}

#[test]
fn what_is_not_a_digest_is_not_asked_for() {
    run(async {
        let registry = Registry::start();
        let store = Store::new(registry.source());
        let mut reference = image::named(&Digest::of(b""));
        for bad in ["latest", "sha256:../../x", "sha512:00"] {
            reference.digest = Some(bad.into());
            let error = store.images.pull(&reference).await.unwrap_err();
            assert!(matches!(error, ImageError::Reference { .. }), "{error}");
        }
        assert!(registry.requests().is_empty());
    });
}
