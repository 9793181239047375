//! Public keys of version 4: RFC 9580 5.5.2, 5.5.5 and 5.5.4.2 (fingerprints).

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::cursor::Cursor;

const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

/// What a key verifies with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    /// Ed25519 as GnuPG began it (algorithm 22): its point and signatures are integers.
    EdDsaLegacy(Vec<u8>),
    Ed25519(Vec<u8>),
    /// Keys that can't sign, or not in a way that is accepted here; why.
    Other(&'static str),
}

/// A primary key or a subkey.
#[derive(Clone, Debug)]
pub(super) struct Key {
    body: Vec<u8>,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) material: Material,
    pub(super) id: [u8; 8],
}

impl Key {
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let mut cursor = Cursor::new(body);
        let version = cursor.u8()?;
        if version != 4 {
            return Err(format!("it has a key of version {version}; only version 4 is accepted"));
        }
        let created = u64::from(cursor.u32()?);
        let material = material(cursor.u8()?, &mut cursor)?;
        let mut key = Self { body: body.to_vec(), created, material, id: [0; 8] };
        let fingerprint = digest(&SHA1_FOR_LEGACY_USE_ONLY, &key.hashed()?);
        key.id.copy_from_slice(&fingerprint.as_ref()[12..]);
        Ok(key)
    }

    /// What signatures over this key hash: RFC 9580 5.2.4.
    pub(super) fn hashed(&self) -> Result<Vec<u8>, &'static str> {
        let length = u16::try_from(self.body.len()).map_err(|_| "it has a key that is too long")?;
        let mut bytes = vec![0x99];
        bytes.extend(length.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        Ok(bytes)
    }

    pub(super) fn name(&self) -> String {
        hex::encode_upper(self.id)
    }
}

fn material(algorithm: u8, cursor: &mut Cursor<'_>) -> Result<Material, String> {
    let material = match algorithm {
        1 | 3 => {
            let (modulus, exponent) = (cursor.mpi()?.to_vec(), cursor.mpi()?.to_vec());
            match modulus.len() {
                256..=1024 => Material::Rsa { modulus, exponent },
                _ => Material::Other("is an RSA key of fewer than 2048 bits, or of more than 8192"),
            }
        }
        19 => {
            let length = cursor.u8()?;
            let curve = cursor.take(length.into())?;
            let point = cursor.mpi()?.to_vec();
            match (curve, point.len()) {
                (P256, 65) => Material::P256(point),
                (P384, 97) => Material::P384(point),
                (P256 | P384, _) => return Err("it has an ECDSA key whose point is malformed".into()),
                _ => {
                    return Ok(Material::Other(
                        "is on a curve that isn't accepted; P-256, P-384 and Ed25519 are",
                    ));
                }
            }
        }
        22 => {
            let length = cursor.u8()?;
            let curve = cursor.take(length.into())?;
            let point = cursor.mpi()?;
            match (curve, point.split_first()) {
                (ED25519, Some((0x40, point))) if point.len() == 32 => Material::EdDsaLegacy(point.to_vec()),
                (ED25519, _) => return Err("it has an EdDSA key whose point is malformed".into()),
                _ => {
                    return Ok(Material::Other(
                        "is on a curve that isn't accepted; P-256, P-384 and Ed25519 are",
                    ));
                }
            }
        }
        27 => Material::Ed25519(cursor.take(32)?.to_vec()),
        2 | 16 | 18 | 25 | 26 => return Ok(Material::Other("is only for encryption")),
        17 => return Ok(Material::Other("is a DSA key, which isn't accepted; RSA, ECDSA and Ed25519 are")),
        _ => return Ok(Material::Other("has an algorithm that isn't accepted; RSA, ECDSA and Ed25519 are")),
    };
    cursor.finish()?;
    Ok(material)
}
