//! Which keys open which layers, and what an image shows without any.

use owner_image::operation::{check, inspect};

use super::maker::*;

#[test]
fn every_layer_of_every_platform() {
    let maker = Maker::new();
    maker.multi(
        "plain",
        &[("linux/amd64", &[Layer::Gzip("a"), Layer::Gzip("b")]), ("linux/arm64", &[Layer::Gzip("c")])],
    );
    encrypt_chosen(&maker, "plain", "some", &["a"], &platform("linux/amd64")).unwrap();
    encrypt_chosen(&maker, "some", "enc", &["b"], &platform("linux/arm64")).unwrap();
    let ring = |tag: &str| (tag.to_owned(), keys(&[tag]));
    let found = check(&maker.layout("enc"), &all(), &[ring("a"), ring("c")]).unwrap();
    // The first manifest opens, the last one doesn't.
    assert!(!found.authorised);
    let opened: Vec<&[String]> = found.layers.iter().map(|layer| layer.opened_by.as_slice()).collect();
    assert_eq!(opened, [&["a".to_owned()][..], &["a".to_owned()], &[]]);
    assert_eq!(found.layers[2].platform.as_deref(), Some("linux/arm64"));
    assert_eq!(found.layers[2].refused.len(), 2);
    assert!(check(&maker.layout("enc"), &all(), &[ring("a"), ring("b")]).unwrap().authorised);
    assert!(check(&maker.layout("enc"), &platform("linux/amd64"), &[ring("a")]).unwrap().authorised);
    assert!(check(&maker.layout("plain"), &all(), &[ring("a")]).is_err());
}

#[test]
fn what_shows_without_a_key() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("base"), Layer::Gzip("top")]);
    encrypt_chosen(&maker, "plain", "enc", &["a", "b"], &layers(&[1])).unwrap();
    let seen = inspect(&maker.layout("enc"), &all()).unwrap();
    assert_eq!(seen.digest.to_string(), maker.digest("enc"));
    let layers = &seen.images[0].layers;
    assert!(!layers[0].encrypted && layers[0].wrapped_for.is_empty());
    assert!(layers[1].encrypted && layers[1].problem.is_none());
    let shows: Vec<&str> =
        layers[1].wrapped_for.iter().flat_map(|key| &key.shows).map(String::as_str).collect();
    assert_eq!(shows, ["kid kbs:///acme/image-key/a", "kid kbs:///acme/image-key/b"]);
    // What makes no sense is listed with what is wrong.
    maker.tamper("enc", |manifest| manifest["layers"][1]["annotations"] = serde_json::json!({}));
    let seen = inspect(&maker.layout("enc"), &all()).unwrap();
    assert!(seen.images[0].layers[1].problem.as_deref().unwrap().contains("pubopts is missing"));
}
