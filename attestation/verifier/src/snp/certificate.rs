//! One X.509 certificate of AMD's profile (57230 §3): RSA-PSS with SHA-384, checked over the bytes that
//! were signed. No generic path validation: a VCEK has serial 0 and no basicConstraints.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use x509_cert::certificate::Version;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{self, Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use super::anchors::EMULATED_OID;
use super::memo::Verified;

/// No certificate of a chain is near this.
const MAX_BYTES: usize = 16 * 1024;
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// RSASSA-PSS-params: SHA-384, MGF1 with SHA-384, salt of 48 bytes; as AMD writes them, with and without
/// the default trailer field.
const PSS_SHA384: &[u8] = &[
    0x30, 0x34, 0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02,
    0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08,
    0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa2, 0x03,
    0x02, 0x01, 0x30,
];
const PSS_TRAILER: &[u8] = &[0xa3, 0x03, 0x02, 0x01, 0x01];

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("has {0} bytes, more than {MAX_BYTES}")]
    Size(usize),
    #[error("is not PEM: {0}")]
    Pem(der::pem::Error),
    #[error("is not a DER certificate: {0}")]
    Der(#[from] der::Error),
    #[error("is not of X.509 version 3")]
    Version,
    #[error("names two different signature algorithms")]
    TwoAlgorithms,
    #[error("is not signed with RSA-PSS, SHA-384 and a salt of 48 bytes")]
    Algorithm,
    #[error("has the extension {0} twice")]
    Duplicate(ObjectIdentifier),
    #[error("has the critical extension {0}, which is not understood")]
    Critical(ObjectIdentifier),
    #[error("has no P-384 key")]
    NotP384,
    #[error("stands under one that has no RSA key")]
    NotRsa,
    #[error("may not sign certificates")]
    NotAuthority,
    #[error("is signed with a key that may not sign revocation lists")]
    NotCrlAuthority,
    #[error("is an authority, which a signing chip's certificate must not be")]
    Authority,
    #[error("is not signed by the certificate above it")]
    Signature,
    #[error("names another issuer than the certificate above it")]
    Issuer,
    #[error("is not valid before {0}")]
    NotYet(Time),
    #[error("has expired on {0}")]
    Expired(Time),
    #[error("can't be checked against a time before 1970")]
    Clock,
}

/// Are both algorithm identifiers of a signed document RSA-PSS as AMD uses it?
pub(super) fn check_algorithm(
    outside: &AlgorithmIdentifierOwned,
    inside: &AlgorithmIdentifierOwned,
) -> Result<(), CertificateError> {
    if outside != inside {
        return Err(CertificateError::TwoAlgorithms);
    }
    let parameters = outside.parameters.as_ref().map(Encode::to_der).transpose()?.unwrap_or_default();
    let with_trailer = || {
        let mut with = [PSS_SHA384, PSS_TRAILER].concat();
        with[1] += PSS_TRAILER.len() as u8;
        with
    };
    if outside.oid != RSASSA_PSS || (parameters != PSS_SHA384 && parameters != with_trailer()) {
        return Err(CertificateError::Algorithm);
    }
    Ok(())
}

/// Where the signed part of a document stands that is a sequence of that part, algorithm and signature.
pub(super) fn signed_range(document: &[u8]) -> Result<Range<usize>, der::Error> {
    let mut outer = SliceReader::new(document)?;
    outer.sequence(|inner: &mut SliceReader<'_>| -> Result<_, der::Error> {
        let start = usize::try_from(inner.position())?;
        let length = inner.tlv_bytes()?.len();
        inner.drain(inner.remaining_len())?;
        Ok(start..start + length)
    })
}

/// A certificate that can be read and has the profile's form. Nothing about it is trusted yet.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    signed: Range<usize>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Reads DER, or PEM as some hosts supply it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CertificateError> {
        if bytes.len() > MAX_BYTES {
            return Err(CertificateError::Size(bytes.len()));
        }
        let der = if bytes.starts_with(b"-----BEGIN CERTIFICATE-----") {
            der::pem::decode_vec(bytes).map_err(CertificateError::Pem)?.1
        } else {
            bytes.to_vec()
        };
        let parsed = x509_cert::Certificate::from_der(&der)?;
        let signed = signed_range(&der)?;
        let certificate = Self { der, signed, parsed };
        certificate.check_form()?;
        Ok(certificate)
    }

    fn check_form(&self) -> Result<(), CertificateError> {
        let body = self.parsed.tbs_certificate();
        if body.version() != Version::V3 {
            return Err(CertificateError::Version);
        }
        check_algorithm(self.parsed.signature_algorithm(), body.signature())?;
        let extensions = body.extensions().map(Vec::as_slice).unwrap_or_default();
        for (n, extension) in extensions.iter().enumerate() {
            let oid = extension.extn_id;
            if extensions[..n].iter().any(|other| other.extn_id == oid) {
                return Err(CertificateError::Duplicate(oid));
            }
            if extension.critical && ![BASIC_CONSTRAINTS, KEY_USAGE, EMULATED_OID].contains(&oid) {
                return Err(CertificateError::Critical(oid));
            }
        }
        Ok(())
    }

    /// SHA-256 of the whole certificate.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, &self.der).as_ref());
        out
    }

    pub(crate) fn subject(&self) -> &Name {
        self.parsed.tbs_certificate().subject()
    }

    /// The common name; empty if there is none that can be read, or more than one.
    pub(crate) fn common_name(&self) -> String {
        const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
        let mut names = self.subject().iter().filter(|attribute| attribute.oid == COMMON_NAME);
        let (Some(name), None) = (names.next(), names.next()) else { return String::new() };
        std::str::from_utf8(name.value.value()).unwrap_or_default().to_owned()
    }

    /// The contents of an extension and whether it is critical.
    pub(crate) fn extension(&self, oid: ObjectIdentifier) -> Option<(&[u8], bool)> {
        let extensions = self.parsed.tbs_certificate().extensions()?;
        let extension = extensions.iter().find(|extension| extension.extn_id == oid)?;
        Some((extension.extn_value.as_bytes(), extension.critical))
    }

    /// Does it say, by the extension or by its name, that it belongs to an emulated processor?
    pub(crate) fn says_emulated(&self) -> bool {
        self.extension(EMULATED_OID).is_some() || self.common_name().to_uppercase().contains("EMULATED")
    }

    /// Does it say so as it must: by the critical extension and in its name?
    pub(crate) fn marked_emulated(&self) -> bool {
        self.extension(EMULATED_OID).is_some_and(|(_, critical)| critical)
            && self.common_name().contains("EMULATED")
    }

    /// May it sign certificates?
    pub(crate) fn check_authority(&self) -> Result<(), CertificateError> {
        let ca = self.extension(BASIC_CONSTRAINTS).map(|(value, _)| BasicConstraints::from_der(value));
        let usage = self.extension(KEY_USAGE).map(|(value, _)| KeyUsage::from_der(value));
        match (ca.transpose()?, usage.transpose()?) {
            (Some(constraints), Some(usage)) if constraints.ca && usage.key_cert_sign() => Ok(()),
            _ => Err(CertificateError::NotAuthority),
        }
    }

    /// Is it the certificate of a key that signs reports, and of nothing else?
    pub(crate) fn check_leaf(&self) -> Result<(), CertificateError> {
        let ca = self.extension(BASIC_CONSTRAINTS).map(|(value, _)| BasicConstraints::from_der(value));
        match ca.transpose()? {
            Some(constraints) if constraints.ca => Err(CertificateError::Authority),
            _ => Ok(()),
        }
    }

    /// Is it valid at this time, both ends included?
    pub(crate) fn check_dates(&self, now: SystemTime) -> Result<(), CertificateError> {
        let now = now.duration_since(UNIX_EPOCH).map_err(|_| CertificateError::Clock)?;
        // The last second counts as a whole.
        let now = Duration::from_secs(now.as_secs());
        let validity = self.parsed.tbs_certificate().validity();
        let (from, to) = (validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration());
        if now < from {
            return Err(CertificateError::NotYet(validity.not_before));
        }
        if now > to {
            return Err(CertificateError::Expired(validity.not_after));
        }
        Ok(())
    }

    /// Is it signed by the key of that certificate, which it names as its issuer? Whether that one may
    /// sign is [`Certificate::check_authority`].
    pub(crate) fn check_issued_by(&self, authority: &Self, known: &Verified) -> Result<(), CertificateError> {
        if self.parsed.tbs_certificate().issuer() != authority.subject() {
            return Err(CertificateError::Issuer);
        }
        let signature = self.parsed.signature().as_bytes().ok_or(CertificateError::Signature)?;
        authority.check_signed(&self.der, self.signed.clone(), signature, known)
    }

    /// Has this certificate's key signed that part of a document?
    pub(crate) fn check_signed(
        &self,
        document: &[u8],
        signed: Range<usize>,
        signature: &[u8],
        known: &Verified,
    ) -> Result<(), CertificateError> {
        let key = self.parsed.tbs_certificate().subject_public_key_info();
        if key.algorithm.oid != RSA_ENCRYPTION {
            return Err(CertificateError::NotRsa);
        }
        let key = key.subject_public_key.as_bytes().ok_or(CertificateError::NotRsa)?;
        let memo = Verified::key(key, document);
        if known.is_known(&memo) {
            return Ok(());
        }
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key)
            .verify(&document[signed], signature)
            .map_err(|_| CertificateError::Signature)?;
        known.remember(memo);
        Ok(())
    }

    /// Does it name itself as its issuer?
    pub(crate) fn is_self_issued(&self) -> bool {
        self.parsed.tbs_certificate().issuer() == self.subject()
    }

    /// What its issuer calls it.
    pub(crate) fn serial(&self) -> &SerialNumber {
        self.parsed.tbs_certificate().serial_number()
    }

    /// May it sign revocation lists?
    pub(crate) fn check_crl_authority(&self) -> Result<(), CertificateError> {
        let usage = self.extension(KEY_USAGE).map(|(value, _)| KeyUsage::from_der(value));
        match usage.transpose()? {
            Some(usage) if usage.crl_sign() => Ok(()),
            _ => Err(CertificateError::NotCrlAuthority),
        }
    }

    /// The P-384 key as an uncompressed point.
    pub(crate) fn p384_key(&self) -> Result<&[u8], CertificateError> {
        let key = self.parsed.tbs_certificate().subject_public_key_info();
        let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.decode_as().ok());
        let point = key.subject_public_key.as_bytes();
        match point {
            Some(point) if key.algorithm.oid == EC_PUBLIC_KEY && curve == Some(SECP384R1) => Ok(point),
            _ => Err(CertificateError::NotP384),
        }
    }
}
