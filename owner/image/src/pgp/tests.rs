//! Messages that a peer would never write: each is right but for one thing. The real gpg and skopeo are met in
//! `tests/pgp.rs`.

use encrypted_image::PrivateOptions;
use pgp::composed::{
    EncryptionCaps, KeyType, RawSessionKey, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::ecc_curve::ECCCurve;
use pgp::crypto::sym::SymmetricKeyAlgorithm as Cipher;
use pgp::packet::SymEncryptedProtectedData;
use pgp::ser::Serialize;
use rand08::rngs::OsRng;

use super::PgpKeys;
use super::message::{self, MESSAGE_LIMIT, MessageError};
use super::packets::{self, FrameError, tag};
use super::ring::hexadecimal;
use super::validity::EncryptionKey;

fn key() -> (EncryptionKey, PgpKeys) {
    let subkey = SubkeyParamsBuilder::default()
        .key_type(KeyType::ECDH(ECCCurve::Curve25519Legacy))
        .can_encrypt(EncryptionCaps::All)
        .build()
        .unwrap();
    let key: SignedSecretKey = SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .primary_user_id("Test".into())
        .subkey(subkey)
        .build()
        .unwrap()
        .generate(OsRng)
        .unwrap();
    let keys = PgpKeys::read("test", &key.to_bytes().unwrap(), None).unwrap();
    (EncryptionKey::Subkey(key.secret_subkeys[0].key.public_key().clone()), keys)
}

/// A message around any inner packets, with any outer ones.
struct Forge<'a> {
    key: &'a EncryptionKey,
    cipher: Cipher,
    session: RawSessionKey,
}

impl<'a> Forge<'a> {
    fn new(key: &'a EncryptionKey) -> Self {
        let cipher = Cipher::AES256;
        Self { key, cipher, session: cipher.new_session_key(OsRng) }
    }

    fn session_key(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.key.wrap(&self.session, self.cipher).unwrap().to_writer(&mut body).unwrap();
        body
    }

    fn protected(&self, inner: &[u8]) -> Vec<u8> {
        let packet =
            SymEncryptedProtectedData::encrypt_seipdv1(OsRng, self.cipher, self.session.as_ref(), inner);
        [&[1], packet.unwrap().data().as_ref()].concat()
    }

    fn message(&self, inner: &[u8]) -> Vec<u8> {
        packets_of(&[(tag::SESSION_KEY, &self.session_key()), (tag::PROTECTED, &self.protected(inner))])
    }
}

fn packets_of(packets: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, body) in packets {
        packets::write(&mut out, *tag, body);
    }
    out
}

fn literal(text: &[u8]) -> Vec<u8> {
    packets_of(&[(tag::LITERAL, &[b"t\0\0\0\0\0", text].concat())])
}

#[test]
fn opens_what_it_seals() {
    let (key, keys) = key();
    let (other, others) = self::key();
    let text = PrivateOptions::generate([0; 32]).unwrap().to_json();
    let message = message::seal([&key, &other], &text).unwrap();
    assert_eq!(*message::open(&message, &keys).unwrap(), *text);
    assert_eq!(*message::open(&message, &others).unwrap(), *text);
    assert!(matches!(message::seal([], &text), Err(MessageError::NoRecipient)));
    let (_, stranger) = self::key();
    let error = message::open(&message, &stranger).unwrap_err();
    assert!(matches!(error, MessageError::OtherRecipients(_)));
    let id = hexadecimal(key.details().legacy_key_id().as_ref());
    assert_eq!(error.to_string(), format!("encrypted to key {id} and 1 more only"));
}

#[test]
fn a_change_of_any_byte_is_noticed() {
    let (key, keys) = key();
    let message = message::seal([&key], b"text").unwrap();
    for at in 0..message.len() {
        for flip in [0x01, 0x80] {
            let mut changed = message.clone();
            changed[at] ^= flip;
            assert!(message::open(&changed, &keys).is_err(), "byte {at} may change");
        }
    }
    for length in 0..message.len() {
        assert!(message::open(&message[..length], &keys).is_err(), "cut to {length}");
    }
}

#[test]
fn data_must_be_integrity_protected() {
    let (key, keys) = key();
    let forge = Forge::new(&key);
    let session = forge.session_key();
    let protected = forge.protected(&literal(b"text"));
    let with = |tag: u8, body: &[u8]| {
        message::open(&packets_of(&[(tag::SESSION_KEY, &session), (tag, body)]), &keys).unwrap_err()
    };
    let error = with(tag::UNPROTECTED, &protected[1..]);
    assert_eq!(error, MessageError::Foreign("encrypted data without integrity protection"));
    assert!(matches!(with(tag::GNUPG_AEAD, &protected), MessageError::Foreign(_)));
    // Without the modification detection code, and with a wrong one.
    let mut bare = forge.protected(&literal(b"text"));
    bare.truncate(bare.len() - 22);
    assert_eq!(with(tag::PROTECTED, &bare), MessageError::NotOpened);
    for length in 1..protected.len() {
        assert_eq!(with(tag::PROTECTED, &protected[..length]), MessageError::NotOpened, "cut to {length}");
    }
    let mut second = protected.clone();
    second[0] = 2;
    let version = MessageError::Version { packet: "encrypted data", version: 2 };
    assert_eq!(with(tag::PROTECTED, &second), version);
    assert_eq!(with(tag::PROTECTED, &[]), MessageError::NoData);
}

#[test]
fn only_aes() {
    let (key, keys) = key();
    for cipher in [Cipher::AES128, Cipher::AES192, Cipher::AES256] {
        let forge = Forge { key: &key, cipher, session: cipher.new_session_key(OsRng) };
        assert_eq!(*message::open(&forge.message(&literal(b"text")), &keys).unwrap(), b"text");
    }
    for cipher in [Cipher::CAST5, Cipher::TripleDES, Cipher::Blowfish, Cipher::Twofish, Cipher::Camellia256] {
        let forge = Forge { key: &key, cipher, session: cipher.new_session_key(OsRng) };
        let error = message::open(&forge.message(&literal(b"text")), &keys).unwrap_err();
        assert_eq!(error, MessageError::Cipher(cipher.into()));
    }
    // A key of another length than its cipher's.
    let forge = Forge { key: &key, cipher: Cipher::AES256, session: Cipher::AES128.new_session_key(OsRng) };
    let data = Forge { key: &key, cipher: Cipher::AES128, session: forge.session.clone() };
    let body = data.protected(&literal(b"text"));
    let message = packets_of(&[(tag::SESSION_KEY, &forge.session_key()), (tag::PROTECTED, &body)]);
    assert_eq!(message::open(&message, &keys).unwrap_err(), MessageError::NotOpened);
}

#[test]
fn nothing_around_the_two_packets() {
    let (key, keys) = key();
    let forge = Forge::new(&key);
    let (session, data) = (forge.session_key(), forge.protected(&literal(b"text")));
    let refused = |packets: &[(u8, &[u8])]| message::open(&packets_of(packets), &keys).unwrap_err();
    let (first, second) = ((tag::SESSION_KEY, session.as_slice()), (tag::PROTECTED, data.as_slice()));
    assert_eq!(refused(&[first, second, first]), MessageError::Trailing);
    assert_eq!(refused(&[first, second, second]), MessageError::Trailing);
    assert_eq!(refused(&[second]), MessageError::NoRecipient);
    assert_eq!(refused(&[first]), MessageError::NoData);
    assert_eq!(refused(&[]), MessageError::NoData);
    for foreign in [tag::PASSWORD_SESSION_KEY, tag::COMPRESSED, tag::LITERAL, tag::ONE_PASS_SIGNATURE, 10, 63]
    {
        assert!(matches!(refused(&[first, (foreign, b"x"), second]), MessageError::Foreign(_)), "{foreign}");
    }
    let longer = [session.as_slice(), b"x"].concat();
    assert_eq!(refused(&[(tag::SESSION_KEY, &longer), second]), MessageError::SessionKey);
    let mut sixth = session.clone();
    sixth[0] = 6;
    let version = MessageError::Version { packet: "session key", version: 6 };
    assert_eq!(refused(&[(tag::SESSION_KEY, &sixth), second]), version);
    let many = vec![first; 100];
    assert_eq!(refused(&many), MessageError::Frame(FrameError::TooMany(66)));
    let large = vec![0; MESSAGE_LIMIT];
    assert!(matches!(
        refused(&[first, (tag::PROTECTED, &large)]),
        MessageError::Frame(FrameError::TooLong { .. })
    ));
}

#[test]
fn one_literal_packet_inside() {
    let (key, keys) = key();
    let forge = Forge::new(&key);
    let inner = |bytes: &[u8]| message::open(&forge.message(bytes), &keys);
    for (format, name) in [(b't', ""), (b'b', "name"), (b'u', "")] {
        let body = [&[format, name.len() as u8], name.as_bytes(), &[0, 1, 2, 3], b"text"].concat();
        assert_eq!(*inner(&packets_of(&[(tag::LITERAL, &body)])).unwrap(), b"text");
    }
    let two = [literal(b"text"), literal(b"")].concat();
    assert_eq!(inner(&two).unwrap_err(), MessageError::Inner);
    assert_eq!(inner(b"").unwrap_err(), MessageError::Inner);
    assert_eq!(inner(b"{}").unwrap_err(), MessageError::Inner);
    for bad in [&b"t"[..], b"t\0\0\0\0", b"t\x05\0\0\0\0text", b"l\0\0\0\0\0text", b""] {
        assert_eq!(inner(&packets_of(&[(tag::LITERAL, bad)])).unwrap_err(), MessageError::Inner, "{bad:?}");
    }
    let squeezed = packets_of(&[(tag::COMPRESSED, b"\x01x")]);
    assert_eq!(inner(&squeezed).unwrap_err(), MessageError::Foreign("compressed data"));
    assert!(matches!(
        inner(&forge.message(&literal(b"text"))).unwrap_err(),
        MessageError::Inner | MessageError::Foreign(_)
    ));
}

#[test]
fn bodies_in_parts() {
    // As Go's library writes them: the first part of 128 bytes.
    let body: Vec<u8> = (0..200).collect();
    let mut parts = vec![0xc0 | tag::PROTECTED, 224 + 7];
    parts.extend_from_slice(&body[..128]);
    parts.push(224 + 6);
    parts.extend_from_slice(&body[128..192]);
    parts.push(8);
    parts.extend_from_slice(&body[192..]);
    let read = packets::read(&parts, 1000, 1).unwrap();
    assert_eq!((read[0].tag, read[0].body.as_slice()), (tag::PROTECTED, body.as_slice()));
    for length in 1..parts.len() {
        assert!(
            matches!(packets::read(&parts[..length], 1000, 1), Err(FrameError::Truncated(0))),
            "{length}"
        );
    }
    parts[0] = 0xc0 | tag::SESSION_KEY;
    assert_eq!(packets::read(&parts, 1000, 1).err(), Some(FrameError::Partial(0)));
}

#[test]
fn headers_old_and_new() {
    let body = vec![7; 9000];
    for length in [0, 1, 191, 192, 193, 8383, 8384, 9000] {
        let mut new = Vec::new();
        packets::write(&mut new, tag::USER_ID, &body[..length]);
        let mut old = vec![0x80 | tag::USER_ID << 2 | 2];
        old.extend_from_slice(&(length as u32).to_be_bytes());
        old.extend_from_slice(&body[..length]);
        for bytes in [new, old] {
            let read = packets::read(&bytes, 10_000, 1).unwrap();
            assert_eq!((read[0].tag, read[0].body.len()), (tag::USER_ID, length));
        }
    }
    let refused = |bytes: &[u8]| packets::read(bytes, 16, 2).err().unwrap();
    assert_eq!(refused(&[0x80 | 11 << 2 | 3, 1]), FrameError::Indeterminate(0));
    assert_eq!(refused(&[0x40]), FrameError::NoPacket(0));
    assert_eq!(refused(&[0xcd, 0, 0x7f]), FrameError::NoPacket(2));
    assert_eq!(refused(&[0xcd, 255, 255, 255, 255, 255]), FrameError::Truncated(0));
    assert_eq!(refused(&[0x80 | 13 << 2 | 2, 255, 255, 255, 255]), FrameError::Truncated(0));
    assert_eq!(refused(&[0xcd, 0, 0xcd, 0, 0xcd, 0]), FrameError::TooMany(2));
    assert_eq!(refused(&[0; 17]), FrameError::TooLong { length: 17, limit: 16 });
}
