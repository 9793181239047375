//! One thing is wrong in each: beside it stands the same JWE without the fault, which opens.

use serde_json::{Value, json};

use super::write::{Form, Jwe};
use super::{private, public};
use crate::jwe::*;

fn flattened(jwe: &Jwe) -> Value {
    serde_json::from_slice(&jwe.write(Form::Flattened)).unwrap()
}

fn rsa() -> Jwe {
    Jwe::new(&public("rsa", "RSA-OAEP"), "A256GCM")
}

fn ec() -> Jwe {
    Jwe::new(&public("P-256", "ECDH-ES+A256KW"), "A256GCM")
}

fn refused(bytes: &[u8], name: &str) -> JweError {
    open(bytes, &private(name)).unwrap_err()
}

fn refused_value(value: &Value, name: &str) -> JweError {
    refused(value.to_string().as_bytes(), name)
}

fn unsupported(error: &JweError, name: &str) -> bool {
    matches!(error, JweError::Unsupported { name: found, .. } if found == name)
}

/// The JWE with one more header, sealed over it.
fn with_header(mut jwe: Jwe, name: &str, value: Value) -> Vec<u8> {
    assert!(
        open(&jwe.write(Form::Compact), &private(if jwe.header["epk"].is_null() { "rsa" } else { "P-256" }))
            .is_ok()
    );
    jwe.header[name] = value;
    jwe.write(Form::Compact)
}

#[test]
fn headers_that_change_what_is_done() {
    assert!(unsupported(&refused(&with_header(rsa(), "zip", "DEF".into()), "rsa"), "DEF"));
    assert!(unsupported(&refused(&with_header(rsa(), "crit", json!(["exp"])), "rsa"), r#"[\"exp\"]"#));
    assert!(unsupported(&refused(&with_header(ec(), "crit", json!([])), "P-256"), "[]"));
    // Others are only information.
    assert!(open(&with_header(rsa(), "typ", "x".into()), &private("rsa")).is_ok());
    assert!(open(&with_header(rsa(), "kid", "another".into()), &private("rsa")).is_ok());
}

#[test]
fn algorithms_that_are_not_read() {
    for name in
        ["none", "dir", "RSA1_5", "ECDH-ES", "A256KW", "PBES2-HS256+A128KW", "RSA-OAEP-512", "rsa-oaep", ""]
    {
        let error = refused(&with_header(rsa(), "alg", name.into()), "rsa");
        assert!(unsupported(&error, name), "{name}: {error}");
    }
    for name in ["A256CBC", "none", "", "XC20P"] {
        let error = refused(&with_header(rsa(), "enc", name.into()), "rsa");
        assert!(unsupported(&error, name), "{name}: {error}");
    }
    for name in ["alg", "enc"] {
        assert!(matches!(refused(&with_header(rsa(), name, Value::Null), "rsa"), JweError::Malformed(_)));
    }
}

#[test]
fn algorithms_of_another_key() {
    // The other hash of OAEP, the other size of key wrap: nothing but a wrong key to who looks.
    assert_eq!(refused(&with_header(rsa(), "alg", "RSA-OAEP-256".into()), "rsa"), JweError::NotRecipient);
    assert_eq!(refused(&with_header(ec(), "alg", "ECDH-ES+A128KW".into()), "P-256"), JweError::NotRecipient);
    assert_eq!(refused(&with_header(rsa(), "alg", "ECDH-ES+A256KW".into()), "rsa"), JweError::NotRecipient);
    assert_eq!(refused(&with_header(ec(), "alg", "RSA-OAEP".into()), "P-256"), JweError::NotRecipient);
    assert_eq!(refused(&rsa().write(Form::Compact), "other"), JweError::NotRecipient);
    for other in ["rsa", "P-384", "P-521"] {
        assert_eq!(refused(&ec().write(Form::Compact), other), JweError::NotRecipient);
    }
    let symmetric = PrivateKey::parse(&[1; 32]).unwrap();
    assert_eq!(open(&rsa().write(Form::Compact), &symmetric).unwrap_err(), JweError::NotRecipient);
}

#[test]
fn points_that_are_none() {
    let malformed = JweError::Malformed("'epk' is not a public EC key");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut jwe = ec();
        change(&mut jwe.header["epk"]);
        refused(&jwe.write(Form::Compact), "P-256")
    };
    let zero = URL_SAFE_NO_PAD.encode([0; 32]);
    // (0, 0), which stands for the point at infinity in some libraries.
    assert_eq!(
        with(&|epk| {
            epk["x"] = zero.clone().into();
            epk["y"] = zero.clone().into();
        }),
        malformed
    );
    assert_eq!(with(&|epk| epk["y"] = epk["x"].clone()), malformed);
    assert_eq!(with(&|epk| epk["x"] = "".into()), malformed);
    assert_eq!(with(&|epk| epk["x"] = format!("AA{}", epk["x"].as_str().unwrap()).into()), malformed);
    assert_eq!(with(&|epk| epk["x"] = format!("{}=", epk["x"].as_str().unwrap()).into()), malformed);
    assert_eq!(with(&|epk| epk["kty"] = "OKP".into()), malformed);
    assert_eq!(with(&|epk| epk["d"] = zero.clone().into()), malformed);
    assert_eq!(with(&|epk| *epk = "P-256".into()), malformed);
    assert_eq!(with(&|epk| *epk = Value::Null), malformed);
    // Of another curve: not for this key.
    assert_eq!(with(&|epk| epk["crv"] = "P-384".into()), JweError::NotRecipient);
    assert_eq!(with(&|epk| epk["crv"] = "secp256k1".into()), JweError::NotRecipient);
}

#[test]
fn sizes() {
    let cut = |name: &str, keep: &dyn Fn(&mut Vec<u8>), jwe: &Jwe| {
        let mut value = flattened(jwe);
        let mut bytes = URL_SAFE_NO_PAD.decode(value[name].as_str().unwrap()).unwrap();
        keep(&mut bytes);
        value[name] = URL_SAFE_NO_PAD.encode(bytes).into();
        value
    };
    let shorter: &dyn Fn(&mut Vec<u8>) = &|bytes| bytes.truncate(bytes.len() - 1);
    let longer: &dyn Fn(&mut Vec<u8>) = &|bytes| bytes.push(0);
    for change in [shorter, longer] {
        for (name, want) in [
            ("tag", JweError::Malformed("'tag' has another size than its algorithm's")),
            ("iv", JweError::Malformed("'iv' has another size than its algorithm's")),
            ("ciphertext", JweError::NotRecipient),
            ("encrypted_key", JweError::NotRecipient),
        ] {
            assert_eq!(refused_value(&cut(name, change, &rsa()), "rsa"), want, "{name}");
        }
        let want = JweError::Malformed("'encrypted_key' has another size than its algorithm's");
        assert_eq!(refused_value(&cut("encrypted_key", change, &ec()), "P-256"), want);
        for enc in ["A128GCM", "A128CBC-HS256", "A256CBC-HS512"] {
            let jwe = Jwe::new(&public("rsa", "RSA-OAEP"), enc);
            let error = refused_value(&cut("tag", change, &jwe), "rsa");
            assert_eq!(error, JweError::Malformed("'tag' has another size than its algorithm's"), "{enc}");
        }
    }
    let large = Jwe { plain: vec![0; MAX_PLAINTEXT + 17], ..rsa() };
    let want = JweError::Malformed("'ciphertext' is larger than any private options");
    assert_eq!(refused(&large.write(Form::Compact), "rsa"), want);
    assert_eq!(refused(&vec![b'{'; MAX_MESSAGE + 1], "rsa"), JweError::TooLarge);
    // RFC 3394's own minimum, and nothing at all.
    for size in [0, 8, 16] {
        let mut jwe = ec();
        jwe.encrypted_key.truncate(size);
        assert!(matches!(refused(&jwe.write(Form::Compact), "P-256"), JweError::Malformed(_)));
    }
}

#[test]
fn whatever_is_wrong_with_an_rsa_key_looks_the_same() {
    let key = public("rsa", "RSA-OAEP");
    // A content key that is too short or too long inside of good padding.
    for size in [0, 1, 16, 31, 33, 64] {
        let jwe = Jwe::with_key(&key, "A256GCM", vec![5; size]);
        assert_eq!(refused(&jwe.write(Form::Compact), "rsa"), JweError::NotRecipient, "{size}");
    }
    // No padding at all: random bytes, zero, and more than the modulus.
    for bytes in [vec![0x11; 256], vec![0; 256], vec![0xff; 256]] {
        let jwe = Jwe { encrypted_key: bytes, ..rsa() };
        assert_eq!(refused(&jwe.write(Form::Compact), "rsa"), JweError::NotRecipient);
    }
    // PKCS #1 v1.5 padding where OAEP belongs.
    let PublicKey::Rsa(rsa_key) = &key else { unreachable!() };
    let jwe = Jwe { encrypted_key: rsa_key.encrypt_v15(&[5; 32]).unwrap(), ..rsa() };
    assert_eq!(refused(&jwe.write(Form::Compact), "rsa"), JweError::NotRecipient);
    // A wrong key inside of good padding.
    let jwe = Jwe { encrypted_key: Jwe::with_key(&key, "A256GCM", vec![5; 32]).encrypted_key, ..rsa() };
    assert_eq!(refused(&jwe.write(Form::Compact), "rsa"), JweError::NotRecipient);
}

#[test]
fn every_bit_is_authenticated() {
    for enc in ["A256GCM", "A128CBC-HS256"] {
        let value = flattened(&Jwe::new(&public("P-256", "ECDH-ES+A256KW"), enc));
        for name in ["encrypted_key", "iv", "ciphertext", "tag"] {
            let bytes = URL_SAFE_NO_PAD.decode(value[name].as_str().unwrap()).unwrap();
            for at in 0..bytes.len() {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                let mut value = value.clone();
                value[name] = URL_SAFE_NO_PAD.encode(bytes).into();
                assert_eq!(refused_value(&value, "P-256"), JweError::NotRecipient, "{enc} {name} {at}");
            }
        }
        // The same header in other words.
        let mut value = value;
        let protected = URL_SAFE_NO_PAD.decode(value["protected"].as_str().unwrap()).unwrap();
        value["protected"] = URL_SAFE_NO_PAD.encode([&protected[..], b" "].concat()).into();
        assert_eq!(refused_value(&value, "P-256"), JweError::NotRecipient);
    }
}

#[test]
fn additional_data_is_authenticated() {
    let jwe = Jwe { aad: Some("cG9k"), ..ec() };
    let value = flattened(&jwe);
    assert!(open(value.to_string().as_bytes(), &private("P-256")).is_ok());
    let with = |aad: Option<&str>| {
        let mut value = value.clone();
        match aad {
            Some(aad) => value["aad"] = aad.into(),
            None => drop(value.as_object_mut().unwrap().remove("aad")),
        }
        refused_value(&value, "P-256")
    };
    assert_eq!(with(Some("cG9l")), JweError::NotRecipient);
    assert_eq!(with(None), JweError::NotRecipient);
    assert_eq!(with(Some("cG9k=")), JweError::Malformed("'aad' is not base64url"));
}

#[test]
fn headers_given_twice_or_in_the_wrong_place() {
    let jwe = rsa();
    let value = flattened(&jwe);
    assert!(open(value.to_string().as_bytes(), &private("rsa")).is_ok());
    for place in ["header", "unprotected"] {
        let with = |name: &str, what: &str| {
            let mut value = value.clone();
            value[place] = json!({ name: what });
            refused_value(&value, "rsa")
        };
        // Also when both say the same.
        assert_eq!(with("alg", "RSA-OAEP"), JweError::Twice("alg".to_owned()));
        assert_eq!(with("enc", "A256GCM"), JweError::Malformed("'enc' is not in the protected header"));
        assert!(unsupported(&with("zip", "DEF"), "DEF"));
        assert!(unsupported(&with("crit", "x"), "x"));
        let mut value = value.clone();
        value[place] = json!({ "kid": "1" });
        assert!(open(value.to_string().as_bytes(), &private("rsa")).is_ok());
    }
    let mut both = value.clone();
    both["header"] = json!({ "kid": "1" });
    both["unprotected"] = json!({ "kid": "1" });
    assert_eq!(refused_value(&both, "rsa"), JweError::Twice("kid".to_owned()));

    // 'enc' only where nothing authenticates it.
    let mut moved = jwe.seal(r#"{"alg":"RSA-OAEP"}"#);
    moved["unprotected"] = json!({ "enc": "A256GCM" });
    assert_eq!(refused_value(&moved, "rsa"), JweError::Malformed("'enc' is not in the protected header"));
    // Twice in one object.
    let twice = jwe.seal(r#"{"alg":"RSA-OAEP","enc":"A256GCM","enc":"A256GCM"}"#);
    assert_eq!(
        refused_value(&twice, "rsa"),
        JweError::Malformed("the protected header is not a JSON object")
    );
    let trailing = jwe.seal(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}{}"#);
    assert_eq!(
        refused_value(&trailing, "rsa"),
        JweError::Malformed("the protected header is not a JSON object")
    );
    let text = value.to_string().replacen('{', r#"{"iv":"","#, 1);
    assert_eq!(refused(text.as_bytes(), "rsa"), JweError::Malformed("not the JSON of a JWE"));
    let mut twice = serde_json::from_slice::<Value>(&jwe.write(Form::General)).unwrap().to_string();
    twice = twice.replacen(r#"{"alg":"#, r#"{"alg":"dir","alg":"#, 1);
    assert_eq!(refused(twice.as_bytes(), "rsa"), JweError::Malformed("not the JSON of a JWE"));
}

#[test]
fn serializations_that_contradict_themselves() {
    let general: Value = serde_json::from_slice(&rsa().write(Form::General)).unwrap();
    assert!(open(general.to_string().as_bytes(), &private("rsa")).is_ok());
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value = general.clone();
        change(&mut value);
        open(value.to_string().as_bytes(), &private("rsa"))
    };
    // As peers write it.
    assert!(with(&|value| value["encrypted_key"] = value["recipients"][0]["encrypted_key"].clone()).is_ok());
    let malformed = |change: &dyn Fn(&mut Value)| match with(change).unwrap_err() {
        JweError::Malformed(what) => what,
        other => panic!("{other}"),
    };
    let other_key = "'encrypted_key' beside 'recipients' is not the first one's";
    assert_eq!(malformed(&|value| value["encrypted_key"] = "AAAA".into()), other_key);
    let both = "both 'recipients' and 'header': flattened or general?";
    assert_eq!(malformed(&|value| value["header"] = json!({})), both);
    assert_eq!(malformed(&|value| value["recipients"] = json!([])), "no recipients");
    assert_eq!(malformed(&|value| value["recipients"][0]["header"] = json!({})), "a recipient has no 'alg'");
    assert_eq!(malformed(&|value| value["recipients"] = "x".into()), "not the JSON of a JWE");
    for name in ["iv", "ciphertext", "tag", "protected"] {
        malformed(&|value| drop(value.as_object_mut().unwrap().remove(name)));
        // Padding, another alphabet, stray last bits, white space.
        for wrong in ["AA==", "++//", "AB", "A A", "A"] {
            malformed(&|value| value[name] = wrong.into());
        }
    }
    assert_eq!(
        malformed(&|value| value["recipients"][0]["encrypted_key"] = "AA==".into()),
        "'encrypted_key' is not base64url"
    );
    let many =
        with(&|value| value["recipients"] = vec![value["recipients"][0].clone(); MAX_RECIPIENTS + 1].into());
    assert_eq!(many.unwrap_err(), JweError::TooManyRecipients);

    let compact = String::from_utf8(rsa().write(Form::Compact)).unwrap();
    for text in [
        format!("{compact}."),
        format!("{compact}.AA"),
        compact.replacen('.', "", 1),
        format!("{compact}\n"),
        format!("{compact}="),
    ] {
        assert!(matches!(refused(text.as_bytes(), "rsa"), JweError::Malformed(_)), "{text}");
    }
    assert!(matches!(refused(b"", "rsa"), JweError::Malformed(_)));
    assert!(matches!(refused(&[0xff], "rsa"), JweError::Malformed(_)));
}

#[test]
fn other_peoples_recipients_are_passed_over() {
    let ours: Value = serde_json::from_slice(&rsa().write(Form::General)).unwrap();
    let beside = |other: Value| {
        let mut value = ours.clone();
        value["recipients"] = json!([other, ours["recipients"][0]]);
        open(value.to_string().as_bytes(), &private("rsa"))
    };
    assert!(beside(json!({ "header": { "alg": "PBES2-HS256+A128KW" }, "encrypted_key": "AAAA" })).is_ok());
    assert!(
        beside(json!({ "header": { "alg": "RSA-OAEP" }, "encrypted_key": URL_SAFE_NO_PAD.encode([9; 256]) }))
            .is_ok()
    );
    assert!(beside(json!({ "header": { "alg": "RSA-OAEP" }, "encrypted_key": "AAAA" })).is_ok());
    // But not one with which no key is needed, nor one that must be understood.
    assert!(unsupported(&beside(json!({ "header": { "alg": "dir" } })).unwrap_err(), "dir"));
    assert!(unsupported(&beside(json!({ "header": { "alg": "x", "zip": 1 } })).unwrap_err(), "1"));
}
