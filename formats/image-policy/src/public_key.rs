//! Keys of cosign signatures: PEM of a SubjectPublicKeyInfo (RFC 5280 4.1.2.7; RFC 5480, 8410) or of an
//! RSAPublicKey (RFC 8017 A.1.1). Signatures are over SHA-256 of the payload, Ed25519's over the payload.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
const OID: u8 = 0x06;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    EcdsaP256,
    EcdsaP384,
    Rsa,
    Ed25519,
}

/// A key that cosign signatures are verified with.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    kind: Kind,
    bytes: Vec<u8>,
}

impl PublicKey {
    /// From one PEM block.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(pem).map_err(|_| "the key is not PEM text".to_owned())?.trim();
        let block = |label: &str| {
            let begin = format!("-----BEGIN {label}-----");
            let end = format!("-----END {label}-----");
            text.strip_prefix(&begin)?.strip_suffix(&end).map(str::to_owned)
        };
        if let Some(body) = block("PUBLIC KEY") {
            return Self::from_spki(&decode(&body)?);
        }
        if let Some(body) = block("RSA PUBLIC KEY") {
            return Self::rsa(decode(&body)?);
        }
        Err("the key must be one PEM block, \"PUBLIC KEY\" or \"RSA PUBLIC KEY\"".into())
    }

    fn from_spki(der: &[u8]) -> Result<Self, String> {
        let malformed = || "the key is not a SubjectPublicKeyInfo".to_owned();
        let mut outer = Der(der);
        let mut info = Der(outer.take(SEQUENCE).filter(|_| outer.0.is_empty()).ok_or_else(malformed)?);
        let mut algorithm = Der(info.take(SEQUENCE).ok_or_else(malformed)?);
        let bits = info.take(BIT_STRING).filter(|_| info.0.is_empty()).ok_or_else(malformed)?;
        let Some((0, key)) = bits.split_first() else { return Err(malformed()) };
        let oid = algorithm.take(OID).ok_or_else(malformed)?;
        let kind = match oid {
            EC_PUBLIC_KEY => match algorithm.take(OID) {
                Some(P256) => Kind::EcdsaP256,
                Some(P384) => Kind::EcdsaP384,
                _ => return Err("the key's curve isn't accepted; P-256 and P-384 are".into()),
            },
            RSA => {
                algorithm.take(NULL).filter(|null| null.is_empty()).ok_or_else(malformed)?;
                Kind::Rsa
            }
            ED25519 => Kind::Ed25519,
            _ => return Err("the key's algorithm isn't accepted; ECDSA, RSA and Ed25519 are".into()),
        };
        if !algorithm.0.is_empty() {
            return Err(malformed());
        }
        let length_is_good = match kind {
            Kind::EcdsaP256 => key.len() == 65 && key[0] == 4,
            Kind::EcdsaP384 => key.len() == 97 && key[0] == 4,
            Kind::Ed25519 => key.len() == 32,
            Kind::Rsa => return Self::rsa(key.to_vec()),
        };
        if !length_is_good {
            return Err(malformed());
        }
        Ok(Self { kind, bytes: key.to_vec() })
    }

    fn rsa(der: Vec<u8>) -> Result<Self, String> {
        let mut outer = Der(&der);
        let modulus =
            outer.take(SEQUENCE).filter(|_| outer.0.is_empty()).and_then(|body| Der(body).take(INTEGER));
        let modulus = modulus.ok_or("the key is not an RSAPublicKey")?;
        let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
        if !(256..=1024).contains(&modulus.len()) {
            return Err("RSA keys must have 2048 to 8192 bits".into());
        }
        Ok(Self { kind: Kind::Rsa, bytes: der })
    }

    /// Whether this key made the signature.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self.kind {
            Kind::EcdsaP256 => &signature::ECDSA_P256_SHA256_ASN1,
            Kind::EcdsaP384 => &signature::ECDSA_P384_SHA256_ASN1,
            Kind::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
            Kind::Ed25519 => &signature::ED25519,
        };
        UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok()
    }
}

fn decode(body: &str) -> Result<Vec<u8>, String> {
    let text: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(text).map_err(|_| "the key's PEM is not base64".to_owned())
}

/// What is left of a DER encoding.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The contents of the next element, if it has this tag and the shortest length.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 => {
                rest.split_first().map(|(&n, rest)| (usize::from(n), rest)).filter(|(n, _)| *n >= 0x80)?
            }
            0x82 => {
                let (bytes, rest) = rest.split_first_chunk::<2>()?;
                Some((usize::from(u16::from_be_bytes(*bytes)), rest)).filter(|(n, _)| *n >= 0x100)?
            }
            _ => return None,
        };
        if found != tag {
            return None;
        }
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(contents)
    }
}
