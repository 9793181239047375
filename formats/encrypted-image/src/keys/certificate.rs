//! As much of a certificate (RFC 5280 section 4.1) as naming a recipient takes: issuer, serial number and
//! key. Neither signature nor validity is looked at: whoever chose the file as a recipient vouches for it.

use super::der::{INTEGER, NotDer, Reader, SEQUENCE, context};
use super::{Form, KeyError, PublicKey, pem, public};

/// A recipient of PKCS7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    issuer: Vec<u8>,
    serial: Vec<u8>,
    key: PublicKey,
}

impl Certificate {
    /// Reads PEM or DER; the first certificate of a PEM file, whatever else is in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        match Form::of(bytes)? {
            Form::Der(der) => Self::from_der(der),
            Form::Pem(blocks) => {
                let block = blocks.iter().find(|block| block.label == pem::CERTIFICATE);
                Self::from_der(&block.ok_or(KeyError::NoBlock("certificate"))?.decode()?)
            }
            Form::Jwk(_) | Form::Raw(_) => Err(KeyError::Malformed("certificate")),
        }
    }

    pub(super) fn from_der(bytes: &[u8]) -> Result<Self, KeyError> {
        let parts = parts(bytes).map_err(|NotDer| KeyError::Malformed("certificate"))?;
        let key = public::from_spki(parts.spki)?;
        Ok(Self { issuer: parts.issuer.to_vec(), serial: parts.serial.to_vec(), key })
    }

    /// The issuer's name in DER.
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// The serial number: the content of its INTEGER.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The holder's key.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    pub(super) fn into_public_key(self) -> PublicKey {
        self.key
    }
}

struct Parts<'a> {
    issuer: &'a [u8],
    serial: &'a [u8],
    /// SubjectPublicKeyInfo.
    spki: &'a [u8],
}

fn parts(bytes: &[u8]) -> Result<Parts<'_>, NotDer> {
    let mut certificate = Reader::only(bytes, SEQUENCE)?;
    let mut tbs = certificate.nested(SEQUENCE)?;
    certificate.take(SEQUENCE)?; // signature algorithm
    certificate.bit_string()?;
    certificate.finish()?;
    tbs.optional(context(0))?; // version
    let serial = tbs.take(INTEGER)?;
    if serial.is_empty() {
        return Err(NotDer);
    }
    tbs.take(SEQUENCE)?; // signature algorithm
    let issuer = sequence(&mut tbs)?;
    tbs.take(SEQUENCE)?; // validity
    tbs.take(SEQUENCE)?; // subject
    Ok(Parts { issuer, serial, spki: sequence(&mut tbs)? })
}

fn sequence<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], NotDer> {
    let value = reader.next()?;
    if value.tag == SEQUENCE { Ok(value.whole) } else { Err(NotDer) }
}
