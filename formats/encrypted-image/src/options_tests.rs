//! What of the options is read, and that each refusal is about the one thing that is wrong.

use serde_json::{Value, json};

use super::*;

const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const NONCE: &str = "AgICAgICAgICAgICAgICAg==";

fn private() -> Value {
    json!({
        "symkey": KEY,
        "digest": format!("sha256:{}", "03".repeat(32)),
        "cipheroptions": { "nonce": NONCE },
    })
}

fn public() -> Value {
    json!({ "cipher": CIPHER, "hmac": KEY, "cipheroptions": {} })
}

fn read_private(value: &Value) -> Result<PrivateOptions, OptionsError> {
    PrivateOptions::from_json(value.to_string().as_bytes())
}

fn read_public(value: &Value) -> Result<PublicOptions, OptionsError> {
    PublicOptions::from_json(value.to_string().as_bytes())
}

fn refused_private(change: impl FnOnce(&mut Value)) -> OptionsError {
    let mut value = private();
    change(&mut value);
    read_private(&value).unwrap_err()
}

fn refused_public(change: impl FnOnce(&mut Value)) -> OptionsError {
    let mut value = public();
    change(&mut value);
    read_public(&value).unwrap_err()
}

fn remove(value: &mut Value, name: &str) {
    value.as_object_mut().unwrap().remove(name);
}

#[test]
fn private_options_as_peers_write_them() {
    let options = PrivateOptions::from_parts(Zeroizing::new([1; 32]), [2; 16], [3; 32]);
    let json = options.to_json();
    assert_eq!(json.len(), 193);
    let expected = format!(
        r#"{{"symkey":"{KEY}","digest":"sha256:{}","cipheroptions":{{"nonce":"{NONCE}"}}}}"#,
        "03".repeat(32)
    );
    assert_eq!(std::str::from_utf8(&json).unwrap(), expected);
    let again = read_private(&private()).unwrap();
    assert_eq!((again.key(), again.nonce(), again.digest()), (&[1; 32], &[2; 16], &[3; 32]));
}

#[test]
fn public_options_as_peers_write_them() {
    let json = PublicOptions::new([1; 32]).to_json();
    let expected = format!(r#"{{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"{KEY}","cipheroptions":{{}}}}"#);
    assert_eq!(std::str::from_utf8(&json).unwrap(), expected);
    assert_eq!(PublicOptions::from_json(&json), Ok(PublicOptions::new([1; 32])));
    for empty in [Value::Null, json!({})] {
        let mut value = public();
        value["cipheroptions"] = empty;
        assert_eq!(read_public(&value), Ok(PublicOptions::new([1; 32])));
    }
}

#[test]
fn each_layer_has_its_own_key_and_nonce() {
    let (one, two) = (PrivateOptions::generate([0; 32]).unwrap(), PrivateOptions::generate([0; 32]).unwrap());
    assert_ne!(one.key(), two.key());
    assert_ne!(one.nonce(), two.nonce());
}

#[test]
fn a_public_nonce_is_ignored_with_a_warning() {
    for nonce in [NONCE, "AA==", ""] {
        let mut value = public();
        value["cipheroptions"] = json!({ "nonce": nonce });
        assert_eq!(read_public(&value).unwrap().warnings, [Warning::PublicNonce], "{nonce:?}");
    }
}

#[test]
fn another_cipher_is_refused_by_name() {
    for name in
        ["AES_256_CTR", "AEAD_AES_256_GCM", "NONE", "aes_256_ctr_hmac_sha256", "AES_256_CTR_HMAC_SHA256 "]
    {
        assert_eq!(
            refused_public(|value| value["cipher"] = json!(name)),
            OptionsError::Cipher(name.to_owned())
        );
    }
    assert_eq!(refused_public(|value| remove(value, "cipher")), OptionsError::Cipher(String::new()));
    let error = refused_public(|value| value["cipher"] = json!(format!("\u{1b}{}", "x".repeat(500))));
    assert!(error.to_string().len() < 160 && !error.to_string().contains('\u{1b}'), "{error}");
}

#[test]
fn a_missing_hmac_is_refused() {
    assert_eq!(refused_public(|value| remove(value, "hmac")), OptionsError::NoHmac);
    assert_eq!(refused_public(|value| value["hmac"] = Value::Null), OptionsError::NoHmac);
    assert_eq!(refused_public(|value| value["hmac"] = json!("")), OptionsError::NoHmac);
}

#[test]
fn an_hmac_of_another_length_is_refused() {
    assert_eq!(refused_public(|value| value["hmac"] = json!(NONCE)), OptionsError::HmacLength(16));
    let long = encoding::encode(&[1; 33]);
    assert_eq!(refused_public(|value| value["hmac"] = json!(long)), OptionsError::HmacLength(33));
}

#[test]
fn a_missing_nonce_is_refused() {
    assert_eq!(refused_private(|value| remove(value, "cipheroptions")), OptionsError::NoNonce);
    assert_eq!(refused_private(|value| value["cipheroptions"] = Value::Null), OptionsError::NoNonce);
    assert_eq!(refused_private(|value| value["cipheroptions"] = json!({})), OptionsError::NoNonce);
    let null = json!({ "nonce": null });
    assert!(matches!(refused_private(|value| value["cipheroptions"] = null), OptionsError::Json { .. }));
}

#[test]
fn a_nonce_of_another_length_is_refused() {
    for len in [0, 1, 12, 15, 17, 32] {
        let nonce = encoding::encode(&vec![2; len]);
        let error = refused_private(|value| value["cipheroptions"]["nonce"] = json!(nonce));
        assert_eq!(error, OptionsError::NonceLength(len));
    }
}

#[test]
fn keys_of_another_length_are_refused() {
    for len in [0, 16, 31, 33, 64] {
        let key = encoding::encode(&vec![1; len]);
        assert_eq!(refused_private(|value| value["symkey"] = json!(key)), OptionsError::KeyLength(len));
    }
    assert_eq!(refused_private(|value| remove(value, "symkey")), OptionsError::NoKey);
}

#[test]
fn a_digest_that_is_not_sha256_is_refused() {
    assert_eq!(refused_private(|value| remove(value, "digest")), OptionsError::NoDigest);
    for digest in [
        String::new(),
        "03".repeat(32),
        format!("sha512:{}", "03".repeat(64)),
        format!("sha256:{}", "AB".repeat(32)),
    ] {
        assert_eq!(
            refused_private(|value| value["digest"] = json!(digest)),
            OptionsError::Digest,
            "{digest}"
        );
    }
}

#[test]
fn unknown_cipher_options_are_refused() {
    let error = refused_private(|value| value["cipheroptions"]["mode"] = json!("AAAA"));
    assert_eq!(error, OptionsError::UnknownCipherOption(Half::Private, "mode".to_owned()));
    let error = refused_public(|value| value["cipheroptions"]["mode"] = json!("AAAA"));
    assert_eq!(error, OptionsError::UnknownCipherOption(Half::Public, "mode".to_owned()));
}

#[test]
fn members_that_are_unknown_or_come_twice_are_refused() {
    assert!(matches!(refused_private(|value| value["x"] = json!(1)), OptionsError::Json { .. }));
    assert!(matches!(refused_public(|value| value["x"] = json!(1)), OptionsError::Json { .. }));
    for text in [
        public().to_string().replacen('{', &format!(r#"{{"hmac":"{KEY}","#), 1),
        public().to_string() + " {}",
        "[]".to_owned(),
        String::new(),
        "[".repeat(MAX_JSON),
        r#"{"cipheroptions":"#.repeat(100),
    ] {
        assert!(
            matches!(PublicOptions::from_json(text.as_bytes()), Err(OptionsError::Json { .. })),
            "{text}"
        );
    }
    let twice = private().to_string().replacen(r#"{"nonce""#, &format!(r#"{{"nonce":"{NONCE}","nonce""#), 1);
    assert!(matches!(PrivateOptions::from_json(twice.as_bytes()), Err(OptionsError::Json { .. })), "{twice}");
}

#[test]
fn one_spelling_of_base64() {
    let unpadded = KEY.trim_end_matches('=').to_owned();
    for key in [unpadded, KEY.replace("E=", "F="), format!("{KEY}\n"), format!(" {KEY}")] {
        assert!(
            matches!(refused_private(|value| value["symkey"] = json!(key)), OptionsError::Json { .. }),
            "{key}"
        );
    }
}

#[test]
fn long_options_are_refused_before_they_are_parsed() {
    let padded = format!("{}{}", private(), " ".repeat(MAX_JSON));
    let error = PrivateOptions::from_json(padded.as_bytes()).unwrap_err();
    assert_eq!(error, OptionsError::TooLong(Half::Private, padded.len()));
}

#[test]
fn no_text_shows_a_secret() {
    let options = read_private(&private()).unwrap();
    assert_eq!(format!("{options:?}"), "PrivateOptions(…)");
    let mut value = private();
    value["symkey"] = json!([KEY]);
    value[KEY] = json!(1);
    let error = read_private(&value).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("AQEB"), "{error:?}");
}
