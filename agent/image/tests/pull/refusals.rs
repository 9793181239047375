//! Images whose content is wrong: each test bends one thing of a good image.

use agent_image::{Digest, ErrorKind, ImageError, RegistryError};
use serde_json::json;

use crate::image::{
    GZIP, Image, Layer, Store, TAR, ZSTD, descriptor, gzip, named, pinned, serve_manifest, tar_of,
};
use crate::registry::{Answer, Registry};
use crate::run;

fn good() -> Image {
    Image::new(vec![Layer::file(GZIP, "a", b"content")])
}

/// Serves `image` with `path` answering `answer`, and returns why it was refused.
fn refused(image: &Image, path: &str, answer: Answer) -> ImageError {
    run(async {
        let registry = Registry::start();
        let reference = image.serve(&registry);
        registry.answer(path, &[answer]);
        Store::new(registry.source()).refusal(&reference).await
    })
}

/// Serves `image` as it is and returns why it was refused.
fn refused_as_is(image: &Image) -> ImageError {
    run(async {
        let registry = Registry::start();
        let reference = image.serve(&registry);
        Store::new(registry.source()).refusal(&reference).await
    })
}

#[track_caller]
fn assert_mismatch(error: &ImageError, expected_what: &str) {
    let ImageError::DigestMismatch { what, .. } = error else { panic!("{error}") };
    assert!(what.contains(expected_what), "{error}");
    assert_eq!(error.kind(), ErrorKind::Digest);
}

#[test]
fn another_manifest() {
    run(async {
        let registry = Registry::start();
        let reference = good().serve(&registry);
        let mut other = good().manifest;
        other["annotations"] = json!({"moved": "tag"});
        let path = format!("/v2/team/app/manifests/{}", pinned(&reference));
        registry.answer(&path, &[Answer::Body(serde_json::to_vec(&other).unwrap())]);
        assert_mismatch(&Store::new(registry.source()).refusal(&reference).await, "image manifest");
    });
}

#[test]
fn another_manifest_behind_an_index() {
    run(async {
        let registry = Registry::start();
        let image = good();
        let manifest = serde_json::to_vec(&image.manifest).unwrap();
        let digest = Digest::of(&manifest);
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        image.serve(&registry);
        let reference = serve_manifest(&registry, &json!({"schemaVersion": 2, "manifests": [entry]}));
        let mut other = image.manifest.clone();
        other["annotations"] = json!({"a": "b"});
        let path = crate::image::manifest_path(&digest);
        registry.answer(&path, &[Answer::Body(serde_json::to_vec(&other).unwrap())]);
        assert_mismatch(&Store::new(registry.source()).refusal(&reference).await, "named by the index");
    });
}

#[test]
fn another_config() {
    let image = good();
    let mut other = image.config.clone();
    other["config"]["Cmd"] = json!(["/bin/evil"]);
    let answer = Answer::Body(serde_json::to_vec(&other).unwrap());
    assert_mismatch(&refused(&image, &image.config_path(), answer), "image config");
}

#[test]
fn another_layer_of_the_same_length() {
    let mut image = Image::new(vec![Layer::file(TAR, "a", b"content")]);
    let other = Layer::file(TAR, "a", b"CONTENT");
    assert_mismatch(
        &refused(&image, &image.layers[0].blob_path(), Answer::Body(other.blob)),
        "layer sha256:",
    );
    // Compressed, the unpacker stumbles first; the digest is still what is reported.
    image = good();
    let mut flipped = image.layers[0].blob.clone();
    flipped[12] ^= 1;
    assert_mismatch(&refused(&image, &image.layers[0].blob_path(), Answer::Body(flipped)), "layer sha256:");
}

#[test]
fn another_diff_id() {
    let mut image = good();
    image.config["rootfs"]["diff_ids"] = json!([Digest::of(b"another").to_string()]);
    image.describe();
    assert_mismatch(&refused_as_is(&image), "unpacked layer");
}

#[test]
fn reordered_diff_ids() {
    run(async {
        let registry = Registry::start();
        let mut image = Image::new(vec![Layer::file(GZIP, "a", b"1"), Layer::file(GZIP, "b", b"2")]);
        image.config["rootfs"]["diff_ids"].as_array_mut().unwrap().reverse();
        image.describe();
        let reference = image.serve(&registry);
        assert_mismatch(&Store::new(registry.source()).refusal(&reference).await, "unpacked layer");
    });
}

#[test]
fn data_hidden_after_the_archive() {
    let mut image = good();
    let mut layer = image.layers[0].clone();
    let mut tar = layer.tar.clone();
    tar.extend_from_slice(&[7; 2048]);
    layer.blob = gzip(&tar);
    image.layers[0] = layer;
    image.describe();
    assert_mismatch(&refused_as_is(&image), "unpacked layer");
}

#[test]
fn more_or_fewer_diff_ids_than_layers() {
    let id = Digest::of(b"1").to_string();
    for ids in [json!([]), json!([id, id])] {
        let mut image = good();
        image.config["rootfs"]["diff_ids"] = ids;
        image.describe();
        let error = refused_as_is(&image);
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}

#[test]
fn fewer_bytes_than_declared() {
    let mut image = Image::new(vec![Layer::file(TAR, "a", b"content")]);
    image.manifest["layers"][0]["size"] = json!(1 << 20);
    let error = refused_as_is(&image);
    assert!(matches!(error, ImageError::Registry(RegistryError::Truncated { .. })), "{error}");
}

#[test]
fn more_bytes_than_declared() {
    let mut image = Image::new(vec![Layer::file(TAR, "a", b"content")]);
    image.manifest["layers"][0]["size"] = json!(512);
    let error = refused_as_is(&image);
    assert!(matches!(error, ImageError::TooLarge { limit: 512, .. }), "{error}");
}

#[test]
fn a_layer_that_never_ends() {
    let image = good();
    let error = refused(&image, &image.layers[0].blob_path(), Answer::Endless);
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
}

#[test]
fn documents_that_never_end() {
    let image = good();
    let error = refused(&image, &image.config_path(), Answer::Endless);
    assert!(matches!(error, ImageError::TooLarge { limit: 65536, .. }), "{error}");
    run(async {
        let registry = Registry::start();
        let reference = named(&Digest::of(b"x"));
        registry.answer(&format!("/v2/team/app/manifests/{}", pinned(&reference)), &[Answer::Endless]);
        let error = Store::new(registry.source()).refusal(&reference).await;
        assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    });
}

#[test]
fn a_claim_larger_than_any_layer_may_be() {
    let mut image = good();
    image.manifest["layers"][0]["size"] = json!(u64::MAX);
    let error = refused_as_is(&image);
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
}

#[test]
fn too_many_layers() {
    let mut image = good();
    let layer = image.manifest["layers"][0].clone();
    image.manifest["layers"] = json!(vec![layer; 128]);
    let error = refused_as_is(&image);
    assert!(error.to_string().contains("128 layers"), "{error}");
}

#[test]
fn compression_bombs() {
    let bomb = tar_of(&[("zeros", &vec![0; 5 << 20])]);
    for media_type in [GZIP, ZSTD] {
        let error = refused_as_is(&Image::new(vec![Layer::new(media_type, bomb.clone())]));
        assert!(error.to_string().contains("unpacks to more than 4194304 bytes"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unpack);
    }
}

#[test]
fn a_bomb_after_the_archive() {
    let mut tar = tar_of(&[("a", b"x")]);
    tar.resize(5 << 20, 0);
    let error = refused_as_is(&Image::new(vec![Layer::new(GZIP, tar)]));
    assert!(error.to_string().contains("unpacks to more than"), "{error}");
}

#[test]
fn a_zstd_window_that_claims_memory() {
    let mut layer = Layer::file(ZSTD, "a", b"x");
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, &layer.tar).unwrap();
    layer.blob = encoder.finish().unwrap();
    let error = refused_as_is(&Image::new(vec![layer]));
    assert_eq!(error.kind(), ErrorKind::Unpack, "{error}");
}

#[test]
fn a_flood_of_tiny_files() {
    let names: Vec<String> = (0..200).map(|n| format!("f{n}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let error = refused_as_is(&Image::new(vec![Layer::new(GZIP, tar_of(&files))]));
    assert!(error.to_string().contains("more than 100 entries"), "{error}");
}

#[test]
fn a_layer_that_escapes() {
    let error = refused_as_is(&Image::new(vec![Layer::file(GZIP, "../../escape", b"x")]));
    assert_eq!(error.kind(), ErrorKind::Unpack, "{error}");
    assert!(error.to_string().contains("\"../../escape\": paths with .."), "{error}");
}

#[test]
fn media_types_are_not_guessed() {
    // gzip bytes under a plain media type, and the other way round.
    let mut image = good();
    image.manifest["layers"][0]["mediaType"] = json!(TAR);
    assert_eq!(refused_as_is(&image).kind(), ErrorKind::Unpack);
    let mut image = Image::new(vec![Layer::file(TAR, "a", b"x")]);
    image.manifest["layers"][0]["mediaType"] = json!(GZIP);
    assert_eq!(refused_as_is(&image).kind(), ErrorKind::Unpack);
    let mut image = good();
    image.manifest["layers"][0]["mediaType"] = json!("application/zip");
    assert_eq!(refused_as_is(&image).kind(), ErrorKind::Config);
}
