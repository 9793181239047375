//! Decrypting: all or nothing, and only what was encrypted, in its order.

use serde_json::{Value, json};

use super::maker::*;

fn encrypted() -> Maker {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("base"), Layer::Gzip("top")]);
    encrypt(&maker, "plain", "enc", &["k"]);
    maker
}

/// Exchanges a layer's bytes as a registry could, digest and all.
fn exchange(maker: &Maker, layer: usize, change: impl FnOnce(&mut Vec<u8>)) {
    maker.tamper("enc", |manifest| {
        let digest = manifest["layers"][layer]["digest"].as_str().unwrap().to_owned();
        let mut bytes = std::fs::read(maker.blob_path(&digest)).unwrap();
        change(&mut bytes);
        manifest["layers"][layer]["digest"] = maker.blob(&bytes).into();
        manifest["layers"][layer]["size"] = bytes.len().into();
    });
}

#[test]
fn a_plain_image() {
    let maker = encrypted();
    let error = refusal(decrypt(&maker, "plain", &["k"]));
    assert!(error.starts_with("not encrypted: manifest "), "{error}");
}

#[test]
fn without_the_key_nothing_is_copied() {
    let maker = encrypted();
    for tags in [&[][..], &["other"]] {
        let error = refusal(decrypt(&maker, "enc", tags));
        assert!(
            error.contains("no suitable key for 2 of 2 encrypted layers, nothing was decrypted"),
            "{error}"
        );
        assert!(error.contains("layer 0 of manifest") && error.contains("layer 1 of manifest"), "{error}");
    }
}

#[test]
fn one_missing_key_fails_the_whole() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("base"), Layer::Gzip("top")]);
    encrypt_chosen(&maker, "plain", "half", &["a"], &layers(&[0])).unwrap();
    encrypt_chosen(&maker, "half", "enc", &["b"], &layers(&[1])).unwrap();
    let error = refusal(decrypt(&maker, "enc", &["a"]));
    assert!(error.contains("no suitable key for 1 of 2 encrypted layers"), "{error}");
    assert!(error.contains("layer 1 of manifest") && !error.contains("layer 0 of manifest"), "{error}");
    decrypt(&maker, "enc", &["a", "b"]).unwrap();
}

#[test]
fn every_platform_needs_its_key() {
    let maker = Maker::new();
    maker.multi("plain", &[("linux/amd64", &[Layer::Gzip("a")]), ("linux/arm64", &[Layer::Gzip("b")])]);
    encrypt_chosen(&maker, "plain", "half", &["a"], &platform("linux/amd64")).unwrap();
    encrypt_chosen(&maker, "half", "enc", &["b"], &platform("linux/arm64")).unwrap();
    let error = refusal(decrypt(&maker, "enc", &["a"]));
    assert!(
        error.contains("1 of 2") && error.contains("(linux/arm64)") && !error.contains("amd64"),
        "{error}"
    );
    // One platform alone is possible, and what stays encrypted is said.
    let to = Maker::new();
    let report = run((&maker, "enc"), (&to, "plain"), &platform("linux/amd64"), |job| {
        owner_image::operation::decrypt(job, &keys(&["a"]))
    });
    let notes = report.unwrap().notes;
    assert_eq!(notes.len(), 1);
    assert!(notes[0].contains("(linux/arm64) stays encrypted: 1 of its layers"), "{notes:?}");
}

#[test]
fn a_bit_flipped() {
    let maker = encrypted();
    exchange(&maker, 1, |bytes| bytes[40] ^= 1);
    let error = refusal(decrypt(&maker, "enc", &["k"]));
    assert!(
        error.contains("layer 1 of manifest") && error.contains("could not properly decrypt byte stream"),
        "{error}"
    );
    assert!(error.contains("hmac"), "{error}");
}

#[test]
fn shorter_or_longer() {
    for change in [|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1), |bytes: &mut Vec<u8>| bytes.push(0)]
    {
        let maker = encrypted();
        exchange(&maker, 0, change);
        let error = refusal(decrypt(&maker, "enc", &["k"]));
        assert!(error.contains("hmac"), "{error}");
    }
}

#[test]
fn another_digest_than_the_descriptors() {
    let maker = encrypted();
    let digest = layer_digests(&maker.root("enc")).remove(0);
    let mut bytes = std::fs::read(maker.blob_path(&digest)).unwrap();
    bytes[0] ^= 1;
    std::fs::write(maker.blob_path(&digest), bytes).unwrap();
    let error = refusal(decrypt(&maker, "enc", &["k"]));
    assert!(error.contains("damaged or exchanged"), "{error}");
}

#[test]
fn another_layers_hmac() {
    let maker = encrypted();
    maker.tamper("enc", |manifest| {
        let name = "org.opencontainers.image.enc.pubopts";
        manifest["layers"][0]["annotations"][name] = manifest["layers"][1]["annotations"][name].clone();
    });
    let error = refusal(decrypt(&maker, "enc", &["k"]));
    assert!(error.contains("layer 0 of manifest") && error.contains("hmac"), "{error}");
}

#[test]
fn layers_in_another_order() {
    let maker = encrypted();
    maker.tamper("enc", |manifest| manifest["layers"].as_array_mut().unwrap().reverse());
    let error = refusal(decrypt(&maker, "enc", &["k"]));
    assert!(error.contains("the configuration names") && error.contains("reordered"), "{error}");
}

#[test]
fn a_layer_twice_or_missing() {
    for change in [
        |layers: &mut Vec<Value>| layers.push(layers[0].clone()),
        |layers: &mut Vec<Value>| drop(layers.pop()),
    ] {
        let maker = encrypted();
        maker.tamper("enc", |manifest| change(manifest["layers"].as_array_mut().unwrap()));
        let error = refusal(decrypt(&maker, "enc", &["k"]));
        assert!(error.contains("layers were added or taken away"), "{error}");
    }
}

#[test]
fn a_plain_layer_slipped_in_beside_encrypted_ones() {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("base"), Layer::Gzip("top")]);
    maker.single("evil", &[Layer::Gzip("base"), Layer::Gzip("evil")]);
    encrypt_chosen(&maker, "plain", "enc", &["k"], &layers(&[0])).unwrap();
    decrypt(&maker, "enc", &["k"]).unwrap();
    let evil = maker.root("evil")["layers"][1].clone();
    maker.tamper("enc", |manifest| manifest["layers"][1] = evil);
    let error = refusal(decrypt(&maker, "enc", &["k"]));
    assert!(error.contains("layer 1 of manifest") && error.contains("diff id"), "{error}");
}

#[test]
fn a_configuration_that_holds_layers_to_nothing() {
    let unknown = "application/vnd.example.config.v1+json";
    let maker = encrypted();
    maker.tamper("enc", |manifest| manifest["config"]["mediaType"] = unknown.into());
    let error = refusal(decrypt(&maker, "enc", &["k"]));
    assert!(error.contains("layer 0 of manifest") && error.contains(unknown), "{error}");
    let rotated = run((&maker, "enc"), (&maker, "new"), &all(), |job| {
        owner_image::operation::rotate(job, &keys(&["k"]), &recipients(&["k"]))
    });
    assert!(rotated.unwrap_err().to_string().contains(unknown));
    // A module has nothing to unpack; a plain layer beside it has.
    let module = "application/vnd.wasm.content.layer.v1+wasm";
    maker.single("plain", &[Layer::Plain("module"), Layer::Plain("module")]);
    maker.tamper("plain", |manifest| {
        manifest["config"]["mediaType"] = unknown.into();
        manifest["layers"].as_array_mut().unwrap().iter_mut().for_each(|l| l["mediaType"] = module.into());
    });
    encrypt_chosen(&maker, "plain", "enc", &["k"], &layers(&[0])).unwrap();
    decrypt(&maker, "enc", &["k"]).unwrap();
    maker.tamper("enc", |manifest| manifest["layers"][1]["mediaType"] = GZIP.into());
    let error = refusal(decrypt(&maker, "enc", &["k"]));
    assert!(error.contains("layer 1 of manifest") && error.contains(unknown), "{error}");
}

#[test]
fn annotations_stripped_or_the_type_made_plain() {
    let maker = encrypted();
    maker.tamper("enc", |manifest| manifest["layers"][0]["annotations"] = json!({}));
    let error = refusal(decrypt(&maker, "enc", &["k"]));
    assert!(error.contains("layer 0 of manifest") && error.contains("pubopts is missing"), "{error}");
    let maker = encrypted();
    maker.tamper("enc", |manifest| manifest["layers"][0]["mediaType"] = GZIP.into());
    let error = refusal(decrypt(&maker, "enc", &["k"]));
    assert!(error.contains("plain media type"), "{error}");
}

#[test]
fn another_compression_than_the_media_type_says() {
    let maker = encrypted();
    maker.tamper("enc", |manifest| {
        manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd+encrypted".into();
    });
    let error = refusal(decrypt(&maker, "enc", &["k"]));
    assert!(error.contains("can't be decompressed as its media type says"), "{error}");
}

#[test]
fn a_public_nonce_changes_nothing_and_is_said() {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let maker = encrypted();
    maker.tamper("enc", |manifest| {
        let options = &mut manifest["layers"][0]["annotations"]["org.opencontainers.image.enc.pubopts"];
        let mut json: Value =
            serde_json::from_slice(&engine.decode(options.as_str().unwrap()).unwrap()).unwrap();
        json["cipheroptions"] = json!({"nonce": engine.encode([1; 16])});
        *options = engine.encode(json.to_string()).into();
    });
    let to = Maker::new();
    let report = run((&maker, "enc"), (&to, "plain"), &all(), |job| {
        owner_image::operation::decrypt(job, &keys(&["k"]))
    });
    let notes = report.unwrap().notes;
    assert!(notes[0].contains("nonce, which is ignored"), "{notes:?}");
    assert_eq!(to.root("plain")["layers"], maker.root("plain")["layers"]);
}
