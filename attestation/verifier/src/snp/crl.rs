//! A certificate revocation list of AMD's: signed by a product's root, and so about the keys that the root
//! certifies, ASK and ASVK (57230 §4.4). It can't name a VCEK: those all have the serial number 0.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_cert::crl::CertificateList;
use x509_cert::der::{self, Decode};
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Time;

use super::certificate::{Certificate, CertificateError, check_algorithm, signed_range};
use super::memo::Verified;

/// As much as a whole certificate table may have.
const MAX_BYTES: usize = 64 * 1024;

/// Why a revocation list can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CrlError {
    #[error("has {0} bytes, more than {MAX_BYTES}")]
    Size(usize),
    #[error("is not PEM: {0}")]
    Pem(der::pem::Error),
    #[error("is not a DER revocation list: {0}")]
    Der(#[from] der::Error),
    #[error("has a critical extension, which is not understood")]
    Critical,
    #[error("{0}")]
    Signature(#[from] CertificateError),
    #[error("is of another issuer than this chain's root")]
    Issuer,
    #[error("does not say until when it is valid")]
    NoEnd,
    #[error("is not valid before {0}")]
    NotYet(Time),
    #[error("is stale: the next one was due on {0}")]
    Stale(Time),
    #[error("can't be checked against a time before 1970")]
    Clock,
}

/// A revocation list that can be read. Nothing about it is trusted yet.
#[derive(Debug)]
pub(crate) struct Crl {
    der: Vec<u8>,
    signed: Range<usize>,
    parsed: CertificateList,
}

impl Crl {
    /// Reads DER or PEM.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CrlError> {
        if bytes.len() > MAX_BYTES {
            return Err(CrlError::Size(bytes.len()));
        }
        let der = if bytes.starts_with(b"-----BEGIN X509 CRL-----") {
            der::pem::decode_vec(bytes).map_err(CrlError::Pem)?.1
        } else {
            bytes.to_vec()
        };
        let parsed = CertificateList::from_der(&der)?;
        let list = &parsed.tbs_cert_list;
        check_algorithm(&parsed.signature_algorithm, &list.signature)?;
        // A list that is only about some certificates, or a difference to another list, says so by a
        // critical extension.
        let entries = list.revoked_certificates.iter().flatten();
        let extensions =
            entries.filter_map(|entry| entry.crl_entry_extensions.as_ref()).chain(&list.crl_extensions);
        if extensions.flatten().any(|extension| extension.critical) {
            return Err(CrlError::Critical);
        }
        let signed = signed_range(&der)?;
        Ok(Self { der, signed, parsed })
    }

    /// Is it signed by this root?
    pub(crate) fn check_issued_by(&self, root: &Certificate, known: &Verified) -> Result<(), CrlError> {
        if self.parsed.tbs_cert_list.issuer != *root.subject() {
            return Err(CrlError::Issuer);
        }
        root.check_crl_authority()?;
        let signature = self.parsed.signature.as_bytes().ok_or(CertificateError::Signature)?;
        Ok(root.check_signed(&self.der, self.signed.clone(), signature, known)?)
    }

    /// Is it the list in force at this time, both ends included?
    pub(crate) fn check_dates(&self, now: SystemTime) -> Result<(), CrlError> {
        let now = now.duration_since(UNIX_EPOCH).map_err(|_| CrlError::Clock)?;
        // The last second counts as a whole.
        let now = Duration::from_secs(now.as_secs());
        let list = &self.parsed.tbs_cert_list;
        let next = list.next_update.ok_or(CrlError::NoEnd)?;
        if now < list.this_update.to_unix_duration() {
            return Err(CrlError::NotYet(list.this_update));
        }
        if now > next.to_unix_duration() {
            return Err(CrlError::Stale(next));
        }
        Ok(())
    }

    /// Does it name this certificate?
    pub(crate) fn revokes(&self, serial: &SerialNumber) -> bool {
        let mut entries = self.parsed.tbs_cert_list.revoked_certificates.iter().flatten();
        entries.any(|entry| entry.serial_number == *serial)
    }

    /// When it was made.
    pub(crate) fn this_update(&self) -> Time {
        self.parsed.tbs_cert_list.this_update
    }
}
