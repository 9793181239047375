//! Keys made by openssl in each form that people keep them in, and the refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod peers;

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use encrypted_image::keys::{Certificate, Curve, KeyError, MAX_KEY_FILE, PrivateKey, PublicKey};
use peers::keys::{error, make, private, public};
use peers::read;
use serde_json::json;

const CURVES: [(&str, Curve); 3] = [("P-256", Curve::P256), ("P-384", Curve::P384), ("P-521", Curve::P521)];

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
         pkcs8 -topk8 -in ec.pem -passout pass:sesame -scrypt -scrypt_N 1024 -out scrypt.pem
         rsa -in rsa.pem -traditional -aes128 -passout pass:sesame -out old128.pem
         rsa -in rsa.pem -traditional -aes192 -passout pass:sesame -out old192.pem
         ec -in ec.pem -aes256 -passout pass:sesame -out old256.pem
         rsa -in rsa.pem -traditional -des3 -passout pass:sesame -out des3.pem
         pkcs8 -topk8 -in rsa.pem -passout pass:sesame -v2 des3 -out pbes2-des3.pem
         pkcs8 -topk8 -in rsa.pem -passout pass:sesame -v1 PBE-SHA1-3DES -out pbes1.pem
         pkcs8 -topk8 -in rsa.pem -passout pass:sesame -iter 65536 -outform DER -out slow.der
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
    let mut slow = read(dir, "slow.der");
    let rounds = slow.windows(5).position(|bytes| bytes == [2, 3, 1, 0, 0]).unwrap();
    slow[rounds + 2] = 0x7f; // 8 million
    assert_eq!(error(PrivateKey::parse_with_password(&slow, b"sesame")), KeyError::DerivationCost("rounds"));
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
         pkcs8 -topk8 -in weak.pem -passout pass:sesame -out weak-k8.pem
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
    // The password is right: that isn't what is refused.
    let weak = PrivateKey::parse_with_password(&read(dir, "weak-k8.pem"), b"sesame");
    assert_eq!(error(weak), KeyError::RsaSize(2040));
    assert!(private(dir, "least.pem").is_ok());
    let large = |bytes: usize| {
        let n = URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
        PublicKey::parse(json!({ "kty": "RSA", "e": "AQAB", "n": n }).to_string().as_bytes())
    };
    assert!(large(1024).is_ok());
    assert_eq!(large(1025), Err(KeyError::RsaSize(8200)));
    for name in ["three.pem", "ed.pem", "k1.pem", "explicit.pem", "pss.pem"] {
        let error = error(private(dir, name));
        assert!(matches!(error, KeyError::Unsupported(_)), "{name}: {error}");
    }
    assert!(matches!(public(dir, "ed.pub"), Err(KeyError::Unsupported(_))));
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
