//! Layers wrapped in every way, with and without keys from the command line.

use encrypted_image::coco::BrokerKey;
use encrypted_image::{PublicOptions, Wrap as _, WrappedKey};
use zeroize::Zeroizing;

use super::*;

const OWN: &str = "kbs:///acme/image-key/web";
const OTHERS: &str = "kbs:///bank/image-key/web";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn packet(uri: &str, agent: bool) -> WrappedKey {
    let mut key = BrokerKey::new(uri, Zeroizing::new([7; 32])).unwrap();
    if agent {
        key = key.for_attestation_agent();
    }
    let options = encrypted_image::PrivateOptions::from_parts(Zeroizing::new([1; 32]), [2; 16], [3; 32]);
    WrappedKey { scheme: key.scheme(), blob: key.wrap(&options).unwrap() }
}

fn other(scheme: Scheme) -> WrappedKey {
    WrappedKey { scheme, blob: b"{}".to_vec() }
}

fn layer(wrapped: Vec<WrappedKey>) -> LayerDescriptor {
    let annotations = EncryptedLayer { public: PublicOptions::new([0; 32]), wrapped }.to_annotations();
    LayerDescriptor { media_type: format!("{PLAIN}+encrypted"), annotations }
}

fn plain() -> LayerDescriptor {
    LayerDescriptor { media_type: PLAIN.into(), annotations: BTreeMap::new() }
}

/// A store with the keys `web` (which the packets here are made with), `second` (too) and `other` (another).
fn store() -> (tempfile::TempDir, KeyStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = KeyStore::at(directory.path().join("image-keys"), "acme".parse().unwrap());
    for (tag, byte) in [("web", 7), ("second", 7), ("other", 8)] {
        store.import(&store.uri(tag).unwrap(), Zeroizing::new(vec![byte; 32])).unwrap();
    }
    (directory, store)
}

fn keys(given: &[&str], layers: &[LayerDescriptor]) -> Result<Vec<String>, String> {
    let options: Vec<ContainerAnd<KbsUri>> =
        given.iter().map(|uri| format!("web={uri}").parse().unwrap()).collect();
    let (_directory, store) = store();
    let found = GivenKeys::new(&options, &["web", "proxy"], &store).and_then(|keys| keys.of("web", layers));
    found.map(|keys| keys.iter().map(ToString::to_string).collect()).map_err(|error| format!("{error:#}"))
}

#[test]
fn keys_at_the_broker_are_found() {
    assert_eq!(keys(&[], &[plain()]), Ok(vec![]));
    for agent in [false, true] {
        assert_eq!(keys(&[], &[plain(), layer(vec![packet(OWN, agent)])]), Ok(vec![OWN.into()]));
    }
    let second = "kbs:///acme/image-key/second";
    let layers = [layer(vec![packet(OWN, false), other(Scheme::Pgp)]), layer(vec![packet(second, true)])];
    assert_eq!(keys(&[], &layers), Ok(vec![second.into(), OWN.into()]));
    // Whoever else can open it is not asked for.
    let shared = layer(vec![packet(OTHERS, false), packet(OWN, false)]);
    assert_eq!(keys(&[], &[shared]), Ok(vec![OWN.into()]));
}

#[test]
fn private_keys_are_given() {
    for scheme in [Scheme::Jwe, Scheme::Pkcs7] {
        let layers = || [plain(), layer(vec![other(scheme.clone())])];
        assert_eq!(keys(&[OWN], &layers()), Ok(vec![OWN.into()]));
        let error = keys(&[], &layers()).unwrap_err();
        assert!(error.contains("layer 1 is encrypted: for") && error.contains("--image-key"), "{error}");
    }
    let both = [layer(vec![packet(OWN, false)]), layer(vec![other(Scheme::Jwe)])];
    assert!(keys(&[], &both).unwrap_err().contains("layer 1"));
    assert_eq!(keys(&["kbs:///acme/image-key/jwe"], &both).unwrap().len(), 2);
}

#[test]
fn keys_that_the_guest_cannot_have_are_refused() {
    let error = keys(&[], &[layer(vec![packet(OTHERS, false)])]).unwrap_err();
    assert!(error.contains("another owner's") && error.contains("recipients add"), "{error}");
    // A private key opens no packet of another owner's.
    assert!(keys(&[OWN], &[layer(vec![packet(OTHERS, false)])]).unwrap_err().contains("another owner's"));
    for scheme in [Scheme::Pgp, Scheme::Pkcs11, Scheme::Provider("acme".into())] {
        let error = keys(&[OWN], &[layer(vec![other(scheme)])]).unwrap_err();
        assert!(error.contains("guests can't open"), "{error}");
    }
    let spec_key = layer(vec![packet("kbs:///acme/sealed-spec/web.r1.00000000", false)]);
    assert!(keys(&[], &[spec_key]).is_err());
}

#[test]
fn a_name_counts_only_with_the_key_or_the_owners_word() {
    for (uri, part) in [
        // A key that isn't here, one that doesn't open the layer, one of another type.
        ("kbs:///acme/image-key/elsewhere", "is not in"),
        ("kbs:///acme/image-key/other", "not wrapped for this key"),
        ("kbs:///acme/key/web", "is not kbs:///acme/image-key/TAG"),
    ] {
        let layers = || [layer(vec![packet(uri, false)])];
        let error = keys(&[], &layers()).unwrap_err();
        assert!(error.contains(part) && error.contains(&format!("--image-key CONTAINER={uri}")), "{error}");
        assert!(keys(&[OWN], &layers()).is_err(), "the word for another key is none for {uri}");
        assert_eq!(keys(&[uri], &layers()), Ok(vec![uri.into()]));
        // Beside one that opens it, it is nothing: the registry may have written it.
        let beside = [layer(vec![packet(OWN, false), packet(uri, false)])];
        assert_eq!(keys(&[], &beside), Ok(vec![OWN.into()]));
    }
}

#[test]
fn options_that_do_not_fit_are_refused() {
    assert!(keys(&[OWN], &[plain()]).unwrap_err().contains("isn't encrypted"));
    assert!(keys(&[OTHERS], &[]).unwrap_err().contains("another owner's"));
    assert!(keys(&["kbs:///acme/sealed-spec/x"], &[]).unwrap_err().contains("spec keys"));
    let options = ["db=kbs:///acme/image-key/web".parse().unwrap()];
    let error = GivenKeys::new(&options, &["web"], &store().1).err().unwrap().to_string();
    assert!(error.contains("no container 'db'"), "{error}");
}

#[test]
fn annotations_that_contradict_the_type_are_refused() {
    let mut stripped = layer(vec![packet(OWN, false)]);
    stripped.annotations.clear();
    assert!(keys(&[], &[stripped]).is_err());
    let mut plain_type = layer(vec![packet(OWN, false)]);
    plain_type.media_type = PLAIN.into();
    assert!(keys(&[], &[plain_type]).is_err());
    let broken = layer(vec![other(Scheme::Provider("sealpod".into()))]);
    assert!(keys(&[], &[broken]).unwrap_err().contains("annotation"));
}
