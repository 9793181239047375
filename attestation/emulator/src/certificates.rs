//! The certificate chain of an emulated processor: AMD's formats and OIDs (VCEK certificate and KDS
//! interface specification), told apart from AMD's by name and by a critical extension.

use crate::chip::Chip;
use crate::product::{Product, Tcb};
use getrandom::SysRng;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use rsa::pss::{Signature, SigningKey};
use rsa::rand_core::UnwrapErr;
use rsa::{RsaPrivateKey, pkcs8};
use sha2::Sha384;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder, CertificateBuilder};
use x509_cert::certificate::{Certificate, TbsCertificate};
use x509_cert::der::Encode;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier, OctetString, Utf8StringRef};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

/// Marks every certificate of an emulated processor. Critical, so whoever doesn't know it refuses.
pub const EMULATED: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.58270.1.1");

/// Bits of the root's and the signing key's modulus, as AMD's.
pub const AUTHORITY_BITS: usize = 4096;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_DAYS: u32 = 25 * 365;
const VCEK_DAYS: u32 = 7 * 365;

/// Why a certificate or key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// RSA key generation failed.
    #[error("generating an RSA key: {0}")]
    Generate(#[source] rsa::Error),
    /// A stored key can't be read or written as PKCS#8.
    #[error("the signing key is not a PKCS#8 RSA key: {0}")]
    Pkcs8(#[source] pkcs8::Error),
    /// The certificate could not be put together.
    #[error("making the certificate of {0}: {1}")]
    Certificate(String, #[source] builder::Error),
}

/// An RSA key that signs certificates under its name.
pub struct Authority {
    key: SigningKey<Sha384>,
    common_name: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Authority({})", self.common_name)
    }
}

/// Root (ARK) and signing key (ASK) with their certificates.
#[derive(Debug)]
pub struct Authorities {
    /// The root.
    pub ark: Authority,
    /// Its self-signed certificate.
    pub ark_certificate: Certificate,
    /// What signs chips' keys.
    pub ask: Authority,
    /// Its certificate, by the root.
    pub ask_certificate: Certificate,
}

impl Authorities {
    /// New keys of `bits` each; [`AUTHORITY_BITS`] is AMD's.
    pub fn generate(product: Product, bits: usize, now: SystemTime) -> Result<Self, CertificateError> {
        let ark = Authority::generate(format!("ARK-EMULATED {}", product.name()), bits)?;
        let ask = Authority::generate(ask_name(product), bits)?;
        let ark_certificate = ark.issue_authority(&ark, 65536, None, now)?;
        let ask_certificate = ark.issue_authority(&ask, 65537, Some(0), now)?;
        Ok(Self { ark, ark_certificate, ask, ask_certificate })
    }
}

impl Authority {
    fn generate(common_name: String, bits: usize) -> Result<Self, CertificateError> {
        let key = RsaPrivateKey::new(&mut UnwrapErr(SysRng), bits).map_err(CertificateError::Generate)?;
        Ok(Self { key: SigningKey::new(key), common_name })
    }

    /// The signing key (ASK) of a product, from PKCS#8 PEM.
    pub fn ask_from_pem(pem: &str, product: Product) -> Result<Self, CertificateError> {
        let key = RsaPrivateKey::from_pkcs8_pem(pem).map_err(CertificateError::Pkcs8)?;
        Ok(Self { key: SigningKey::new(key), common_name: ask_name(product) })
    }

    /// The key as PKCS#8 PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, CertificateError> {
        let key: &RsaPrivateKey = self.key.as_ref();
        key.to_pkcs8_pem(LineEnding::LF).map_err(CertificateError::Pkcs8)
    }

    /// Signs the certificate of the key that `chip` has at `tcb`.
    pub fn issue_vcek(
        &self,
        chip: &Chip,
        tcb: Tcb,
        now: SystemTime,
    ) -> Result<Certificate, CertificateError> {
        let common_name = "SEV-VCEK EMULATED";
        let make = || {
            let key = SubjectPublicKeyInfoOwned::from_key(chip.vcek(tcb).verifying_key())?;
            self.issue(common_name, key, 0, vcek_extensions(chip, tcb)?, validity(now, VCEK_DAYS)?)
        };
        make().map_err(|error| CertificateError::Certificate(common_name.to_owned(), error))
    }

    fn issue_authority(
        &self,
        subject: &Self,
        serial: u32,
        path_length: Option<u8>,
        now: SystemTime,
    ) -> Result<Certificate, CertificateError> {
        let make = || {
            let key: &RsaPrivateKey = subject.key.as_ref();
            let key = SubjectPublicKeyInfoOwned::from_key(&key.to_public_key())?;
            let extensions = authority_extensions(path_length)?;
            self.issue(&subject.common_name, key, serial, extensions, validity(now, AUTHORITY_DAYS)?)
        };
        make().map_err(|error| CertificateError::Certificate(subject.common_name.clone(), error))
    }

    fn issue(
        &self,
        subject: &str,
        key: SubjectPublicKeyInfoOwned,
        serial: u32,
        extensions: Vec<Extension>,
        validity: Validity,
    ) -> builder::Result<Certificate> {
        let profile = Profile { issuer: name(&self.common_name)?, subject: name(subject)?, extensions };
        CertificateBuilder::new(profile, SerialNumber::from(serial), validity, key)?
            .build_with_rng::<_, Signature, _>(&self.key, &mut UnwrapErr(SysRng))
    }
}

fn ask_name(product: Product) -> String {
    format!("SEV-EMULATED {}", product.name())
}

/// The subject names and extensions of one certificate, exactly.
struct Profile {
    issuer: Name,
    subject: Name,
    extensions: Vec<Extension>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _certificate: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

fn name(common_name: &str) -> builder::Result<Name> {
    Ok(Name::from_str(&format!("CN={common_name},O=Sealpod,OU=Emulation"))?)
}

/// From a day ago, for guests and brokers whose clocks differ.
fn validity(now: SystemTime, days: u32) -> builder::Result<Validity> {
    Ok(Validity::new(Time::try_from(now - DAY)?, Time::try_from(now + DAY * days)?))
}

fn authority_extensions(path_length: Option<u8>) -> builder::Result<Vec<Extension>> {
    let usages = match path_length {
        None => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
        Some(_) => KeyUsages::KeyCertSign.into(),
    };
    let constraints = BasicConstraints { ca: true, path_len_constraint: path_length };
    Ok(vec![
        extension("2.5.29.15", true, KeyUsage(usages).to_der()?)?,
        extension("2.5.29.19", true, constraints.to_der()?)?,
        emulated()?,
    ])
}

/// In the order of AMD's certificates: structure version, product, patch levels, hardware id.
fn vcek_extensions(chip: &Chip, tcb: Tcb) -> builder::Result<Vec<Extension>> {
    let product = chip.product();
    let mut extensions = vec![
        amd("1", 0_u8.to_der()?)?,
        amd("2", Ia5StringRef::new(product.stepping_name())?.to_der()?)?,
        amd("3.1", tcb.bootloader.to_der()?)?,
        amd("3.2", tcb.tee.to_der()?)?,
        amd("3.4", 0_u8.to_der()?)?,
        amd("3.5", 0_u8.to_der()?)?,
        amd("3.6", 0_u8.to_der()?)?,
        amd("3.7", 0_u8.to_der()?)?,
        amd("3.3", tcb.snp.to_der()?)?,
        amd("3.8", tcb.microcode.to_der()?)?,
    ];
    if product == Product::Turin {
        extensions.push(amd("3.9", tcb.fmc.to_der()?)?);
    }
    // The hardware id stands in the extension's value as it is, without a type of its own.
    extensions.push(amd("4", chip.id()[..product.hardware_id_length()].to_vec())?);
    extensions.push(emulated()?);
    Ok(extensions)
}

fn emulated() -> builder::Result<Extension> {
    let value = Utf8StringRef::new("emulated processor, for tests only")?.to_der()?;
    extension(&EMULATED.to_string(), true, value)
}

fn amd(suffix: &str, value: Vec<u8>) -> builder::Result<Extension> {
    extension(&format!("1.3.6.1.4.1.3704.1.{suffix}"), false, value)
}

fn extension(oid: &str, critical: bool, value: Vec<u8>) -> builder::Result<Extension> {
    let extn_id = ObjectIdentifier::new(oid).map_err(x509_cert::der::Error::from)?;
    Ok(Extension { extn_id, critical, extn_value: OctetString::new(value)? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::chip::SECRET;
    use rsa::pss::VerifyingKey;
    use rsa::signature::Verifier;
    use std::sync::OnceLock;
    use x509_cert::der::Decode;

    /// Half of AMD's key length, so that the tests stay fast; one pair for all tests.
    pub(crate) fn authorities() -> &'static Authorities {
        static ONE: OnceLock<Authorities> = OnceLock::new();
        ONE.get_or_init(|| Authorities::generate(Product::Milan, 2048, SystemTime::now()).unwrap())
    }

    fn signed_by(certificate: &Certificate, issuer: &Authority) -> bool {
        let key = VerifyingKey::<Sha384>::new(AsRef::<RsaPrivateKey>::as_ref(&issuer.key).to_public_key());
        let signature = Signature::try_from(certificate.signature().raw_bytes()).unwrap();
        key.verify(&certificate.tbs_certificate().to_der().unwrap(), &signature).is_ok()
    }

    fn value(certificate: &Certificate, oid: &str) -> Option<Vec<u8>> {
        let oid = ObjectIdentifier::new(oid).unwrap();
        let extensions = certificate.tbs_certificate().extensions()?;
        extensions
            .iter()
            .find(|extension| extension.extn_id == oid)
            .map(|found| found.extn_value.as_bytes().to_vec())
    }

    #[test]
    fn the_chain_is_signed_by_root_and_signing_key() {
        let all = authorities();
        let chip = Chip::new(Product::Milan, [1; SECRET]);
        let vcek = all.ask.issue_vcek(&chip, Tcb::default(), SystemTime::now()).unwrap();
        assert!(signed_by(&all.ark_certificate, &all.ark));
        assert!(signed_by(&all.ask_certificate, &all.ark));
        assert!(signed_by(&vcek, &all.ask));
        assert!(!signed_by(&vcek, &all.ark));
        assert_eq!(vcek.tbs_certificate().issuer(), all.ask_certificate.tbs_certificate().subject());
        assert_eq!(
            all.ask_certificate.tbs_certificate().issuer(),
            all.ark_certificate.tbs_certificate().subject()
        );
    }

    #[test]
    fn every_certificate_says_that_it_is_emulated() {
        let all = authorities();
        let chip = Chip::new(Product::Milan, [1; SECRET]);
        let vcek = all.ask.issue_vcek(&chip, Tcb::default(), SystemTime::now()).unwrap();
        for certificate in [&all.ark_certificate, &all.ask_certificate, &vcek] {
            let tbs = certificate.tbs_certificate();
            assert!(tbs.subject().to_string().contains("EMULATED"), "{}", tbs.subject());
            let mark =
                tbs.extensions().unwrap().iter().find(|extension| extension.extn_id == EMULATED).unwrap();
            assert!(mark.critical);
        }
    }

    #[test]
    fn a_vcek_carries_amds_extensions() {
        let chip = Chip::new(Product::Milan, [1; SECRET]);
        let tcb = Tcb { bootloader: 4, tee: 1, snp: 24, microcode: 219, fmc: 0 };
        let vcek = authorities().ask.issue_vcek(&chip, tcb, SystemTime::now()).unwrap();
        let vcek = Certificate::from_der(&vcek.to_der().unwrap()).unwrap();
        let value = |suffix: &str| value(&vcek, &format!("1.3.6.1.4.1.3704.1.{suffix}"));
        assert_eq!(value("2").unwrap(), b"\x16\x08Milan-B0");
        assert_eq!(value("3.1").unwrap(), [2, 1, 4]);
        assert_eq!(value("3.2").unwrap(), [2, 1, 1]);
        assert_eq!(value("3.3").unwrap(), [2, 1, 24]);
        assert_eq!(value("3.8").unwrap(), [2, 2, 0, 219], "values above 127 take two bytes");
        assert_eq!(value("3.9"), None);
        assert_eq!(value("4").unwrap(), chip.id());
        assert_eq!(vcek.tbs_certificate().serial_number().as_bytes(), [0]);
    }

    #[test]
    fn a_turin_vcek_has_its_own_shape() {
        let chip = Chip::new(Product::Turin, [1; SECRET]);
        let vcek =
            authorities().ask.issue_vcek(&chip, Tcb { fmc: 9, ..Tcb::default() }, SystemTime::now()).unwrap();
        assert_eq!(value(&vcek, "1.3.6.1.4.1.3704.1.3.9").unwrap(), [2, 1, 9]);
        assert_eq!(value(&vcek, "1.3.6.1.4.1.3704.1.4").unwrap(), chip.id()[..8]);
    }

    #[test]
    fn a_stored_signing_key_signs_the_same() {
        let all = authorities();
        let again = Authority::ask_from_pem(&all.ask.to_pem().unwrap(), Product::Milan).unwrap();
        let chip = Chip::new(Product::Milan, [1; SECRET]);
        let vcek = again.issue_vcek(&chip, Tcb::default(), SystemTime::now()).unwrap();
        assert!(signed_by(&vcek, &all.ask));
        assert!(Authority::ask_from_pem("-----BEGIN PRIVATE KEY-----\n", Product::Milan).is_err());
    }
}
