//! Properties of whole layers: both ways in any chunks, and that no changed bit anywhere gets through.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::io::{self, Read};

use encrypted_image::coco::BrokerKey;
use encrypted_image::pipeline::{self, PipelineError};
use encrypted_image::{
    CipherError, Decryptor, EncryptedLayer, Encryptor, Keyring, Layer, PrivateOptions, PublicOptions, Wrap,
    WrappedKey,
};
use proptest::prelude::*;
use proptest::sample::Index;
use sha2::{Digest, Sha256};

const URI: &str = "kbs:///default/key/web";
const ENCRYPTED: &str = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";

fn broker_key() -> BrokerKey {
    BrokerKey::new(URI, [7; 32].into()).unwrap()
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn encrypted(plain: &[u8]) -> (PrivateOptions, PublicOptions, Vec<u8>) {
    let private = PrivateOptions::generate(digest(plain)).unwrap();
    let done = pipeline::encrypt(plain, Vec::new(), &private).unwrap();
    (private, done.public, done.stage)
}

/// Reads of the lengths given, over and over.
struct InSteps<'a>(&'a [u8], &'a [usize], usize);

impl Read for InSteps<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.2 += 1;
        let len = self.1[self.2 % self.1.len()].min(buffer.len()).min(self.0.len());
        buffer[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

fn refusal(private: &PrivateOptions, public: &PublicOptions, bytes: &[u8]) -> CipherError {
    match pipeline::decrypt(bytes, Vec::new(), private, public).unwrap_err() {
        PipelineError::Refused(error) => error,
        other => panic!("not a refusal: {other}"),
    }
}

fn flip(bytes: &mut [u8], bit: Index) {
    let bit = bit.index(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_chunks_come_out_as_they_went_in(
        plain in proptest::collection::vec(any::<u8>(), 0..5000),
        steps in proptest::collection::vec(1_usize..700, 1..6),
    ) {
        let (private, public, bytes) = encrypted(&plain);
        prop_assert_eq!(bytes.len(), plain.len());
        let opened = pipeline::decrypt(InSteps(&bytes, &steps, 0), Vec::new(), &private, &public).unwrap();
        prop_assert_eq!(&opened.stage, &plain);

        let mut again = plain.clone();
        let mut encryptor = Encryptor::new(private.key(), private.nonce());
        let mut decryptor = Decryptor::new(&private, &public);
        let mut rest = &mut again[..];
        for step in steps.iter().cycle() {
            let (chunk, after) = rest.split_at_mut((*step).min(rest.len()));
            encryptor.update(chunk);
            decryptor.update(chunk);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(encryptor.finish(), public.hmac);
        prop_assert!(decryptor.finish().is_ok());
        prop_assert_eq!(again, plain);
    }

    #[test]
    fn any_changed_bit_is_refused(
        plain in proptest::collection::vec(any::<u8>(), 1..2000),
        bit in any::<Index>(),
        end in any::<Index>(),
    ) {
        let (private, public, bytes) = encrypted(&plain);

        let mut changed = bytes.clone();
        flip(&mut changed, bit);
        prop_assert_eq!(refusal(&private, &public, &changed), CipherError::Hmac);

        prop_assert_eq!(refusal(&private, &public, &bytes[..end.index(bytes.len())]), CipherError::Hmac);

        let mut changed = public.clone();
        flip(&mut changed.hmac, bit);
        prop_assert_eq!(refusal(&private, &changed, &bytes), CipherError::Hmac);

        let mut nonce = *private.nonce();
        flip(&mut nonce, bit);
        let other = PrivateOptions::from_parts((*private.key()).into(), nonce, *private.digest());
        prop_assert_eq!(refusal(&other, &public, &bytes), CipherError::Digest);

        let mut digest = *private.digest();
        flip(&mut digest, bit);
        prop_assert_eq!(refusal(&private.clone().with_digest(digest), &public, &bytes), CipherError::Digest);

        let mut key = *private.key();
        flip(&mut key, bit);
        let other = PrivateOptions::from_parts(key.into(), *private.nonce(), *private.digest());
        prop_assert_eq!(refusal(&other, &public, &bytes), CipherError::Hmac);
    }

    #[test]
    fn any_changed_bit_of_a_wrapped_key_is_refused(bit in any::<Index>()) {
        let (private, public, _) = encrypted(b"a layer");
        let mut blob = broker_key().wrap(&private).unwrap();
        flip(&mut blob, bit);
        let layer = EncryptedLayer { public, wrapped: vec![WrappedKey { scheme: broker_key().scheme(), blob }] };
        if let Ok(opened) = Keyring::new(vec![Box::new(broker_key())]).open(&layer) {
            // A changed host in the key's URI changes nothing that counts; nothing else may open.
            prop_assert_eq!((opened.key(), opened.nonce(), opened.digest()), (private.key(), private.nonce(), private.digest()));
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
    let plain = pipeline::decrypt(bytes.as_slice(), Vec::new(), &opened, &layer.public).unwrap();
    assert_eq!(plain.stage, b"a layer");
    assert_eq!(plain.encrypted_digest, digest(&bytes));
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
    assert_eq!(pipeline::decrypt(bytes.as_slice(), Vec::new(), &private, &public).unwrap().stage, b"a layer");
}

/// Two layers of an image whose descriptors were swapped in part.
#[test]
fn parts_of_two_layers_do_not_mix() {
    let (one, one_public, one_bytes) = encrypted(b"layer one");
    let (two, two_public, two_bytes) = encrypted(b"layer two");
    assert_eq!(refusal(&one, &one_public, &two_bytes), CipherError::Hmac);
    assert_eq!(refusal(&one, &two_public, &one_bytes), CipherError::Hmac);
    assert_eq!(refusal(&two, &one_public, &one_bytes), CipherError::Hmac);
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
