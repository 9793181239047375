//! The certificates of a platform and of a guest owner: CEK, OCA, PEK, PDH, and the guest owner's
//! Diffie-Hellman key (GODH). 2084 bytes, AMD 55766 table C-1: a body of 1044 bytes and two signature slots of 520.

use std::fmt;

use crate::reader::{ReadError, Reader};

/// What a key is for, and whose signature a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// AMD root key.
    Ark,
    /// AMD signing key.
    Ask,
    /// Owner's certificate authority.
    Oca,
    /// Platform endorsement key.
    Pek,
    /// Platform Diffie-Hellman key.
    Pdh,
    /// Chip endorsement key.
    Cek,
}

impl Usage {
    const ALL: [(Self, u32); 6] = [
        (Self::Ark, 0),
        (Self::Ask, 0x13),
        (Self::Oca, 0x1001),
        (Self::Pek, 0x1002),
        (Self::Pdh, 0x1003),
        (Self::Cek, 0x1004),
    ];

    /// What stands in a slot that holds nothing.
    const EMPTY: u32 = 0x1000;

    /// From its number in a certificate.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == number).map(|(usage, _)| usage)
    }

    /// Its number in a certificate.
    pub const fn number(self) -> u32 {
        match self {
            Self::Ark => 0,
            Self::Ask => 0x13,
            Self::Oca => 0x1001,
            Self::Pek => 0x1002,
            Self::Pdh => 0x1003,
            Self::Cek => 0x1004,
        }
    }

    /// Its name in AMD's documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ark => "ARK",
            Self::Ask => "ASK",
            Self::Oca => "OCA",
            Self::Pek => "PEK",
            Self::Pdh => "PDH",
            Self::Cek => "CEK",
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An algorithm with the hash that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSA-PSS with SHA-256.
    RsaSha256,
    /// ECDSA with SHA-256.
    EcdsaSha256,
    /// ECDH with SHA-256.
    EcdhSha256,
    /// RSA-PSS with SHA-384.
    RsaSha384,
    /// ECDSA with SHA-384.
    EcdsaSha384,
    /// ECDH with SHA-384.
    EcdhSha384,
}

impl Algorithm {
    /// From its number in a certificate.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0x001 => Self::RsaSha256,
            0x002 => Self::EcdsaSha256,
            0x003 => Self::EcdhSha256,
            0x101 => Self::RsaSha384,
            0x102 => Self::EcdsaSha384,
            0x103 => Self::EcdhSha384,
            _ => return None,
        })
    }

    /// Its number in a certificate.
    pub const fn number(self) -> u32 {
        match self {
            Self::RsaSha256 => 0x001,
            Self::EcdsaSha256 => 0x002,
            Self::EcdhSha256 => 0x003,
            Self::RsaSha384 => 0x101,
            Self::EcdsaSha384 => 0x102,
            Self::EcdhSha384 => 0x103,
        }
    }
}

/// Why bytes are not a certificate that we use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Wrong length, or reserved bytes that are not zero.
    #[error("SEV certificate: {0}")]
    Read(#[from] ReadError),
    /// Another version of the format.
    #[error("SEV certificate has version {0}; only 1 is known")]
    Version(u32),
    /// Not a key of a platform or guest owner.
    #[error("SEV certificate has the unknown usage {0:#x}")]
    Usage(u32),
    /// The key's algorithm does not go with its usage.
    #[error("SEV certificate of a {usage} has a key of algorithm {algorithm:#x}")]
    KeyAlgorithm {
        /// What it is for.
        usage: Usage,
        /// What it says.
        algorithm: u32,
    },
    /// Firmware that takes other curves leaks its keys (CVE-2019-9836).
    #[error(
        "SEV certificate of a {usage} has a key on curve {curve}; only P-384 (2) is taken (CVE-2019-9836)"
    )]
    Curve {
        /// What it is for.
        usage: Usage,
        /// The curve's number.
        curve: u32,
    },
    /// A slot with a signature of an unknown kind.
    #[error(
        "SEV certificate of a {usage}: signature slot {slot} has usage {of:#x} and algorithm {algorithm:#x}"
    )]
    Slot {
        /// Whose certificate.
        usage: Usage,
        /// 0 or 1.
        slot: usize,
        /// Whose signature it says.
        of: u32,
        /// Its algorithm.
        algorithm: u32,
    },
    /// Two slots by one signer: which of them counts would be a guess.
    #[error("SEV certificate of a {usage} has two signatures of a {by}")]
    TwoSignatures {
        /// Whose certificate.
        usage: Usage,
        /// Whose signatures.
        by: Usage,
    },
}

/// A point on P-384 as a certificate states it: nobody has checked that it is on the curve.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// x, big-endian.
    pub x: [u8; 48],
    /// y, big-endian.
    pub y: [u8; 48],
}

impl Point {
    /// SEC 1 uncompressed form: 04 ‖ x ‖ y.
    pub fn to_sec1(&self) -> [u8; 97] {
        let mut out = [4; 97];
        out[1..49].copy_from_slice(&self.x);
        out[49..].copy_from_slice(&self.y);
        out
    }

    /// From the SEC 1 uncompressed form.
    pub fn from_sec1(bytes: &[u8; 97]) -> Option<Self> {
        let (mut x, mut y) = ([0; 48], [0; 48]);
        x.copy_from_slice(&bytes[1..49]);
        y.copy_from_slice(&bytes[49..]);
        (bytes[0] == 4).then_some(Self { x, y })
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        write!(f, "Point({}, {})", hex(&self.x), hex(&self.y))
    }
}

/// What a filled signature slot holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// Who signed, as the slot says.
    pub by: Usage,
    /// With what.
    pub algorithm: Algorithm,
    /// The 512 bytes as they stand there.
    value: [u8; Self::LEN],
}

impl Signature {
    const LEN: usize = 512;
    const NUMBER: usize = 72;

    /// An ECDSA signature: r ‖ s, 48 bytes big-endian each.
    pub fn from_ecdsa(by: Usage, algorithm: Algorithm, fixed: &[u8; 96]) -> Self {
        let mut value = [0; Self::LEN];
        for (from, at) in [(0, 0), (48, Self::NUMBER)] {
            value[at..at + 48].copy_from_slice(&fixed[from..from + 48]);
            value[at..at + 48].reverse();
        }
        Self { by, algorithm, value }
    }

    /// An RSA signature, big-endian, of at most 512 bytes; `None` if it is longer.
    pub fn from_rsa(by: Usage, algorithm: Algorithm, big_endian: &[u8]) -> Option<Self> {
        let mut value = [0; Self::LEN];
        let place = value.get_mut(..big_endian.len())?;
        place.copy_from_slice(big_endian);
        place.reverse();
        Some(Self { by, algorithm, value })
    }

    /// As r ‖ s, 48 bytes big-endian each. `None` if a number is longer than that or padding is not zero:
    /// there is one way to write a signature.
    pub fn ecdsa(&self) -> Option<[u8; 96]> {
        let mut out = [0; 96];
        for (to, at) in [(0, 0), (48, Self::NUMBER)] {
            let (number, padding) = self.value[at..at + Self::NUMBER].split_at(48);
            if padding.iter().any(|&byte| byte != 0) {
                return None;
            }
            out[to..to + 48].copy_from_slice(number);
            out[to..to + 48].reverse();
        }
        self.value[2 * Self::NUMBER..].iter().all(|&byte| byte == 0).then_some(out)
    }

    /// As an RSA signature of `len` bytes, big-endian. `None` if the bytes after it are not zero.
    pub fn rsa(&self, len: usize) -> Option<Vec<u8>> {
        let (number, padding) = self.value.split_at_checked(len)?;
        let zero = padding.iter().all(|&byte| byte == 0);
        zero.then(|| number.iter().rev().copied().collect())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature(by {}, {:?})", self.by, self.algorithm)
    }
}

/// What a certificate says before anyone signs it.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned {
    /// Firmware API that made it: major, minor.
    pub api: (u8, u8),
    /// What the key is for: one of CEK, OCA, PEK, PDH.
    pub usage: Usage,
    /// With what it is used.
    pub algorithm: Algorithm,
    /// The public key.
    pub key: Point,
}

impl Unsigned {
    /// The 1044 bytes that are signed.
    pub fn body(&self) -> [u8; Certificate::BODY] {
        let mut body = [0; Certificate::BODY];
        let mut put = |at: usize, bytes: &[u8]| body[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &1u32.to_le_bytes());
        put(4, &[self.api.0, self.api.1]);
        put(8, &self.usage.number().to_le_bytes());
        put(12, &self.algorithm.number().to_le_bytes());
        put(16, &Certificate::P384.to_le_bytes());
        let little = |number: [u8; 48]| {
            let mut number = number;
            number.reverse();
            number
        };
        put(20, &little(self.key.x));
        put(92, &little(self.key.y));
        body
    }
}

/// A certificate that can be read. Nothing in it is verified; its key may not even be on the curve.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    raw: Box<[u8; Self::LEN]>,
    api: (u8, u8),
    usage: Usage,
    algorithm: Algorithm,
    key: Point,
    signatures: [Option<Signature>; 2],
}

impl Certificate {
    /// Bytes of a certificate.
    pub const LEN: usize = 2084;
    /// Bytes that are signed.
    pub const BODY: usize = 1044;
    const P384: u32 = 2;

    /// Reads exactly [`Certificate::LEN`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        let mut reader = Reader::new(bytes);
        let mut raw = Box::new([0; Self::LEN]);
        raw.copy_from_slice(reader.take(Self::LEN)?);
        reader.finish()?;

        let mut reader = Reader::new(raw.as_slice());
        match reader.u32()? {
            1 => {}
            version => return Err(CertificateError::Version(version)),
        }
        let api = (reader.u8()?, reader.u8()?);
        reader.zero(2)?;
        let number = reader.u32()?;
        let usage = Usage::from_number(number)
            .filter(|usage| !matches!(usage, Usage::Ark | Usage::Ask))
            .ok_or(CertificateError::Usage(number))?;
        let number = reader.u32()?;
        let algorithm = Algorithm::from_number(number)
            .filter(|algorithm| match usage {
                Usage::Pdh => matches!(algorithm, Algorithm::EcdhSha256 | Algorithm::EcdhSha384),
                _ => matches!(algorithm, Algorithm::EcdsaSha256 | Algorithm::EcdsaSha384),
            })
            .ok_or(CertificateError::KeyAlgorithm { usage, algorithm: number })?;
        match reader.u32()? {
            Self::P384 => {}
            curve => return Err(CertificateError::Curve { usage, curve }),
        }
        let mut key = Point { x: reader.array()?, y: [0; 48] };
        reader.zero(24)?;
        key.y = reader.array()?;
        reader.zero(24)?;
        key.x.reverse();
        key.y.reverse();
        // What is left of the 1028 bytes that any key may fill.
        reader.zero(1028 - 4 - 2 * 72)?;
        let signatures = [slot(&mut reader, usage, 0)?, slot(&mut reader, usage, 1)?];
        reader.finish()?;
        if let [Some(one), Some(other)] = &signatures
            && one.by == other.by
        {
            return Err(CertificateError::TwoSignatures { usage, by: one.by });
        }
        Ok(Self { raw, api, usage, algorithm, key, signatures })
    }

    /// Puts a certificate together; slots are filled from the first.
    pub fn assemble(unsigned: &Unsigned, signatures: &[Option<Signature>; 2]) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..Self::BODY].copy_from_slice(&unsigned.body());
        for (slot, signature) in signatures.iter().enumerate() {
            let at = Self::BODY + slot * (8 + Signature::LEN);
            let (by, algorithm) = match signature {
                Some(signature) => (signature.by.number(), signature.algorithm.number()),
                None => (Usage::EMPTY, 0),
            };
            out[at..at + 4].copy_from_slice(&by.to_le_bytes());
            out[at + 4..at + 8].copy_from_slice(&algorithm.to_le_bytes());
            if let Some(signature) = signature {
                out[at + 8..at + 8 + Signature::LEN].copy_from_slice(&signature.value);
            }
        }
        out
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8; Self::LEN] {
        &self.raw
    }

    /// What signatures cover.
    pub fn body(&self) -> &[u8] {
        &self.raw[..Self::BODY]
    }

    /// Firmware API that made it: major, minor.
    pub const fn api(&self) -> (u8, u8) {
        self.api
    }

    /// What its key is for.
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// With what its key is used.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its key, which may not be on the curve.
    pub const fn key(&self) -> &Point {
        &self.key
    }

    /// The signature that says to be of this kind of key. Slots are found by what they say, never by
    /// their place.
    pub fn signature(&self, by: Usage) -> Option<&Signature> {
        self.signatures.iter().flatten().find(|signature| signature.by == by)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("usage", &self.usage)
            .field("api", &self.api)
            .field("key", &self.key)
            .field("signatures", &self.signatures)
            .finish_non_exhaustive()
    }
}

/// A slot of zeros holds nothing, whoever it names: firmware exports a CEK with ASK's slot in that state.
fn slot(reader: &mut Reader<'_>, usage: Usage, slot: usize) -> Result<Option<Signature>, CertificateError> {
    let (of, number) = (reader.u32()?, reader.u32()?);
    let value = reader.array::<{ Signature::LEN }>()?;
    let unknown = CertificateError::Slot { usage, slot, of, algorithm: number };
    if value.iter().all(|&byte| byte == 0) {
        let known = of == Usage::EMPTY || Usage::from_number(of).is_some();
        return if known { Ok(None) } else { Err(unknown) };
    }
    let algorithm = Algorithm::from_number(number)
        .filter(|algorithm| !matches!(algorithm, Algorithm::EcdhSha256 | Algorithm::EcdhSha384));
    match (Usage::from_number(of), algorithm) {
        (Some(by), Some(algorithm)) => Ok(Some(Signature { by, algorithm, value })),
        _ => Err(unknown),
    }
}

#[cfg(test)]
mod tests;
