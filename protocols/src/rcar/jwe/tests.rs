//! Wrapping and opening, and each way of refusing.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn header(jwe: &JweFlattened) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&jwe.protected).unwrap()).unwrap()
}

fn with_header(jwe: &JweFlattened, header: &str) -> JweFlattened {
    JweFlattened { protected: URL_SAFE_NO_PAD.encode(header), ..jwe.clone() }
}

#[test]
fn header_bytes_are_what_peers_re_serialise() {
    let key = EphemeralKey::generate().unwrap();
    let jwe = wrap(&key.public_jwk(), b"secret").unwrap();
    let parsed = header(&jwe);
    let (x, y) = (parsed["epk"]["x"].as_str().unwrap(), parsed["epk"]["y"].as_str().unwrap());
    let want = format!(
        r#"{{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}}}"#
    );
    assert_eq!(URL_SAFE_NO_PAD.decode(&jwe.protected).unwrap(), want.as_bytes());
    assert_eq!(URL_SAFE_NO_PAD.decode(&jwe.iv).unwrap().len(), 12);
}

/// RFC 7518 appendix C gives keys and the shared secret's derivation for another AlgorithmID; the
/// agreement is checked with its keys, the derivation with a second, independent spelling of it.
#[test]
fn agreement_of_rfc7518_appendix_c() {
    let secret = |d: &str| SecretKey::from_slice(&URL_SAFE_NO_PAD.decode(d).unwrap()).unwrap();
    let alice = secret("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo");
    let bob = secret("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw");
    let (x, y) = coordinates(&alice.public_key());
    assert_eq!(x, "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0");
    assert_eq!(y, "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps");
    let z = [
        158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49, 110, 163, 218,
        128, 106, 72, 246, 218, 167, 121, 140, 254, 144, 196u8,
    ];
    assert_eq!(alice.diffie_hellman(&bob.public_key()).raw_secret_bytes().as_slice(), z);
    let mut input = vec![0, 0, 0, 1];
    input.extend(z);
    input.extend(*b"\0\0\0\x0eECDH-ES+A256KW\0\0\0\0\0\0\0\0\0\0\x01\0");
    assert_eq!(
        *key_encryption_key(alice.diffie_hellman(&bob.public_key()).raw_secret_bytes()),
        <[u8; 32]>::from(Sha256::digest(input))
    );
}

#[test]
fn another_key_does_not_open() {
    let (key, other) = (EphemeralKey::generate().unwrap(), EphemeralKey::generate().unwrap());
    let jwe = wrap(&key.public_jwk(), b"secret").unwrap();
    assert_eq!(key.open(&jwe).unwrap().as_slice(), b"secret");
    assert!(matches!(other.open(&jwe), Err(JweError::Open)));
}

#[test]
fn a_part_of_another_jwe_does_not_fit() {
    let key = EphemeralKey::generate().unwrap();
    let (a, b) = (wrap(&key.public_jwk(), b"aaaaaa").unwrap(), wrap(&key.public_jwk(), b"bbbbbb").unwrap());
    for mixed in [
        JweFlattened { protected: b.protected.clone(), ..a.clone() },
        JweFlattened { encrypted_key: b.encrypted_key.clone(), ..a.clone() },
        JweFlattened { iv: b.iv.clone(), ..a.clone() },
        JweFlattened { ciphertext: b.ciphertext.clone(), ..a.clone() },
        JweFlattened { tag: b.tag.clone(), ..a.clone() },
    ] {
        assert!(matches!(key.open(&mixed), Err(JweError::Open)));
    }
}

#[test]
fn refuses_truncated_and_padded_parts() {
    let key = EphemeralKey::generate().unwrap();
    let jwe = wrap(&key.public_jwk(), b"secret").unwrap();
    let cut = |text: &str, n: usize| URL_SAFE_NO_PAD.encode(&URL_SAFE_NO_PAD.decode(text).unwrap()[..n]);
    for (bad, part) in [
        (JweFlattened { tag: cut(&jwe.tag, 12), ..jwe.clone() }, "tag"),
        (JweFlattened { tag: String::new(), ..jwe.clone() }, "tag"),
        (JweFlattened { iv: cut(&jwe.iv, 8), ..jwe.clone() }, "iv"),
        (JweFlattened { encrypted_key: cut(&jwe.encrypted_key, 32), ..jwe.clone() }, "encrypted_key"),
        (JweFlattened { tag: "A".repeat(4000), ..jwe.clone() }, "tag"),
    ] {
        assert!(matches!(key.open(&bad), Err(JweError::Length { part: p, .. }) if p == part), "{part}");
    }
    for bad in [
        JweFlattened { tag: format!("{}==", jwe.tag), ..jwe.clone() },
        JweFlattened { ciphertext: format!("{}+/", jwe.ciphertext), ..jwe.clone() },
        JweFlattened { protected: format!("{}=", jwe.protected), ..jwe.clone() },
    ] {
        assert!(matches!(key.open(&bad), Err(JweError::Base64(_))));
    }
    let huge = JweFlattened { ciphertext: "A".repeat(MAX_PLAINTEXT * 2), ..jwe };
    assert!(matches!(key.open(&huge), Err(JweError::TooLarge)));
    assert!(matches!(wrap(&key.public_jwk(), &vec![0; MAX_PLAINTEXT + 1]), Err(JweError::TooLarge)));
}

#[test]
fn refuses_other_algorithms_and_headers() {
    let key = EphemeralKey::generate().unwrap();
    let jwe = wrap(&key.public_jwk(), b"secret").unwrap();
    let good = header(&jwe).to_string();
    for (from, to, part) in [
        ("ECDH-ES+A256KW", "dir", "alg"),
        ("ECDH-ES+A256KW", "RSA1_5", "alg"),
        ("A256GCM", "A128GCM", "enc"),
        ("P-256", "P-521", "epk.crv"),
        ("\"EC\"", "\"OKP\"", "epk.kty"),
    ] {
        let bad = with_header(&jwe, &good.replace(from, to));
        assert!(matches!(key.open(&bad), Err(JweError::Algorithm(p)) if p == part), "{from} {to}");
    }
    for extra in ["zip\":\"DEF", "apu\":\"QQ", "crit\":\"x", "alg\":\"ECDH-ES+A256KW"] {
        let bad = with_header(&jwe, &good.replacen('{', &format!("{{\"{extra}\","), 1));
        assert!(matches!(key.open(&bad), Err(JweError::Header)), "{extra}");
    }
    assert!(matches!(key.open(&with_header(&jwe, "[]")), Err(JweError::Header)));
    assert!(matches!(key.open(&with_header(&jwe, &" ".repeat(2000))), Err(JweError::Header)));
    let unknown =
        json!({"protected": "", "encrypted_key": "", "iv": "", "ciphertext": "", "tag": "", "aad": ""});
    assert!(serde_json::from_value::<JweFlattened>(unknown).is_err());
}

#[test]
fn refuses_points_off_the_curve() {
    let key = EphemeralKey::generate().unwrap();
    let jwe = wrap(&key.public_jwk(), b"secret").unwrap();
    let zeros = URL_SAFE_NO_PAD.encode([0; 32]);
    let ones = URL_SAFE_NO_PAD.encode([0xff; 32]);
    for (x, y) in [(&zeros, &zeros), (&ones, &ones), (&zeros, &ones)] {
        let mut bad = header(&jwe);
        bad["epk"]["x"] = json!(x);
        bad["epk"]["y"] = json!(y);
        assert!(matches!(key.open(&with_header(&jwe, &bad.to_string())), Err(JweError::Point("epk"))));
        let public = Jwk { x: x.clone(), y: y.clone(), ..key.public_jwk() };
        assert!(matches!(wrap(&public, b""), Err(JweError::Point("tee-pubkey"))));
    }
    // A coordinate without its leading zeros, or with one too many.
    for length in [31, 33] {
        let public = Jwk { x: URL_SAFE_NO_PAD.encode(vec![0; length]), ..key.public_jwk() };
        assert!(matches!(public.validate(), Err(JweError::Length { expected: 32, .. })));
    }
}

#[test]
fn refuses_other_recipients() {
    let jwk = EphemeralKey::generate().unwrap().public_jwk();
    jwk.validate().unwrap();
    for (bad, part) in [
        (Jwk { kty: "RSA".into(), ..jwk.clone() }, "tee-pubkey.kty"),
        (Jwk { crv: "P-521".into(), ..jwk.clone() }, "tee-pubkey.crv"),
        (Jwk { alg: "ECDH-ES".into(), ..jwk.clone() }, "tee-pubkey.alg"),
    ] {
        assert!(matches!(wrap(&bad, b""), Err(JweError::Algorithm(p)) if p == part));
    }
    let mut extra = serde_json::to_value(&jwk).unwrap();
    extra["d"] = json!("x");
    assert!(serde_json::from_value::<Jwk>(extra).is_err());
}

#[test]
fn silent_debug() {
    assert_eq!(format!("{:?}", EphemeralKey::generate().unwrap()), "EphemeralKey(..)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_was_wrapped_opens_and_no_bit_may_flip(
        plaintext in proptest::collection::vec(any::<u8>(), 0..200),
        part in 0usize..5,
        bit in any::<prop::sample::Index>(),
    ) {
        let key = EphemeralKey::generate().unwrap();
        let mut jwe = wrap(&key.public_jwk(), &plaintext).unwrap();
        let opened = key.open(&jwe).unwrap();
        prop_assert_eq!(opened.as_slice(), &plaintext);
        let text = match part {
            0 => &mut jwe.protected,
            1 => &mut jwe.encrypted_key,
            2 => &mut jwe.iv,
            3 => &mut jwe.ciphertext,
            _ => &mut jwe.tag,
        };
        let mut bytes = URL_SAFE_NO_PAD.decode(&*text).unwrap();
        if !bytes.is_empty() {
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            *text = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert!(key.open(&jwe).is_err());
        }
    }
}
