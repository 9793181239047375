//! EC keys on the three NIST curves, and Diffie-Hellman with them (NIST SP 800-56A section 5.7.1.2).

use std::fmt;

use p256::elliptic_curve::sec1::ToSec1Point;
use zeroize::Zeroizing;

use super::{Hints, KeyError};

/// The curves that JWE has and peers read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256, secp256r1.
    P256,
    /// NIST P-384, secp384r1.
    P384,
    /// NIST P-521, secp521r1.
    P521,
}

impl Curve {
    /// Size of a coordinate and of a private key in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// As a JWK's `crv` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521].into_iter().find(|curve| curve.name() == name)
    }

    /// From the content of its object identifier (RFC 5480 section 2.1.1.1).
    pub(super) fn from_oid(oid: &[u8]) -> Option<Self> {
        match oid {
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07] => Some(Self::P256),
            [0x2b, 0x81, 0x04, 0x00, 0x22] => Some(Self::P384),
            [0x2b, 0x81, 0x04, 0x00, 0x23] => Some(Self::P521),
            _ => None,
        }
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone)]
enum Secret {
    P256(p256::SecretKey),
    P384(p384::SecretKey),
    P521(p521::SecretKey),
}

#[derive(Clone, PartialEq, Eq)]
enum Point {
    P256(p256::PublicKey),
    P384(p384::PublicKey),
    P521(p521::PublicKey),
}

/// EC private key. Zeroized on drop.
#[derive(Clone)]
pub struct EcPrivate(Secret);

/// EC public key: a point on its curve, not the one at infinity.
#[derive(Clone)]
pub struct EcPublic {
    point: Point,
    pub(crate) hints: Hints,
}

impl fmt::Debug for EcPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EcPrivate({}, ..)", self.curve())
    }
}

impl fmt::Debug for EcPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EcPublic({})", self.curve())
    }
}

/// Equal when the points are.
impl PartialEq for EcPublic {
    fn eq(&self, other: &Self) -> bool {
        self.point == other.point
    }
}

impl Eq for EcPublic {}

impl EcPrivate {
    /// Takes exactly the curve's size in bytes; zero and values above the group's order are refused.
    pub(super) fn from_scalar(curve: Curve, bytes: &[u8]) -> Result<Self, KeyError> {
        let malformed = KeyError::Malformed("EC private key");
        if bytes.len() != curve.size() {
            return Err(malformed);
        }
        let secret = match curve {
            Curve::P256 => p256::SecretKey::from_slice(bytes).map(Secret::P256),
            Curve::P384 => p384::SecretKey::from_slice(bytes).map(Secret::P384),
            Curve::P521 => p521::SecretKey::from_slice(bytes).map(Secret::P521),
        };
        secret.map(Self).map_err(|_| malformed)
    }

    /// A fresh key; none if there is no randomness.
    pub(crate) fn generate(curve: Curve) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 66]);
        let bytes = &mut bytes[..curve.size()];
        // P-521 takes 521 of 528 bits; the others miss once in 2^32 tries or fewer.
        for _ in 0..64 {
            getrandom::fill(bytes).ok()?;
            if curve == Curve::P521 {
                bytes[0] &= 1;
            }
            if let Ok(key) = Self::from_scalar(curve, bytes) {
                return Some(key);
            }
        }
        None
    }

    /// The key's curve.
    pub fn curve(&self) -> Curve {
        match self.0 {
            Secret::P256(_) => Curve::P256,
            Secret::P384(_) => Curve::P384,
            Secret::P521(_) => Curve::P521,
        }
    }

    /// The public half.
    pub fn public(&self) -> EcPublic {
        let point = match &self.0 {
            Secret::P256(key) => Point::P256(key.public_key()),
            Secret::P384(key) => Point::P384(key.public_key()),
            Secret::P521(key) => Point::P521(key.public_key()),
        };
        EcPublic { point, hints: Hints::default() }
    }

    /// The shared x-coordinate; none if the keys are on different curves.
    pub(crate) fn agree(&self, peer: &EcPublic) -> Option<Zeroizing<Vec<u8>>> {
        let shared = match (&self.0, &peer.point) {
            (Secret::P256(key), Point::P256(peer)) => key.diffie_hellman(peer).raw_secret_bytes().to_vec(),
            (Secret::P384(key), Point::P384(peer)) => key.diffie_hellman(peer).raw_secret_bytes().to_vec(),
            (Secret::P521(key), Point::P521(peer)) => key.diffie_hellman(peer).raw_secret_bytes().to_vec(),
            _ => return None,
        };
        Some(Zeroizing::new(shared))
    }
}

impl EcPublic {
    /// Takes a point in SEC 1's form, compressed or not (section 2.3.4).
    pub(super) fn from_sec1(curve: Curve, bytes: &[u8]) -> Result<Self, KeyError> {
        let point = match curve {
            Curve::P256 => p256::PublicKey::from_sec1_bytes(bytes).map(Point::P256),
            Curve::P384 => p384::PublicKey::from_sec1_bytes(bytes).map(Point::P384),
            Curve::P521 => p521::PublicKey::from_sec1_bytes(bytes).map(Point::P521),
        };
        Ok(Self { point: point.map_err(|_| KeyError::Point(curve))?, hints: Hints::default() })
    }

    /// Takes coordinates, each exactly of the curve's size.
    pub(crate) fn from_coordinates(curve: Curve, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        if x.len() != curve.size() || y.len() != curve.size() {
            return Err(KeyError::Point(curve));
        }
        Self::from_sec1(curve, &[&[4], x, y].concat())
    }

    /// x and y, each of the curve's size.
    pub(crate) fn coordinates(&self) -> (Vec<u8>, Vec<u8>) {
        let point = match &self.point {
            Point::P256(key) => key.to_sec1_point(false).as_bytes().to_vec(),
            Point::P384(key) => key.to_sec1_point(false).as_bytes().to_vec(),
            Point::P521(key) => key.to_sec1_point(false).as_bytes().to_vec(),
        };
        let (x, y) = point[1..].split_at(self.curve().size()); // 04 ‖ x ‖ y
        (x.to_vec(), y.to_vec())
    }

    pub(super) fn with_hints(mut self, hints: Hints) -> Self {
        self.hints = hints;
        self
    }

    /// The key's curve.
    pub fn curve(&self) -> Curve {
        match self.point {
            Point::P256(_) => Curve::P256,
            Point::P384(_) => Curve::P384,
            Point::P521(_) => Curve::P521,
        }
    }
}
