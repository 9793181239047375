//! Certificates and revocation lists in AMD's form, signed with keys of our own. Written with a few lines of
//! DER and no certificate builder, which would refuse what tests break.

use std::sync::OnceLock;
use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{KeyPair, RSA_PSS_SHA384, RsaKeyPair};
use rsa::pkcs8::EncodePrivateKey;
use rsa::rand_core::UnwrapErr;
use x509_cert::der::asn1::ObjectIdentifier;

pub(super) const DAY: u64 = 24 * 60 * 60;
pub(super) const NOW: u64 = 1_800_000_000;

pub(super) const SHA384_PSS: &str = "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130";

pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        n @ 0..=127 => out.push(n as u8),
        n @ 128..=255 => out.extend([0x81, n as u8]),
        n => out.extend([0x82, (n >> 8) as u8, n as u8]),
    }
    out.extend_from_slice(content);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(super) fn oid(text: &str) -> Vec<u8> {
    tlv(6, ObjectIdentifier::new_unwrap(text).as_bytes())
}

pub(super) fn number(value: u8) -> Vec<u8> {
    if value < 128 { vec![2, 1, value] } else { vec![2, 2, 0, value] }
}

pub(super) fn text(value: &str) -> Vec<u8> {
    tlv(0x16, value.as_bytes())
}

/// CN after O, as AMD's names have more than one part.
pub(super) fn name(common_name: &str) -> Vec<u8> {
    let part = |at: &str, value: &str| tlv(0x31, &sequence(&[&oid(at), &tlv(0x0c, value.as_bytes())]));
    sequence(&[&part("2.5.4.10", "Advanced Micro Devices"), &part("2.5.4.3", common_name)])
}

fn time(seconds: u64) -> Vec<u8> {
    let date = x509_cert::der::DateTime::from_unix_duration(Duration::from_secs(seconds)).unwrap();
    let text = format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}Z",
        date.year(),
        date.month(),
        date.day(),
        date.hour(),
        date.minutes(),
        date.seconds()
    );
    tlv(0x18, text.as_bytes())
}

/// An RSA key, one of three that a test process makes once.
pub(super) fn rsa_key(which: usize) -> &'static RsaKeyPair {
    static KEYS: OnceLock<Vec<RsaKeyPair>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        let make = || {
            std::thread::spawn(|| {
                let key = rsa::RsaPrivateKey::new(&mut UnwrapErr(getrandom::SysRng), 2048).unwrap();
                RsaKeyPair::from_pkcs8(key.to_pkcs8_der().unwrap().as_bytes()).unwrap()
            })
        };
        [make(), make(), make()].map(|thread| thread.join().unwrap()).into()
    });
    &keys[which]
}

pub(super) const ARK: usize = 0;
pub(super) const ASK: usize = 1;
pub(super) const FOREIGN: usize = 2;

pub(super) fn rsa_spki(which: usize) -> Vec<u8> {
    let key = tlv(3, &[&[0], rsa_key(which).public_key().as_ref()].concat());
    sequence(&[&sequence(&[&oid("1.2.840.113549.1.1.1"), &[5, 0]]), &key])
}

pub(super) fn ec_spki(curve: &str, point: &[u8]) -> Vec<u8> {
    let key = tlv(3, &[&[0], point].concat());
    sequence(&[&sequence(&[&oid("1.2.840.10045.2.1"), &oid(curve)]), &key])
}

pub(super) const P384: &str = "1.3.132.0.34";

/// A certificate to be.
#[derive(Clone)]
pub(super) struct Cert {
    pub(super) version: u8,
    pub(super) serial: Vec<u8>,
    pub(super) inner_algorithm: Vec<u8>,
    pub(super) outer_algorithm: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) subject: Vec<u8>,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) spki: Vec<u8>,
    pub(super) extensions: Vec<(String, bool, Vec<u8>)>,
    /// Which key signs it.
    pub(super) signed_by: usize,
}

impl Cert {
    pub(super) fn new(issuer: &str, subject: &str, spki: Vec<u8>, signed_by: usize) -> Self {
        let algorithm = hex::decode(SHA384_PSS).unwrap();
        Self {
            version: 2,
            serial: vec![2, 1, 0],
            inner_algorithm: algorithm.clone(),
            outer_algorithm: algorithm,
            issuer: name(issuer),
            subject: name(subject),
            from: NOW - DAY,
            to: NOW + DAY,
            spki,
            extensions: Vec::new(),
            signed_by,
        }
    }

    pub(super) fn authority(mut self) -> Self {
        self.set("2.5.29.19", true, vec![0x30, 3, 1, 1, 0xff]);
        self.set("2.5.29.15", true, vec![3, 2, 1, 6]);
        self
    }

    pub(super) fn set(&mut self, at: &str, critical: bool, value: Vec<u8>) {
        self.remove(at);
        self.extensions.push((at.to_owned(), critical, value));
    }

    pub(super) fn remove(&mut self, at: &str) {
        self.extensions.retain(|(oid, ..)| oid != at);
    }

    pub(super) fn issue(&self) -> Vec<u8> {
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(at, critical, value)| extension(at, *critical, value))
            .collect();
        let body = sequence(&[
            &tlv(0xa0, &[2, 1, self.version]),
            &self.serial,
            &self.inner_algorithm,
            &self.issuer,
            &sequence(&[&time(self.from), &time(self.to)]),
            &self.subject,
            &self.spki,
            &tlv(0xa3, &tlv(0x30, &extensions)),
        ]);
        sign(&body, &self.outer_algorithm, self.signed_by)
    }
}

fn sign(body: &[u8], algorithm: &[u8], signed_by: usize) -> Vec<u8> {
    let key = rsa_key(signed_by);
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PSS_SHA384, &SystemRandom::new(), body, &mut signature).unwrap();
    sequence(&[body, algorithm, &tlv(3, &[&[0][..], &signature].concat())])
}

/// Serial numbers of ARK and ASK, as DER.
pub(super) const ARK_SERIAL: [u8; 5] = [2, 3, 1, 0, 0];
pub(super) const ASK_SERIAL: [u8; 5] = [2, 3, 1, 0, 1];

/// A revocation list to be.
#[derive(Clone)]
pub(super) struct List {
    pub(super) algorithm: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) from: u64,
    pub(super) to: Option<u64>,
    /// Serial numbers as DER.
    pub(super) revoked: Vec<Vec<u8>>,
    pub(super) entry_extensions: Vec<u8>,
    pub(super) extensions: Vec<u8>,
    pub(super) signed_by: usize,
}

impl List {
    pub(super) fn new(issuer: &str) -> Self {
        Self {
            algorithm: hex::decode(SHA384_PSS).unwrap(),
            issuer: name(issuer),
            from: NOW - DAY,
            to: Some(NOW + DAY),
            revoked: Vec::new(),
            entry_extensions: Vec::new(),
            extensions: extension("2.5.29.20", false, &[2, 1, 7]),
            signed_by: ARK,
        }
    }

    pub(super) fn issue(&self) -> Vec<u8> {
        let entries: Vec<u8> = self
            .revoked
            .iter()
            .flat_map(|serial| {
                let extensions = if self.entry_extensions.is_empty() {
                    Vec::new()
                } else {
                    tlv(0x30, &self.entry_extensions)
                };
                sequence(&[serial, &time(NOW - DAY), &extensions])
            })
            .collect();
        let body = sequence(&[
            &[2, 1, 1],
            &self.algorithm,
            &self.issuer,
            &time(self.from),
            &self.to.map(time).unwrap_or_default(),
            &if entries.is_empty() { entries } else { tlv(0x30, &entries) },
            &tlv(0xa0, &tlv(0x30, &self.extensions)),
        ]);
        sign(&body, &self.algorithm, self.signed_by)
    }
}

pub(super) fn extension(at: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    sequence(&[&oid(at), critical, &tlv(4, value)])
}
