//! Signature packets of version 4: RFC 9580 5.2.3, and what they hash, 5.2.4.

use ring::digest;
use ring::signature::{self as algorithms, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

use super::CLOCK_SKEW;
use super::cursor::Cursor;
use super::key::{Key, Material};
use super::subpacket::Subpackets;

/// Over bytes as they are.
pub(super) const BINARY: u8 = 0x00;
pub(super) const SUBKEY_BINDING: u8 = 0x18;
pub(super) const PRIMARY_BINDING: u8 = 0x19;
pub(super) const DIRECT_KEY: u8 = 0x1f;
pub(super) const KEY_REVOCATION: u8 = 0x20;
pub(super) const SUBKEY_REVOCATION: u8 = 0x28;
pub(super) const CERTIFICATION_REVOCATION: u8 = 0x30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// A signature, not yet verified.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    pub(super) kind: u8,
    pub(super) algorithm: u8,
    /// Number of the hash.
    pub(super) hash: u8,
    pub(super) subpackets: Subpackets,
    pub(super) created: u64,
    /// The part of the packet that it covers itself.
    hashed: Vec<u8>,
    /// The algorithm's own part.
    material: Vec<u8>,
}

/// Why a signature can't be verified at all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsupported {
    pub(super) what: String,
    pub(super) next: &'static str,
}

impl Signature {
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        Self::parse_at(body, 0)
    }

    pub(super) fn parse_at(body: &[u8], depth: u8) -> Result<Self, String> {
        let mut cursor = Cursor::new(body);
        let version = cursor.u8()?;
        if version != 4 {
            return Err(format!("it is a signature of version {version}; only version 4 is accepted"));
        }
        let (kind, algorithm, hash) = (cursor.u8()?, cursor.u8()?, cursor.u8()?);
        let length = cursor.u16()?;
        let area = cursor.take(length.into())?;
        let hashed = body[..6 + area.len()].to_vec();
        let mut subpackets = Subpackets::default();
        subpackets.add(area, true, depth)?;
        let length = cursor.u16()?;
        subpackets.add(cursor.take(length.into())?, false, depth)?;
        // The beginning of the hash, which only speeds up a search.
        cursor.take(2)?;
        let created = subpackets.created.ok_or("it has no creation time")?;
        Ok(Self { kind, algorithm, hash, subpackets, created, hashed, material: cursor.rest().to_vec() })
    }

    /// Whether `now` is within its life.
    pub(super) fn life(&self, now: u64) -> Life {
        let ends =
            self.subpackets.expires_after.filter(|after| *after != 0).map(|after| self.created + after);
        match ends {
            _ if self.created > now + CLOCK_SKEW => Life::Future,
            Some(ends) if ends <= now => Life::Over,
            _ => Life::Current,
        }
    }

    /// Whether `key` made it over `data`.
    pub(super) fn verifies(&self, key: &Key, mut data: Vec<u8>) -> Result<bool, Unsupported> {
        let hash = self.hash()?;
        data.extend_from_slice(&self.hashed);
        data.extend([4, 0xff]);
        // The area's length has 16 bits, so this fits.
        data.extend(u32::try_from(self.hashed.len()).unwrap_or(u32::MAX).to_be_bytes());
        Ok(match (&key.material, self.algorithm) {
            (Material::Rsa { modulus, exponent }, 1 | 3) => self.rsa(modulus, exponent, hash, &data),
            (Material::P256(point), 19) => {
                let algorithm: &dyn VerificationAlgorithm = match hash {
                    Hash::Sha256 => &algorithms::ECDSA_P256_SHA256_ASN1,
                    Hash::Sha384 => &algorithms::ECDSA_P256_SHA384_ASN1,
                    Hash::Sha512 => return Err(unsupported_pair()),
                };
                self.ecdsa(algorithm, point, &data)
            }
            (Material::P384(point), 19) => {
                let algorithm: &dyn VerificationAlgorithm = match hash {
                    Hash::Sha256 => &algorithms::ECDSA_P384_SHA256_ASN1,
                    Hash::Sha384 => &algorithms::ECDSA_P384_SHA384_ASN1,
                    Hash::Sha512 => return Err(unsupported_pair()),
                };
                self.ecdsa(algorithm, point, &data)
            }
            (Material::EdDsaLegacy(point), 22) => {
                self.eddsa_legacy().is_some_and(|signature| ed25519(point, hash, &data, &signature))
            }
            (Material::Ed25519(point), 27) => ed25519(point, hash, &data, &self.material),
            _ => false,
        })
    }

    pub(super) fn hash(&self) -> Result<Hash, Unsupported> {
        match self.hash {
            8 => Ok(Hash::Sha256),
            9 => Ok(Hash::Sha384),
            10 => Ok(Hash::Sha512),
            1..=3 => Err(Unsupported {
                what: "a signature over MD5, SHA-1 or RIPEMD-160".into(),
                next: "sign again with gpg's --digest-algo SHA256 (for keys: --cert-digest-algo SHA256)",
            }),
            other => Err(Unsupported {
                what: format!("a signature over hash {other}"),
                next: "sign again with gpg's --digest-algo SHA256",
            }),
        }
    }

    fn rsa(&self, modulus: &[u8], exponent: &[u8], hash: Hash, data: &[u8]) -> bool {
        let mut cursor = Cursor::new(&self.material);
        let Ok(integer) = cursor.mpi() else { return false };
        if cursor.finish().is_err() || integer.len() > modulus.len() {
            return false;
        }
        let mut signature = vec![0; modulus.len() - integer.len()];
        signature.extend_from_slice(integer);
        let parameters = match hash {
            Hash::Sha256 => &algorithms::RSA_PKCS1_2048_8192_SHA256,
            Hash::Sha384 => &algorithms::RSA_PKCS1_2048_8192_SHA384,
            Hash::Sha512 => &algorithms::RSA_PKCS1_2048_8192_SHA512,
        };
        RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, data, &signature).is_ok()
    }

    fn ecdsa(&self, algorithm: &dyn VerificationAlgorithm, point: &[u8], data: &[u8]) -> bool {
        let mut cursor = Cursor::new(&self.material);
        let (Ok(r), Ok(s), Ok(())) = (cursor.mpi(), cursor.mpi(), cursor.finish()) else { return false };
        let Some(signature) = ecdsa_der(r, s) else { return false };
        algorithm.verify(point.into(), data.into(), signature.as_slice().into()).is_ok()
    }

    /// Both halves are integers there, without their leading zeros.
    fn eddsa_legacy(&self) -> Option<[u8; 64]> {
        let mut cursor = Cursor::new(&self.material);
        let (r, s) = (cursor.mpi().ok()?, cursor.mpi().ok()?);
        cursor.finish().ok()?;
        let mut signature = [0; 64];
        signature[32_usize.checked_sub(r.len())?..32].copy_from_slice(r);
        signature[64_usize.checked_sub(s.len()).filter(|from| *from >= 32)?..].copy_from_slice(s);
        Some(signature)
    }
}

/// OpenPGP signs the hash with Ed25519, not the message.
fn ed25519(point: &[u8], hash: Hash, data: &[u8], signature: &[u8]) -> bool {
    let algorithm = match hash {
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    };
    let hash = digest::digest(algorithm, data);
    UnparsedPublicKey::new(&algorithms::ED25519, point).verify(hash.as_ref(), signature).is_ok()
}

/// `SEQUENCE { r INTEGER, s INTEGER }` of two integers without leading zeros.
fn ecdsa_der(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    for integer in [r, s] {
        let sign = integer.first().is_none_or(|byte| byte & 0x80 != 0);
        body.extend([
            0x02,
            u8::try_from(integer.len() + usize::from(sign)).ok().filter(|length| *length < 0x80)?,
        ]);
        if sign {
            body.push(0);
        }
        body.extend_from_slice(integer);
    }
    let mut der = vec![0x30, u8::try_from(body.len()).ok().filter(|length| *length < 0x80)?];
    der.extend(body);
    Some(der)
}

fn unsupported_pair() -> Unsupported {
    Unsupported {
        what: "an ECDSA signature over SHA-512".into(),
        next: "sign again with gpg's --digest-algo SHA256 or SHA384",
    }
}

/// Where `now` is in a signature's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Future,
    Current,
    Over,
}
