//! Keys that openssl made, written as JWKs, and what is refused of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod peers;

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use encrypted_image::keys::{Curve, KeyError, PrivateKey, PublicKey};
use peers::keys::{error, make, private};
use peers::openssl;
use serde_json::{Value, json};

const CURVES: [(&str, Curve); 3] = [("P-256", Curve::P256), ("P-384", Curve::P384), ("P-521", Curve::P521)];

/// The private key's numbers as openssl prints them, in base64url.
fn numbers(dir: &Path, name: &str) -> Value {
    let text = String::from_utf8(openssl(dir, &format!("pkey -in {name} -noout -text"))).unwrap();
    let mut found = serde_json::Map::new();
    let mut current = String::new();
    let mut hex = String::new();
    for line in text.lines().chain(["end:"]) {
        if line.starts_with(' ') {
            hex.extend(line.chars().filter(char::is_ascii_hexdigit));
            continue;
        }
        if !hex.is_empty() {
            let bytes = hex::decode(&hex).unwrap();
            found.insert(current, URL_SAFE_NO_PAD.encode(bytes).into());
            hex = String::new();
        }
        current = line.trim_end_matches(':').to_owned();
    }
    found.into()
}

fn parsed(jwk: &Value) -> Result<PublicKey, KeyError> {
    PrivateKey::parse(jwk.to_string().as_bytes()).map(|key| key.public().unwrap())
}

#[test]
fn rsa_jwk() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    make(dir, "genrsa -out rsa.pem 2048");
    let key = private(dir, "rsa.pem").unwrap();
    let n = numbers(dir, "rsa.pem");
    let good = json!({ "kty": "RSA", "e": "AQAB", "n": n["modulus"], "d": n["privateExponent"],
        "p": n["prime1"], "q": n["prime2"], "kid": "7", "use": "enc", "alg": "RSA-OAEP", "unknown": [1] });
    assert_eq!(parsed(&good).as_ref(), Ok(&key));
    let with = |name: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[name] = value;
        parsed(&jwk)
    };
    // Without the primes they are computed.
    let bare = json!({ "kty": "RSA", "e": "AQAB", "n": n["modulus"], "d": n["privateExponent"] });
    assert_eq!(parsed(&bare).as_ref(), Ok(&key));
    assert_eq!(with("alg", "RSA-OAEP-256".into()).as_ref(), Ok(&key));
    assert_eq!(with("alg", "RS256".into()), Err(KeyError::Purpose("alg")));
    assert_eq!(with("use", "sig".into()), Err(KeyError::Purpose("use")));
    assert_eq!(with("q", n["prime1"].clone()), Err(KeyError::Inconsistent("RSA")));
    assert_eq!(with("d", "AQAB".into()), Err(KeyError::Inconsistent("RSA")));
    assert_eq!(with("e", "Ag".into()), Err(KeyError::Inconsistent("RSA")));
    assert_eq!(with("e", "".into()), Err(KeyError::Malformed("RSA public exponent")));
    assert!(matches!(with("oth", json!([])), Err(KeyError::Unsupported(_))));
    assert_eq!(with("n", "AQAB".into()), Err(KeyError::RsaSize(17)));
    assert_eq!(
        with("n", format!("{}=", n["modulus"].as_str().unwrap()).into()),
        Err(KeyError::Malformed("JWK"))
    );
    assert!(matches!(parsed(&json!({ "keys": [good] })), Err(KeyError::Unsupported(_))));
    let twice = good.to_string().replacen('{', r#"{"kty":"RSA","#, 1);
    assert_eq!(error(PrivateKey::parse(twice.as_bytes())), KeyError::Malformed("JWK"));
    // The public half.
    let public = json!({ "kty": "RSA", "e": "AQAB", "n": n["modulus"], "kid": "7" });
    let public_key = PublicKey::parse(public.to_string().as_bytes()).unwrap();
    assert_eq!((&public_key, public_key.kid()), (&key, Some("7")));
    assert_eq!(parsed(&public), Err(KeyError::PublicForPrivate));
    assert_eq!(PublicKey::parse(good.to_string().as_bytes()), Err(KeyError::PrivateForPublic));
}

#[test]
fn ec_jwk() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for (name, curve) in CURVES {
        make(dir, &format!("ecparam -name {name} -genkey -noout -out ec.pem"));
        let key = private(dir, "ec.pem").unwrap();
        let n = numbers(dir, "ec.pem");
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(n[name].as_str().unwrap()).unwrap();
        let (point, mut secret) = (bytes("pub"), bytes("priv"));
        while secret.len() < curve.size() {
            secret.insert(0, 0);
        }
        let (x, y) = point[1..].split_at(curve.size());
        let [x, y, d] =
            [x, y, &secret[secret.len() - curve.size()..]].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let good = json!({ "kty": "EC", "crv": name, "x": x, "y": y, "d": d, "alg": "ECDH-ES+A256KW" });
        assert_eq!(parsed(&good).as_ref(), Ok(&key));
        let with = |name: &str, value: &str| {
            let mut jwk = good.clone();
            jwk[name] = value.into();
            parsed(&jwk)
        };
        assert_eq!(with("alg", "ES256"), Err(KeyError::Purpose("alg")));
        assert_eq!(with("y", &x), Err(KeyError::Point(curve)));
        assert_eq!(with("x", "AA"), Err(KeyError::Point(curve)));
        let zero = URL_SAFE_NO_PAD.encode(vec![0; curve.size()]);
        assert_eq!(with("d", &zero), Err(KeyError::Malformed("EC private key")));
        let one = URL_SAFE_NO_PAD.encode([vec![0; curve.size() - 1], vec![1]].concat());
        assert_eq!(with("d", &one), Err(KeyError::Inconsistent("EC")));
        assert!(matches!(with("crv", "secp256k1"), Err(KeyError::Unsupported(_))));
        let public = json!({ "kty": "EC", "crv": name, "x": x, "y": y });
        assert_eq!(PublicKey::parse(public.to_string().as_bytes()).as_ref(), Ok(&key));
        assert_eq!(parsed(&public), Err(KeyError::PublicForPrivate));
    }
}

#[test]
fn symmetric_keys() {
    let octets = |bytes: &[u8]| json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(bytes) }).to_string();
    for bytes in [octets(&[7; 32]).as_bytes(), &[7; 32]] {
        let key = PrivateKey::parse(bytes).unwrap();
        assert!(matches!(&key, PrivateKey::Symmetric(key) if key.as_bytes() == &[7; 32]));
        assert!(key.public().is_none());
    }
    assert!(PrivateKey::parse(octets(&[7; 31]).as_bytes()).is_err());
    assert_eq!(error(PrivateKey::parse(&[7; 33])), KeyError::NotAKey);
    assert_eq!(PublicKey::parse(octets(&[7; 32]).as_bytes()), Err(KeyError::PrivateForPublic));
    assert_eq!(PublicKey::parse(&[7; 32]), Err(KeyError::NotAKey));
}
