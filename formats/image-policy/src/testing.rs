//! Keys, keyrings and signatures that tests are made of; each part can be made wrong alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

use crate::SignatureInput;

/// When everything in the tests happens.
pub(crate) const NOW: u64 = 1_800_000_000;
/// When the keys were made.
pub(crate) const MADE: u32 = 1_700_000_000;

pub(crate) fn payload(kind: &str, digest: &str, reference: &str) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"}},"optional":{{}}}}"#
    )
}

/// A cosign key and its signatures.
pub(crate) struct Cosign(EcdsaKeyPair);

impl Cosign {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random);
        Self(pair.unwrap())
    }

    /// `keyData`.
    pub(crate) fn data(&self) -> String {
        let mut der = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
        der.extend_from_slice(self.0.public_key().as_ref());
        STANDARD.encode(format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        ))
    }

    pub(crate) fn sign(&self, payload: &str) -> SignatureInput {
        let signature = self.0.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
        SignatureInput::Cosign { payload: payload.into(), signature: STANDARD.encode(signature) }
    }
}

/// An OpenPGP key of algorithm 27.
pub(crate) struct Signer {
    pub(crate) pair: Ed25519KeyPair,
    pub(crate) created: u32,
}

/// A signature to be made.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) hash: u8,
    pub(crate) created: u32,
    pub(crate) hashed: Vec<u8>,
    pub(crate) unhashed: Vec<u8>,
}

impl Wanted {
    pub(crate) fn new(kind: u8) -> Self {
        Self { version: 4, kind, hash: 8, created: MADE, hashed: Vec::new(), unhashed: Vec::new() }
    }

    pub(crate) fn with(mut self, kind: u8, body: &[u8]) -> Self {
        self.hashed.extend(subpacket(kind, body));
        self
    }

    pub(crate) fn at(mut self, created: u32) -> Self {
        self.created = created;
        self
    }
}

pub(crate) fn subpacket(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff];
    bytes.extend(u32::try_from(body.len() + 1).unwrap().to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

pub(crate) fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0 | tag, 0xff];
    bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

impl Signer {
    pub(crate) fn new(seed: u8) -> Self {
        Self { pair: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(), created: MADE }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = vec![4];
        body.extend(self.created.to_be_bytes());
        body.push(27);
        body.extend_from_slice(self.pair.public_key().as_ref());
        body
    }

    pub(crate) fn hashed(&self) -> Vec<u8> {
        let body = self.body();
        let mut bytes = vec![0x99];
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    pub(crate) fn id(&self) -> [u8; 8] {
        let fingerprint = digest(&SHA1_FOR_LEGACY_USE_ONLY, &self.hashed());
        fingerprint.as_ref()[12..].try_into().unwrap()
    }

    /// The body of a signature packet.
    pub(crate) fn sign(&self, data: &[u8], wanted: &Wanted) -> Vec<u8> {
        let area = [subpacket(2, &wanted.created.to_be_bytes()), wanted.hashed.clone()].concat();
        let mut body = vec![wanted.version, wanted.kind, 27, wanted.hash];
        body.extend(u16::try_from(area.len()).unwrap().to_be_bytes());
        body.extend(area);
        let mut message = [data, &body].concat();
        message.extend([4, 0xff]);
        message.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        let hash = digest(&SHA256, &message);
        let unhashed = [subpacket(16, &self.id()), wanted.unhashed.clone()].concat();
        body.extend(u16::try_from(unhashed.len()).unwrap().to_be_bytes());
        body.extend(unhashed);
        body.extend_from_slice(&hash.as_ref()[..2]);
        body.extend_from_slice(self.pair.sign(hash.as_ref()).as_ref());
        body
    }

    /// A certification of its name, as `wanted` says.
    pub(crate) fn certified(&self, wanted: &Wanted) -> Vec<u8> {
        let name = b"Signer <signer@example>";
        let mut over = self.hashed();
        over.push(0xb4);
        over.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
        over.extend_from_slice(name);
        [packet(13, name), packet(2, &self.sign(&over, wanted))].concat()
    }

    /// The primary key's packet.
    pub(crate) fn key(&self) -> Vec<u8> {
        packet(6, &self.body())
    }

    /// A keyring with this key, which may sign.
    pub(crate) fn ring(&self) -> Vec<u8> {
        [self.key(), self.certified(&Wanted::new(0x13).with(27, &[3]))].concat()
    }

    /// Binds a subkey, as `wanted` says; `back` signs in the other direction.
    pub(crate) fn bound(&self, subkey: &Self, wanted: &Wanted, back: Option<&Wanted>) -> Vec<u8> {
        let over = [self.hashed(), subkey.hashed()].concat();
        let mut wanted = wanted.clone();
        if let Some(back) = back {
            wanted.hashed.extend(subpacket(32, &subkey.sign(&over, back)));
        }
        [packet(14, &subkey.body()), packet(2, &self.sign(&over, &wanted))].concat()
    }

    /// A signed message.
    pub(crate) fn message(&self, data: &[u8], wanted: &Wanted) -> Vec<u8> {
        let one_pass = [&[3, wanted.kind, wanted.hash, 27][..], &self.id(), &[1]].concat();
        let literal = [&[b'b', 0, 0, 0, 0, 0][..], data].concat();
        [packet(4, &one_pass), packet(11, &literal), packet(2, &self.sign(data, wanted))].concat()
    }
}
