//! Properties of whole layers: both ways in any chunks, and that no changed bit anywhere gets through.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::thread;

use encrypted_image::authenticate::split;
use encrypted_image::coco::BrokerKey;
use encrypted_image::{
    Authenticated, CipherError, Decryptor, EncryptedLayer, Encryptor, Keyring, Layer, PrivateOptions,
    PublicOptions, Staged, Wrap, WrappedKey,
};
use proptest::prelude::*;
use proptest::sample::Index;
use sha2::{Digest, Sha256};

const URI: &str = "kbs:///default/key/web";
const ENCRYPTED: &str = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";

fn broker_key() -> BrokerKey {
    BrokerKey::new(URI, [7; 32].into()).unwrap()
}

/// `bytes` in chunks of the lengths given, over and over.
fn in_chunks(mut bytes: &mut [u8], steps: &[usize], mut take: impl FnMut(&mut [u8])) {
    for step in steps.iter().cycle() {
        let (chunk, rest) = bytes.split_at_mut((*step).min(bytes.len()));
        take(chunk);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
}

fn encrypted(plain: &[u8]) -> (PrivateOptions, PublicOptions, Vec<u8>) {
    let private = PrivateOptions::generate(Sha256::digest(plain).into()).unwrap();
    let mut bytes = plain.to_vec();
    let mut encryptor = Encryptor::new(private.key(), private.nonce());
    encryptor.update(&mut bytes);
    (private, PublicOptions::new(encryptor.finish()), bytes)
}

fn decrypted(private: &PrivateOptions, public: &PublicOptions, bytes: &[u8]) -> Result<Vec<u8>, CipherError> {
    let mut stage = Staged::new(bytes.to_vec(), private);
    let mut decryptor = Decryptor::new(private, public);
    decryptor.update(stage.unauthenticated());
    stage.publish(&decryptor.finish()?)
}

/// The parts apart, as a pipeline runs them.
fn decrypted_on_threads(
    private: &PrivateOptions,
    public: &PublicOptions,
    bytes: &[u8],
) -> Result<Vec<u8>, CipherError> {
    let (mut mac, mut keystream, mut digest) = split(private, public);
    let (encrypted, to_decrypt) = sync_channel::<Vec<u8>>(2);
    let (plain, to_check) = sync_channel::<Vec<u8>>(2);
    let mut stage = Staged::new(Vec::new(), private);
    let proof = thread::scope(|scope| {
        scope.spawn(move || {
            for mut chunk in to_decrypt {
                keystream.apply(&mut chunk);
                plain.send(chunk).unwrap();
            }
        });
        let stage = &mut stage;
        let checked = scope.spawn(move || {
            for chunk in to_check {
                digest.update(&chunk);
                stage.unauthenticated().extend(chunk);
            }
            digest.finish()
        });
        for chunk in bytes.chunks(100) {
            mac.update(chunk);
            encrypted.send(chunk.to_vec()).unwrap();
        }
        drop(encrypted);
        let digest = checked.join().unwrap();
        Authenticated::join(mac.finish()?, digest?)
    });
    stage.publish(&proof?)
}

fn flip(bytes: &mut [u8], bit: Index) {
    let bit = bit.index(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_chunks_come_out_as_they_went_in(
        plain in proptest::collection::vec(any::<u8>(), 0..5000),
        sealing in proptest::collection::vec(1_usize..700, 1..6),
        opening in proptest::collection::vec(1_usize..700, 1..6),
    ) {
        let (private, public, bytes) = encrypted(&plain);
        prop_assert_eq!(bytes.len(), plain.len());

        let mut again = plain.clone();
        let mut encryptor = Encryptor::new(private.key(), private.nonce());
        in_chunks(&mut again, &sealing, |chunk| encryptor.update(chunk));
        prop_assert_eq!(encryptor.finish(), public.hmac);
        prop_assert_eq!(&again, &bytes);

        let mut decryptor = Decryptor::new(&private, &public);
        in_chunks(&mut again, &opening, |chunk| decryptor.update(chunk));
        let proof = decryptor.finish().unwrap();
        prop_assert_eq!((proof.digest(), proof.length()), (private.digest(), plain.len() as u64));
        prop_assert_eq!(&again, &plain);
        prop_assert_eq!(decrypted_on_threads(&private, &public, &bytes), Ok(plain));
    }

    #[test]
    fn any_changed_bit_is_refused(
        plain in proptest::collection::vec(any::<u8>(), 1..2000),
        bit in any::<Index>(),
        end in any::<Index>(),
    ) {
        let (private, public, bytes) = encrypted(&plain);
        let refused = |private: &PrivateOptions, public: &PublicOptions, bytes: &[u8]| {
            let refused = decrypted(private, public, bytes).unwrap_err();
            assert_eq!(decrypted_on_threads(private, public, bytes).as_ref(), Err(&refused));
            refused
        };

        let mut changed = bytes.clone();
        flip(&mut changed, bit);
        prop_assert_eq!(refused(&private, &public, &changed), CipherError::Hmac);

        prop_assert_eq!(refused(&private, &public, &bytes[..end.index(bytes.len())]), CipherError::Hmac);

        let mut changed = public.clone();
        flip(&mut changed.hmac, bit);
        prop_assert_eq!(refused(&private, &changed, &bytes), CipherError::Hmac);

        let mut nonce = *private.nonce();
        flip(&mut nonce, bit);
        let other = PrivateOptions::from_parts((*private.key()).into(), nonce, *private.digest());
        prop_assert_eq!(refused(&other, &public, &bytes), CipherError::Digest);

        let mut digest = *private.digest();
        flip(&mut digest, bit);
        prop_assert_eq!(refused(&private.clone().with_digest(digest), &public, &bytes), CipherError::Digest);

        let mut key = *private.key();
        flip(&mut key, bit);
        let other = PrivateOptions::from_parts(key.into(), *private.nonce(), *private.digest());
        prop_assert_eq!(refused(&other, &public, &bytes), CipherError::Hmac);
    }

    #[test]
    fn any_changed_bit_of_a_wrapped_key_is_refused(bit in any::<Index>()) {
        let (private, public, _) = encrypted(b"a layer");
        let mut blob = broker_key().wrap(&private).unwrap();
        flip(&mut blob, bit);
        let layer = EncryptedLayer { public, wrapped: vec![WrappedKey { scheme: broker_key().scheme(), blob }] };
        if let Ok(opened) = Keyring::new(vec![Box::new(broker_key())]).open(&layer) {
            // White space, or the host in the key's URI: nothing that counts.
            let parts = (opened.key(), opened.nonce(), opened.digest());
            prop_assert_eq!(parts, (private.key(), private.nonce(), private.digest()));
        }
    }
}

#[test]
fn from_descriptor_to_plain_layer() {
    let (private, public, bytes) = encrypted(b"a layer");
    let wrapped =
        vec![WrappedKey { scheme: broker_key().scheme(), blob: broker_key().wrap(&private).unwrap() }];
    let annotations = EncryptedLayer { public, wrapped }.to_annotations();
    let Layer::Encrypted(media_type, layer) = Layer::of_descriptor(ENCRYPTED, &annotations).unwrap() else {
        panic!("not encrypted");
    };
    let opened = Keyring::new(vec![Box::new(broker_key())]).open(&layer).unwrap();
    assert_eq!(decrypted(&opened, &layer.public, &bytes).unwrap(), b"a layer");
    assert_eq!(media_type.plain().to_string(), "application/vnd.oci.image.layer.v1.tar+gzip");
}

/// Peers take the public nonce instead of the private one, and give garbage.
#[test]
fn a_public_nonce_changes_nothing() {
    let (private, public, bytes) = encrypted(b"a layer");
    let json = String::from_utf8(public.to_json()).unwrap();
    let json =
        json.replace(r#""cipheroptions":{}"#, r#""cipheroptions":{"nonce":"AAAAAAAAAAAAAAAAAAAAAA=="}"#);
    let public = PublicOptions::from_json(json.as_bytes()).unwrap();
    assert_eq!(public.warnings.len(), 1);
    assert_eq!(decrypted(&private, &public, &bytes).unwrap(), b"a layer");
}

/// Two layers of an image whose descriptors were swapped in part.
#[test]
fn parts_of_two_layers_do_not_mix() {
    let (one, one_public, one_bytes) = encrypted(b"layer one");
    let (two, two_public, two_bytes) = encrypted(b"layer two");
    assert_eq!(decrypted(&one, &one_public, &two_bytes), Err(CipherError::Hmac));
    assert_eq!(decrypted(&one, &two_public, &one_bytes), Err(CipherError::Hmac));
    assert_eq!(decrypted(&two, &one_public, &one_bytes), Err(CipherError::Hmac));
}

#[test]
fn layers_without_annotations_or_without_a_fitting_key_do_not_open() {
    assert!(Layer::of_descriptor(ENCRYPTED, &BTreeMap::new()).is_err());
    let (private, public, _) = encrypted(b"a layer");
    let blob = broker_key().wrap(&private).unwrap();
    let layer = EncryptedLayer { public, wrapped: vec![WrappedKey { scheme: broker_key().scheme(), blob }] };
    let other = BrokerKey::new(URI, [8; 32].into()).unwrap();
    assert!(Keyring::new(vec![Box::new(other)]).open(&layer).is_err());
    assert!(Keyring::default().open(&layer).is_err());
}
