//! Bodies of the fuzz targets of `formats/encrypted-image`: they must not panic, what a parser accepts it must give back
//! unchanged, and nothing but the layer that was encrypted is ever authenticated.

#![allow(dead_code)] // Each target uses one of them.

use std::collections::BTreeMap;

use encrypted_image::coco::{BrokerKey, Packet, PacketError};
use encrypted_image::keyprovider::{Reply, Request};
use encrypted_image::pkcs11::Pkcs11Blob;
use encrypted_image::{
    Decryptor, EncryptedLayer, Encryptor, Keyring, Layer, LayerMediaType, PrivateOptions, PublicOptions,
    Scheme, Unwrap, WrappedKey,
};

/// A descriptor: its media type on the first line, then an annotation a line, name and value apart by a blank.
pub(crate) fn layer_descriptor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let media_type = lines.next().unwrap_or_default();
    if let Some(parsed) = LayerMediaType::parse(media_type) {
        assert_eq!(parsed.to_string(), media_type, "a second spelling was accepted");
        assert_eq!(LayerMediaType::parse(&parsed.encrypted().to_string()), Some(parsed.encrypted()));
    }
    let annotations: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    match Layer::of_descriptor(media_type, &annotations) {
        Ok(Layer::Plain(parsed)) => assert!(!parsed.encrypted && !EncryptedLayer::any(&annotations)),
        Ok(Layer::Encrypted(parsed, layer)) => {
            assert!(parsed.encrypted);
            reads_back(&layer);
            let keyring =
                Keyring::new(broker_key().into_iter().map(|key| Box::new(key) as Box<dyn Unwrap>).collect());
            if let Err(refused) = keyring.open(&layer) {
                assert!(refused.to_string().len() < 64 * 1024, "an error that grows with what it refuses");
            }
        }
        Err(refused) => assert!(refused.to_string().len() < 1024, "an error that grows with what it refuses"),
    }
}

/// Both halves of a layer's options: any bytes.
pub(crate) fn layer_options(data: &[u8]) {
    if let Ok(public) = PublicOptions::from_json(data) {
        let again = PublicOptions::from_json(&public.to_json());
        assert!(again.is_ok_and(|again| again.hmac == public.hmac && again.warnings.is_empty()));
        reads_back(&EncryptedLayer {
            public,
            wrapped: vec![WrappedKey { scheme: Scheme::Jwe, blob: data.to_vec() }],
        });
    }
    if let Ok(private) = PrivateOptions::from_json(data) {
        let again = PrivateOptions::from_json(&private.to_json());
        let same = again.is_ok_and(|again| {
            (again.key(), again.nonce(), again.digest()) == (private.key(), private.nonce(), private.digest())
        });
        assert!(same, "private options changed on the way");
    }
}

/// An annotation of Confidential Containers' key provider: any bytes.
pub(crate) fn coco_annotation(data: &[u8]) {
    if let Ok(packet) = Packet::from_json(data) {
        assert_eq!(Packet::from_json(&packet.to_json()).as_ref(), Ok(&packet));
        assert!(packet.resource().starts_with("kbs:///"), "another broker than the guest's own was named");
    } else if data.len() < 16 * 1024 {
        assert!(!matches!(Packet::from_json(data), Err(PacketError::TooLong(_))));
    }
    let wrapped =
        WrappedKey { scheme: Scheme::Provider("attestation-agent".to_owned()), blob: data.to_vec() };
    if let Some(key) = broker_key() {
        let _ = key.unwrap(&wrapped);
    }
}

/// Messages of the key provider protocol, both ways: any bytes.
pub(crate) fn keyprovider_messages(data: &[u8]) {
    if let Ok(request) = Request::from_json(data) {
        let again = Request::from_json(&request.to_json());
        assert!(again.is_ok(), "what was read can't be written");
        let Ok(again) = again else { return };
        let same = match (&request, &again) {
            (Request::Wrap { parameters, options }, Request::Wrap { parameters: p, options: o }) => {
                parameters == p && options == o
            }
            (Request::Unwrap { parameters, wrapped }, Request::Unwrap { parameters: p, wrapped: w }) => {
                parameters == p && wrapped == w
            }
            _ => false,
        };
        assert!(same, "a request changed on the way");
    }
    if let Ok(wrapped) = Reply::wrapped(data) {
        assert_eq!(Reply::wrapped(&Reply::Wrapped(wrapped.clone()).to_json()), Ok(wrapped));
    }
    if let Ok(options) = Reply::unwrapped(data) {
        assert_eq!(Reply::unwrapped(&Reply::Unwrapped(options.clone()).to_json()), Ok(options));
    }
}

/// The blob of PKCS #11 recipients: any bytes.
pub(crate) fn pkcs11_blob(data: &[u8]) {
    let Ok(blob) = Pkcs11Blob::from_json(data) else { return };
    assert_eq!(Pkcs11Blob::from_json(&blob.to_json()), Ok(blob));
}

/// An encrypted layer whose bytes, HMAC, nonce or digest are changed as the input says, cut into chunks as it says: only
/// the unchanged one is authenticated.
pub(crate) fn layer_decrypt(data: &[u8]) {
    let honest = PrivateOptions::from_parts([7; 32].into(), [9; 16], DIGEST);
    let mut bytes = *PLAIN;
    let mut encryptor = Encryptor::new(honest.key(), honest.nonce());
    encryptor.update(&mut bytes);
    let mut hmac = encryptor.finish();
    let (mut nonce, mut digest) = (*honest.nonce(), DIGEST);
    let unchanged = (bytes, hmac, nonce, digest);

    let (changes, cuts) = data.split_at(data.len().min(6));
    for change in changes.chunks_exact(3) {
        let at = usize::from(change[1]);
        match change[0] % 5 {
            0 => bytes[at % bytes.len()] ^= change[2],
            1 => hmac[at % 32] ^= change[2],
            2 => nonce[at % 16] ^= change[2],
            3 => digest[at % 32] ^= change[2],
            _ => {}
        }
    }
    let changed = unchanged != (bytes, hmac, nonce, digest);
    let mut length = bytes.len();
    let mut decryptor =
        Decryptor::new(&PrivateOptions::from_parts([7; 32].into(), nonce, digest), &PublicOptions::new(hmac));
    let mut rest = &mut bytes[..];
    for cut in cuts {
        let at = usize::from(*cut & 0x7f).min(rest.len());
        let (chunk, after) = rest.split_at_mut(at);
        decryptor.update(chunk);
        rest = after;
        if cut & 0x80 != 0 && !rest.is_empty() {
            // A byte that never came.
            length -= 1;
            rest = &mut rest[1..];
        }
    }
    decryptor.update(rest);
    match decryptor.finish() {
        Ok(proof) => {
            assert!(!changed && length == PLAIN.len(), "a changed layer was authenticated");
            assert_eq!((proof.digest(), proof.length()), (&DIGEST, PLAIN.len() as u64));
            assert_eq!(bytes, *PLAIN);
        }
        Err(_) => assert!(changed || length != PLAIN.len(), "an honest layer was refused"),
    }
}

const PLAIN: &[u8; 53] = b"a layer, which is a compressed tar when it is a layer";
/// SHA-256 of [`PLAIN`].
const DIGEST: [u8; 32] = [
    0x52, 0x11, 0xb1, 0xb1, 0x1f, 0x77, 0x88, 0x45, 0x9e, 0xde, 0xa3, 0xb9, 0x28, 0xca, 0xbd, 0xc5, 0x6a,
    0xf2, 0x45, 0x95, 0x2e, 0x67, 0xe2, 0xfe, 0x81, 0xd7, 0x7d, 0x93, 0x13, 0x96, 0xb2, 0xaa,
];

fn broker_key() -> Option<BrokerKey> {
    // As guests have it, who read the most.
    BrokerKey::new("kbs:///default/key/web", [7; 32].into()).map(BrokerKey::reading_ctr)
}

fn reads_back(layer: &EncryptedLayer) {
    let mut layer = layer.clone();
    layer.public.warnings.clear();
    // Keys of one scheme stay in order; what a layer was read from had the schemes in order, too.
    assert_eq!(EncryptedLayer::parse(&layer.to_annotations()), Ok(layer));
}
