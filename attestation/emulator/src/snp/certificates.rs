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
pub(crate) mod tests;
