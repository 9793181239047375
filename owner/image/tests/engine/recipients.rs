//! Who can open an image, changed; and new keys for it.

use encrypted_image::Scheme;
use owner_image::operation::{self, Removal};
use owner_image::{ImageError, Report};

use super::maker::*;

const SEALPOD: &str = "org.opencontainers.image.enc.keys.provider.sealpod";

fn encrypted() -> Maker {
    let maker = Maker::new();
    maker.single("plain", &[Layer::Gzip("base"), Layer::Gzip("top")]);
    encrypt(&maker, "plain", "enc", &["a"]);
    maker
}

fn add(maker: &Maker, keys_of: &[&str], tags: &[&str]) -> Result<Report, ImageError> {
    run((maker, "enc"), (maker, "enc"), &all(), |job| operation::add(job, &keys(keys_of), &recipients(tags)))
}

fn rotate(maker: &Maker, keys_of: &[&str], tags: &[&str]) -> Result<Report, ImageError> {
    run((maker, "enc"), (maker, "enc"), &all(), |job| {
        operation::rotate(job, &keys(keys_of), &recipients(tags))
    })
}

fn remove(maker: &Maker, removal: &Removal<'_>) -> Result<Report, ImageError> {
    run((maker, "enc"), (maker, "enc"), &all(), |job| operation::remove(job, removal))
}

#[test]
fn adding_changes_annotations_only() {
    let maker = encrypted();
    // A scheme that nobody here has a key for.
    let foreign = "Zm9yZWlnbg==";
    maker.tamper("enc", |manifest| {
        manifest["layers"][0]["annotations"]["org.opencontainers.image.enc.keys.pkcs11"] = foreign.into();
        manifest["layers"][0]["annotations"]["mine"] = "too".into();
    });
    let before = maker.root("enc");
    add(&maker, &["a"], &["b"]).unwrap();
    let after = maker.root("enc");
    assert_eq!(layer_digests(&before), layer_digests(&after));
    for layer in 0..2 {
        let (before, after) =
            (&before["layers"][layer]["annotations"], &after["layers"][layer]["annotations"]);
        let added = format!("{},", before[SEALPOD].as_str().unwrap());
        assert!(after[SEALPOD].as_str().unwrap().starts_with(&added), "appended, not replaced");
        for name in before.as_object().unwrap().keys().filter(|name| *name != SEALPOD) {
            assert_eq!(before[name], after[name], "{name}");
        }
    }
    decrypt(&maker, "enc", &["a"]).unwrap();
    decrypt(&maker, "enc", &["b"]).unwrap();
}

#[test]
fn adding_needs_a_key_a_recipient_and_an_encrypted_image() {
    let maker = encrypted();
    let before = maker.digest("enc");
    assert!(matches!(add(&maker, &["b"], &["b"]), Err(ImageError::NotAuthorised { of: 2, .. })));
    assert!(matches!(add(&maker, &["a"], &[]), Err(ImageError::NoRecipient)));
    assert_eq!(maker.digest("enc"), before);
    let plain = run((&maker, "plain"), (&maker, "plain"), &all(), |job| {
        operation::add(job, &keys(&["a"]), &recipients(&["b"]))
    });
    assert!(matches!(plain, Err(ImageError::NotEncrypted(_))));
}

#[test]
fn removing_all_but_some() {
    let maker = encrypted();
    add(&maker, &["a"], &["b", "c"]).unwrap();
    let before = layer_digests(&maker.root("enc"));
    remove(&maker, &Removal::AllBut { schemes: &[], keep: &recipients(&["b"]), keys: &keys(&["c"]) })
        .unwrap();
    assert_eq!(layer_digests(&maker.root("enc")), before, "no blob changes");
    for gone in ["a", "c"] {
        assert!(refusal(decrypt(&maker, "enc", &[gone])).contains("no suitable key"));
    }
    decrypt(&maker, "enc", &["b"]).unwrap();
}

#[test]
fn removing_a_scheme_needs_no_key() {
    let maker = encrypted();
    maker.tamper("enc", |manifest| {
        for layer in 0..2 {
            manifest["layers"][layer]["annotations"]["org.opencontainers.image.enc.keys.pgp"] =
                "Zm9yZWlnbg==".into();
        }
    });
    remove(&maker, &Removal::Schemes(&[Scheme::Pgp])).unwrap();
    assert!(!maker.root("enc").to_string().contains("keys.pgp"));
    decrypt(&maker, "enc", &["a"]).unwrap();
}

#[test]
fn removing_never_locks_everybody_out() {
    let maker = encrypted();
    let sealpod = Scheme::Provider("sealpod".to_owned());
    let before = maker.digest("enc");
    let nobody = remove(&maker, &Removal::Schemes(std::slice::from_ref(&sealpod)));
    assert!(matches!(nobody, Err(ImageError::NobodyLeft(_))));
    let unknown = remove(&maker, &Removal::Schemes(&[Scheme::Jwe]));
    assert!(matches!(unknown, Err(ImageError::NoSuchScheme(_))));
    let none = remove(&maker, &Removal::AllBut { schemes: &[], keep: &[], keys: &keys(&["a"]) });
    assert!(matches!(none, Err(ImageError::NoRecipient)));
    let locked =
        remove(&maker, &Removal::AllBut { schemes: &[], keep: &recipients(&["b"]), keys: &keys(&["b"]) });
    assert!(matches!(locked, Err(ImageError::NotAuthorised { .. })));
    assert_eq!(maker.digest("enc"), before);
}

#[test]
fn rotating_shuts_the_old_keys_out() {
    let maker = encrypted();
    let before = maker.root("enc");
    rotate(&maker, &["a"], &["b"]).unwrap();
    let after = maker.root("enc");
    for (old, new) in layer_digests(&before).iter().zip(layer_digests(&after)) {
        assert_ne!(*old, new);
        // Another key and nonce: nothing of the old keystream is used again.
        let (old, new) =
            (std::fs::read(maker.blob_path(old)).unwrap(), std::fs::read(maker.blob_path(&new)).unwrap());
        let same = old.iter().zip(&new).filter(|(old, new)| old == new).count();
        assert!(same < old.len() / 8, "{same} of {} bytes are the same", old.len());
    }
    assert!(refusal(decrypt(&maker, "enc", &["a"])).contains("no suitable key"));
    let plain = decrypt(&maker, "enc", &["b"]).unwrap();
    assert_eq!(plain.root("plain"), maker.root("plain"));
}

#[test]
fn rotating_verifies_what_it_encrypts_again() {
    let maker = encrypted();
    maker.tamper("enc", |manifest| manifest["layers"].as_array_mut().unwrap().reverse());
    let (digest, blobs) = (maker.digest("enc"), maker.blobs());
    let error = rotate(&maker, &["a"], &["b"]).unwrap_err().to_string();
    assert!(error.contains("reordered"), "{error}");
    assert_eq!((maker.digest("enc"), maker.blobs()), (digest, blobs));
    assert!(matches!(rotate(&encrypted(), &["a"], &[]), Err(ImageError::NoRecipient)));
    assert!(matches!(rotate(&encrypted(), &["b"], &["b"]), Err(ImageError::NotAuthorised { .. })));
}
