//! Runs the bodies of the fuzz targets on the stable compiler: on random bytes, and on valid inputs with a few bytes
//! changed.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../../../fuzz/bodies/encrypted_image.rs"]
mod bodies;

use encrypted_image::coco::BrokerKey;
use encrypted_image::keyprovider::{Reply, Request};
use encrypted_image::pkcs11::{OaepHash, Pkcs11Blob, Pkcs11Recipient};
use encrypted_image::{EncryptedLayer, PrivateOptions, PublicOptions, Scheme, Wrap, WrappedKey};
use proptest::prelude::*;

fn private() -> PrivateOptions {
    PrivateOptions::from_parts([1; 32].into(), [2; 16], [3; 32])
}

fn packet() -> Vec<u8> {
    BrokerKey::new("kbs:///default/key/web", [7; 32].into()).unwrap().wrap(&private()).unwrap()
}

fn descriptor() -> Vec<u8> {
    let key = |scheme, blob: &[u8]| WrappedKey { scheme, blob: blob.to_vec() };
    let layer = EncryptedLayer {
        public: PublicOptions::new([1; 32]),
        wrapped: vec![key(Scheme::Jwe, b"one"), key(Scheme::Pgp, b"two"), key(Scheme::Pgp, b"three")],
    };
    let packet = packet();
    let layer = EncryptedLayer {
        wrapped: layer
            .wrapped
            .into_iter()
            .chain([key(Scheme::Provider("sealpod".to_owned()), &packet)])
            .collect(),
        ..layer
    };
    let annotations = layer.to_annotations();
    let lines: Vec<_> = annotations.iter().map(|(name, value)| format!("{name} {value}")).collect();
    format!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted\n{}", lines.join("\n")).into_bytes()
}

fn messages() -> Vec<Vec<u8>> {
    let parameters = || vec![b"kbs:///a/b/c".to_vec().into()];
    vec![
        Request::wrap("one", parameters(), private().to_json()).to_json().to_vec(),
        Request::unwrap("one", parameters(), packet()).to_json().to_vec(),
        Reply::Wrapped(packet()).to_json().to_vec(),
        Reply::Unwrapped(private().to_json()).to_json().to_vec(),
    ]
}

fn blob() -> Vec<u8> {
    let recipient = |hash| Pkcs11Recipient { wrapped: vec![5; 256], hash };
    Pkcs11Blob { recipients: vec![recipient(OaepHash::Sha1), recipient(OaepHash::Sha256)] }.to_json()
}

/// `good` with some bytes replaced, or cut off.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4);
    (changes, any::<proptest::sample::Index>(), any::<bool>()).prop_map(move |(changes, end, cut)| {
        let mut bytes = good.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

fn run_all(bytes: &[u8]) {
    bodies::layer_descriptor(bytes);
    bodies::layer_options(bytes);
    bodies::coco_annotation(bytes);
    bodies::keyprovider_messages(bytes);
    bodies::pkcs11_blob(bytes);
    bodies::layer_decrypt(bytes);
}

#[test]
fn undamaged_inputs() {
    bodies::layer_descriptor(&descriptor());
    bodies::layer_options(&private().to_json());
    bodies::layer_options(&PublicOptions::new([1; 32]).to_json());
    bodies::coco_annotation(&packet());
    bodies::pkcs11_blob(&blob());
    for message in messages() {
        bodies::keyprovider_messages(&message);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        run_all(&bytes);
    }

    #[test]
    fn damaged_descriptors(bytes in damaged(descriptor())) {
        bodies::layer_descriptor(&bytes);
    }

    #[test]
    fn damaged_private_options(bytes in damaged(private().to_json().to_vec())) {
        bodies::layer_options(&bytes);
    }

    #[test]
    fn damaged_public_options(bytes in damaged(PublicOptions::new([1; 32]).to_json())) {
        bodies::layer_options(&bytes);
    }

    #[test]
    fn damaged_packets(bytes in damaged(packet())) {
        bodies::coco_annotation(&bytes);
    }

    #[test]
    fn damaged_messages(bytes in proptest::sample::select(messages()).prop_flat_map(damaged)) {
        bodies::keyprovider_messages(&bytes);
    }

    #[test]
    fn damaged_blobs(bytes in damaged(blob())) {
        bodies::pkcs11_blob(&bytes);
    }

    #[test]
    fn changed_layers(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
        bodies::layer_decrypt(&bytes);
    }
}
