//! The certificate chain of an emulated processor: AMD's formats and OIDs (VCEK certificate and KDS
//! interface specification), told apart from AMD's by name and by a critical extension.

use crate::snp::chip::Chip;
use crate::snp::crl::Revocations;
use crate::snp::product::{Product, Tcb};
use crate::snp::report::KeyKind;
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
const VLEK_DAYS: u32 = 365;
/// The cloud provider that VLEK certificates name.
pub const CSP_ID: &str = "emulated-cloud";

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

/// Serial numbers of the authorities' certificates.
pub mod serial {
    /// The root's.
    pub const ARK: u32 = 65536;
    /// The one that certifies VCEKs.
    pub const ASK: u32 = 65537;
    /// The one that certifies VLEKs.
    pub const ASVK: u32 = 65538;
}

/// The authorities of one product with their certificates.
#[derive(Debug)]
pub struct Authorities {
    /// The root.
    pub ark: Authority,
    /// Its self-signed certificate.
    pub ark_certificate: Certificate,
    /// What signs chips' own keys (VCEK).
    pub ask: Authority,
    /// Its certificate, by the root.
    pub ask_certificate: Certificate,
    /// What signs cloud providers' keys (VLEK).
    pub asvk: Authority,
    /// Its certificate, by the root.
    pub asvk_certificate: Certificate,
}

impl Authorities {
    /// New keys of `bits` each; [`AUTHORITY_BITS`] is AMD's.
    pub fn generate(product: Product, bits: usize, now: SystemTime) -> Result<Self, CertificateError> {
        let [ark, ask, asvk] = Authority::names(product);
        let ark = Authority::generate(ark, bits)?;
        let ask = Authority::generate(ask, bits)?;
        let asvk = Authority::generate(asvk, bits)?;
        let ark_certificate = ark.issue_authority(&ark, serial::ARK, None, now)?;
        let ask_certificate = ark.issue_authority(&ask, serial::ASK, Some(0), now)?;
        let asvk_certificate = ark.issue_authority(&asvk, serial::ASVK, Some(0), now)?;
        Ok(Self { ark, ark_certificate, ask, ask_certificate, asvk, asvk_certificate })
    }

    /// The revocation list as the root signs it now, DER.
    pub fn crl(&self, list: &Revocations) -> Result<Vec<u8>, CertificateError> {
        list.sign(&self.ark, &self.ark_certificate)
    }

    /// What certifies keys of that kind, and its certificate.
    pub fn issuer_of(&self, kind: KeyKind) -> (&Authority, &Certificate) {
        match kind {
            KeyKind::Vcek => (&self.ask, &self.ask_certificate),
            KeyKind::Vlek => (&self.asvk, &self.asvk_certificate),
        }
    }
}

/// What the certificate of a report-signing key says.
#[derive(Debug, Clone)]
pub struct Endorsement {
    /// VCEK or VLEK.
    pub kind: KeyKind,
    /// The TCB that the key stands for.
    pub tcb: Tcb,
    /// Valid from then.
    pub not_before: SystemTime,
    /// Valid until then.
    pub not_after: SystemTime,
    /// Extensions below 1.3.6.1.4.1.3704.1 that are left out.
    pub without: Vec<String>,
    /// Extensions there with other values.
    pub with: Vec<(String, Vec<u8>)>,
}

impl Endorsement {
    /// As AMD issues it. From a day ago, for guests and brokers whose clocks differ; VLEKs live a year.
    pub fn new(kind: KeyKind, tcb: Tcb, now: SystemTime) -> Self {
        let days = match kind {
            KeyKind::Vcek => VCEK_DAYS,
            KeyKind::Vlek => VLEK_DAYS,
        };
        let (not_before, not_after) = (now - DAY, now + DAY * days);
        Self { kind, tcb, not_before, not_after, without: Vec::new(), with: Vec::new() }
    }
}

impl Authority {
    fn generate(common_name: String, bits: usize) -> Result<Self, CertificateError> {
        let key = RsaPrivateKey::new(&mut UnwrapErr(SysRng), bits).map_err(CertificateError::Generate)?;
        Ok(Self { key: SigningKey::new(key), common_name })
    }

    /// Common names of ARK, ASK and ASVK.
    pub(crate) fn names(product: Product) -> [String; 3] {
        ["ARK-EMULATED", "SEV-EMULATED", "SEV-VLEK-EMULATED"].map(|stem| format!("{stem} {}", product.name()))
    }

    /// The authority of that name, from PKCS#8 PEM.
    pub fn from_pem(pem: &str, common_name: String) -> Result<Self, CertificateError> {
        let key = RsaPrivateKey::from_pkcs8_pem(pem).map_err(CertificateError::Pkcs8)?;
        Ok(Self { key: SigningKey::new(key), common_name })
    }

    /// The key as PKCS#8 PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, CertificateError> {
        let key: &RsaPrivateKey = self.key.as_ref();
        key.to_pkcs8_pem(LineEnding::LF).map_err(CertificateError::Pkcs8)
    }

    pub(crate) fn signer(&self) -> &SigningKey<Sha384> {
        &self.key
    }

    /// Signs the certificate of the key that `chip` has at the endorsement's TCB.
    pub fn endorse(&self, chip: &Chip, endorsement: &Endorsement) -> Result<Certificate, CertificateError> {
        let common_name = match endorsement.kind {
            KeyKind::Vcek => "SEV-VCEK EMULATED",
            KeyKind::Vlek => "SEV-VLEK EMULATED",
        };
        let make = || {
            let key = chip.signing_key(endorsement.kind, endorsement.tcb);
            let key = SubjectPublicKeyInfoOwned::from_key(key.verifying_key())?;
            let validity = validity(endorsement.not_before, endorsement.not_after)?;
            self.issue(common_name, key, 0, endorsement_extensions(chip, endorsement)?, validity)
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
            let validity = validity(now - DAY, now + DAY * AUTHORITY_DAYS)?;
            self.issue(&subject.common_name, key, serial, extensions, validity)
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

fn validity(from: SystemTime, to: SystemTime) -> builder::Result<Validity> {
    Ok(Validity::new(Time::try_from(from)?, Time::try_from(to)?))
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

/// In the order of AMD's certificates: structure version, product, patch levels, then hardware id or cloud
/// provider.
fn endorsement_extensions(chip: &Chip, endorsement: &Endorsement) -> builder::Result<Vec<Extension>> {
    let Endorsement { kind, tcb, .. } = endorsement;
    let product = chip.product();
    let zero = 0_u8.to_der()?;
    let named = match kind {
        KeyKind::Vcek => product.stepping_name(),
        KeyKind::Vlek => product.name(),
    };
    let mut values = vec![
        ("1", zero.clone()),
        ("2", Ia5StringRef::new(named)?.to_der()?),
        ("3.1", tcb.bootloader.to_der()?),
        ("3.2", tcb.tee.to_der()?),
        ("3.4", zero.clone()),
        ("3.5", zero.clone()),
        ("3.6", zero.clone()),
        ("3.7", zero),
        ("3.3", tcb.snp.to_der()?),
        ("3.8", tcb.microcode.to_der()?),
    ];
    if product == Product::Turin {
        values.push(("3.9", tcb.fmc.to_der()?));
    }
    values.push(match kind {
        // The hardware id stands in the extension's value as it is, without a type of its own.
        KeyKind::Vcek => ("4", chip.id()[..product.hardware_id_length()].to_vec()),
        KeyKind::Vlek => ("5", Ia5StringRef::new(CSP_ID)?.to_der()?),
    });
    values.retain(|(suffix, _)| !endorsement.without.iter().any(|without| without == suffix));
    for (suffix, value) in &endorsement.with {
        values.retain(|(other, _)| other != suffix);
        values.push((suffix, value.clone()));
    }
    let mut extensions: Vec<_> =
        values.into_iter().map(|(suffix, value)| amd(suffix, value)).collect::<builder::Result<_>>()?;
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
    use crate::snp::chip::SECRET;
    use rsa::pss::VerifyingKey;
    use rsa::signature::Verifier;
    use std::sync::OnceLock;
    use x509_cert::der::Decode;

    /// Half of AMD's key length, so that the tests stay fast; one pair for all tests.
    pub(crate) fn authorities() -> &'static Authorities {
        static ONE: OnceLock<Authorities> = OnceLock::new();
        ONE.get_or_init(|| Authorities::generate(Product::Milan, 2048, SystemTime::now()).unwrap())
    }

    fn vcek(chip: &Chip, tcb: Tcb) -> Certificate {
        let endorsement = Endorsement::new(KeyKind::Vcek, tcb, SystemTime::now());
        authorities().ask.endorse(chip, &endorsement).unwrap()
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
        let vcek = vcek(&chip, Tcb::default());
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
        let vcek = vcek(&chip, Tcb::default());
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
        let vcek = vcek(&chip, tcb);
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
    fn a_vlek_names_a_cloud_provider_and_no_chip() {
        let all = authorities();
        let chip = Chip::new(Product::Milan, [1; SECRET]);
        let endorsement = Endorsement::new(KeyKind::Vlek, Tcb::default(), SystemTime::now());
        let vlek = all.asvk.endorse(&chip, &endorsement).unwrap();
        let value = |suffix: &str| value(&vlek, &format!("1.3.6.1.4.1.3704.1.{suffix}"));
        assert_eq!(value("2").unwrap(), b"\x16\x05Milan");
        assert_eq!(value("4"), None);
        assert_eq!(value("5").unwrap(), b"\x16\x0eemulated-cloud");
        assert!(signed_by(&vlek, &all.asvk) && !signed_by(&vlek, &all.ask));
        assert!(signed_by(&all.asvk_certificate, &all.ark));
        assert!(vlek.tbs_certificate().subject().to_string().contains("SEV-VLEK"));
    }

    #[test]
    fn extensions_can_be_left_out_or_say_something_else() {
        let chip = Chip::new(Product::Milan, [1; SECRET]);
        let endorsement = Endorsement {
            without: vec!["3.2".into()],
            with: vec![("4".into(), vec![7; 64]), ("5".into(), vec![0x16, 1, b'x'])],
            ..Endorsement::new(KeyKind::Vcek, Tcb::default(), SystemTime::now())
        };
        let vcek = authorities().ask.endorse(&chip, &endorsement).unwrap();
        let value = |suffix: &str| value(&vcek, &format!("1.3.6.1.4.1.3704.1.{suffix}"));
        assert_eq!((value("3.2"), value("4").unwrap()), (None, vec![7; 64]));
        assert_eq!(value("5").unwrap(), [0x16, 1, b'x']);
    }

    #[test]
    fn a_turin_vcek_has_its_own_shape() {
        let chip = Chip::new(Product::Turin, [1; SECRET]);
        let vcek = vcek(&chip, Tcb { fmc: 9, ..Tcb::default() });
        assert_eq!(value(&vcek, "1.3.6.1.4.1.3704.1.3.9").unwrap(), [2, 1, 9]);
        assert_eq!(value(&vcek, "1.3.6.1.4.1.3704.1.4").unwrap(), chip.id()[..8]);
    }

    #[test]
    fn a_stored_signing_key_signs_the_same() {
        let all = authorities();
        let again = Authority::from_pem(&all.ask.to_pem().unwrap(), "SEV-EMULATED Milan".into()).unwrap();
        let chip = Chip::new(Product::Milan, [1; SECRET]);
        let endorsement = Endorsement::new(KeyKind::Vcek, Tcb::default(), SystemTime::now());
        let vcek = again.endorse(&chip, &endorsement).unwrap();
        assert!(signed_by(&vcek, &all.ask));
        assert!(Authority::from_pem("-----BEGIN PRIVATE KEY-----\n", String::new()).is_err());
    }
}
