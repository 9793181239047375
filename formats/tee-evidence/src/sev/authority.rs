//! AMD's own certificates in SEV's format: the root (ARK) and the signing key (ASK). AMD 55766 table B-1:
//! a header of 64 bytes, then exponent, modulus and signature, all little-endian.

use std::fmt;

use super::Usage;
use crate::reader::{ReadError, Reader};

/// Why bytes are not a certificate of AMD's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Wrong length, or reserved bytes that are not zero.
    #[error("AMD certificate: {0}")]
    Read(#[from] ReadError),
    /// Another version of the format.
    #[error("AMD certificate has version {0}; only 1 is known")]
    Version(u32),
    /// Neither ARK nor ASK.
    #[error("AMD certificate has usage {0:#x}; 0 (ARK) or 0x13 (ASK) is expected")]
    Usage(u32),
    /// Another size of key than AMD uses.
    #[error(
        "AMD certificate has an exponent of {exponent} bits and a modulus of {modulus}; 2048 or 4096 of each are expected"
    )]
    Size {
        /// Bits of the exponent's field.
        exponent: u32,
        /// Bits of the modulus.
        modulus: u32,
    },
    /// Another exponent than AMD uses.
    #[error("AMD certificate has another public exponent than 65537")]
    Exponent,
    /// The modulus is shorter than it says.
    #[error("AMD certificate's modulus is shorter than its {0} bits")]
    Modulus(u32),
    /// Only a root may lack a signature.
    #[error("AMD certificate of an ASK has no signature")]
    Unsigned,
    /// More certificates than a bundle holds.
    #[error("bundle of AMD certificates holds more than {max}", max = Authority::MAX_BUNDLE)]
    TooMany,
}

/// An ARK or ASK that can be read. Nothing in it is verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    usage: Usage,
    key_id: [u8; 16],
    certifying_id: [u8; 16],
    body: Vec<u8>,
    /// Big-endian.
    modulus: Vec<u8>,
    /// Big-endian.
    signature: Option<Vec<u8>>,
}

impl Authority {
    /// Most certificates in a bundle.
    pub const MAX_BUNDLE: usize = 4;
    const HEADER: usize = 64;

    /// Reads exactly one certificate.
    pub fn parse(bytes: &[u8]) -> Result<Self, AuthorityError> {
        let mut reader = Reader::new(bytes);
        let authority = Self::read(&mut reader, bytes)?;
        reader.finish()?;
        Ok(authority)
    }

    /// Reads certificates that stand one after the other, as AMD publishes them (ASK, then ARK).
    pub fn parse_bundle(bytes: &[u8]) -> Result<Vec<Self>, AuthorityError> {
        let mut found = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            if found.len() == Self::MAX_BUNDLE {
                return Err(AuthorityError::TooMany);
            }
            let authority = Self::read(&mut Reader::new(rest), rest)?;
            rest = &rest[authority.len()..];
            found.push(authority);
        }
        Ok(found)
    }

    fn read(reader: &mut Reader<'_>, bytes: &[u8]) -> Result<Self, AuthorityError> {
        match reader.u32()? {
            1 => {}
            version => return Err(AuthorityError::Version(version)),
        }
        let (key_id, certifying_id) = (reader.array()?, reader.array()?);
        let number = reader.u32()?;
        let usage = match Usage::from_number(number) {
            Some(usage @ (Usage::Ark | Usage::Ask)) => usage,
            _ => return Err(AuthorityError::Usage(number)),
        };
        reader.zero(16)?;
        let (exponent, modulus) = (reader.u32()?, reader.u32()?);
        if exponent != modulus || !matches!(modulus, 2048 | 4096) {
            return Err(AuthorityError::Size { exponent, modulus });
        }
        let len = modulus as usize / 8;
        let (low, high) = reader.take(len)?.split_at(4);
        if low != 65537u32.to_le_bytes() || high.iter().any(|&byte| byte != 0) {
            return Err(AuthorityError::Exponent);
        }
        let big_endian = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
        let modulus_bytes = big_endian(reader.take(len)?);
        if modulus_bytes[0] < 0x80 {
            return Err(AuthorityError::Modulus(modulus));
        }
        let body = bytes[..Self::HEADER + 2 * len].to_vec();
        // AMD's Naples root is published without its signature.
        let signature = if bytes.len() == body.len() && usage == Usage::Ark {
            None
        } else if bytes.len() == body.len() {
            return Err(AuthorityError::Unsigned);
        } else {
            Some(big_endian(reader.take(len)?))
        };
        Ok(Self { usage, key_id, certifying_id, body, modulus: modulus_bytes, signature })
    }

    /// Puts a certificate together: modulus and signature big-endian and of the same length.
    pub fn assemble(
        usage: Usage,
        key_id: &[u8; 16],
        certifying_id: &[u8; 16],
        modulus: &[u8],
        signature: Option<&[u8]>,
    ) -> Vec<u8> {
        let bits = (modulus.len() as u32 * 8).to_le_bytes();
        let mut exponent = vec![0; modulus.len()];
        exponent[..4].copy_from_slice(&65537u32.to_le_bytes());
        let mut out = 1u32.to_le_bytes().to_vec();
        out.extend_from_slice(key_id);
        out.extend_from_slice(certifying_id);
        out.extend_from_slice(&usage.number().to_le_bytes());
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(&bits);
        out.extend_from_slice(&bits);
        out.extend_from_slice(&exponent);
        out.extend(modulus.iter().rev());
        out.extend(signature.unwrap_or_default().iter().rev());
        out
    }

    fn len(&self) -> usize {
        self.body.len() + self.signature.as_ref().map_or(0, Vec::len)
    }

    /// ARK or ASK.
    pub const fn usage(&self) -> Usage {
        self.usage
    }

    /// Name of its key.
    pub const fn key_id(&self) -> &[u8; 16] {
        &self.key_id
    }

    /// Name of the key that signed it.
    pub const fn certifying_id(&self) -> &[u8; 16] {
        &self.certifying_id
    }

    /// What its signature covers: header, exponent and modulus.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// RSA modulus, big-endian; the exponent is 65537.
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// RSA signature, big-endian.
    pub fn signature(&self) -> Option<&[u8]> {
        self.signature.as_deref()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("usage", &self.usage)
            .field("bits", &(self.modulus.len() * 8))
            .field("signed", &self.signature.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Vec<u8> {
        Authority::assemble(Usage::Ask, &[1; 16], &[2; 16], &[0xf1; 256], Some(&[3; 256]))
    }

    fn ark() -> Vec<u8> {
        Authority::assemble(Usage::Ark, &[2; 16], &[2; 16], &[0xf2; 512], None)
    }

    #[test]
    fn what_is_put_together_reads_back() {
        let authority = Authority::parse(&ask()).unwrap();
        assert_eq!(ask().len(), 832);
        assert_eq!((authority.usage(), authority.key_id()), (Usage::Ask, &[1; 16]));
        assert_eq!((authority.modulus(), authority.signature()), (&[0xf1; 256][..], Some(&[3; 256][..])));
        let bundle = Authority::parse_bundle(&[ask(), ark()].concat()).unwrap();
        assert_eq!(bundle[0], authority);
        assert_eq!((bundle[1].usage(), bundle[1].signature()), (Usage::Ark, None));
    }

    #[test]
    fn each_wrong_field_is_refused() {
        let change = |at: usize, value: u8| {
            let mut bytes = ask();
            bytes[at] = value;
            Authority::parse(&bytes).unwrap_err()
        };
        assert_eq!(change(0, 2), AuthorityError::Version(2));
        assert_eq!(change(36, 0x12), AuthorityError::Usage(0x12));
        assert!(matches!(change(55, 1), AuthorityError::Read(ReadError::Reserved { .. })));
        assert!(matches!(change(57, 0), AuthorityError::Size { .. }));
        assert!(matches!(change(61, 0x10), AuthorityError::Size { .. }));
        assert_eq!(change(64, 3), AuthorityError::Exponent);
        assert_eq!(change(70, 3), AuthorityError::Exponent);
        assert_eq!(change(64 + 511, 0x7f), AuthorityError::Modulus(2048));
    }

    #[test]
    fn cut_and_trailing_bytes_are_refused() {
        for len in 0..832 {
            assert!(Authority::parse(&ask()[..len]).is_err(), "{len}");
        }
        assert!(Authority::parse(&[ask(), vec![0]].concat()).is_err());
        assert_eq!(Authority::parse(&ask()[..576]), Err(AuthorityError::Unsigned));
        assert!(Authority::parse_bundle(&[ask(), vec![0]].concat()).is_err());
        assert_eq!(Authority::parse_bundle(&ask().repeat(5)), Err(AuthorityError::TooMany));
    }
}
