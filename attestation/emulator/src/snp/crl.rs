//! Revocation lists as AMD's key distribution service has them: signed by the root (ARK), DER, listing
//! signing keys (ASK, ASVK) by serial number. Chips' certificates all have serial 0 and can't be listed.

use crate::snp::certificates::{Authority, CertificateError};
use getrandom::SysRng;
use rsa::pss::Signature;
use rsa::rand_core::UnwrapErr;
use std::time::{Duration, SystemTime};
use x509_cert::builder::{self, Builder, CrlBuilder};
use x509_cert::certificate::Certificate;
use x509_cert::crl::{CertificateList, RevokedCert};
use x509_cert::der::Encode;
use x509_cert::der::asn1::Uint;
use x509_cert::ext::pkix::CrlNumber;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Time;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    /// When it was made.
    pub this_update: SystemTime,
    /// When the next one is due, at the latest.
    pub next_update: SystemTime,
    /// Serial numbers of the revoked.
    pub revoked: Vec<u32>,
    /// Grows from list to list.
    pub number: u64,
}

impl Revocations {
    /// Nothing is revoked; made an hour ago, for brokers whose clocks differ, and good for a year.
    pub fn none(now: SystemTime) -> Self {
        let this_update = now - DAY / 24;
        let number = this_update.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { this_update, next_update: now + DAY * 365, revoked: Vec::new(), number }
    }

    /// The list in DER, signed by `authority` in the name of `issuer`, which are the ARK's unless something
    /// is to go wrong.
    pub fn sign(&self, authority: &Authority, issuer: &Certificate) -> Result<Vec<u8>, CertificateError> {
        let make = || -> builder::Result<Vec<u8>> {
            let number = CrlNumber(Uint::new(&self.number.to_be_bytes())?);
            let this_update = Time::try_from(self.this_update)?;
            let next_update = Time::try_from(self.next_update)?;
            let mut list = CrlBuilder::new_with_this_update(issuer, number, this_update)?
                .with_next_update(Some(next_update));
            // An absent list and one of length zero are not the same: only the former is DER's and AMD's.
            if !self.revoked.is_empty() {
                list = list.with_certificates(self.revoked.iter().map(|serial| RevokedCert {
                    serial_number: SerialNumber::from(*serial),
                    revocation_date: this_update,
                    crl_entry_extensions: None,
                }));
            }
            let list: CertificateList =
                list.build_with_rng::<_, Signature, _>(authority.signer(), &mut UnwrapErr(SysRng))?;
            Ok(list.to_der()?)
        };
        make().map_err(|error| CertificateError::Certificate("the revocation list".to_owned(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snp::certificates::tests::authorities;
    use rsa::RsaPrivateKey;
    use rsa::pss::VerifyingKey;
    use rsa::signature::Verifier;
    use sha2::Sha384;
    use x509_cert::der::Decode;

    fn signed_by(list: &CertificateList, authority: &Authority) -> bool {
        let key: &RsaPrivateKey = authority.signer().as_ref();
        let signature = Signature::try_from(list.signature.raw_bytes()).unwrap();
        VerifyingKey::<Sha384>::new(key.to_public_key())
            .verify(&list.tbs_cert_list.to_der().unwrap(), &signature)
            .is_ok()
    }

    #[test]
    fn a_list_is_the_roots_and_names_the_revoked() {
        let all = authorities();
        let now = SystemTime::now();
        let none = Revocations::none(now).sign(&all.ark, &all.ark_certificate).unwrap();
        let none = CertificateList::from_der(&none).unwrap();
        assert!(signed_by(&none, &all.ark) && !signed_by(&none, &all.ask));
        assert_eq!(none.tbs_cert_list.issuer, *all.ark_certificate.tbs_certificate().subject());
        assert_eq!(none.tbs_cert_list.revoked_certificates, None);

        let one = Revocations { revoked: vec![65537], ..Revocations::none(now) };
        let one = CertificateList::from_der(&one.sign(&all.ark, &all.ark_certificate).unwrap()).unwrap();
        let revoked = one.tbs_cert_list.revoked_certificates.unwrap();
        assert_eq!(revoked[0].serial_number, *all.ask_certificate.tbs_certificate().serial_number());
    }
}
