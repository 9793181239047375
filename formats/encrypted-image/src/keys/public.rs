//! Public keys in DER: SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), PKCS #1 (RFC 8017 appendix A.1.1),
//! and those inside certificates.

use super::certificate::Certificate;
use super::der::{BIT_STRING, INTEGER, NULL, NotDer, OCTET_STRING, OID, Reader, SEQUENCE};
use super::ec::{Curve, EcPublic};
use super::rsa::RsaPublic;
use super::{KeyError, PublicKey, pem};

/// 1.2.840.113549.1.1.1
pub(super) const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
pub(super) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

pub(super) fn from_pem(blocks: &[pem::Block<'_>]) -> Result<PublicKey, KeyError> {
    // The first: in a file of a certificate chain, the holder's own comes first.
    let Some(block) = blocks.iter().find(|block| pem::is_public(block.label)) else {
        let private = blocks.iter().any(|block| pem::is_private(block.label));
        return Err(if private { KeyError::PrivateForPublic } else { KeyError::NoBlock("public key") });
    };
    let bytes = block.decode()?;
    match block.label {
        pem::PUBLIC_KEY => from_spki(&bytes),
        pem::RSA_PUBLIC_KEY => from_pkcs1(&bytes),
        pem::CERTIFICATE => Ok(Certificate::from_der(&bytes)?.into_public_key()),
        _ => Err(KeyError::Unsupported("a public key of this PEM label")),
    }
}

/// Any of the three, told apart by what they begin with.
pub(super) fn from_der(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    let tags = || {
        let mut outer = Reader::only(bytes, SEQUENCE)?;
        let first = outer.next()?;
        Ok((first.tag, first.content.len(), outer.peek()))
    };
    match tags().map_err(|NotDer| KeyError::NotAKey)? {
        (SEQUENCE, _, Some(BIT_STRING)) => from_spki(bytes),
        (SEQUENCE, _, Some(SEQUENCE)) => Ok(Certificate::from_der(bytes)?.into_public_key()),
        // A modulus is longer than the version that private keys begin with.
        (INTEGER, 2.., Some(INTEGER)) => from_pkcs1(bytes),
        (INTEGER, ..) | (SEQUENCE, _, Some(OCTET_STRING)) => Err(KeyError::PrivateForPublic),
        _ => Err(KeyError::NotAKey),
    }
}

pub(super) fn from_spki(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    let parts = || {
        let mut info = Reader::only(bytes, SEQUENCE)?;
        let mut algorithm = info.nested(SEQUENCE)?;
        let key = info.bit_string()?;
        info.finish()?;
        let oid = algorithm.take(OID)?;
        let parameters = if algorithm.is_empty() { None } else { Some(algorithm.next()?) };
        algorithm.finish()?;
        Ok((oid, parameters.map(|value| (value.tag, value.content)), key))
    };
    let (algorithm, parameters, key) = parts().map_err(|NotDer| KeyError::Malformed("public key"))?;
    match algorithm {
        RSA_ENCRYPTION if parameters.is_none_or(|(tag, _)| tag == NULL) => from_pkcs1(key),
        EC_PUBLIC_KEY => {
            let Some((OID, curve)) = parameters else {
                return Err(KeyError::Unsupported("an EC key with explicit curve parameters"));
            };
            let curve = Curve::from_oid(curve).ok_or(KeyError::Unsupported("an EC key on this curve"))?;
            EcPublic::from_sec1(curve, key).map(PublicKey::Ec)
        }
        _ => Err(KeyError::Unsupported("a key of this algorithm")),
    }
}

fn from_pkcs1(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    let numbers = || {
        let mut key = Reader::only(bytes, SEQUENCE)?;
        let numbers = (key.unsigned()?, key.unsigned()?);
        key.finish().map(|()| numbers)
    };
    let (n, e) = numbers().map_err(|NotDer| KeyError::Malformed("RSA public key"))?;
    RsaPublic::from_numbers(n, e).map(PublicKey::Rsa)
}
