//! What of the annotations is read, and that each refusal is about the one thing that is wrong.

use super::*;

type Annotations = BTreeMap<String, String>;

fn layer() -> EncryptedLayer {
    let key = |scheme, blob: &[u8]| WrappedKey { scheme, blob: blob.to_vec() };
    EncryptedLayer {
        public: PublicOptions::new([1; 32]),
        wrapped: vec![
            key(Scheme::Jwe, b"one"),
            key(Scheme::Pgp, b"two"),
            key(Scheme::Pgp, b"three"),
            key(Scheme::Pkcs11, b"four"),
            key(Scheme::Pkcs7, b"five"),
            key(Scheme::Provider("attestation-agent".to_owned()), b"six"),
        ],
    }
}

fn refused(change: impl FnOnce(&mut Annotations)) -> FormatError {
    let mut annotations = layer().to_annotations();
    change(&mut annotations);
    EncryptedLayer::parse(&annotations).unwrap_err()
}

#[test]
fn both_ways() {
    let annotations = layer().to_annotations();
    assert_eq!(annotations["org.opencontainers.image.enc.keys.pgp"], "dHdv,dGhyZWU=");
    assert_eq!(annotations["org.opencontainers.image.enc.keys.provider.attestation-agent"], "c2l4");
    assert_eq!(annotations["org.opencontainers.image.enc.pubopts"].len(), 148);
    assert_eq!(EncryptedLayer::parse(&annotations), Ok(layer()));
}

#[test]
fn stripping_leaves_what_is_not_of_this_format() {
    let mut annotations = layer().to_annotations();
    annotations.insert(format!("{PREFIX}future"), "x".to_owned());
    annotations.insert("org.opencontainers.image.title".to_owned(), "x".to_owned());
    assert!(EncryptedLayer::any(&annotations));
    EncryptedLayer::strip(&mut annotations);
    assert!(!EncryptedLayer::any(&annotations));
    assert_eq!(annotations.into_keys().collect::<Vec<_>>(), ["org.opencontainers.image.title"]);
}

#[test]
fn stripped_annotations_are_refused() {
    assert_eq!(refused(|all| drop(all.remove(PUBLIC_OPTIONS))), FormatError::NoPublicOptions);
    assert_eq!(refused(|all| all.retain(|name, _| name == PUBLIC_OPTIONS)), FormatError::NoKeys);
    assert_eq!(refused(Annotations::clear), FormatError::NoPublicOptions);
}

#[test]
fn empty_keys_are_refused() {
    let name = Scheme::Jwe.annotation();
    for value in ["", ",", "b25l,", ",b25l", "b25l,,b25l"] {
        assert_eq!(
            refused(|all| drop(all.insert(name.clone(), value.to_owned()))),
            FormatError::Empty(name.clone())
        );
    }
}

#[test]
fn other_spellings_of_base64_are_refused() {
    for name in [PUBLIC_OPTIONS.to_owned(), Scheme::Jwe.annotation()] {
        for value in ["b25l\n", "b25", "b25l b25l", "dHdvCg", "-_-_"] {
            assert_eq!(
                refused(|all| drop(all.insert(name.clone(), value.to_owned()))),
                FormatError::Base64(name.clone())
            );
        }
    }
}

#[test]
fn unknown_schemes_are_refused_by_name() {
    for name in [
        "keys.rot13",
        "keys.",
        "keys.provider",
        "keys.provider.",
        "keys.provider.a b",
        "pubopts2",
        "keys.JWE",
    ] {
        let name = format!("{PREFIX}{name}");
        assert_eq!(
            refused(|all| drop(all.insert(name.clone(), "b25l".to_owned()))),
            FormatError::Unknown(name)
        );
    }
    let long = format!("{PREFIX}keys.provider.{}", "x".repeat(MAX_PROVIDER + 1));
    assert!(matches!(refused(|all| drop(all.insert(long, "b25l".to_owned()))), FormatError::Unknown(_)));
}

#[test]
fn sizes_are_bounded() {
    let name = Scheme::Jwe.annotation();
    let long = "A".repeat(MAX_ANNOTATION + 4);
    let error = refused(|all| drop(all.insert(name.clone(), long)));
    assert_eq!(error, FormatError::TooLong { name: name.clone(), len: MAX_ANNOTATION + 4 });
    let many = vec!["AAAA"; MAX_WRAPPED + 1].join(",");
    assert_eq!(refused(|all| drop(all.insert(name, many))), FormatError::TooManyKeys);
}

#[test]
fn the_cipher_is_refused_by_name() {
    let downgrade = encoding::encode(br#"{"cipher":"AES_256_CTR","hmac":"","cipheroptions":{}}"#);
    let error = refused(|all| drop(all.insert(PUBLIC_OPTIONS.to_owned(), downgrade)));
    assert_eq!(error, FormatError::Options(OptionsError::Cipher("AES_256_CTR".to_owned())));
}

#[test]
fn schemes_both_ways() {
    for key in layer().wrapped {
        assert_eq!(Scheme::of_annotation(&key.scheme.annotation()), Some(key.scheme));
    }
    assert_eq!(Scheme::of_annotation("org.opencontainers.image.title"), None);
}
