//! Layouts as places: names, other images, other writers.

use owner_image::operation::{self, Job};
use owner_image::store::{Destination as _, Source as _};
use owner_image::{ImageError, Silent, StoreError};
use serde_json::json;

use super::maker::*;

#[test]
fn other_names_stay() {
    let maker = Maker::new();
    maker.single("one", &[Layer::Gzip("1")]);
    maker.single("two", &[Layer::Gzip("2")]);
    let mut index = maker.index();
    index["annotations"] = json!({"of": "the layout"});
    maker.write_index(&index);
    encrypt(&maker, "one", "three", &["k"]);
    encrypt(&maker, "two", "two", &["k"]);
    let after = maker.index();
    assert_eq!(after["manifests"][0], index["manifests"][0]);
    assert_eq!(after["annotations"], index["annotations"]);
    assert_eq!(after["manifests"].as_array().unwrap().len(), 3);
    assert_ne!(after["manifests"][1]["digest"], index["manifests"][1]["digest"]);
}

#[test]
fn in_place_replaces_only_what_was_read() {
    let maker = Maker::new();
    maker.single("x", &[Layer::Gzip("1")]);
    let source = maker.layout("x");
    let destination = maker.layout("x").replacing(&source.root().unwrap().descriptor);
    let before = source.root().unwrap();
    maker.single("x", &[Layer::Gzip("somebody else's")]);
    let theirs = maker.digest("x");
    let error = destination.commit(&before.descriptor, &before.bytes).unwrap_err();
    assert!(matches!(error, StoreError::Changed { .. }), "{error}");
    assert_eq!(maker.digest("x"), theirs);
}

#[test]
fn a_name_that_is_missing_or_needed() {
    let maker = Maker::new();
    maker.single("one", &[Layer::Gzip("1")]);
    assert!(owner_image::store::Layout::new(maker.path(), None).root().is_ok(), "the only one needs no name");
    maker.single("two", &[Layer::Gzip("2")]);
    let error = maker.layout("three").root().unwrap_err().to_string();
    assert!(error.contains("no image 'three'") && error.contains("one, two"), "{error}");
    let error = owner_image::store::Layout::new(maker.path(), None).root().unwrap_err().to_string();
    assert!(error.contains("2 images fit; name one of one, two"), "{error}");
    let nowhere = tempfile::tempdir().unwrap();
    let error = owner_image::store::Layout::new(nowhere.path(), None).root().unwrap_err();
    assert!(matches!(error, StoreError::NoLayout(_)), "{error}");
}

#[test]
fn documents_are_held_to_their_digests() {
    let maker = Maker::new();
    maker.single("x", &[Layer::Gzip("1")]);
    let digest = maker.digest("x");
    let mut bytes = std::fs::read(maker.blob_path(&digest)).unwrap();
    bytes.push(b' ');
    std::fs::write(maker.blob_path(&digest), bytes).unwrap();
    let error = encrypt_chosen(&maker, "x", "enc", &["k"], &all()).unwrap_err();
    assert!(matches!(error, ImageError::Broken { .. }), "{error}");
}

#[test]
fn a_document_that_passes_for_another() {
    let maker = Maker::new();
    maker.single("x", &[Layer::Gzip("1")]);
    maker.tamper("x", |manifest| manifest["mediaType"] = INDEX.into());
    let error = encrypt_chosen(&maker, "x", "enc", &["k"], &all()).unwrap_err().to_string();
    assert!(error.contains("it calls itself"), "{error}");
}

#[test]
fn decrypted_blobs_are_withdrawn_when_the_name_fails() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("1")]);
    encrypt(&maker, "plain", "enc", &["k"]);
    let to = Maker::new();
    std::fs::write(to.path().join("oci-layout"), "{}").unwrap();
    let (source, destination) = (maker.layout("enc"), to.layout("plain"));
    let selection = all();
    let job = Job { source: &source, destination: &destination, selection: &selection, observer: &Silent };
    let error = operation::decrypt(job, &keys(&["k"])).unwrap_err();
    assert!(matches!(error, ImageError::Store(StoreError::NoLayout(_))), "{error}");
    for digest in layer_digests(&maker.root("plain")) {
        assert!(!to.blob_path(&digest).exists(), "a decrypted layer was left");
    }
}
