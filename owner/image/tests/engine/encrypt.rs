//! Encrypting: what is chosen, what stays as it was, what is refused.

use serde_json::{Value, json};

use super::maker::*;

const PUBLIC_OPTIONS: &str = "org.opencontainers.image.enc.pubopts";
const KEYS: &str = "org.opencontainers.image.enc.keys.provider.sealpod";

#[test]
fn every_compression_there_and_back() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("base"), Layer::Plain("middle"), Layer::Zstd("top")]);
    encrypt(&maker, "plain", "enc", &["k"]);
    let (before, after) = (maker.root("plain"), maker.root("enc"));
    assert_eq!(before["config"], after["config"]);
    assert_eq!(before["annotations"], after["annotations"]);
    for (before, after) in
        before["layers"].as_array().unwrap().iter().zip(after["layers"].as_array().unwrap())
    {
        assert_eq!(format!("{}+encrypted", before["mediaType"].as_str().unwrap()), after["mediaType"]);
        assert_eq!(before["size"], after["size"]);
        assert_ne!(before["digest"], after["digest"]);
        assert!(after["annotations"][PUBLIC_OPTIONS].is_string() && after["annotations"][KEYS].is_string());
    }
    let plain = decrypt(&maker, "enc", &["other", "k"]).unwrap();
    assert_eq!(plain.root("plain"), before);
    for digest in layer_digests(&before) {
        assert_eq!(
            std::fs::read(plain.blob_path(&digest)).unwrap(),
            std::fs::read(maker.blob_path(&digest)).unwrap()
        );
    }
}

#[test]
fn layers_that_are_chosen() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("0"), Layer::Gzip("1"), Layer::Gzip("2")]);
    let before = maker.root("plain");
    for (chosen, encrypted) in
        [(&[0][..], &[0][..]), (&[-1], &[2]), (&[-3, 1], &[0, 1]), (&[1, -2, 1], &[1]), (&[], &[0, 1, 2])]
    {
        encrypt_chosen(&maker, "plain", "enc", &["k"], &layers(chosen)).unwrap();
        let after = maker.root("enc");
        for layer in 0..3 {
            let same = before["layers"][layer] == after["layers"][layer];
            assert_eq!(same, !encrypted.contains(&layer), "layer {layer} of {chosen:?}");
        }
        assert_eq!(decrypt(&maker, "enc", &["k"]).unwrap().root("plain"), before);
    }
}

#[test]
fn layers_that_are_not_there() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("0"), Layer::Gzip("1")]);
    for missing in [2, 7, -3, i64::MIN, i64::MAX] {
        let blobs = maker.blobs();
        let error =
            encrypt_chosen(&maker, "plain", "enc", &["k"], &layers(&[0, missing])).unwrap_err().to_string();
        assert!(error.contains(&format!("has no layer {missing}: it has 2")), "{error}");
        assert_eq!(maker.blobs(), blobs);
    }
}

#[test]
fn an_index_keeps_its_other_entries() {
    let maker = Maker::new();
    maker.multi(
        "plain",
        &[
            ("linux/amd64", &[Layer::Gzip("a")]),
            ("linux/arm64", &[Layer::Gzip("b")]),
            ("linux/s390x", &[Layer::Gzip("c")]),
        ],
    );
    let before = maker.root("plain");
    encrypt_chosen(&maker, "plain", "enc", &["k"], &platform("linux/arm64")).unwrap();
    let after = maker.root("enc");
    assert_eq!(after["annotations"], before["annotations"]);
    for at in [0, 2] {
        assert_eq!(after["manifests"][at], before["manifests"][at]);
    }
    let (old, new) = (&before["manifests"][1], &after["manifests"][1]);
    assert_ne!(old["digest"], new["digest"]);
    for kept in ["platform", "annotations", "mediaType"] {
        assert_eq!(old[kept], new[kept]);
    }
    let manifest = maker.json_blob(new["digest"].as_str().unwrap());
    assert!(manifest["layers"][0]["mediaType"].as_str().unwrap().ends_with("+encrypted"));
}

#[test]
fn a_layer_of_two_manifests_stays_one_blob() {
    let maker = Maker::new();
    maker.multi(
        "plain",
        &[("linux/amd64", &[Layer::Gzip("same"), Layer::Gzip("a")]), ("linux/arm64", &[Layer::Gzip("same")])],
    );
    encrypt(&maker, "plain", "enc", &["k"]);
    let index = maker.root("enc");
    let layer =
        |at: usize| maker.json_blob(index["manifests"][at]["digest"].as_str().unwrap())["layers"][0].clone();
    assert_eq!(layer(0), layer(1));
    decrypt(&maker, "enc", &["k"]).unwrap();
}

#[test]
fn two_runs_share_no_key() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("text")]);
    encrypt(&maker, "plain", "one", &["k"]);
    encrypt(&maker, "plain", "two", &["k"]);
    assert_ne!(layer_digests(&maker.root("one")), layer_digests(&maker.root("two")));
}

#[test]
fn manifests_of_docker_become_ocis() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("0"), Layer::Gzip("1")]);
    let mut manifest = maker.root("plain");
    manifest["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json".into();
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    for layer in manifest["layers"].as_array_mut().unwrap() {
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
    }
    let mut descriptor = maker.manifest(&manifest);
    descriptor["mediaType"] = manifest["mediaType"].clone();
    maker.name("docker", descriptor);
    encrypt_chosen(&maker, "docker", "enc", &["k"], &layers(&[0])).unwrap();
    let after = maker.root("enc");
    assert_eq!(after["mediaType"], MANIFEST);
    assert_eq!(after["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(after["layers"][0]["mediaType"], format!("{GZIP}+encrypted"));
    assert_eq!(after["layers"][1]["mediaType"], GZIP);
    decrypt(&maker, "enc", &["k"]).unwrap();
}

#[test]
fn refused_before_anything_is_written() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("0"), Layer::Gzip("1")]);
    encrypt_chosen(&maker, "plain", "half", &["k"], &layers(&[0])).unwrap();
    let blobs = maker.blobs();
    let refused = |from, tags: &[&str], selection: &_| {
        encrypt_chosen(&maker, from, "enc", tags, selection).unwrap_err().to_string()
    };
    assert!(refused("plain", &[], &all()).starts_with("no recipient"));
    let error = refused("half", &["k"], &all());
    assert!(
        error.starts_with("already encrypted: layer 0 of manifest ") && error.contains("'rotate'"),
        "{error}"
    );
    let error = refused("plain", &["k"], &platform("linux/riscv64"));
    assert!(
        error.contains("no manifest for platform linux/riscv64; the image is for linux/amd64"),
        "{error}"
    );
    assert_eq!(maker.blobs(), blobs);
    encrypt_chosen(&maker, "half", "whole", &["k"], &layers(&[1])).unwrap();
}

#[test]
fn what_has_no_encrypted_form() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("0"), Layer::Gzip("1")]);
    let as_chart = |manifest: &mut Value| {
        manifest["layers"][1]["mediaType"] = "application/vnd.cncf.helm.chart.content.v1.tar+gzip".into();
    };
    maker.tamper("plain", as_chart);
    encrypt(&maker, "plain", "enc", &["k"]);
    assert_eq!(maker.root("enc")["layers"][1], maker.root("plain")["layers"][1]);
    let error = encrypt_chosen(&maker, "plain", "enc", &["k"], &layers(&[1])).unwrap_err().to_string();
    assert!(error.contains("which has no encrypted form"), "{error}");
    maker.tamper("plain", |manifest| manifest["layers"] = json!([manifest["layers"][1]]));
    let error = encrypt_chosen(&maker, "plain", "enc", &["k"], &all()).unwrap_err().to_string();
    assert!(error.starts_with("nothing to encrypt"), "{error}");
}

#[test]
fn what_could_not_be_decrypted() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("0"), Layer::Gzip("1")]);
    maker.tamper("plain", |manifest| manifest["config"]["mediaType"] = "application/x-unknown".into());
    let blobs = maker.blobs();
    let error = encrypt_chosen(&maker, "plain", "enc", &["k"], &all()).unwrap_err().to_string();
    assert!(error.contains("configuration is of media type 'application/x-unknown'"), "{error}");
    assert_eq!(maker.blobs(), blobs);
}

#[test]
fn a_damaged_source_is_not_encrypted() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("0"), Layer::Gzip("1")]);
    let layer = layer_digests(&maker.root("plain")).remove(1);
    let mut bytes = std::fs::read(maker.blob_path(&layer)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(maker.blob_path(&layer), &bytes).unwrap();
    let blobs = maker.blobs();
    let error = encrypt_chosen(&maker, "plain", "enc", &["k"], &all()).unwrap_err().to_string();
    assert!(error.starts_with("layer 1 of manifest") && error.contains("damaged or exchanged"), "{error}");
    // Nor is it copied as a layer that stays plain.
    let error = encrypt_chosen(&maker, "plain", "enc", &["k"], &layers(&[0]));
    let other = Maker::new();
    assert!(error.is_ok(), "in one layout the blob is there already");
    let error = run((&maker, "plain"), (&other, "enc"), &layers(&[0]), |job| {
        owner_image::operation::encrypt(job, &recipients(&["k"]))
    });
    assert!(error.unwrap_err().to_string().contains("damaged or exchanged"));
    assert_eq!(other.index()["manifests"], json!([]));
    std::fs::write(maker.blob_path(&layer), &bytes[..last]).unwrap();
    let error = encrypt_chosen(&maker, "plain", "enc", &["k"], &layers(&[1])).unwrap_err().to_string();
    assert!(error.contains("bytes, not the"), "{error}");
    assert!(maker.blobs().len() >= blobs.len());
}
