//! What is read and what is refused, one thing wrong in each refusal; `openssl cms` as the judge of proper DER.

mod parts;

use std::sync::LazyLock;

use parts::*;

use super::*;
use crate::keys::der::{INTEGER, NULL, OCTET_STRING, OID, SEQUENCE, SET, context, context_primitive, value};
use crate::peers::Bench;
use crate::pkcs11::OaepHash;

/// Keys and certificates, made once.
static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let bench = Bench::new();
    bench.rsa("one");
    bench.rsa("two");
    bench.ec("ec", "P-256");
    bench.openssl("req -new -x509 -key ec.pem -subj /CN=ec -days 9 -out ec.crt");
    bench.openssl(
        "req -new -x509 -key one.pem -subj /CN=one/O=Acme -days 9 -set_serial 0x7 -out one-renewed.crt",
    );
    bench
});

fn private(name: &str) -> PrivateKey {
    PrivateKey::parse(&BENCH.read(&format!("{name}.pem"))).unwrap()
}

fn certificate(name: &str) -> Certificate {
    Certificate::parse(&BENCH.read(&format!("{name}.crt"))).unwrap()
}

fn open_with(bytes: &[u8], name: &str) -> Result<Vec<u8>, Pkcs7Error> {
    open(bytes, &private(name), Some(&certificate(name))).map(|plain| plain.to_vec())
}

#[test]
fn parameters_of_both_writers_and_all_key_sizes_open() {
    for size in [16, 24, 32] {
        let mut parts = Parts::new(size);
        assert_eq!(parts.open().unwrap(), PLAIN);
        parts.parameters = ocicrypt_parameters(&NONCE, 16);
        assert_eq!(parts.open().unwrap(), PLAIN);
        // The content tagged in place, as DER writers do.
        parts.content = value(context_primitive(0), &[&gcm(&vec![3; size.into()], &[])]);
        assert_eq!(parts.open().unwrap(), PLAIN);
        parts.end = value(context(1), &[]);
        assert_eq!(parts.open().unwrap(), PLAIN);
    }
}

#[test]
fn what_is_written_is_ocicrypts_to_the_byte() {
    let bytes = seal(&[certificate("one")], &[b'x'; 193]).unwrap();
    let at = bytes.windows(2).position(|two| two == [0x30, 0x20]).unwrap();
    let hex = hex::encode(&bytes[at..at + 34]);
    assert!(hex.starts_with("3020060960864801650304010610133011840c"), "{hex}");
    assert!(hex.ends_with("020110"), "{hex}");
    assert_eq!(hex::encode(&bytes[at + 34..at + 40]), "a081d40481d1");
    assert_eq!(bytes.len(), at + 40 + 193 + 16);
    assert_eq!(open_with(&bytes, "one").unwrap(), [b'x'; 193]);
    // Nothing about it but the parameters is wrong in the eyes of openssl.
    std::fs::write(BENCH.dir().join("written.der"), &bytes).unwrap();
    let dump = crate::peers::openssl(BENCH.dir(), "asn1parse -inform DER -in written.der");
    assert!(String::from_utf8(dump).unwrap().contains("pkcs7-envelopedData"));
}

#[test]
fn recipients_are_picked_by_issuer_and_serial_number() {
    let bytes = seal(&[certificate("one"), certificate("two")], PLAIN).unwrap();
    for name in ["one", "two"] {
        assert_eq!(open_with(&bytes, name).unwrap(), PLAIN);
        assert_eq!(open(&bytes, &private(name), None).unwrap().as_slice(), PLAIN);
    }
    // The same key under another serial number, or another's certificate, is not the recipient.
    let renewed = open(&bytes, &private("one"), Some(&certificate("one-renewed")));
    assert_eq!(renewed.unwrap_err(), Pkcs7Error::NotRecipient);
    let renewed = seal(&[certificate("one-renewed")], PLAIN).unwrap();
    assert_eq!(open_with(&renewed, "one"), Err(Pkcs7Error::NotRecipient));
    let bytes = seal(&[certificate("two")], PLAIN).unwrap();
    assert_eq!(open_with(&bytes, "one"), Err(Pkcs7Error::NotRecipient));
    assert_eq!(open(&bytes, &private("one"), None).unwrap_err(), Pkcs7Error::NotRecipient);
}

#[test]
fn whatever_is_wrong_with_the_key_looks_the_same() {
    let with = |encrypted_key: &[u8]| {
        let mut parts = Parts::new(16);
        parts.recipients = vec![recipient(&certificate("one"), &v15(), encrypted_key)];
        parts.open()
    };
    let key = rsa("one");
    assert!(with(&key.encrypt_v15(&[3; 16]).unwrap()).is_ok());
    let wrong = [
        key.encrypt_v15(&[4; 16]).unwrap(),
        // Good padding around a key that is too short, too long, or none.
        key.encrypt_v15(&[3; 15]).unwrap(),
        key.encrypt_v15(&[3; 17]).unwrap(),
        key.encrypt_v15(&[3; 32]).unwrap(),
        key.encrypt_v15(&[]).unwrap(),
        // OAEP where PKCS #1 v1.5 belongs, random bytes, zero, one, more than the modulus.
        key.encrypt_oaep(OaepHash::Sha1, &[3; 16]).unwrap(),
        vec![0x11; 256],
        vec![0; 256],
        [vec![0; 255], vec![1]].concat(),
        vec![0xff; 256],
        // Another length than the modulus'.
        vec![0x11; 255],
        vec![0x11; 257],
        Vec::new(),
    ];
    for encrypted_key in wrong {
        assert_eq!(with(&encrypted_key), Err(Pkcs7Error::NotRecipient), "{} bytes", encrypted_key.len());
    }
}

#[test]
fn every_bit_of_nonce_ciphertext_and_tag_is_authenticated() {
    let good = Parts::new(16);
    for at in 0..12 {
        let mut nonce = NONCE;
        nonce[at] ^= 1;
        let parts = Parts { parameters: der_parameters(&nonce, 16), ..good.clone() };
        assert_eq!(parts.refused(), Pkcs7Error::NotRecipient);
    }
    let content = gcm(&[3; 16], &[]);
    for at in 0..content.len() {
        let mut content = content.clone();
        content[at] ^= 1;
        let parts = Parts { content: value(context_primitive(0), &[&content]), ..good.clone() };
        assert_eq!(parts.refused(), Pkcs7Error::NotRecipient);
    }
}

#[test]
fn truncated_tags_and_other_nonces() {
    let good = Parts::new(16);
    let tag = Pkcs7Error::Unsupported("an AES-GCM tag of other than 16 bytes");
    let nonce = Pkcs7Error::Unsupported("an AES-GCM nonce of other than 12 bytes");
    for parameters in [der_parameters, ocicrypt_parameters] {
        for size in [0, 4, 12, 15, 17] {
            let parts = Parts { parameters: parameters(&NONCE, size), ..good.clone() };
            assert_eq!(parts.refused(), tag);
        }
        for size in [0, 8, 11, 13, 16] {
            let parts = Parts { parameters: parameters(&vec![7; size], 16), ..good.clone() };
            assert_eq!(parts.refused(), nonce);
        }
    }
    // Absent means 12.
    let absent = value(SEQUENCE, &[&value(OCTET_STRING, &[&NONCE])]);
    assert_eq!(Parts { parameters: absent, ..good.clone() }.refused(), tag);
    // The two ways of writing, mixed.
    let malformed = Pkcs7Error::Malformed("the AES-GCM parameters");
    let mixed = [
        value(SEQUENCE, &[&value(context_primitive(4), &[&NONCE]), &value(INTEGER, &[&[16]])]),
        value(message::PRIMITIVE_SEQUENCE, &[&value(OCTET_STRING, &[&NONCE]), &value(INTEGER, &[&[16]])]),
        value(NULL, &[]),
        value(SEQUENCE, &[&value(OCTET_STRING, &[&NONCE]), &value(INTEGER, &[&[16]]), &value(NULL, &[])]),
    ];
    for parameters in mixed {
        assert_eq!(Parts { parameters, ..good.clone() }.refused(), malformed);
    }
    let short = Parts { content: value(context_primitive(0), &[&[0; 15]]), ..good.clone() };
    assert_eq!(short.refused(), Pkcs7Error::Malformed("the encrypted content"));
    let parts = Parts { parameters: Vec::new(), ..good };
    assert_eq!(parts.refused(), Pkcs7Error::Malformed("the encrypted content"));
}

#[test]
fn other_algorithms_and_types() {
    let good = Parts::new(16);
    for child in [2, 22, 42] {
        let parts =
            Parts { algorithm: aes(child), parameters: value(OCTET_STRING, &[&[7; 16]]), ..good.clone() };
        assert_eq!(parts.refused(), Pkcs7Error::Unsupported("AES-CBC, which authenticates nothing,"));
    }
    for algorithm in [aes(1), value(OID, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x03, 0x07]])] {
        let parts = Parts { algorithm, ..good.clone() };
        assert_eq!(parts.refused(), Pkcs7Error::Unsupported("content encryption other than AES-GCM"));
    }
    // The key is of another size than the algorithm's.
    assert_eq!(Parts { algorithm: aes(46), ..good.clone() }.refused(), Pkcs7Error::NotRecipient);
    let parts = Parts { kind: message::DATA, ..good.clone() };
    assert_eq!(parts.refused(), Pkcs7Error::Unsupported("a CMS message other than (Auth)EnvelopedData"));
    let parts = Parts { content_type: message::ENVELOPED_DATA, ..good.clone() };
    assert_eq!(parts.refused(), Pkcs7Error::Unsupported("CMS content of another type than data"));
    // Somebody's key by another way is passed over.
    let mut parts = good.clone();
    parts.recipients.insert(0, value(context(1), &[b"key agreement"]));
    let sha1 = value(OID, &[&[0x2b, 0x0e, 0x03, 0x02, 0x1a]]);
    parts.recipients.insert(0, recipient(&certificate("one"), &sha1, &[1; 256]));
    assert_eq!(parts.open().unwrap(), PLAIN);
    let ec = PrivateKey::parse(&BENCH.read("ec.pem")).unwrap();
    assert_eq!(open(&good.bytes(), &ec, None).unwrap_err(), Pkcs7Error::NotRsa);
}

#[test]
fn structures_that_are_none() {
    let good = Parts::new(16);
    let bytes = good.bytes();
    for end in 0..bytes.len() {
        assert!(open_with(&bytes[..end], "one").is_err(), "{end}");
    }
    let trailing = [&bytes[..], &[0]].concat();
    assert_eq!(open_with(&trailing, "one"), Err(Pkcs7Error::Malformed("the CMS message")));
    // Indefinite length around all of it.
    let indefinite = [&[0x30, 0x80], &bytes[4..], &[0, 0]].concat();
    assert_eq!(open_with(&indefinite, "one"), Err(Pkcs7Error::Malformed("the CMS message")));
    assert_eq!(open_with(&vec![0x30; MAX_MESSAGE + 1], "one"), Err(Pkcs7Error::TooLarge));
    let parts = Parts { recipients: vec![good.recipients[0].clone(); MAX_RECIPIENTS + 1], ..good.clone() };
    assert_eq!(parts.refused(), Pkcs7Error::TooManyRecipients);
    let parts = Parts { recipients: Vec::new(), ..good.clone() };
    assert_eq!(parts.refused(), Pkcs7Error::NotRecipient);
    let parts = Parts { end: value(NULL, &[]), ..good.clone() };
    assert_eq!(parts.refused(), Pkcs7Error::Malformed("the CMS message's end"));
    let parts = Parts { content: Vec::new(), ..good.clone() };
    assert_eq!(parts.refused(), Pkcs7Error::Malformed("the encrypted content"));
    let twice = [&good.content[..], &good.content].concat();
    assert_eq!(
        Parts { content: twice, ..good.clone() }.refused(),
        Pkcs7Error::Malformed("the encrypted content")
    );
    let large = value(context_primitive(0), &[&vec![0; MAX_PLAINTEXT + 17]]);
    assert!(matches!(Parts { content: large, ..good.clone() }.refused(), Pkcs7Error::Malformed(_)));
    let unnamed = value(SEQUENCE, &[&value(INTEGER, &[&[0]]), &value(SEQUENCE, &[&v15()])]);
    let parts = Parts { recipients: vec![unnamed], ..good };
    assert_eq!(parts.refused(), Pkcs7Error::Malformed("a recipient of the CMS message"));
}

#[test]
fn what_openssl_writes() {
    let dir = BENCH.dir();
    std::fs::write(dir.join("options"), PLAIN).unwrap();
    let cms = |options: &str| {
        BENCH.openssl(&format!("cms -encrypt -binary -in options -outform DER -out cms.der {options}"));
        BENCH.read("cms.der")
    };
    for cipher in ["-aes-128-gcm", "-aes-192-gcm", "-aes-256-gcm"] {
        assert_eq!(open_with(&cms(&format!("{cipher} one.crt")), "one").unwrap(), PLAIN);
    }
    let several = cms("-aes-256-gcm two.crt one.crt");
    for name in ["one", "two"] {
        assert_eq!(open_with(&several, name).unwrap(), PLAIN);
    }
    assert_eq!(open_with(&cms("-aes-256-gcm -keyid one.crt"), "one").unwrap(), PLAIN);
    for oaep in ["", "-keyopt rsa_oaep_md:sha256 -keyopt rsa_mgf1_md:sha256"] {
        let bytes = cms(&format!("-aes-256-gcm -recip one.crt -keyopt rsa_padding_mode:oaep {oaep}"));
        assert_eq!(open_with(&bytes, "one").unwrap(), PLAIN, "{oaep}");
    }
    // Two hashes in one OAEP.
    let mixed = "-keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256 -keyopt rsa_mgf1_md:sha1";
    let bytes = cms(&format!("-aes-256-gcm -recip one.crt {mixed}"));
    assert_eq!(open_with(&bytes, "one"), Err(Pkcs7Error::NotRecipient));
    // The tag of AuthEnvelopedData stands at the end, and 16 bytes of it are wanted.
    let mut bytes = cms("-aes-256-gcm one.crt");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!(open_with(&bytes, "one"), Err(Pkcs7Error::NotRecipient));
    let error = open_with(&cms("-aes-256-cbc one.crt"), "one").unwrap_err();
    assert_eq!(error, Pkcs7Error::Unsupported("AES-CBC, which authenticates nothing,"));
    assert_eq!(
        UnwrapError::from(error).to_string(),
        "AES-CBC, which authenticates nothing, is not supported"
    );
}

#[test]
fn authenticated_attributes_are_covered() {
    let attribute = value(SEQUENCE, &[&value(OID, &[message::DATA]), &value(SET, &[&value(NULL, &[])])]);
    let sealed = gcm(&[3; 16], &value(SET, &[&attribute]));
    let (ciphertext, tag) = sealed.split_at(sealed.len() - 16);
    let with = |attributes: &[u8], tag: &[u8]| Parts {
        kind: message::AUTH_ENVELOPED_DATA,
        content: value(context_primitive(0), &[ciphertext]),
        end: [attributes.to_vec(), value(OCTET_STRING, &[tag])].concat(),
        ..Parts::new(16)
    };
    assert_eq!(with(&value(context(1), &[&attribute]), tag).open().unwrap(), PLAIN);
    assert_eq!(with(&[], tag).refused(), Pkcs7Error::NotRecipient);
    assert_eq!(with(&value(context(1), &[&attribute, &attribute]), tag).refused(), Pkcs7Error::NotRecipient);
    let short = with(&value(context(1), &[&attribute]), &tag[..12]).refused();
    assert_eq!(short, Pkcs7Error::Malformed("an AES-GCM tag of other than 16 bytes"));
}

#[test]
fn keys_that_cannot_take_part() {
    assert_eq!(Pkcs7Wrap::new(vec![]).unwrap_err(), Pkcs7Error::NoRecipient);
    assert_eq!(Pkcs7Wrap::new(vec![certificate("one"), certificate("ec")]).unwrap_err(), Pkcs7Error::NotRsa);
    let many = vec![certificate("one"); MAX_RECIPIENTS + 1];
    assert_eq!(Pkcs7Wrap::new(many).unwrap_err(), Pkcs7Error::TooManyRecipients);
    let unwrap = || Pkcs7Unwrap::new("node key", private("one"));
    assert!(unwrap().with_certificate(certificate("one-renewed")).is_ok());
    assert_eq!(unwrap().with_certificate(certificate("two")).unwrap_err(), Pkcs7Error::OtherCertificate);
    let ec = Pkcs7Unwrap::new("ec", PrivateKey::parse(&BENCH.read("ec.pem")).unwrap());
    assert!(!ec.opens(&Scheme::Pkcs7));
    assert_eq!(ec.with_certificate(certificate("ec")).unwrap_err(), Pkcs7Error::NotRsa);
    assert!(unwrap().opens(&Scheme::Pkcs7) && !unwrap().opens(&Scheme::Jwe));

    let options = BENCH.private_options();
    let wrap = Pkcs7Wrap::new(vec![certificate("one")]).unwrap();
    let wrapped = WrappedKey { scheme: wrap.scheme(), blob: wrap.wrap(&options).unwrap() };
    assert_eq!(unwrap().unwrap(&wrapped).unwrap().digest(), options.digest());
}
