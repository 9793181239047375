//! One way to be right, and everything else wrong alone.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::{Keyring, open};
use crate::error::SignatureError;
use crate::testing::{MADE, NOW, Signer, Wanted, packet, subpacket};

const DAY: u32 = 86_400;

fn opened(ring: &[u8], message: &[u8]) -> Result<Vec<u8>, SignatureError> {
    open(message, &Keyring::parse(ring).unwrap(), NOW)
}

fn unusable(ring: &[u8], message: &[u8]) -> String {
    match opened(ring, message) {
        Err(SignatureError::KeyUnusable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(vec![1], Compression::fast());
    encoder.write_all(bytes).unwrap();
    packet(8, &encoder.finish().unwrap())
}

#[test]
fn a_message_by_the_rings_key_opens() {
    let signer = Signer::new(1);
    let message = signer.message(b"data", &Wanted::new(0));
    assert_eq!(opened(&signer.ring(), &message).unwrap(), b"data");
    assert_eq!(opened(&signer.ring(), &deflated(&message)).unwrap(), b"data");
    let both = [Signer::new(2).ring(), signer.ring()].concat();
    assert_eq!(opened(&both, &message).unwrap(), b"data");
}

#[test]
fn a_message_by_another_key() {
    let message = Signer::new(1).message(b"data", &Wanted::new(0));
    let error = opened(&Signer::new(2).ring(), &message).unwrap_err();
    let issuer = Some(hex::encode_upper(Signer::new(1).id()));
    assert_eq!(error, SignatureError::OtherKey { issuer });
}

#[test]
fn each_changed_byte_is_noticed() {
    let signer = Signer::new(1);
    let ring = Keyring::parse(&signer.ring()).unwrap();
    let message = signer.message(b"data", &Wanted::new(0));
    for index in 0..message.len() {
        let mut changed = message.clone();
        changed[index] ^= 1;
        let opened = open(&changed, &ring, NOW);
        // What says how to find the hash or the key, or the literal's date and name, is not signed.
        if let Ok(data) = opened {
            assert_eq!(data, b"data", "byte {index}");
            assert!(index < 60 || message.len() - index < 90, "byte {index} of {}", message.len());
        }
    }
    let at = message.windows(4).position(|window| window == b"data").unwrap();
    let mut changed = message;
    changed[at] ^= 1;
    assert_eq!(open(&changed, &ring, NOW), Err(SignatureError::Tampered));
}

#[test]
fn the_signatures_life() {
    let signer = Signer::new(1);
    let sign = |wanted: Wanted| opened(&signer.ring(), &signer.message(b"data", &wanted));
    let now = u32::try_from(NOW).unwrap();
    assert!(sign(Wanted::new(0).at(now - DAY).with(3, &(DAY + 1).to_be_bytes())).is_ok());
    assert_eq!(sign(Wanted::new(0).at(now - DAY).with(3, &DAY.to_be_bytes())), Err(SignatureError::Expired));
    assert!(sign(Wanted::new(0).at(now + 300)).is_ok());
    assert_eq!(sign(Wanted::new(0).at(now + 301)), Err(SignatureError::Future));
    assert!(matches!(sign(Wanted::new(0).at(MADE - 1)), Err(SignatureError::KeyUnusable { .. })));
}

#[test]
fn messages_of_another_form() {
    let signer = Signer::new(1);
    let good = signer.message(b"data", &Wanted::new(0));
    let literal = packet(11, b"b\0\0\0\0\0data");
    let signature = packet(2, &signer.sign(b"data", &Wanted::new(0)));
    let one_pass = |key: [u8; 8], hash, last| packet(4, &[&[3, 0, hash, 27][..], &key, &[last]].concat());
    let id = signer.id();
    for (what, message) in [
        ("nothing", vec![]),
        ("unsigned", literal.clone()),
        ("detached", signature.clone()),
        ("old form", [signature.clone(), literal.clone()].concat()),
        ("signed twice", [good.clone(), signature.clone()].concat()),
        ("two messages", [good.clone(), good.clone()].concat()),
        ("compressed twice", deflated(&deflated(&good))),
        ("something behind compressed data", [deflated(&good), literal.clone()].concat()),
        ("text", [one_pass(id, 8, 1), packet(11, b"t\0\0\0\0\0data"), signature.clone()].concat()),
        ("not the last", [one_pass(id, 8, 0), literal.clone(), signature.clone()].concat()),
        ("another hash announced", [one_pass(id, 10, 1), literal.clone(), signature.clone()].concat()),
        ("another key announced", [one_pass([9; 8], 8, 1), literal.clone(), signature.clone()].concat()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("armoured", b"-----BEGIN PGP MESSAGE-----".to_vec()),
        ("version 3", signer.message(b"data", &Wanted { version: 3, ..Wanted::new(0) })),
        ("critical subpacket", signer.message(b"data", &Wanted::new(0).with(0x80 | 100, b"x"))),
        ("critical notation", signer.message(b"data", &Wanted::new(0).with(0x80 | 20, b"x"))),
        ("created twice", signer.message(b"data", &Wanted::new(0).with(2, &MADE.to_be_bytes()))),
        ("inflates without end", deflated(&packet(11, &vec![0; 1 << 20]))),
    ] {
        let error = opened(&signer.ring(), &message).unwrap_err();
        assert!(matches!(error, SignatureError::Malformed(_)), "{what}: {error}");
    }
    for (what, message) in [
        ("text signature", signer.message(b"data", &Wanted::new(1))),
        ("certification", signer.message(b"data", &Wanted::new(0x13))),
        ("SHA-1", signer.message(b"data", &Wanted { hash: 2, ..Wanted::new(0) })),
        ("SHA-224", signer.message(b"data", &Wanted { hash: 11, ..Wanted::new(0) })),
        ("bzip2", packet(8, &[3, 0])),
    ] {
        let error = opened(&signer.ring(), &message).unwrap_err();
        assert!(matches!(error, SignatureError::Unsupported { .. }), "{what}: {error}");
    }
    assert!(opened(&signer.ring(), &signer.message(b"data", &Wanted::new(0).with(20, b"note"))).is_ok());
}

#[test]
fn a_key_that_may_not_sign() {
    let signer = Signer::new(1);
    let message = signer.message(b"data", &Wanted::new(0));
    let ring = |parts: &[Vec<u8>]| [&[signer.key()], parts].concat().concat();
    let certified = |wanted: Wanted| signer.certified(&wanted);
    let good = Wanted::new(0x13).with(27, &[3]);
    let revoked = packet(2, &signer.sign(&signer.hashed(), &Wanted::new(0x20)));
    let life = u32::try_from(NOW).unwrap() - MADE;
    for (what, parts) in [
        ("flags for certifying", vec![certified(Wanted::new(0x13).with(27, &[1]))]),
        ("no flags", vec![certified(Wanted::new(0x13))]),
        ("no signature of its own", vec![]),
        ("certified by another", vec![packet(13, b"x"), packet(2, &Signer::new(2).sign(b"x", &good))]),
        ("certified over SHA-1", vec![certified(Wanted { hash: 2, ..good.clone() })]),
        ("expired", vec![certified(good.clone().with(9, &life.to_be_bytes()))]),
        ("certification over", vec![certified(good.clone().with(3, &life.to_be_bytes()))]),
        ("revoked", vec![revoked.clone(), certified(good.clone())]),
        (
            "a newer one takes the flag back",
            vec![certified(good.clone()), certified(Wanted::new(0x13).at(MADE + 1).with(27, &[1]))],
        ),
        (
            "a newer one ends it",
            vec![certified(good.clone()), certified(good.clone().at(MADE + 1).with(9, &life.to_be_bytes()))],
        ),
        (
            "a newer one over SHA-1 ends it",
            vec![
                certified(good.clone()),
                certified(Wanted { hash: 2, ..good.clone().at(MADE + 1).with(9, &life.to_be_bytes()) }),
            ],
        ),
        (
            "revoked by another, as designated revokers do",
            vec![
                packet(2, &Signer::new(2).sign(&signer.hashed(), &Wanted::new(0x20))),
                certified(good.clone()),
            ],
        ),
    ] {
        let reason = unusable(&ring(&parts), &message);
        assert!(!reason.is_empty(), "{what}");
    }
    for (what, parts) in [
        ("expires later", vec![certified(good.clone().with(9, &(life + 1).to_be_bytes()))]),
        (
            "made longer",
            vec![certified(good.clone().with(9, &life.to_be_bytes())), certified(good.clone().at(MADE + 1))],
        ),
        (
            "directly signed",
            vec![packet(2, &signer.sign(&signer.hashed(), &Wanted::new(0x1f).with(27, &[3])))],
        ),
        (
            "a future one takes the flag back",
            vec![
                certified(good.clone()),
                certified(Wanted::new(0x13).at(u32::try_from(NOW).unwrap() + DAY).with(27, &[1])),
            ],
        ),
    ] {
        let opened = opened(&ring(&parts), &message);
        assert!(opened.is_ok(), "{what}: {opened:?}");
    }
    // A name taken back vouches for nothing, and a key of the future isn't one yet.
    let mut over = signer.hashed();
    over.extend([0xb4, 0, 0, 0, 23]);
    over.extend(b"Signer <signer@example>");
    let taken_back = packet(2, &signer.sign(&over, &Wanted::new(0x30)));
    unusable(&ring(&[certified(good), taken_back]), &message);
    let late = Signer { created: u32::try_from(NOW).unwrap() + DAY, ..Signer::new(1) };
    assert!(matches!(
        opened(&late.ring(), &late.message(b"data", &Wanted::new(0).at(late.created))),
        Err(SignatureError::KeyUnusable { .. })
    ));
}

#[test]
fn subkeys() {
    let (primary, subkey) = (Signer::new(1), Signer::new(2));
    let message = subkey.message(b"data", &Wanted::new(0));
    let binding = Wanted::new(0x18).with(27, &[2]);
    let back = Wanted::new(0x19);
    let certified = primary.certified(&Wanted::new(0x13).with(27, &[1]));
    let ring = |bound: Vec<u8>| [primary.key(), certified.clone(), bound].concat();
    let good = primary.bound(&subkey, &binding, Some(&back));
    assert_eq!(opened(&ring(good.clone()), &message).unwrap(), b"data");

    let life = (u32::try_from(NOW).unwrap() - MADE).to_be_bytes();
    let over = [primary.hashed(), subkey.hashed()].concat();
    let stranger = Signer::new(3);
    let by_stranger = [packet(14, &subkey.body()), packet(2, &stranger.sign(&over, &binding))].concat();
    let wrong_back = subpacket(32, &stranger.sign(&over, &back));
    let wrong_back = Wanted { hashed: [binding.hashed.clone(), wrong_back].concat(), ..binding.clone() };
    let revoked = packet(2, &primary.sign(&over, &Wanted::new(0x28)));
    for (what, bound) in [
        ("not bound", packet(14, &subkey.body())),
        ("bound by a stranger", by_stranger),
        ("no signature back", primary.bound(&subkey, &binding, None)),
        ("signed back by a stranger", primary.bound(&subkey, &wrong_back, None)),
        ("signed back as something else", primary.bound(&subkey, &binding, Some(&Wanted::new(0x18)))),
        (
            "signed back over SHA-1",
            primary.bound(&subkey, &binding, Some(&Wanted { hash: 2, ..back.clone() })),
        ),
        ("for encryption", primary.bound(&subkey, &Wanted::new(0x18).with(27, &[12]), Some(&back))),
        ("no flags", primary.bound(&subkey, &Wanted::new(0x18), Some(&back))),
        ("expired", primary.bound(&subkey, &binding.clone().with(9, &life), Some(&back))),
        ("binding over", primary.bound(&subkey, &binding.clone().with(3, &life), Some(&back))),
        ("revoked", [good.clone(), revoked].concat()),
    ] {
        let reason = unusable(&ring(bound), &message);
        assert!(!reason.is_empty(), "{what}");
    }
    // The primary key's end is the subkey's.
    let expired = primary.certified(&Wanted::new(0x13).with(27, &[1]).with(9, &life));
    assert_eq!(unusable(&[primary.key(), expired, good.clone()].concat(), &message), "has expired");
    let revoked = packet(2, &primary.sign(&primary.hashed(), &Wanted::new(0x20)));
    assert_eq!(unusable(&[primary.key(), revoked, certified, good].concat(), &message), "was revoked");
}

#[test]
fn keyrings_that_are_none() {
    let signer = Signer::new(1);
    let mut secret = signer.ring();
    secret[0] = 0xc5;
    let mut version = signer.body();
    version[0] = 6;
    let mut dsa = signer.body();
    dsa[5] = 17;
    for (what, ring) in [
        ("empty", vec![]),
        ("secret", secret),
        ("a message", signer.message(b"data", &Wanted::new(0))),
        ("version 6", packet(6, &version)),
        ("DSA", packet(6, &dsa)),
        ("something behind the key", packet(6, &[signer.body(), vec![0]].concat())),
        ("begins with a name", [packet(13, b"x"), signer.ring()].concat()),
        ("an old revocation", [signer.key(), packet(2, &[3, 5, 0x20, 0, 0, 0, 0])].concat()),
        ("cut", signer.ring()[..20].to_vec()),
        ("text", b"hello".to_vec()),
        ("an armoured message", b"-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n".to_vec()),
    ] {
        assert!(Keyring::parse(&ring).is_err(), "{what}");
    }
    // A third party's signature in an old form vouches for nothing and does no harm.
    let old = [signer.ring(), packet(2, &[3, 5, 0x10, 0, 0, 0, 0])].concat();
    assert!(Keyring::parse(&old).is_ok());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_refused_in_order(bytes: Vec<u8>, at in 0_usize..400, value: u8) {
        let signer = Signer::new(1);
        let _ = Keyring::parse(&bytes);
        let mut ring = [signer.ring(), signer.bound(&Signer::new(2), &Wanted::new(0x18), Some(&Wanted::new(0x19)))].concat();
        let index = at % ring.len();
        ring[index] = value;
        if let Ok(ring) = Keyring::parse(&ring) {
            let _ = open(&bytes, &ring, NOW);
            let _ = open(&signer.message(b"data", &Wanted::new(0)), &ring, NOW);
        }
    }
}
