//! What the certificate of a report-signing key says about chip, product and TCB, in extensions below
//! 1.3.6.1.4.1.3704.1 (AMD 57230 §3.1). The values are raw DER without a further wrapping.

use tee_evidence::snp::{Product, Report, SigningKey, Tcb};
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier};

use super::certificate::Certificate;
use crate::Denial;
use crate::denial::refuse;

const STRUCTURE_VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.1");
const PRODUCT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const BOOTLOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
/// Patch levels 4 to 7, which no product uses: bytes of the TCB version that are zero. Turin's certificates
/// leave the first one out.
const UNUSED: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.4"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.5"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.6"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.7"),
];
pub(crate) const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const CSP_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

/// The statements of a VCEK or VLEK certificate.
#[derive(Debug)]
pub(crate) struct Endorsement {
    product: Product,
    tcb: Tcb,
    identity: Identity,
}

#[derive(Debug)]
enum Identity {
    /// VCEK: which chip.
    Chip(Vec<u8>),
    /// VLEK: which cloud provider.
    Csp(String),
}

impl Endorsement {
    /// The product that the certificate names: what precedes the stepping, as in "Milan-B0".
    pub(crate) fn product_of(certificate: &Certificate) -> Result<Product, Denial> {
        let name = text(certificate, PRODUCT, "product")?;
        let stem = name.split_once('-').map_or(name.as_str(), |(stem, _)| stem);
        match Product::ALL.into_iter().find(|product| product.name() == stem) {
            Some(product) => Ok(product),
            None => refuse!(CertificateChain, "signing certificate names the unknown product '{name}'"),
        }
    }

    /// Reads what a certificate of that kind must say, and refuses what it must not say.
    pub(crate) fn read(certificate: &Certificate, kind: SigningKey) -> Result<Self, Denial> {
        let product = Self::product_of(certificate)?;
        let structure = number(certificate, STRUCTURE_VERSION, "structure version")?;
        if structure > 1 {
            return refuse!(
                CertificateChain,
                "signing certificate is of structure version {structure}, which is not known"
            );
        }
        for oid in UNUSED {
            if certificate.extension(oid).is_some() && number(certificate, oid, "unused patch level")? != 0 {
                return refuse!(CertificateChain, "signing certificate states an unused patch level ({oid})");
            }
        }
        let fmc = match product {
            Product::Turin => Some(number(certificate, FMC, "fmc")?),
            Product::Milan | Product::Genoa => {
                absent(certificate, FMC, "fmc", product.name())?;
                None
            }
        };
        let tcb = Tcb {
            fmc,
            bootloader: number(certificate, BOOTLOADER, "bootloader")?,
            tee: number(certificate, TEE, "tee")?,
            snp: number(certificate, SNP, "snp")?,
            microcode: number(certificate, MICROCODE, "microcode")?,
        };
        let identity = match kind {
            SigningKey::Vcek => {
                absent(certificate, CSP_ID, "cloud provider", "VCEK")?;
                let id = required(certificate, HARDWARE_ID, "hardware id")?;
                if id.len() != product.chip_id_len() {
                    return refuse!(CertificateChain, "VCEK has a hardware id of {} bytes", id.len());
                }
                Identity::Chip(id.to_vec())
            }
            SigningKey::Vlek => {
                absent(certificate, HARDWARE_ID, "hardware id", "VLEK")?;
                Identity::Csp(text(certificate, CSP_ID, "cloud provider")?)
            }
        };
        Ok(Self { product, tcb, identity })
    }

    pub(crate) fn csp_id(&self) -> Option<&str> {
        match &self.identity {
            Identity::Chip(_) => None,
            Identity::Csp(id) => Some(id),
        }
    }

    /// Does the certificate belong to this report: same product, TCB and chip?
    pub(crate) fn check_report(&self, report: &Report) -> Result<(), Denial> {
        let layout = self.product.tcb_layout();
        let reported = match report.reported_tcb.decode(layout) {
            Ok(reported) => reported,
            Err(error) => return refuse!(Evidence, "reported TCB: {error}"),
        };
        if reported != self.tcb {
            return refuse!(
                Collateral,
                "signing certificate is for the TCB ({}), the report for ({}); fetch the one for the reported TCB",
                crate::grant::show(self.tcb),
                crate::grant::show(reported)
            );
        }
        if let Identity::Chip(id) = &self.identity {
            if report.chip_id == [0; 64] {
                return refuse!(
                    Collateral,
                    "report hides its chip id, so its VCEK can't be matched to the chip"
                );
            }
            let (named, rest) = report.chip_id.split_at(id.len());
            if named != id || rest.iter().any(|&byte| byte != 0) {
                return refuse!(Collateral, "VCEK is for another chip than the report's");
            }
        }
        Ok(())
    }
}

fn required<'a>(certificate: &'a Certificate, oid: ObjectIdentifier, what: &str) -> Result<&'a [u8], Denial> {
    match certificate.extension(oid) {
        Some((value, _)) => Ok(value),
        None => refuse!(CertificateChain, "signing certificate does not state its {what} (extension {oid})"),
    }
}

fn absent(certificate: &Certificate, oid: ObjectIdentifier, what: &str, kind: &str) -> Result<(), Denial> {
    match certificate.extension(oid) {
        None => Ok(()),
        Some(_) => {
            refuse!(CertificateChain, "signing certificate of a {kind} states a {what} (extension {oid})")
        }
    }
}

fn number(certificate: &Certificate, oid: ObjectIdentifier, what: &str) -> Result<u8, Denial> {
    match u8::from_der(required(certificate, oid, what)?) {
        Ok(number) => Ok(number),
        Err(_) => {
            refuse!(CertificateChain, "signing certificate's {what} (extension {oid}) is no number below 256")
        }
    }
}

fn text(certificate: &Certificate, oid: ObjectIdentifier, what: &str) -> Result<String, Denial> {
    match Ia5StringRef::from_der(required(certificate, oid, what)?) {
        Ok(text) => Ok(text.as_str().to_owned()),
        Err(_) => refuse!(CertificateChain, "signing certificate's {what} (extension {oid}) is no text"),
    }
}
