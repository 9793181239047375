//! Certificates and revocation lists as far as a cache needs them: names, dates, who signed. A verifier
//! looks at them again, and at more; here it is decided what is worth keeping.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::signature::{ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use tee_evidence::snp::{Product, Report, Tcb};
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier};
use x509_cert::der::{self, Decode, Reader, SliceReader};

const fn amd(arcs: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(arcs)
}
const COMMON_NAME: ObjectIdentifier = amd("2.5.4.3");
const PRODUCT: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.2");
const BOOTLOADER: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.3");
const MICROCODE: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.8");
const FMC: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.3.9");
const HARDWARE_ID: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.4");
const CSP_ID: ObjectIdentifier = amd("1.3.6.1.4.1.3704.1.5");

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    /// Not DER of that structure.
    #[error("it can't be read: {0}")]
    Der(String),
    /// PEM text that isn't.
    #[error("it is not PEM: {0}")]
    Pem(String),
    /// The signature isn't of the key above it.
    #[error("it is not signed by '{0}'")]
    Signature(String),
    /// It names another issuer.
    #[error("it names the issuer '{named}', not '{expected}'")]
    Issuer {
        /// In it.
        named: String,
        /// Above it.
        expected: String,
    },
    /// An extension of AMD's is missing or malformed.
    #[error("its extension {0} is missing or malformed")]
    Extension(ObjectIdentifier),
    /// A list without the time of the next one never goes stale.
    #[error("it doesn't say when the next one is due, or says a time before its own")]
    NextUpdate,
}

impl From<der::Error> for X509Error {
    fn from(error: der::Error) -> Self {
        Self::Der(error.to_string())
    }
}

/// A certificate that can be read.
#[derive(Debug)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    signed: Range<usize>,
    parsed: x509_cert::Certificate,
}

/// A revocation list that can be read.
#[derive(Debug)]
pub(crate) struct Crl {
    der: Vec<u8>,
    signed: Range<usize>,
    parsed: CertificateList,
    pub(crate) this_update: SystemTime,
    pub(crate) next_update: SystemTime,
}

impl Certificate {
    /// Reads DER, or one PEM certificate.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, X509Error> {
        let der = if bytes.starts_with(b"-----BEGIN") { pem(bytes, "CERTIFICATE")? } else { bytes.to_vec() };
        let parsed = x509_cert::Certificate::from_der(&der)?;
        Ok(Self { signed: signed_part(&der)?, parsed, der })
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, &self.der).as_ref());
        out
    }

    /// The common name, for people and for comparing with AMD's.
    pub(crate) fn common_name(&self) -> String {
        common_name(self.parsed.tbs_certificate().subject())
    }

    pub(crate) fn issuer_name(&self) -> String {
        common_name(self.parsed.tbs_certificate().issuer())
    }

    pub(crate) fn valid(&self) -> (SystemTime, SystemTime) {
        let validity = self.parsed.tbs_certificate().validity();
        (time(validity.not_before.to_unix_duration()), time(validity.not_after.to_unix_duration()))
    }

    /// Does it name that one as its issuer?
    pub(crate) fn names_issuer(&self, authority: &Self) -> bool {
        self.parsed.tbs_certificate().issuer() == authority.parsed.tbs_certificate().subject()
    }

    /// Is it that one's, by name and signature?
    pub(crate) fn check_issued_by(&self, authority: &Self) -> Result<(), X509Error> {
        if !self.names_issuer(authority) {
            let (named, expected) = (self.issuer_name(), authority.common_name());
            return Err(X509Error::Issuer { named, expected });
        }
        authority.check_signed(&self.der[self.signed.clone()], self.parsed.signature().as_bytes())
    }

    fn check_signed(&self, signed: &[u8], signature: Option<&[u8]>) -> Result<(), X509Error> {
        let wrong = || X509Error::Signature(self.common_name());
        let key = self.parsed.tbs_certificate().subject_public_key_info().subject_public_key.as_bytes();
        let (Some(key), Some(signature)) = (key, signature) else { return Err(wrong()) };
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key).verify(signed, signature).map_err(|_| wrong())
    }

    /// Did its key sign that report? For telling candidates apart: the verifier decides by the bytes.
    pub(crate) fn signed(&self, report: &Report) -> bool {
        let key = self.parsed.tbs_certificate().subject_public_key_info().subject_public_key.as_bytes();
        let (Some(key), Some(signature)) = (key, report.signature.to_fixed()) else { return false };
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key);
        key.verify(report.encode().signed(), &signature).is_ok()
    }

    /// The product that a report-signing key's certificate states: "Milan" of "Milan-B0".
    pub(crate) fn product(&self) -> Result<Product, X509Error> {
        let text = self.text(PRODUCT)?;
        let stem = text.split_once('-').map_or(text.as_str(), |(stem, _)| stem);
        Product::ALL.into_iter().find(|product| product.name() == stem).ok_or(X509Error::Extension(PRODUCT))
    }

    /// The TCB version that it states.
    pub(crate) fn tcb(&self, product: Product) -> Result<Tcb, X509Error> {
        Ok(Tcb {
            fmc: (product == Product::Turin).then(|| self.number(FMC)).transpose()?,
            bootloader: self.number(BOOTLOADER)?,
            tee: self.number(TEE)?,
            snp: self.number(SNP)?,
            microcode: self.number(MICROCODE)?,
        })
    }

    /// The chip that it is for.
    pub(crate) fn hardware_id(&self) -> Result<&[u8], X509Error> {
        self.extension(HARDWARE_ID)
    }

    /// The cloud provider that it is for.
    pub(crate) fn csp(&self) -> Result<String, X509Error> {
        self.text(CSP_ID)
    }

    fn extension(&self, oid: ObjectIdentifier) -> Result<&[u8], X509Error> {
        let extensions = self.parsed.tbs_certificate().extensions().map(Vec::as_slice).unwrap_or_default();
        let mut found = extensions.iter().filter(|extension| extension.extn_id == oid);
        match (found.next(), found.next()) {
            (Some(extension), None) => Ok(extension.extn_value.as_bytes()),
            _ => Err(X509Error::Extension(oid)),
        }
    }

    fn number(&self, oid: ObjectIdentifier) -> Result<u8, X509Error> {
        u8::from_der(self.extension(oid)?).map_err(|_| X509Error::Extension(oid))
    }

    fn text(&self, oid: ObjectIdentifier) -> Result<String, X509Error> {
        let text = Ia5StringRef::from_der(self.extension(oid)?).map_err(|_| X509Error::Extension(oid))?;
        Ok(text.as_str().to_owned())
    }
}

impl Crl {
    /// Reads DER, or PEM.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, X509Error> {
        let der = if bytes.starts_with(b"-----BEGIN") { pem(bytes, "X509 CRL")? } else { bytes.to_vec() };
        let parsed = CertificateList::from_der(&der)?;
        let list = &parsed.tbs_cert_list;
        let this_update = time(list.this_update.to_unix_duration());
        let next_update = list.next_update.map(|next| time(next.to_unix_duration()));
        let next_update = next_update.filter(|next| *next >= this_update).ok_or(X509Error::NextUpdate)?;
        Ok(Self { signed: signed_part(&der)?, this_update, next_update, parsed, der })
    }

    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// How many certificates it revokes.
    pub(crate) fn revoked(&self) -> usize {
        self.parsed.tbs_cert_list.revoked_certificates.as_ref().map_or(0, Vec::len)
    }

    pub(crate) fn names_issuer(&self, authority: &Certificate) -> bool {
        self.parsed.tbs_cert_list.issuer == *authority.parsed.tbs_certificate().subject()
    }

    /// Is it that one's, by name and signature?
    pub(crate) fn check_issued_by(&self, authority: &Certificate) -> Result<(), X509Error> {
        if !self.names_issuer(authority) {
            return Err(X509Error::Issuer {
                named: common_name(&self.parsed.tbs_cert_list.issuer),
                expected: authority.common_name(),
            });
        }
        authority.check_signed(&self.der[self.signed.clone()], self.parsed.signature.as_bytes())
    }
}

/// The two PEM certificates of a chain, the signing key's first.
pub(crate) fn pem_pair(bytes: &[u8]) -> Result<(Certificate, Certificate), X509Error> {
    let not = |problem: &str| X509Error::Pem(problem.to_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| not("not text"))?;
    let ends: Vec<_> = text.match_indices("-----BEGIN CERTIFICATE-----").map(|(at, _)| at).collect();
    let [first, second] = *ends.as_slice() else {
        return Err(not("a chain has two certificates, the signing key's and the root's"));
    };
    if !text[..first].trim().is_empty() {
        return Err(not("there is something before the first certificate"));
    }
    Ok((
        Certificate::parse(text[first..second].trim().as_bytes())?,
        Certificate::parse(text[second..].trim().as_bytes())?,
    ))
}

fn pem(bytes: &[u8], expected: &str) -> Result<Vec<u8>, X509Error> {
    let (label, der) =
        der::pem::decode_vec(bytes.trim_ascii()).map_err(|error| X509Error::Pem(error.to_string()))?;
    if label != expected {
        return Err(X509Error::Pem(format!("it holds a {label}")));
    }
    Ok(der)
}

/// Where the signed part lies: the first member of the outer sequence, as it stands.
fn signed_part(der: &[u8]) -> Result<Range<usize>, der::Error> {
    let mut outer = SliceReader::new(der)?;
    outer.sequence(|inner: &mut SliceReader<'_>| -> Result<_, der::Error> {
        let start = usize::try_from(inner.position())?;
        let length = inner.tlv_bytes()?.len();
        inner.drain(inner.remaining_len())?;
        Ok(start..start + length)
    })
}

fn common_name(name: &x509_cert::name::Name) -> String {
    let mut names = name.iter().filter(|attribute| attribute.oid == COMMON_NAME);
    match (names.next(), names.next()) {
        (Some(name), None) => String::from_utf8_lossy(name.value.value()).chars().take(64).collect(),
        _ => String::new(),
    }
}

fn time(since_1970: Duration) -> SystemTime {
    UNIX_EPOCH + since_1970
}
