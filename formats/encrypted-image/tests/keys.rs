//! Keys made by openssl in each form that people keep them in, and the refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod peers;

use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use encrypted_image::keys::{Certificate, Curve, KeyError, MAX_KEY_FILE, PrivateKey, PublicKey};
use peers::{openssl, read};
use serde_json::{Value, json};

const CURVES: [(&str, Curve); 3] = [("P-256", Curve::P256), ("P-384", Curve::P384), ("P-521", Curve::P521)];

fn private(dir: &Path, name: &str) -> Result<PublicKey, KeyError> {
    PrivateKey::parse(&read(dir, name)).map(|key| key.public().unwrap())
}

fn public(dir: &Path, name: &str) -> Result<PublicKey, KeyError> {
    PublicKey::parse(&read(dir, name))
}

fn error<T>(result: Result<T, KeyError>) -> KeyError {
    match result {
        Ok(_) => panic!("was accepted"),
        Err(error) => error,
    }
}

/// Runs openssl once a line.
fn make(dir: &Path, lines: &str) {
    lines.lines().map(str::trim).filter(|line| !line.is_empty()).for_each(|line| drop(openssl(dir, line)));
}

#[test]
fn every_form_of_an_rsa_key_is_the_same_key() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    make(
        dir,
        "genrsa -out k8.pem 2048
         rsa -in k8.pem -traditional -out k1.pem
         rsa -in k8.pem -traditional -outform DER -out k1.der
         pkcs8 -topk8 -nocrypt -in k8.pem -outform DER -out k8.der
         rsa -in k8.pem -pubout -out spki.pem
         rsa -in k8.pem -pubout -outform DER -out spki.der
         rsa -in k8.pem -RSAPublicKey_out -out pub1.pem
         rsa -in k8.pem -RSAPublicKey_out -outform DER -out pub1.der
         req -new -x509 -key k8.pem -subj /CN=r -days 9 -out crt.pem
         req -new -x509 -key k8.pem -subj /CN=r -days 9 -text -out crt-text.pem
         x509 -in crt.pem -outform DER -out crt.der",
    );
    let key = private(dir, "k8.pem").unwrap();
    for name in ["k1.pem", "k1.der", "k8.der"] {
        assert_eq!(private(dir, name).as_ref(), Ok(&key), "{name}");
        assert_eq!(public(dir, name), Err(KeyError::PrivateForPublic), "{name}");
    }
    for name in ["spki.pem", "spki.der", "pub1.pem", "pub1.der", "crt.pem", "crt-text.pem", "crt.der"] {
        assert_eq!(public(dir, name).as_ref(), Ok(&key), "{name}");
        assert_eq!(private(dir, name), Err(KeyError::PublicForPrivate), "{name}");
    }
    // A bundle serves whoever asks for either.
    let bundle = [read(dir, "crt.pem"), read(dir, "k8.pem")].concat();
    assert_eq!(PrivateKey::parse(&bundle).unwrap().public().as_ref(), Some(&key));
    assert_eq!(Certificate::parse(&bundle).unwrap().public_key(), &key);
    // Windows' line ends.
    let crlf = String::from_utf8(read(dir, "k1.pem")).unwrap().replace('\n', "\r\n");
    assert!(PrivateKey::parse(crlf.as_bytes()).is_ok());
}

#[test]
fn every_form_of_an_ec_key_is_the_same_key() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    for (name, curve) in CURVES {
        make(
            dir,
            &format!(
                "ecparam -name {name} -genkey -out params-sec1.pem
                 ec -in params-sec1.pem -out sec1.pem
                 ec -in params-sec1.pem -outform DER -out sec1.der
                 ec -in params-sec1.pem -no_public -outform DER -out alone.der
                 pkcs8 -topk8 -nocrypt -in sec1.pem -out k8.pem
                 pkcs8 -topk8 -nocrypt -in sec1.pem -outform DER -out k8.der
                 ec -in sec1.pem -pubout -out spki.pem
                 ec -in sec1.pem -pubout -outform DER -out spki.der
                 ec -in sec1.pem -pubout -conv_form compressed -out compressed.pem
                 req -new -x509 -key sec1.pem -subj /CN=r -days 9 -out crt.pem"
            ),
        );
        assert!(read(dir, "params-sec1.pem").starts_with(b"-----BEGIN EC PARAMETERS"));
        let key = private(dir, "sec1.pem").unwrap();
        assert!(matches!(&key, PublicKey::Ec(key) if key.curve() == curve));
        for name in ["params-sec1.pem", "sec1.der", "alone.der", "k8.pem", "k8.der"] {
            assert_eq!(private(dir, name).as_ref(), Ok(&key), "{curve} {name}");
            assert_eq!(public(dir, name), Err(KeyError::PrivateForPublic), "{curve} {name}");
        }
        for name in ["spki.pem", "spki.der", "compressed.pem", "crt.pem"] {
            assert_eq!(public(dir, name).as_ref(), Ok(&key), "{curve} {name}");
        }
    }
}

#[test]
fn passwords_open_what_openssl_encrypted() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    make(
        dir,
        "genrsa -out rsa.pem 2048
         ecparam -name P-256 -genkey -noout -out ec.pem
         pkcs8 -topk8 -in rsa.pem -passout pass:sesame -out default.pem
         pkcs8 -topk8 -in rsa.pem -passout pass:sesame -outform DER -out default.der
         pkcs8 -topk8 -in rsa.pem -passout pass:sesame -v2 aes-128-cbc -v2prf hmacWithSHA1 -out sha1.pem
         pkcs8 -topk8 -in ec.pem -passout pass:sesame -v2 aes-192-cbc -v2prf hmacWithSHA512 -out sha512.pem
         pkcs8 -topk8 -in ec.pem -passout pass:sesame -scrypt -out scrypt.pem
         rsa -in rsa.pem -traditional -aes128 -passout pass:sesame -out old128.pem
         rsa -in rsa.pem -traditional -aes192 -passout pass:sesame -out old192.pem
         ec -in ec.pem -aes256 -passout pass:sesame -out old256.pem
         rsa -in rsa.pem -traditional -des3 -passout pass:sesame -out des3.pem
         pkcs8 -topk8 -in rsa.pem -passout pass:sesame -v2 des3 -out pbes2-des3.pem
         pkcs8 -topk8 -in rsa.pem -passout pass:sesame -v1 PBE-SHA1-3DES -out pbes1.pem
         pkcs8 -topk8 -in rsa.pem -passout pass:sesame -iter 10000001 -out slow.pem
         pkcs8 -topk8 -in ec.pem -passout pass:sesame -scrypt -outform DER -out large.der",
    );
    let (rsa, ec) = (private(dir, "rsa.pem").unwrap(), private(dir, "ec.pem").unwrap());
    let opened = [
        ("default.pem", &rsa),
        ("default.der", &rsa),
        ("sha1.pem", &rsa),
        ("sha512.pem", &ec),
        ("scrypt.pem", &ec),
        ("old128.pem", &rsa),
        ("old192.pem", &rsa),
        ("old256.pem", &ec),
        // Not encrypted at all: the password is not looked at.
        ("rsa.pem", &rsa),
    ];
    for (name, key) in opened {
        let bytes = read(dir, name);
        let found = PrivateKey::parse_with_password(&bytes, b"sesame");
        assert_eq!(found.unwrap().public().as_ref(), Some(key), "{name}");
        if name != "rsa.pem" {
            assert_eq!(error(PrivateKey::parse(&bytes)), KeyError::Encrypted, "{name}");
            let wrong = error(PrivateKey::parse_with_password(&bytes, b"open says me"));
            assert_eq!(wrong, KeyError::Password, "{name}");
            assert_eq!(error(PrivateKey::parse_with_password(&bytes, b"")), KeyError::Password, "{name}");
        }
    }
    for name in ["des3.pem", "pbes2-des3.pem", "pbes1.pem"] {
        let error = error(PrivateKey::parse_with_password(&read(dir, name), b"sesame"));
        assert!(matches!(error, KeyError::Cipher(_)), "{name}: {error}");
        assert!(error.to_string().contains("convert it with 'openssl"), "{error}");
    }
    let slow = error(PrivateKey::parse_with_password(&read(dir, "slow.pem"), b"sesame"));
    assert_eq!(slow, KeyError::DerivationCost("rounds"));
    // N = 16384 and r = 8 are 16 MiB; with r = 127 it is more than is allowed.
    let mut large = read(dir, "large.der");
    let cost = large.windows(7).position(|bytes| bytes == [2, 2, 0x40, 0, 2, 1, 8]).unwrap();
    large[cost + 6] = 127;
    assert_eq!(error(PrivateKey::parse_with_password(&large, b"sesame")), KeyError::DerivationCost("memory"));
}

#[test]
fn weak_and_foreign_keys_are_refused_by_name() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    make(
        dir,
        "genrsa -out weak.pem 2040
         rsa -in weak.pem -pubout -out weak.pub
         genrsa -out least.pem 2048
         genrsa -primes 3 -out three.pem 2048
         genpkey -algorithm ED25519 -out ed.pem
         pkey -in ed.pem -pubout -out ed.pub
         ecparam -name secp256k1 -genkey -noout -out k1.pem
         ecparam -name P-256 -param_enc explicit -genkey -noout -out explicit.pem
         genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out pss.pem",
    );
    assert_eq!(private(dir, "weak.pem"), Err(KeyError::RsaSize(2040)));
    assert_eq!(public(dir, "weak.pub"), Err(KeyError::RsaSize(2040)));
    assert!(private(dir, "least.pem").is_ok());
    for name in ["three.pem", "ed.pem", "k1.pem", "explicit.pem", "pss.pem"] {
        let error = error(private(dir, name));
        assert!(matches!(error, KeyError::Unsupported(_)), "{name}: {error}");
    }
    assert!(matches!(public(dir, "ed.pub"), Err(KeyError::Unsupported(_))));
}

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

#[test]
fn nothing_secret_is_printed() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    make(dir, "genrsa -out rsa.pem 2048\necparam -name P-384 -genkey -noout -out ec.pem");
    let mut text = String::new();
    for bytes in [read(dir, "rsa.pem"), read(dir, "ec.pem"), vec![0xa5; 32]] {
        write!(text, "{:?} ", PrivateKey::parse(&bytes).unwrap()).unwrap();
    }
    assert_eq!(text, "RsaPrivate(2048 bits, ..) EcPrivate(P-384, ..) SymmetricKey(..) ");
}

#[test]
fn damaged_files_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    make(
        dir,
        "ecparam -name P-256 -genkey -noout -out sec1.pem
         ecparam -name P-256 -genkey -noout -out other.pem
         ec -in sec1.pem -outform DER -out sec1.der
         pkcs8 -topk8 -nocrypt -in sec1.pem -outform DER -out k8.der",
    );
    let text = String::from_utf8(read(dir, "sec1.pem")).unwrap();
    let refuses =
        |text: &str, want: KeyError| assert_eq!(error(PrivateKey::parse(text.as_bytes())), want, "{text}");
    refuses("", KeyError::NotAKey);
    refuses("hello", KeyError::NotAKey);
    refuses(&text.replace("-----END EC PRIVATE KEY-----", ""), KeyError::Pem("no END line"));
    let other_end = text.replace("END EC", "END RSA");
    refuses(&other_end, KeyError::Pem("BEGIN and END have different labels"));
    refuses(
        &text.replace("EC PRIVATE", "OPENSSH PRIVATE"),
        KeyError::Unsupported("a private key of this PEM label"),
    );
    refuses(&text.replace("EC PRIVATE", "RSA PRIVATE"), KeyError::Malformed("PKCS #1 key"));
    refuses(&text.replacen('=', "*", 1), KeyError::Pem("not base64"));
    refuses(&format!("{text}{text}"), KeyError::SeveralKeys);
    let many = "-----BEGIN X-----\n-----END X-----\n".repeat(17);
    refuses(&many, KeyError::Pem("more than 16 blocks in a file"));
    refuses(&many[..many.len() / 17], KeyError::NoBlock("private key"));
    refuses(&"-".repeat(MAX_KEY_FILE + 1), KeyError::TooLarge);
    let half_encrypted = text.replacen("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n", 1);
    refuses(&half_encrypted, KeyError::Pem("Proc-Type and DEK-Info don't go together"));

    // Each cut, and each byte behind, of the two DER forms.
    for der in [read(dir, "sec1.der"), read(dir, "k8.der")] {
        // Any 32 bytes are a symmetric key.
        for end in (0..der.len()).filter(|end| *end != 32) {
            assert!(PrivateKey::parse(&der[..end]).is_err(), "{end}");
        }
        assert!(PrivateKey::parse(&[&der[..], &[0]].concat()).is_err());
    }
    // The private key of one, the public key of another.
    let mut der = read(dir, "sec1.der");
    make(dir, "ec -in other.pem -outform DER -out other.der");
    let other = read(dir, "other.der");
    let at = der.len() - 64;
    der[at..].copy_from_slice(&other[at..]);
    assert_eq!(error(PrivateKey::parse(&der)), KeyError::Inconsistent("EC"));
    let pem =
        format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", STANDARD.encode(&der));
    refuses(&pem, KeyError::Inconsistent("EC"));
}

#[test]
fn certificates_name_issuer_and_serial_number() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    make(
        dir,
        "genrsa -out rsa.pem 2048
         req -new -x509 -key rsa.pem -subj /CN=r -days 9 -set_serial 0x80 -out a.pem
         req -new -x509 -key rsa.pem -subj /CN=r -days 9 -set_serial 0x81 -out b.pem
         x509 -in a.pem -outform DER -out a.der",
    );
    let [a, b] = ["a.pem", "b.pem"].map(|name| Certificate::parse(&read(dir, name)).unwrap());
    assert_eq!(a, Certificate::parse(&read(dir, "a.der")).unwrap());
    assert_eq!((a.serial(), b.serial()), (&[0, 0x80][..], &[0, 0x81][..]));
    assert_eq!((a.issuer(), a.public_key()), (b.issuer(), b.public_key()));
    assert_eq!(error(Certificate::parse(&read(dir, "rsa.pem"))), KeyError::NoBlock("certificate"));
    let der = read(dir, "a.der");
    for end in 0..der.len() {
        assert!(Certificate::parse(&der[..end]).is_err(), "{end}");
    }
    assert!(Certificate::parse(&[&der[..], &[0]].concat()).is_err());
}
