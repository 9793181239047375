//! From bytes to a report whose signature leads to a trusted root: layout, key info, product, chain,
//! revocation, signature, endorsement, in this order.

use std::time::SystemTime;

use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use tee_evidence::snp::{
    ALGORITHM_ECDSA_P384_SHA384, CertEntry, CertKind, Product, RawReport, Report, SigningKey,
};
use x509_cert::time::Time;

use super::anchors::{Anchor, Anchors, emulated_trust};
use super::certificate::{Certificate, CertificateError};
use super::crl::Crl;
use super::endorsement::Endorsement;
use crate::checks::Checks;
use crate::denial::refuse;
use crate::{Check, Denial, Trust};

/// The checks from bytes to a verdict.
const PLAN: &[&str] = &[
    "report_layout",
    "key_info",
    "certificates",
    "product",
    "certificate_chain",
    "crl",
    "signature",
    "endorsement",
    "report_data",
    "host_data",
    "tcb_order",
    "guest_policy_form",
    "asked_by_guest",
];

/// A report and certificates that can be read. Nothing in them is trusted.
#[derive(Debug)]
pub struct Evidence {
    raw: RawReport,
    report: Report,
    key: SigningKey,
    ark: Certificate,
    ask: Certificate,
    vek: Certificate,
    crls: Vec<Vec<u8>>,
    checks: Checks,
}

/// Whether evidence needs a revocation list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Revocation {
    /// The root's own list, in force now, must be there and must not name ASK or ASVK.
    #[default]
    Required,
    /// No list is asked for, so a key that AMD has withdrawn is not noticed. Every verdict says so.
    Waived,
}

/// A report whose signature leads to a trusted root; it still may be of another session or guest.
#[derive(Debug)]
pub struct SignatureChecked {
    pub(super) report: Report,
    pub(super) key: SigningKey,
    pub(super) product: Product,
    pub(super) trust: Trust,
    pub(super) csp_id: Option<String>,
    pub(super) checks: Checks,
}

impl Evidence {
    /// Reads a report of 1184 bytes and the certificates that came with it or that the relying party
    /// keeps: ARK, ASK (or ASVK), VCEK or VLEK, and any number of revocation lists, DER or PEM. Others are not
    /// looked at.
    pub fn parse(report: &[u8], chain: &[CertEntry]) -> Result<Self, Denial> {
        let mut checks = Checks::new(PLAN);
        let (raw, report) = checks.run("report_layout", || {
            let unreadable =
                |error: tee_evidence::snp::ReportError| Denial::new(Check::Evidence, error.to_string());
            let raw = RawReport::from_bytes(report).map_err(unreadable)?;
            let report = Report::from_raw(&raw).map_err(unreadable)?;
            let value = format!("version {}", report.version);
            Ok(((raw, report), value))
        })?;
        let key = checks.run("key_info", || {
            let key = check_key_info(&report)?;
            Ok((key, format!("signed by {}", kind_name(key))))
        })?;
        let (vek, ask, ark) = checks.run("certificates", || {
            let vek = match key {
                SigningKey::Vcek => CertKind::Vcek,
                SigningKey::Vlek => CertKind::Vlek,
            };
            let found = (
                one(chain, vek, kind_name(key))?,
                one(chain, CertKind::Ask, "ASK")?,
                one(chain, CertKind::Ark, "ARK")?,
            );
            Ok((found, format!("{}, ASK, ARK", kind_name(key))))
        })?;
        let lists = chain.iter().filter(|entry| entry.kind == CertKind::Crl);
        let crls = lists.map(|entry| entry.data.clone()).collect();
        Ok(Self { raw, report, key, ark, ask, vek, crls, checks })
    }

    /// The report as it claims to be, for error messages and for finding collateral.
    pub const fn unverified_report(&self) -> &Report {
        &self.report
    }

    /// Checks that the report is signed by a key that a trusted root endorses at this time, and that the
    /// endorsement is the one for this report's product, chip and TCB.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn check_signature(
        self,
        anchors: &Anchors,
        revocation: Revocation,
        now: SystemTime,
    ) -> Result<SignatureChecked, Denial> {
        let mut checks = self.checks.clone();
        let product = checks.run("product", || {
            let product = self.check_product()?;
            Ok((product, product.name().to_owned()))
        })?;
        let trust = checks.run("certificate_chain", || {
            let trust = self.check_chain(anchors, product, now)?;
            let value = trust.to_string();
            Ok((trust, value))
        })?;
        match revocation {
            Revocation::Required => checks.pass("crl", || self.check_crl(anchors, now))?,
            Revocation::Waived => checks.not_checked(
                "crl",
                "whoever appraises asked for no revocation list: keys that AMD withdrew are not noticed",
            ),
        }
        checks.pass("signature", || {
            self.check_ecdsa()?;
            Ok("ECDSA P-384 with SHA-384".to_owned())
        })?;
        let endorsement = checks.run("endorsement", || {
            let endorsement = Endorsement::read(&self.vek, self.key)?;
            endorsement.check_report(&self.report)?;
            Ok((endorsement, format!("{} matches TCB and chip", kind_name(self.key))))
        })?;
        Ok(SignatureChecked {
            key: self.key,
            product,
            trust,
            csp_id: endorsement.csp_id().map(str::to_owned),
            report: self.report,
            checks,
        })
    }

    /// The product: CPUID says it from version 3 on, and the certificate says it always.
    fn check_product(&self) -> Result<Product, Denial> {
        let certified = Endorsement::product_of(&self.vek)?;
        let Some(cpuid) = self.report.cpuid else { return Ok(certified) };
        match Product::from_cpuid(cpuid) {
            None => refuse!(
                Evidence,
                "report is of a processor with family {:#x} and model {:#x}, which is not a known SNP product",
                cpuid.family,
                cpuid.model
            ),
            Some(product) if product != certified => refuse!(
                Collateral,
                "report is of a {}, its certificate of a {}",
                product.name(),
                certified.name()
            ),
            Some(product) => Ok(product),
        }
    }

    fn check_chain(&self, anchors: &Anchors, product: Product, now: SystemTime) -> Result<Trust, Denial> {
        let Some(anchor) = anchors.find(&self.ark) else {
            return refuse!(
                CertificateChain,
                "root '{}' ({}) is not trusted here",
                self.ark.common_name(),
                hex::encode(self.ark.fingerprint())
            );
        };
        let (ask, vek) = self.names(product);
        let trust = match anchor {
            Anchor::Amd(of) => {
                if of != product {
                    return refuse!(
                        CertificateChain,
                        "root is for {}, the signing key for {}",
                        of.name(),
                        product.name()
                    );
                }
                for certificate in [&self.ark, &self.ask, &self.vek] {
                    if certificate.says_emulated() {
                        return refuse!(
                            CertificateChain,
                            "'{}' is of an emulated processor, under AMD's root",
                            certificate.common_name()
                        );
                    }
                }
                for (certificate, expected) in [(&self.ask, ask.as_str()), (&self.vek, vek)] {
                    if certificate.common_name() != expected {
                        return refuse!(
                            CertificateChain,
                            "certificate has the common name '{}' where '{expected}' belongs",
                            certificate.common_name()
                        );
                    }
                }
                Trust::Amd
            }
            Anchor::Emulated(root) => {
                for certificate in [&self.ask, &self.vek] {
                    if !certificate.marked_emulated() {
                        return refuse!(
                            CertificateChain,
                            "'{}' stands under an emulated root but is not marked as emulated",
                            certificate.common_name()
                        );
                    }
                    let loaded = certificate.common_name().contains("VLEK");
                    if loaded != (self.key == SigningKey::Vlek) {
                        return refuse!(
                            CertificateChain,
                            "'{}' is not for a {}",
                            certificate.common_name(),
                            kind_name(self.key)
                        );
                    }
                }
                emulated_trust(root)
            }
        };
        self.vek.check_leaf().map_err(chain_error(kind_name(self.key)))?;
        self.ark.check_authority().map_err(chain_error("ARK"))?;
        self.ask.check_authority().map_err(chain_error("ASK"))?;
        self.ask.check_issued_by(&self.ark, &anchors.verified).map_err(chain_error("ASK"))?;
        self.vek.check_issued_by(&self.ask, &anchors.verified).map_err(chain_error(kind_name(self.key)))?;
        for (certificate, name) in [(&self.ark, "ARK"), (&self.ask, "ASK"), (&self.vek, kind_name(self.key))]
        {
            certificate.check_dates(now).map_err(chain_error(name))?;
        }
        Ok(trust)
    }

    /// Is there a list that the chain's root signed and that is in force, and does none name a certificate
    /// between root and VEK? A list that is too old still counts against what it names. The ones that
    /// can't be used are the sender's mistake or mischief, and change nothing.
    fn check_crl(&self, anchors: &Anchors, now: SystemTime) -> Result<String, Denial> {
        let mut newest: Option<Time> = None;
        let mut problem = None;
        for bytes in &self.crls {
            let read = Crl::parse(bytes).and_then(|crl| {
                crl.check_issued_by(&self.ark, &anchors.verified)?;
                Ok(crl)
            });
            let crl = match read {
                Ok(crl) => crl,
                Err(error) => {
                    problem.get_or_insert(error);
                    continue;
                }
            };
            for certificate in [&self.ask, &self.ark] {
                if crl.revokes(certificate.serial()) {
                    return refuse!(
                        CertificateChain,
                        "'{}' (serial {}) is revoked by its root",
                        certificate.common_name(),
                        certificate.serial()
                    );
                }
            }
            let made = crl.this_update();
            match crl.check_dates(now) {
                Ok(()) if newest.is_none_or(|other| other.to_unix_duration() < made.to_unix_duration()) => {
                    newest = Some(made);
                }
                Ok(()) => (),
                // It tells more than one that isn't the root's at all.
                Err(error) => problem = Some(error),
            }
        }
        match (newest, problem) {
            (Some(made), _) => Ok(format!("list of {made}: ASK is not revoked")),
            (None, Some(error)) => {
                refuse!(Collateral, "revocation list {error}; fetch or import a fresh one")
            }
            (None, None) => {
                refuse!(Collateral, "there is no revocation list; have the host provide it or import it")
            }
        }
    }

    /// The common names that AMD gives signing key and report-signing key.
    fn names(&self, product: Product) -> (String, &'static str) {
        match self.key {
            SigningKey::Vcek => (format!("SEV-{}", product.name()), "SEV-VCEK"),
            SigningKey::Vlek => (format!("SEV-VLEK-{}", product.name()), "SEV-VLEK"),
        }
    }

    fn check_ecdsa(&self) -> Result<(), Denial> {
        check_report_signature(&self.vek, &self.raw, &self.report).map_err(|error| match error {
            SignatureError::Long => {
                Denial::new(Check::Signature, "r or s of the report's signature is longer than 48 bytes")
            }
            SignatureError::Key(error) => chain_error(kind_name(self.key))(error),
            SignatureError::Wrong => {
                let detail = format!("report is not signed by the key of its {}", kind_name(self.key));
                Denial::new(Check::Signature, detail)
            }
        })
    }
}

/// Why a report's signature is not that certificate's.
pub(super) enum SignatureError {
    /// It can't be anybody's.
    Long,
    /// The certificate has no key that could.
    Key(CertificateError),
    /// It isn't.
    Wrong,
}

pub(super) fn check_report_signature(
    vek: &Certificate,
    raw: &RawReport,
    report: &Report,
) -> Result<(), SignatureError> {
    let key = vek.p384_key().map_err(SignatureError::Key)?;
    let signature = report.signature.to_fixed().ok_or(SignatureError::Long)?;
    // ring refuses r and s that are zero or not below the order, so each has one encoding.
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key)
        .verify(raw.signed(), &signature)
        .map_err(|_| SignatureError::Wrong)
}

/// Signature algorithm and key info are ones that we know, and somebody signed.
fn check_key_info(report: &Report) -> Result<SigningKey, Denial> {
    if report.signature_algo != ALGORITHM_ECDSA_P384_SHA384 {
        return refuse!(Evidence, "signature algorithm {} is not ECDSA P-384", report.signature_algo);
    }
    let info = report.key_info;
    if !info.reserved_is_zero() {
        return refuse!(Evidence, "key info {:#x} has reserved bits set", info.0);
    }
    // A provider's VLEK may well be in use where the chip's own key isn't.
    if info.mask_chip_key() && info.signing_key() != Some(SigningKey::Vlek) {
        return refuse!(Evidence, "platform masks its chip key, so its reports are not signed");
    }
    if !info.author_key_enabled() && report.author_key_digest != [0; 48] {
        return refuse!(Evidence, "report has an author key digest but says that there is no author key");
    }
    match info.signing_key() {
        Some(key) => Ok(key),
        None => refuse!(Evidence, "key info {:#x} names no key that signs reports", info.0),
    }
}

/// The one certificate of a kind: with two, which one counts would be the sender's choice.
fn one(chain: &[CertEntry], kind: CertKind, name: &'static str) -> Result<Certificate, Denial> {
    let mut entries = chain.iter().filter(|entry| entry.kind == kind);
    let Some(entry) = entries.next() else {
        return refuse!(Collateral, "there is no {name} certificate; have the host provide it or import it");
    };
    if entries.next().is_some() {
        return refuse!(Evidence, "there are two {name} certificates");
    }
    Certificate::parse(&entry.data)
        .map_err(|error| Denial::new(Check::Evidence, format!("{name} certificate {error}")))
}

const fn kind_name(key: SigningKey) -> &'static str {
    match key {
        SigningKey::Vcek => "VCEK",
        SigningKey::Vlek => "VLEK",
    }
}

fn chain_error(name: &'static str) -> impl Fn(CertificateError) -> Denial {
    move |error| Denial::new(Check::CertificateChain, format!("{name} certificate {error}"))
}
