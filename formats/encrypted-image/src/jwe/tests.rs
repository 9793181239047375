//! Every algorithm in every serialization, with skopeo as the judge of what these tests write; then the
//! refusals, in each of which one thing is wrong.

mod refusals;
mod write;

use std::sync::LazyLock;

use write::{ENCRYPTIONS, Form, Jwe};

use super::*;
use crate::peers::Bench;

/// Keys of all kinds, made once.
static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let bench = Bench::new();
    bench.rsa("rsa");
    bench.rsa("other");
    for curve in ["P-256", "P-384", "P-521"] {
        bench.ec(curve, curve);
    }
    bench
});

fn private(name: &str) -> PrivateKey {
    PrivateKey::parse(&BENCH.read(&format!("{name}.pem"))).unwrap()
}

/// The public key as a JWK would give it, with an `alg`.
fn public(name: &str, alg: &str) -> PublicKey {
    let mut key = PublicKey::parse(&BENCH.read(&format!("{name}.pub"))).unwrap();
    let hints = match &mut key {
        PublicKey::Rsa(key) => &mut key.hints,
        PublicKey::Ec(key) => &mut key.hints,
    };
    hints.alg = Some(alg.to_owned());
    key
}

const ALGORITHMS: [(&str, &str); 7] = [
    ("rsa", "RSA-OAEP"),
    ("rsa", "RSA-OAEP-256"),
    ("P-256", "ECDH-ES+A128KW"),
    ("P-256", "ECDH-ES+A192KW"),
    ("P-256", "ECDH-ES+A256KW"),
    ("P-384", "ECDH-ES+A256KW"),
    ("P-521", "ECDH-ES+A128KW"),
];

#[test]
fn every_algorithm_in_every_form_opens() {
    for (name, alg) in ALGORITHMS {
        for enc in ENCRYPTIONS {
            for form in [Form::Flattened, Form::General, Form::Compact] {
                let bytes = Jwe::new(&public(name, alg), enc).write(form);
                let plain = open(&bytes, &private(name)).unwrap();
                assert_eq!(plain.as_slice(), write::PLAIN, "{name} {alg} {enc} {form:?}");
            }
        }
    }
}

#[test]
fn skopeo_agrees_on_what_was_written() {
    let options = BENCH.private_options();
    for (at, (name, alg)) in ALGORITHMS.into_iter().enumerate() {
        // Each content encryption with some algorithm, each form with some of them.
        let enc = ENCRYPTIONS[at % ENCRYPTIONS.len()];
        let form = [Form::Flattened, Form::General, Form::Compact][at % 3];
        let jwe = Jwe { plain: options.to_json().to_vec(), ..Jwe::new(&public(name, alg), enc) };
        let image = format!("{name}-{alg}-{enc}");
        BENCH.write_encrypted(
            &image,
            &options,
            vec![WrappedKey { scheme: Scheme::Jwe, blob: jwe.write(form) }],
        );
        assert!(BENCH.skopeo_decrypts(&image, &[&format!("{name}.pem")]), "{image} {form:?}");
    }
}

#[test]
fn what_is_sealed_opens_for_each_recipient_and_nobody_else() {
    let all = ["rsa", "P-256", "P-384", "P-521"].map(|name| private(name).public().unwrap());
    for recipients in [&all[..1], &all[1..2], &all] {
        let bytes = seal(recipients, RsaOaep::Sha1, b"options").unwrap();
        for name in ["rsa", "P-256", "P-384", "P-521", "other"] {
            let key = private(name);
            let ours = recipients.contains(&key.public().unwrap());
            let opened = open(&bytes, &key);
            assert_eq!(opened.is_ok(), ours, "{name}");
            if let Err(error) = opened {
                assert_eq!(error, JweError::NotRecipient);
            }
        }
    }
}

#[test]
fn the_written_forms_are_those_of_peers() {
    let keys = ["rsa", "P-256"].map(|name| private(name).public().unwrap());
    let members = |value: &serde_json::Value| {
        let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let header = |value: &serde_json::Value| {
        read(&URL_SAFE_NO_PAD.decode(value["protected"].as_str().unwrap()).unwrap())
    };

    let one = read(&seal(&keys[..1], RsaOaep::Sha1, b"x").unwrap());
    assert_eq!(members(&one), ["ciphertext", "encrypted_key", "iv", "protected", "tag"]);
    assert_eq!(header(&one), json!({ "alg": "RSA-OAEP", "enc": "A256GCM" }));
    let one = read(&seal(&keys[1..], RsaOaep::Sha1, b"x").unwrap());
    assert_eq!(members(&header(&one)), ["alg", "enc", "epk"]);
    assert_eq!(header(&one)["alg"], "ECDH-ES+A256KW");
    assert_eq!(members(&header(&one)["epk"]), ["crv", "kty", "x", "y"]);

    let several = read(&seal(&keys, RsaOaep::Sha256, b"x").unwrap());
    assert_eq!(members(&several), ["ciphertext", "encrypted_key", "iv", "protected", "recipients", "tag"]);
    assert_eq!(header(&several), json!({ "enc": "A256GCM" }));
    assert_eq!(several["encrypted_key"], several["recipients"][0]["encrypted_key"]);
    assert_eq!(several["recipients"][0]["header"], json!({ "alg": "RSA-OAEP-256" }));
    assert_eq!(members(&several["recipients"][1]["header"]), ["alg", "epk"]);
}

#[test]
fn a_key_identifier_is_written() {
    let mut key = public("rsa", "RSA-OAEP");
    if let PublicKey::Rsa(key) = &mut key {
        key.hints.kid = Some("node-7".to_owned());
    }
    let bytes = seal(&[key], RsaOaep::Sha1, b"x").unwrap();
    let message: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let protected = URL_SAFE_NO_PAD.decode(message["protected"].as_str().unwrap()).unwrap();
    assert!(String::from_utf8(protected).unwrap().contains(r#""kid":"node-7""#));
    assert!(open(&bytes, &private("rsa")).is_ok());
}

#[test]
fn wrap_and_unwrap_are_of_their_scheme() {
    let options = BENCH.private_options();
    let wrap = JweWrap::new(vec![private("P-256").public().unwrap()]).unwrap();
    let wrapped = WrappedKey { scheme: wrap.scheme(), blob: wrap.wrap(&options).unwrap() };
    let unwrap = JweUnwrap::new("node key", private("P-256"));
    assert_eq!(unwrap.name(), "node key");
    assert_eq!(unwrap.unwrap(&wrapped).unwrap().key(), options.key());
    assert!(unwrap.opens(&Scheme::Jwe) && !unwrap.opens(&Scheme::Pkcs7));
    let symmetric = PrivateKey::parse(&[7; 32]).unwrap();
    assert!(!JweUnwrap::new("kek", symmetric).opens(&Scheme::Jwe));

    // What is inside must be private options.
    let blob = seal(&[private("P-256").public().unwrap()], RsaOaep::Sha1, b"{}").unwrap();
    let error = unwrap.unwrap(&WrappedKey { scheme: Scheme::Jwe, blob }).unwrap_err();
    assert!(matches!(error, UnwrapError::Options(_)));
    // Errors keep their kind.
    let mut jwe = Jwe::new(&public("P-256", "ECDH-ES+A256KW"), "A256GCM");
    jwe.header["zip"] = "DEF".into();
    let wrapped = |blob: Vec<u8>| WrappedKey { scheme: Scheme::Jwe, blob };
    let error = |blob: Vec<u8>| unwrap.unwrap(&wrapped(blob)).unwrap_err();
    assert_eq!(error(jwe.write(Form::Flattened)).to_string(), "compression 'DEF' is not supported");
    assert!(matches!(error(b"x".to_vec()), UnwrapError::Malformed(_)));
    let other = seal(&[private("P-384").public().unwrap()], RsaOaep::Sha1, b"{}").unwrap();
    assert!(matches!(error(other), UnwrapError::NotRecipient));
}

#[test]
fn the_number_of_recipients_is_bounded() {
    let key = private("P-256").public().unwrap();
    assert_eq!(JweWrap::new(vec![]).unwrap_err(), JweError::NoRecipient);
    assert!(JweWrap::new(vec![key.clone(); MAX_RECIPIENTS]).is_ok());
    assert_eq!(JweWrap::new(vec![key.clone(); MAX_RECIPIENTS + 1]).unwrap_err(), JweError::TooManyRecipients);
    let bytes = seal(&vec![key; MAX_RECIPIENTS], RsaOaep::Sha1, &[b'x'; MAX_PLAINTEXT]).unwrap();
    assert!(open(&bytes, &private("P-256")).is_ok());
}
