//! Private keys in DER: PKCS #1 (RFC 8017 appendix A.1.2), PKCS #8 (RFC 5958), SEC 1 (RFC 5915).

use super::der::{
    self, BIT_STRING, INTEGER, NULL, NotDer, OCTET_STRING, OID, Reader, SEQUENCE, context, context_primitive,
};
use super::ec::{Curve, EcPrivate, EcPublic};
use super::public::{EC_PUBLIC_KEY, RSA_ENCRYPTION};
use super::rsa::RsaPrivate;
use super::{KeyError, PrivateKey, pem};

/// True of `EncryptedPrivateKeyInfo` (RFC 5958 section 3).
pub(super) fn is_encrypted(bytes: &[u8]) -> bool {
    let parts = || {
        let mut info = Reader::only(bytes, SEQUENCE)?;
        info.take(SEQUENCE)?;
        info.take(OCTET_STRING)?;
        info.finish()
    };
    parts().is_ok()
}

/// Any of the three, told apart by what follows the version.
pub(super) fn from_der(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    if is_encrypted(bytes) {
        return Err(KeyError::Encrypted);
    }
    let second = || {
        let mut info = Reader::only(bytes, SEQUENCE)?;
        let version = info.optional(INTEGER)?;
        Ok((version.map(<[u8]>::len), info.peek()))
    };
    match second().map_err(|NotDer| KeyError::NotAKey)? {
        (Some(1), Some(INTEGER)) => from_pkcs1(bytes),
        (Some(1), Some(SEQUENCE)) => from_pkcs8(bytes),
        (Some(1), Some(OCTET_STRING)) => from_sec1(bytes, None),
        (None, Some(SEQUENCE)) | (Some(_), Some(INTEGER)) => Err(KeyError::PublicForPrivate),
        _ => Err(KeyError::NotAKey),
    }
}

/// What a PEM label says the DER is.
pub(super) fn from_labelled(label: &str, bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    match label {
        pem::PRIVATE_KEY => from_pkcs8(bytes),
        pem::RSA_PRIVATE_KEY => from_pkcs1(bytes),
        pem::EC_PRIVATE_KEY => from_sec1(bytes, None),
        _ => Err(KeyError::Unsupported("a private key of this PEM label")),
    }
}

pub(super) fn from_pkcs8(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    let (algorithm, parameters, key) =
        pkcs8_parts(bytes).map_err(|NotDer| KeyError::Malformed("PKCS #8 key"))?;
    match algorithm {
        RSA_ENCRYPTION if parameters.is_none_or(|tag| tag.0 == NULL) => from_pkcs1(key),
        EC_PUBLIC_KEY => match parameters {
            Some((OID, curve)) => from_sec1(key, Some(curve)),
            _ => Err(KeyError::Unsupported("an EC key with explicit curve parameters")),
        },
        _ => Err(KeyError::Unsupported("a key of this algorithm")),
    }
}

/// Algorithm, its parameters' tag and content, and the inner key.
type Pkcs8Parts<'a> = (&'a [u8], Option<(u8, &'a [u8])>, &'a [u8]);

fn pkcs8_parts(bytes: &[u8]) -> Result<Pkcs8Parts<'_>, NotDer> {
    let mut info = Reader::only(bytes, SEQUENCE)?;
    if info.small()? > 1 {
        return Err(NotDer);
    }
    let mut algorithm = info.nested(SEQUENCE)?;
    let key = info.take(OCTET_STRING)?;
    info.optional(context(0))?; // attributes
    info.optional(context_primitive(1))?; // public key, of version 1
    info.finish()?;
    let oid = algorithm.take(OID)?;
    let parameters = if algorithm.is_empty() { None } else { Some(algorithm.next()?) };
    algorithm.finish()?;
    Ok((oid, parameters.map(|value| (value.tag, value.content)), key))
}

fn from_pkcs1(bytes: &[u8]) -> Result<PrivateKey, KeyError> {
    let malformed = |NotDer| KeyError::Malformed("PKCS #1 key");
    let mut key = Reader::only(bytes, SEQUENCE).map_err(malformed)?;
    let version = key.small().map_err(malformed)?;
    let mut numbers = [[].as_slice(); 8]; // n, e, d, p, q, d mod p-1, d mod q-1, 1/q mod p
    for number in &mut numbers {
        *number = key.unsigned().map_err(malformed)?;
    }
    if version == 1 {
        return Err(KeyError::Unsupported("an RSA key of more than two primes"));
    }
    if version > 1 {
        return Err(malformed(NotDer));
    }
    key.finish().map_err(malformed)?;
    // The last three are computed anew: what a file says of them would go unchecked.
    let [n, e, d, p, q, ..] = numbers;
    RsaPrivate::from_numbers(n, e, d, &[p, q]).map(PrivateKey::Rsa)
}

/// `outer` is the curve that PKCS #8 names.
fn from_sec1(bytes: &[u8], outer: Option<&[u8]>) -> Result<PrivateKey, KeyError> {
    let parts = sec1_parts(bytes).map_err(|NotDer| KeyError::Malformed("SEC 1 key"))?;
    let inner = match parts.parameters {
        None => None,
        Some((OID, curve)) => Some(curve),
        Some(_) => return Err(KeyError::Unsupported("an EC key with explicit curve parameters")),
    };
    let oid = match (outer, inner) {
        (Some(outer), Some(inner)) if outer != inner => return Err(KeyError::Inconsistent("EC")),
        (Some(oid), _) | (None, Some(oid)) => oid,
        (None, None) => return Err(KeyError::Malformed("SEC 1 key without its curve")),
    };
    let curve = Curve::from_oid(oid).ok_or(KeyError::Unsupported("an EC key on this curve"))?;
    let key = EcPrivate::from_scalar(curve, parts.scalar)?;
    if let Some(point) = parts.point
        && EcPublic::from_sec1(curve, point)? != key.public()
    {
        return Err(KeyError::Inconsistent("EC"));
    }
    Ok(PrivateKey::Ec(key))
}

struct Sec1Parts<'a> {
    scalar: &'a [u8],
    parameters: Option<(u8, &'a [u8])>,
    point: Option<&'a [u8]>,
}

fn sec1_parts(bytes: &[u8]) -> Result<Sec1Parts<'_>, NotDer> {
    let mut key = Reader::only(bytes, SEQUENCE)?;
    if key.small()? != 1 {
        return Err(NotDer);
    }
    let scalar = key.take(OCTET_STRING)?;
    let only = |bytes| {
        let mut reader = Reader::new(bytes);
        let value: der::Value<'_> = reader.next()?;
        reader.finish().map(|()| value)
    };
    let parameters = key.optional(context(0))?.map(only).transpose()?.map(|value| (value.tag, value.content));
    let point = match key.optional(context(1))?.map(only).transpose()? {
        None => None,
        Some(der::Value { tag: BIT_STRING, content: [0, point @ ..], .. }) => Some(point),
        Some(_) => return Err(NotDer),
    };
    key.finish()?;
    Ok(Sec1Parts { scalar, parameters, point })
}
