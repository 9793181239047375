//! Encrypted images: opened by the image's own keys and by nothing else, and only if they are what was
//! encrypted.

use std::process::Command;

use agent_image::{Encryption, ErrorKind, ImageError};
use encrypted_image::jwe::JweWrap;
use encrypted_image::keys::{Certificate, PublicKey};
use encrypted_image::pkcs7::Pkcs7Wrap;
use encrypted_image::{CipherError, Wrap};
use sealed_spec::ImageRef;
use serde_json::json;

use crate::image::{GZIP, Image, Layer, Store, TAR, ZSTD};
use crate::registry::{Answer, Registry};
use crate::run;
use crate::sealed::{Broker, KEY, broker_key, options, uri};

const OTHER: &str = "kbs:///owner/image-key/other";

pub(crate) fn ours() -> Vec<Box<dyn Wrap>> {
    vec![broker_key(KEY, 1)]
}

pub(crate) fn with_keys(mut image: ImageRef, keys: &[&str]) -> ImageRef {
    image.keys = keys.iter().map(|key| uri(key)).collect();
    image
}

fn layer(name: &str) -> Layer {
    Layer::file(GZIP, name, name.as_bytes())
}

/// Serves the image and pulls it with these keys, at a broker that has both.
pub(crate) fn refused(image: &Image, keys: &[&str]) -> ImageError {
    run(async {
        let registry = Registry::start();
        let reference = with_keys(image.serve(&registry), keys);
        let broker = Broker::holding(&[(KEY, &[1; 32]), (OTHER, &[2; 32])]);
        Store::with_broker(registry.source(), broker).refusal(&reference).await
    })
}

#[track_caller]
pub(crate) fn assert_cipher(error: &ImageError, expected: &CipherError) {
    let ImageError::Cipher { source, .. } = error else { panic!("{error}") };
    assert_eq!(&**source, expected);
    assert_eq!(error.kind(), ErrorKind::Digest);
}

#[test]
fn encrypted_layers_of_each_compression_arrive_beside_plain_ones() {
    run(async {
        let registry = Registry::start();
        let image = Image::new(vec![
            layer("a").encrypted(&ours()),
            Layer::file(ZSTD, "b", b"b").encrypted(&ours()),
            Layer::file(TAR, "c", b"c").encrypted(&ours()),
            layer("d"),
        ]);
        let reference = with_keys(image.serve(&registry), &[KEY]);
        let broker = Broker::holding(&[(KEY, &[1; 32])]);
        let store = Store::with_broker(registry.source(), broker.clone());
        let pulled = store.images.pull(&reference).await.unwrap();
        for (layer, name) in pulled.layers().iter().zip(["a", "b", "c", "d"]) {
            assert_eq!(std::fs::read_to_string(layer.join(name)).unwrap(), name);
        }
        assert_eq!(pulled.encryption(), Encryption { encrypted: 3, plain: 1, public_nonces: 0 });
        assert_eq!(broker.asked(), [KEY]);
        store.settled().await;
    });
}

#[test]
fn a_large_layer_passes_in_pieces() {
    run(async {
        let registry = Registry::start();
        let bytes: Vec<u8> = (0..3_000_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .take(3_000_001)
            .collect();
        let image = Image::new(vec![Layer::file(ZSTD, "a", &bytes).encrypted(&ours())]);
        let reference = with_keys(image.serve(&registry), &[KEY]);
        let store = Store::with_broker(registry.source(), Broker::holding(&[(KEY, &[1; 32])]));
        let pulled = store.images.pull(&reference).await.unwrap();
        assert_eq!(std::fs::read(pulled.layers()[0].join("a")).unwrap(), bytes);
    });
}

fn openssl(directory: &std::path::Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Private keys at the broker, as `openssl` writes them.
#[test]
fn private_keys_open_what_was_encrypted_for_their_public_halves() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    openssl(directory.path(), "ecparam -name prime256v1 -genkey -noout -out ec.pem");
    openssl(directory.path(), "ec -in ec.pem -pubout -out ec.pub");
    openssl(
        directory.path(),
        "req -new -x509 -newkey rsa:2048 -nodes -keyout rsa.pem -subj /CN=r -days 30 -out rsa.crt",
    );
    openssl(directory.path(), "x509 -in rsa.crt -noout -pubkey -out rsa.pub");
    let jwe = |name| -> Box<dyn Wrap> {
        Box::new(JweWrap::new(vec![PublicKey::parse(&at(name)).unwrap()]).unwrap())
    };
    let pkcs7: Box<dyn Wrap> =
        Box::new(Pkcs7Wrap::new(vec![Certificate::parse(&at("rsa.crt")).unwrap()]).unwrap());
    let both = [at("rsa.pem"), at("rsa.crt")].concat();
    openssl(directory.path(), "req -new -x509 -key ec.pem -subj /CN=e -days 30 -out ec.crt");
    let with_certificate = [at("ec.pem"), at("ec.crt")].concat();
    let cases = [
        (jwe("ec.pub"), at("ec.pem"), at("rsa.pem")),
        (jwe("ec.pub"), with_certificate, at("rsa.pem")),
        (jwe("rsa.pub"), at("rsa.pem"), at("ec.pem")),
        (pkcs7, both, at("ec.pem")),
    ];
    for (recipient, right, wrong) in cases {
        let image = Image::new(vec![layer("a").encrypted(&[recipient])]);
        run(async {
            let registry = Registry::start();
            let reference = with_keys(image.serve(&registry), &[KEY]);
            let broker = Broker::holding(&[(KEY, &wrong)]);
            let store = Store::with_broker(registry.source(), broker.clone());
            let error = store.refusal(&reference).await;
            assert!(matches!(error, ImageError::NotAuthorised { .. }), "{error}");
            broker.put(KEY, &right);
            store.images.pull(&reference).await.unwrap();
        });
    }
}

#[test]
fn without_a_key_nothing_is_fetched_and_the_key_is_named() {
    run(async {
        let registry = Registry::start();
        let image = Image::new(vec![layer("plain"), layer("a").encrypted(&ours())]);
        let reference = image.serve(&registry);
        let store = Store::with_broker(registry.source(), Broker::holding(&[]));
        let error = store.refusal(&reference).await;
        assert!(matches!(error, ImageError::NotAuthorised { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Key);
        assert!(
            error
                .to_string()
                .contains(&format!("it was encrypted for {KEY}, and the sealed spec names no key")),
            "{error}"
        );
        for layer in &image.layers {
            assert_eq!(registry.count(&layer.blob_path()), 0);
        }
    });
}

#[test]
fn only_the_keys_of_the_image_itself_count() {
    let image = Image::new(vec![layer("a").encrypted(&ours())]);
    // The broker has the right one too, and isn't asked for it.
    let error = refused(&image, &[OTHER]);
    assert!(matches!(error, ImageError::NotAuthorised { .. }), "{error}");
    assert!(error.to_string().contains(&format!("the sealed spec names {OTHER} for this image")), "{error}");
    // Another key under the right name.
    let image = Image::new(vec![layer("a").encrypted(&[broker_key(KEY, 9)])]);
    let error = refused(&image, &[KEY]);
    assert!(matches!(error, ImageError::NotAuthorised { .. }), "{error}");
    // The right key, of another name.
    let image = Image::new(vec![layer("a").encrypted(&[broker_key(OTHER, 1)])]);
    let error = refused(&image, &[KEY]);
    assert!(matches!(error, ImageError::NotAuthorised { .. }), "{error}");
}

#[test]
fn every_layer_has_to_open() {
    for last in [
        layer("b").encrypted(&[broker_key(OTHER, 2)]),
        Layer::file(ZSTD, "b", b"b").encrypted(&[broker_key(KEY, 9)]),
    ] {
        let image = Image::new(vec![layer("a").encrypted(&ours()), last]);
        let error = refused(&image, &[KEY]);
        assert!(matches!(error, ImageError::NotAuthorised { .. }), "{error}");
    }
}

#[test]
fn a_key_that_the_broker_does_not_give_or_that_is_none_is_named() {
    run(async {
        let registry = Registry::start();
        let image = Image::new(vec![layer("a").encrypted(&ours())]);
        let reference = with_keys(image.serve(&registry), &[KEY]);
        let broker = Broker::holding(&[]);
        let store = Store::with_broker(registry.source(), broker.clone());
        let error = store.refusal(&reference).await;
        assert_eq!(error.to_string(), format!("image key {KEY}: there is no such resource"));
        assert!(registry.requests().is_empty());
        for bad in [
            &[1; 31][..],
            &[1; 33],
            b"",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            &[7; 70_000],
        ] {
            broker.put(KEY, bad);
            let error = store.refusal(&reference).await;
            assert!(matches!(error, ImageError::Key { .. }), "{error}");
        }
        // The next try asks again.
        broker.put(KEY, &[1; 32]);
        store.images.pull(&reference).await.unwrap();
    });
}

/// The manifest's digest is made anew for each: these are what somebody who writes manifests could try.
#[test]
fn what_is_not_what_was_encrypted() {
    // A bit of the ciphertext, the HMAC in the annotation.
    let mut flipped = layer("a").encrypted(&ours());
    flipped.blob[40] ^= 1;
    assert_cipher(&refused(&Image::new(vec![flipped]), &[KEY]), &CipherError::Hmac);
    let mut first = layer("a").encrypted(&ours());
    let second = layer("b").encrypted(&ours());
    first.annotations.insert(
        "org.opencontainers.image.enc.pubopts".into(),
        second.annotations["org.opencontainers.image.enc.pubopts"].clone(),
    );
    assert_cipher(&refused(&Image::new(vec![first]), &[KEY]), &CipherError::Hmac);

    // All annotations of another layer.
    let mut first = layer("a").encrypted(&ours());
    first.annotations = second.annotations.clone();
    assert_cipher(&refused(&Image::new(vec![first]), &[KEY]), &CipherError::Hmac);

    // Right key and HMAC, another private digest: also where the bytes would unpack.
    let plain = layer("a");
    let private = options(&plain);
    let lying = private.clone().with_digest([7; 32]);
    let image = Image::new(vec![plain.clone().encrypted_with(&private, &lying, &ours())]);
    assert_cipher(&refused(&image, &[KEY]), &CipherError::Digest);

    // Right key and HMAC, another nonce: garbage, whatever the unpacker makes of it.
    let nonce = encrypted_image::PrivateOptions::from_parts(
        zeroize::Zeroizing::new(*private.key()),
        [9; 16],
        *private.digest(),
    );
    let image = Image::new(vec![plain.encrypted_with(&private, &nonce, &ours())]);
    assert_cipher(&refused(&image, &[KEY]), &CipherError::Digest);
}

#[test]
fn a_public_nonce_is_ignored_and_counted() {
    run(async {
        let registry = Registry::start();
        let mut layer = layer("a").encrypted(&ours());
        let name = "org.opencontainers.image.enc.pubopts";
        let engine = &base64::engine::general_purpose::STANDARD;
        let json = base64::Engine::decode(engine, &layer.annotations[name]).unwrap();
        let mut public: serde_json::Value = serde_json::from_slice(&json).unwrap();
        public["cipheroptions"]["nonce"] = json!(base64::Engine::encode(engine, [9; 16]));
        layer.annotations.insert(name.into(), base64::Engine::encode(engine, public.to_string()));
        let reference = with_keys(Image::new(vec![layer]).serve(&registry), &[KEY]);
        let store = Store::with_broker(registry.source(), Broker::holding(&[(KEY, &[1; 32])]));
        let pulled = store.images.pull(&reference).await.unwrap();
        assert_eq!(pulled.encryption().public_nonces, 1);
    });
}

#[test]
fn media_type_and_annotations_say_the_same() {
    let plain_type = |mut layer: Layer| {
        layer.media_type = GZIP.into();
        layer
    };
    let stripped = |mut layer: Layer| {
        layer.annotations.clear();
        layer
    };
    let sealed = || layer("a").encrypted(&ours());
    // Annotations off, media type swapped: refused by the manifest.
    for layer in [stripped(sealed()), plain_type(sealed())] {
        let error = refused(&Image::new(vec![layer]), &[KEY]);
        assert!(matches!(error, ImageError::Manifest { .. }), "{error}");
    }
    // Both: the bytes are no layer.
    let error = refused(&Image::new(vec![stripped(plain_type(sealed()))]), &[KEY]);
    assert_eq!(error.kind(), ErrorKind::Unpack, "{error}");
    // A plain layer that pretends.
    let mut pretending = layer("a");
    pretending.annotations = sealed().annotations;
    let error = refused(&Image::new(vec![pretending.clone()]), &[KEY]);
    assert!(matches!(error, ImageError::Manifest { .. }), "{error}");
    pretending.media_type.push_str("+encrypted");
    assert_cipher(&refused(&Image::new(vec![pretending]), &[KEY]), &CipherError::Hmac);
    // A module is no layer, encrypted or not.
    let mut module = sealed();
    module.media_type = "application/vnd.wasm.content.layer.v1+wasm+encrypted".into();
    let error = refused(&Image::new(vec![module]), &[KEY]);
    assert!(error.to_string().contains("is not supported"), "{error}");
}

#[test]
fn reordered_layers() {
    let mut image = Image::new(vec![layer("a").encrypted(&ours()), layer("b").encrypted(&ours())]);
    image.manifest["layers"].as_array_mut().unwrap().reverse();
    let error = refused(&image, &[KEY]);
    assert!(matches!(&error, ImageError::DigestMismatch { what, .. } if what == "unpacked layer"), "{error}");
}

/// CVE-2022-24778: what one image's keys opened is no other image's.
#[test]
fn a_layer_that_is_there_is_not_given_to_who_can_not_open_it() {
    run(async {
        let registry = Registry::start();
        let plain = layer("a");
        let private = options(&plain);
        let secret = plain.clone().encrypted_with(&private, &private, &ours());
        let image = Image::new(vec![secret.clone()]);
        let reference = image.serve(&registry);
        let broker = Broker::holding(&[(KEY, &[1; 32]), (OTHER, &[2; 32])]);
        let store = Store::with_broker(registry.source(), broker.clone());
        store.images.pull(&with_keys(reference.clone(), &[KEY])).await.unwrap();
        let path = secret.blob_path();
        assert_eq!(registry.count(&path), 1);

        // The same image, with another key and with none.
        for keys in [&[OTHER][..], &[]] {
            let error = store.images.pull(&with_keys(reference.clone(), keys)).await.unwrap_err();
            assert!(matches!(error, ImageError::NotAuthorised { .. }), "{error}");
        }
        // Another image that says that this layer is its own, under its own key, with options that it made up.
        let invented = secret.clone().rewrapped(&options(&plain), &[broker_key(OTHER, 2)]);
        let theirs = with_keys(Image::new(vec![invented]).serve(&registry), &[OTHER]);
        let error = store.images.pull(&theirs).await.unwrap_err();
        assert_cipher(&error, &CipherError::Hmac);
        // With a blob of its own, for this layer's diff id; encrypted and plain.
        for mut other in [layer("other").encrypted(&[broker_key(OTHER, 2)]), layer("other")] {
            other.tar = plain.tar.clone();
            let theirs = with_keys(Image::new(vec![other.clone()]).serve(&registry), &[OTHER]);
            let error = store.images.pull(&theirs).await.unwrap_err();
            assert!(
                matches!(&error, ImageError::DigestMismatch { what, .. } if what == "unpacked layer"),
                "{error}"
            );
            assert_eq!(registry.count(&other.blob_path()), 1);
        }
        assert_eq!(store.layers(), 1);
        store.settled().await;

        // Whose key opens it takes part, without another transfer.
        let before = registry.count(&path);
        let shared = secret.rewrapped(&private, &[broker_key(OTHER, 2)]);
        let shared = with_keys(Image::new(vec![shared, layer("own")]).serve(&registry), &[OTHER]);
        let pulled = store.images.pull(&shared).await.unwrap();
        assert!(pulled.layers()[0].join("a").is_file());
        assert_eq!((registry.count(&path), store.layers()), (before, 2));
    });
}

#[test]
fn the_same_content_is_kept_once_however_it_came() {
    run(async {
        let registry = Registry::start();
        let broker = Broker::holding(&[(KEY, &[1; 32])]);
        let store = Store::with_broker(registry.source(), broker);
        let images = [
            Image::new(vec![layer("a").encrypted(&ours())]),
            Image::new(vec![layer("a")]),
            Image::new(vec![layer("a").encrypted(&ours())]),
        ];
        let mut paths = Vec::new();
        for image in images {
            let reference = with_keys(image.serve(&registry), &[KEY]);
            paths.push(store.images.pull(&reference).await.unwrap().layers()[0].clone());
            assert_eq!(registry.count(&image.layers[0].blob_path()), 1);
        }
        paths.dedup();
        assert_eq!((paths.len(), store.layers()), (1, 1));
        store.settled().await;
    });
}

#[test]
fn a_broken_transfer_of_an_encrypted_layer_goes_on_where_it_broke() {
    run(async {
        let registry = Registry::start();
        let bytes: Vec<u8> =
            (0..15_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let image = Image::new(vec![Layer::file(GZIP, "a", &bytes).encrypted(&ours())]);
        let reference = with_keys(image.serve(&registry), &[KEY]);
        let (path, blob) = (image.layers[0].blob_path(), image.layers[0].blob.clone());
        registry.answer(&path, &[Answer::Ranged(blob.clone(), 7_001)]);
        let store = Store::with_broker(registry.source(), Broker::holding(&[(KEY, &[1; 32])]));
        let pulled = store.images.pull(&reference).await.unwrap();
        assert_eq!(std::fs::read(pulled.layers()[0].join("a")).unwrap(), bytes);
        assert_eq!(registry.count(&path), blob.len().div_ceil(7_001));
    });
}

#[test]
fn a_mirror_that_sends_something_else_is_left_for_the_registry() {
    run(async {
        let (registry, mirror) = (Registry::start(), Registry::start());
        let image = Image::new(vec![
            Layer::file(TAR, "a", &[3; 5000]).encrypted(&ours()),
            layer("b").encrypted(&ours()),
        ]);
        let reference = with_keys(image.serve(&registry), &[KEY]);
        image.serve(&mirror);
        let path = image.layers[0].blob_path();
        let mut wrong = image.layers[0].blob.clone();
        wrong[4000] ^= 1;
        mirror.answer(&path, &[Answer::Body(wrong)]);
        let mut source = registry.source();
        source.mirrors = vec![format!("http://{}", mirror.address)];
        let store = Store::with_broker(source, Broker::holding(&[(KEY, &[1; 32])]));
        let pulled = store.images.pull(&reference).await.unwrap();
        assert_eq!(std::fs::read(pulled.layers()[0].join("a")).unwrap(), [3; 5000]);
        assert_eq!((mirror.count(&path), registry.count(&path)), (1, 1));
        assert_eq!(store.images.progress(&reference), Some(100));
        store.settled().await;
    });
}
