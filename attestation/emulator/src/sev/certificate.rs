//! Certificates of the SEV API, appendix C: one layout for the authorities' RSA keys, one for the platform's
//! elliptic curve keys. Everything is little-endian, numbers of 4096 bits too.

use getrandom::SysRng;
use p384::ecdsa::signature::DigestSigner;
use p384::ecdsa::{Signature, SigningKey};
use p384::elliptic_curve::sec1::ToSec1Point;
use rsa::RsaPrivateKey;
use rsa::pss;
use rsa::rand_core::UnwrapErr;
use rsa::signature::{RandomizedSigner, SignatureEncoding};
use rsa::traits::PublicKeyParts;
use sha2::{Digest, Sha256, Sha384};

/// Bytes of a platform's certificate.
pub const LENGTH: usize = 2084;
/// Bytes of it that are signed.
pub const BODY: usize = 1044;
/// Bytes of one of its two signatures: usage, algorithm, 512 bytes.
pub const SLOT: usize = 520;
/// Bytes of a coordinate.
pub const COORDINATE: usize = 72;
const KEY_AT: usize = 16;
const VERSION: u32 = 1;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// AMD's root key.
    Ark = 0,
    /// AMD's signing key.
    Ask = 0x13,
    /// The owner's authority.
    Oca = 0x1001,
    /// Platform endorsement key.
    Pek = 0x1002,
    /// Platform's Diffie-Hellman key.
    Pdh = 0x1003,
    /// Chip endorsement key.
    Cek = 0x1004,
}

const UNUSED: u32 = 0x1000;
const RSA_SHA256: u32 = 1;
const ECDSA_SHA256: u32 = 2;
const ECDH_SHA256: u32 = 3;
const RSA_SHA384: u32 = 0x101;

/// Elliptic curves by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256 = 1,
    /// NIST P-384.
    P384 = 2,
}

/// A public key with coordinates in 72 bytes each, little-endian; not necessarily a point of its curve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Which curve it says it is of.
    pub curve: Curve,
    /// x
    pub x: [u8; COORDINATE],
    /// y
    pub y: [u8; COORDINATE],
}

impl Point {
    /// The public key of `key`.
    pub fn of(key: &SigningKey) -> Self {
        let point = key.verifying_key().as_affine().to_sec1_point(false);
        let coordinate = |bytes: Option<&[u8]>| {
            let mut out = [0; COORDINATE];
            for (place, byte) in out.iter_mut().zip(bytes.unwrap_or_default().iter().rev()) {
                *place = *byte;
            }
            out
        };
        Self {
            curve: Curve::P384,
            x: coordinate(point.x().map(|x| &x[..])),
            y: coordinate(point.y().map(|y| &y[..])),
        }
    }
}

/// The part of a platform's certificate that is signed.
pub fn body(usage: Usage, key: &Point, api: (u8, u8)) -> [u8; BODY] {
    let algorithm = if usage == Usage::Pdh { ECDH_SHA256 } else { ECDSA_SHA256 };
    let mut out = [0; BODY];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &VERSION.to_le_bytes());
    put(4, &[api.0, api.1]);
    put(8, &(usage as u32).to_le_bytes());
    put(12, &algorithm.to_le_bytes());
    put(KEY_AT, &(key.curve as u32).to_le_bytes());
    put(KEY_AT + 4, &key.x);
    put(KEY_AT + 4 + COORDINATE, &key.y);
    out
}

/// Body and two signatures; a slot that isn't used says so.
pub fn assemble(body: &[u8; BODY], slots: [Option<[u8; SLOT]>; 2]) -> [u8; LENGTH] {
    let mut out = [0; LENGTH];
    out[..BODY].copy_from_slice(body);
    for (index, slot) in slots.into_iter().enumerate() {
        out[BODY + index * SLOT..][..SLOT].copy_from_slice(&slot.unwrap_or_else(unused));
    }
    out
}

fn unused() -> [u8; SLOT] {
    slot(UNUSED, 0, &[])
}

fn slot(usage: u32, algorithm: u32, signature: &[u8]) -> [u8; SLOT] {
    let mut out = [0; SLOT];
    out[..4].copy_from_slice(&usage.to_le_bytes());
    out[4..8].copy_from_slice(&algorithm.to_le_bytes());
    out[8..8 + signature.len()].copy_from_slice(signature);
    out
}

/// The signature of one of the platform's keys.
pub fn sign(body: &[u8; BODY], by: Usage, key: &SigningKey) -> [u8; SLOT] {
    // SHA-256, as AMD's, though the curve would bear more.
    let signature: Signature = sign_sha256(key, body);
    let (r, s) = signature.split_bytes();
    let mut bytes = [0; 2 * COORDINATE];
    for (at, component) in [(0, r), (COORDINATE, s)] {
        for (index, byte) in component.iter().rev().enumerate() {
            bytes[at + index] = *byte;
        }
    }
    slot(by as u32, ECDSA_SHA256, &bytes)
}

fn sign_sha256(key: &SigningKey, message: &[u8]) -> Signature {
    key.sign_digest(|digest: &mut Sha256| digest.update(message))
}

/// The signature of the signing key (ASK) on a chip's certificate.
pub fn sign_by_ask(body: &[u8; BODY], ask: &RsaPrivateKey) -> [u8; SLOT] {
    let (signature, algorithm) = rsa_sign(ask, body);
    slot(Usage::Ask as u32, algorithm, &signature)
}

/// RSA-PSS with a salt as long as the digest: SHA-384 for 4096 bits, else SHA-256.
fn rsa_sign(key: &RsaPrivateKey, message: &[u8]) -> (Vec<u8>, u32) {
    let mut random = UnwrapErr(SysRng);
    let (mut signature, algorithm) = if key.size() == 512 {
        (pss::SigningKey::<Sha384>::new(key.clone()).sign_with_rng(&mut random, message).to_vec(), RSA_SHA384)
    } else {
        (pss::SigningKey::<Sha256>::new(key.clone()).sign_with_rng(&mut random, message).to_vec(), RSA_SHA256)
    };
    signature.reverse();
    (signature, algorithm)
}

/// An authority's certificate: header of 64 bytes, public exponent, modulus, signature.
pub fn authority(
    usage: Usage,
    ids: (&[u8; 16], &[u8; 16]),
    key: &RsaPrivateKey,
    signer: &RsaPrivateKey,
) -> Vec<u8> {
    let size = key.size();
    let bits = (size * 8) as u32;
    let mut out = VERSION.to_le_bytes().to_vec();
    out.extend_from_slice(ids.0);
    out.extend_from_slice(ids.1);
    out.extend_from_slice(&(usage as u32).to_le_bytes());
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&bits.to_le_bytes());
    out.extend_from_slice(&bits.to_le_bytes());
    for number in [key.e_bytes(), key.n_bytes()] {
        let mut bytes = number.to_vec();
        bytes.reverse();
        bytes.resize(size, 0);
        out.extend_from_slice(&bytes);
    }
    let (signature, _) = rsa_sign(signer, &out);
    out.extend_from_slice(&signature);
    out
}

/// The key in a Diffie-Hellman certificate of a guest's owner: an uncompressed point of P-384, if that is
/// what it holds.
pub fn read_dh_key(certificate: &[u8]) -> Option<[u8; 97]> {
    let certificate: &[u8; LENGTH] = certificate.try_into().ok()?;
    let word =
        |at: usize| certificate[at..at + 4].iter().rev().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
    if word(0) != VERSION || word(8) != Usage::Pdh as u32 || word(KEY_AT) != Curve::P384 as u32 {
        return None;
    }
    let mut point = [0; 97];
    point[0] = 4;
    for (to, from) in [(1, KEY_AT + 4), (49, KEY_AT + 4 + COORDINATE)] {
        let (low, high) = certificate[from..from + COORDINATE].split_at(48);
        if high.iter().any(|byte| *byte != 0) {
            return None;
        }
        for (place, byte) in point[to..to + 48].iter_mut().zip(low.iter().rev()) {
            *place = *byte;
        }
    }
    Some(point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    /// A real chain of AMD's, if it is here.
    fn vector(name: &str) -> Option<Vec<u8>> {
        let root = std::env::var_os("SEALPOD_VECTORS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
            PathBuf::from,
        );
        let bytes = std::fs::read(root.join("sev-legacy/rome").join(name)).ok();
        if bytes.is_none() {
            println!("skipped: no vectors");
        }
        bytes
    }

    #[test]
    fn a_real_certificate_written_again_is_the_same() {
        for (name, usage) in [
            ("cek.cert", Usage::Cek),
            ("oca.cert", Usage::Oca),
            ("pek.cert", Usage::Pek),
            ("pdh.cert", Usage::Pdh),
        ] {
            let Some(real) = vector(name) else { return };
            let coordinate = |at: usize| real[at..at + COORDINATE].try_into().unwrap();
            let key = Point { curve: Curve::P384, x: coordinate(20), y: coordinate(92) };
            let body = body(usage, &key, (real[4], real[5]));
            let slots = [BODY, BODY + SLOT].map(|at| Some(real[at..at + SLOT].try_into().unwrap()));
            assert_eq!(assemble(&body, slots)[..], real[..], "{name}");
            assert_eq!(read_dh_key(&real).is_some(), usage == Usage::Pdh, "{name}");
        }
    }

    #[test]
    fn slots_without_a_signature_are_marked() {
        let key = SigningKey::from_slice(&[7; 48]).unwrap();
        let body = body(Usage::Pdh, &Point::of(&key), (1, 55));
        let bytes = assemble(&body, [Some(sign(&body, Usage::Pek, &key)), None]);
        assert_eq!(bytes[1044..1052], [2, 0x10, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[1564..1572], [0, 0x10, 0, 0, 0, 0, 0, 0]);
        assert!(bytes[1572..].iter().all(|byte| *byte == 0));
    }
}
