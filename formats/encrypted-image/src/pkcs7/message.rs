//! Reading EnvelopedData (RFC 5652 section 6.1) and AuthEnvelopedData (RFC 5083 section 2.1), in DER but for
//! the AES-GCM parameters of ocicrypt. Indefinite lengths are refused.

use super::{Cipher, MAX_MESSAGE, MAX_PLAINTEXT, MAX_RECIPIENTS, Pkcs7Error};
use crate::keys::Certificate;
use crate::keys::der::{
    INTEGER, NULL, NotDer, OCTET_STRING, OID, Reader, SEQUENCE, SET, Value, context, context_primitive, value,
};
use crate::pkcs11::OaepHash;

/// 1.2.840.113549.1.7.1
pub(super) const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.7.3
pub(super) const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.9.16.1.23
pub(super) const AUTH_ENVELOPED_DATA: &[u8] =
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x17];
/// 1.2.840.113549.1.1.1
pub(super) const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.113549.1.1.7
const RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
/// 1.2.840.113549.1.1.8
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 1.3.14.3.2.26
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// 2.16.840.1.101.3.4.2.1
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 2.16.840.1.101.3.4.1, of which AES in its modes are children.
const AES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];
/// The child of [`AES`] that is AES-128 in GCM.
pub(super) const AES_128_GCM: u8 = 6;
/// The tag of ocicrypt's AES-GCM parameters: a SEQUENCE that claims to be primitive.
pub(super) const PRIMITIVE_SEQUENCE: u8 = 0x10;

/// A message, read but not yet believed.
pub(super) struct Message<'a> {
    pub(super) recipients: Vec<Recipient<'a>>,
    pub(super) cipher: Cipher,
    pub(super) nonce: [u8; 12],
    pub(super) ciphertext: &'a [u8],
    pub(super) tag: [u8; 16],
    pub(super) aad: Vec<u8>,
}

pub(super) struct Recipient<'a> {
    /// Issuer in DER and content of the serial number; none if it is named by a key identifier.
    id: Option<(&'a [u8], &'a [u8])>,
    pub(super) transport: Transport,
    pub(super) encrypted_key: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    V15,
    Oaep(OaepHash),
}

impl Recipient<'_> {
    /// True also of a recipient named by key identifier, which only trying tells.
    pub(super) fn is(&self, certificate: &Certificate) -> bool {
        self.id
            .is_none_or(|(issuer, serial)| issuer == certificate.issuer() && serial == certificate.serial())
    }
}

fn malformed(part: &'static str) -> impl Fn(NotDer) -> Pkcs7Error {
    move |NotDer| Pkcs7Error::Malformed(part)
}

impl<'a> Message<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Pkcs7Error> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Pkcs7Error::TooLarge);
        }
        let content_info = || {
            let mut info = Reader::only(bytes, SEQUENCE)?;
            let kind = info.take(OID)?;
            let content = info.take(context(0))?;
            info.finish()?;
            Ok((kind, Reader::only(content, SEQUENCE)?))
        };
        let (kind, mut data) = content_info().map_err(malformed("the CMS message"))?;
        let authenticated = match kind {
            ENVELOPED_DATA => false,
            AUTH_ENVELOPED_DATA => true,
            _ => return Err(Pkcs7Error::Unsupported("a CMS message other than (Auth)EnvelopedData")),
        };
        let head = |data: &mut Reader<'a>| {
            data.small()?; // version: what it says follows from the rest
            data.optional(context(0))?; // originator's certificates
            let recipients = data.nested(SET)?;
            Ok((recipients, data.nested(SEQUENCE)?))
        };
        let (recipients, content) = head(&mut data).map_err(malformed("the CMS message"))?;
        let (cipher, nonce, encrypted) = encrypted_content(content)?;
        let (ciphertext, tag, aad) = if authenticated {
            let (aad, mac) = authentication(data).map_err(malformed("the CMS message's end"))?;
            (encrypted, mac, aad)
        } else {
            data.optional(context(1)).map_err(malformed("the CMS message's end"))?; // unprotected attributes
            data.finish().map_err(malformed("the CMS message's end"))?;
            let at = encrypted.len().checked_sub(16).ok_or(Pkcs7Error::Malformed("the encrypted content"))?;
            let (ciphertext, tag) = encrypted.split_at(at);
            (ciphertext, tag, Vec::new())
        };
        if ciphertext.len() > MAX_PLAINTEXT {
            return Err(Pkcs7Error::Malformed("encrypted content, larger than any private options,"));
        }
        let tag =
            tag.try_into().map_err(|_| Pkcs7Error::Malformed("an AES-GCM tag of other than 16 bytes"))?;
        Ok(Self { recipients: read_recipients(recipients)?, cipher, nonce, ciphertext, tag, aad })
    }
}

/// Authenticated attributes as AES-GCM covers them (RFC 5083 section 2.2: with the tag of a SET), and the tag.
fn authentication(mut data: Reader<'_>) -> Result<(Vec<u8>, &[u8]), NotDer> {
    let attributes = data.optional(context(1))?;
    let mac = data.take(OCTET_STRING)?;
    data.optional(context(2))?; // unauthenticated attributes
    data.finish()?;
    Ok((attributes.map_or_else(Vec::new, |attributes| value(SET, &[attributes])), mac))
}

/// Recipients by key transport that can be read; others are somebody else's.
fn read_recipients(mut set: Reader<'_>) -> Result<Vec<Recipient<'_>>, Pkcs7Error> {
    let bad = || malformed("a recipient of the CMS message");
    let mut recipients = Vec::new();
    let mut count = 0;
    while !set.is_empty() {
        count += 1;
        if count > MAX_RECIPIENTS {
            return Err(Pkcs7Error::TooManyRecipients);
        }
        let info = set.next().map_err(bad())?;
        if info.tag == SEQUENCE {
            recipients.extend(key_transport(Reader::new(info.content)).map_err(bad())?);
        }
    }
    Ok(recipients)
}

/// RFC 5652 section 6.2.1. None of another algorithm.
fn key_transport(mut info: Reader<'_>) -> Result<Option<Recipient<'_>>, NotDer> {
    info.small()?; // 0 with issuer and serial number, 2 with a key identifier
    let id = if info.peek() == Some(SEQUENCE) {
        let mut id = info.nested(SEQUENCE)?;
        let issuer = id.next()?;
        let serial = id.take(INTEGER)?;
        id.finish()?;
        if issuer.tag != SEQUENCE {
            return Err(NotDer);
        }
        Some((issuer.whole, serial))
    } else {
        info.take(context_primitive(0))?;
        None
    };
    let mut algorithm = info.nested(SEQUENCE)?;
    let encrypted_key = info.take(OCTET_STRING)?;
    info.finish()?;
    let transport = match algorithm.take(OID)? {
        RSA_ENCRYPTION => {
            algorithm.optional(NULL)?;
            algorithm.finish()?;
            Some(Transport::V15)
        }
        RSAES_OAEP => oaep(algorithm)?.map(Transport::Oaep),
        _ => None,
    };
    Ok(transport.map(|transport| Recipient { id, transport, encrypted_key }))
}

/// RFC 4055 section 4.1; the defaults are SHA-1. None if the two hashes differ, or there is a label.
fn oaep(mut algorithm: Reader<'_>) -> Result<Option<OaepHash>, NotDer> {
    let mut parameters = algorithm.nested(SEQUENCE)?;
    algorithm.finish()?;
    let hash = parameters.optional(context(0))?.map_or(Ok(SHA1), |bytes| hash(Reader::new(bytes)))?;
    let mgf_hash = match parameters.optional(context(1))? {
        None => SHA1,
        Some(bytes) => {
            let mut mgf = Reader::only(bytes, SEQUENCE)?;
            if mgf.take(OID)? != MGF1 {
                return Ok(None);
            }
            hash_of(mgf)?
        }
    };
    let label = parameters.optional(context(2))?;
    parameters.finish()?;
    Ok(match (hash == mgf_hash && label.is_none(), hash) {
        (true, SHA1) => Some(OaepHash::Sha1),
        (true, SHA256) => Some(OaepHash::Sha256),
        _ => None,
    })
}

fn hash_of(mut outer: Reader<'_>) -> Result<&[u8], NotDer> {
    let found = hash(outer)?;
    outer.next()?;
    outer.finish()?;
    Ok(found)
}

fn hash(mut outer: Reader<'_>) -> Result<&[u8], NotDer> {
    let mut algorithm = outer.nested(SEQUENCE)?;
    let oid = algorithm.take(OID)?;
    algorithm.optional(NULL)?;
    algorithm.finish()?;
    Ok(oid)
}

/// RFC 5652 section 6.1: cipher, nonce and the encrypted bytes.
fn encrypted_content(mut content: Reader<'_>) -> Result<(Cipher, [u8; 12], &[u8]), Pkcs7Error> {
    let bad = || malformed("the encrypted content");
    if content.take(OID).map_err(bad())? != DATA {
        return Err(Pkcs7Error::Unsupported("CMS content of another type than data"));
    }
    let mut algorithm = content.nested(SEQUENCE).map_err(bad())?;
    let cipher = match algorithm.take(OID).map_err(bad())?.strip_prefix(AES) {
        Some([AES_128_GCM]) => Cipher::Aes128,
        Some([26]) => Cipher::Aes192,
        Some([46]) => Cipher::Aes256,
        Some([2 | 22 | 42]) => {
            return Err(Pkcs7Error::Unsupported("AES-CBC, which authenticates nothing,"));
        }
        _ => return Err(Pkcs7Error::Unsupported("content encryption other than AES-GCM")),
    };
    let parameters = algorithm.next().map_err(bad())?;
    algorithm.finish().map_err(bad())?;
    let (nonce, tag_size) = gcm_parameters(parameters).map_err(malformed("the AES-GCM parameters"))?;
    if tag_size != 16 {
        return Err(Pkcs7Error::Unsupported("an AES-GCM tag of other than 16 bytes"));
    }
    let nonce =
        nonce.try_into().map_err(|_| Pkcs7Error::Unsupported("an AES-GCM nonce of other than 12 bytes"))?;
    let encrypted = content.next().map_err(bad())?;
    content.finish().map_err(bad())?;
    let encrypted = match encrypted.tag {
        0x80 => encrypted.content,
        // As ocicrypt and other BER writers have it: one string inside.
        0xa0 => {
            let mut inner = Reader::new(encrypted.content);
            let bytes = inner.take(OCTET_STRING).map_err(bad())?;
            inner.finish().map_err(bad())?;
            bytes
        }
        _ => return Err(Pkcs7Error::Malformed("the encrypted content")),
    };
    Ok((cipher, nonce, encrypted))
}

/// Nonce and tag size. RFC 5084 section 3.2: `SEQUENCE { OCTET STRING, INTEGER DEFAULT 12 }`; ocicrypt: `10 len`
/// around `SEQUENCE { [4] primitive, INTEGER }`.
fn gcm_parameters(parameters: Value<'_>) -> Result<(&[u8], u8), NotDer> {
    let (mut inner, nonce_tag) = match parameters.tag {
        SEQUENCE => (Reader::new(parameters.content), OCTET_STRING),
        PRIMITIVE_SEQUENCE => (Reader::only(parameters.content, SEQUENCE)?, context_primitive(4)),
        _ => return Err(NotDer),
    };
    let nonce = inner.take(nonce_tag)?;
    let tag_size = if inner.is_empty() { 12 } else { inner.small()? };
    inner.finish()?;
    Ok((nonce, tag_size))
}
