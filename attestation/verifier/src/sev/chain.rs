//! From a host's certificates to a platform whose Diffie-Hellman key AMD vouches for: ARK → ASK → CEK → PEK → PDH, and
//! the owner's certificate beside it. Signature slots are found by whose signature they say they hold.

use ring::digest::{SHA256, digest};
use tee_evidence::sev::{Authority, CertChain, Certificate, Usage};

use super::crypto::{rsa_algorithm, verify_ecdsa, verify_rsa};
use super::curve::CurvePoint;
use super::{Anchors, CHAIN, SevProduct};
use crate::checks::Checks;
use crate::denial::refuse;
use crate::{Check, CheckRecord, Denial, Trust};

/// Most bundles of AMD's certificates that are looked at.
const MAX_AUTHORITIES: usize = 16;

/// What the host does not hand out, as bytes that nobody vouches for yet.
#[derive(Debug, Clone, Default)]
pub struct Collateral {
    /// AMD's `ask_ark` files, of any product.
    pub authorities: Vec<Vec<u8>>,
    /// The chip's CEK certificate as AMD's key distribution service signed it: firmware exports it unsigned.
    pub cek: Option<Vec<u8>>,
}

/// A platform's certificates, as its host handed them out. Nothing in them is trusted.
#[derive(Debug)]
pub struct Platform {
    pdh: Certificate,
    chain: CertChain,
}

/// A platform whose keys lead to a trusted root.
#[derive(Debug)]
pub struct ChainChecked {
    pub(super) pdh: CurvePoint,
    pub(super) product: SevProduct,
    pub(super) trust: Trust,
    pub(super) chip: [u8; 32],
    pub(super) checks: Vec<CheckRecord>,
}

impl ChainChecked {
    /// The chip: SHA-256 of its CEK certificate's signed part.
    pub const fn chip(&self) -> &[u8; 32] {
        &self.chip
    }
}

impl Platform {
    /// Reads what `query-sev-capabilities` hands out: the PDH certificate, and the chain of PEK, OCA and CEK.
    ///
    /// # Errors
    /// [`Check::Evidence`].
    pub fn parse(pdh: &[u8], chain: &[u8]) -> Result<Self, Denial> {
        let mut checks = Checks::new(CHAIN);
        checks.run("certificates", || {
            let unreadable = |error: &dyn std::fmt::Display| Denial::new(Check::Evidence, error.to_string());
            let pdh = Certificate::parse(pdh).map_err(|error| unreadable(&error))?;
            if pdh.usage() != Usage::Pdh {
                return refuse!(Evidence, "the platform's PDH certificate is one of a {}", pdh.usage());
            }
            let chain = CertChain::parse(chain).map_err(|error| unreadable(&error))?;
            Ok((Self { pdh, chain }, String::new()))
        })
    }

    /// Whether AMD's copy of the CEK is needed: the host's has no signature of AMD's.
    pub fn needs_cek(&self) -> bool {
        self.chain.cek.signature(Usage::Ask).is_none()
    }

    /// Checks every signature up to a trusted root, and that every key is a point on its curve.
    ///
    /// # Errors
    /// [`Check::CertificateChain`] or [`Check::Collateral`].
    pub fn check_chain(self, anchors: &Anchors, collateral: &Collateral) -> Result<ChainChecked, Denial> {
        let Self { pdh, chain: CertChain { pek, oca, cek } } = self;
        let mut checks = Checks::new(CHAIN);
        checks.pass("certificates", || {
            let (major, minor) = pdh.api();
            Ok(format!("PDH, PEK, OCA, CEK on P-384; PDH made by firmware {major}.{minor}"))
        })?;
        let point = checks.run("curve_points", || {
            for certificate in [&pek, &oca, &cek] {
                on_curve(certificate)?;
            }
            Ok((on_curve(&pdh)?, "PDH, PEK, OCA, CEK".to_owned()))
        })?;
        let signed_cek = checks.run("cek", || {
            let cek = signed_cek(&cek, collateral)?;
            Ok((cek, "CEK with ASK's signature".to_owned()))
        })?;
        let (product, trust) = checks.run("certificate_chain", || {
            let found = authority(&signed_cek, anchors, collateral)?;
            signed(&oca, &oca)?;
            signed(&pek, &signed_cek)?;
            signed(&pek, &oca)?;
            signed(&pdh, &pek)?;
            let what = format!("{}, {}", found.1, found.0.name());
            Ok((found, what))
        })?;
        checks.not_checked("revocation", "AMD publishes no revocation list for SEV's certificates");
        let mut chip = [0; 32];
        chip.copy_from_slice(digest(&SHA256, signed_cek.body()).as_ref());
        Ok(ChainChecked { pdh: point, product, trust, chip, checks: checks.into_records() })
    }
}

fn on_curve(certificate: &Certificate) -> Result<CurvePoint, Denial> {
    match CurvePoint::check(certificate.key()) {
        Some(point) => Ok(point),
        None => refuse!(
            CertificateChain,
            "the key of the platform's {} is no point on P-384 (CVE-2019-9836)",
            certificate.usage()
        ),
    }
}

/// The CEK with ASK's signature: the host's own copy if it has one, else AMD's of the same key.
fn signed_cek(exported: &Certificate, collateral: &Collateral) -> Result<Certificate, Denial> {
    if exported.signature(Usage::Ask).is_some() {
        return Ok(exported.clone());
    }
    let Some(bytes) = &collateral.cek else {
        return refuse!(
            Collateral,
            "the chip's CEK certificate came without AMD's signature, and none is cached for it; run 'sealpod \
             collateral import' with the answer of AMD's key distribution service for this chip's id"
        );
    };
    let cek = Certificate::parse(bytes)
        .map_err(|error| Denial::new(Check::Collateral, format!("cached CEK certificate: {error}")))?;
    if cek.usage() != Usage::Cek || cek.key() != exported.key() {
        return refuse!(Collateral, "the cached CEK certificate is for another chip than the host's");
    }
    if cek.signature(Usage::Ask).is_none() {
        return refuse!(Collateral, "the cached CEK certificate has no signature of AMD's");
    }
    Ok(cek)
}

/// Finds the ASK that signed this CEK and the trusted root that signed that ASK.
fn authority(
    cek: &Certificate,
    anchors: &Anchors,
    collateral: &Collateral,
) -> Result<(SevProduct, Trust), Denial> {
    let Some(signature) = cek.signature(Usage::Ask) else {
        return refuse!(CertificateChain, "the chip's CEK certificate is not signed by AMD's ASK");
    };
    let read = |bundle: &Vec<u8>| Authority::parse_bundle(bundle).ok();
    // A file that can't be read is no certificate; which ones there are is said where none fits.
    let mut known: Vec<Authority> = anchors.authorities().to_vec();
    known.extend(collateral.authorities.iter().take(MAX_AUTHORITIES).filter_map(read).flatten());
    let signs_cek = |ask: &&Authority| {
        ask.usage() == Usage::Ask
            && signature.algorithm == rsa_algorithm(ask)
            && signature
                .rsa(ask.modulus().len())
                .is_some_and(|signature| verify_rsa(ask, cek.body(), &signature))
    };
    let Some(ask) = known.iter().find(signs_cek) else {
        return refuse!(
            CertificateChain,
            "the chip's CEK certificate is signed by none of the {} AMD certificates that are cached",
            known.len()
        );
    };
    let Some(ark) = known.iter().find(|ark| ark.usage() == Usage::Ark && ark.key_id() == ask.certifying_id())
    else {
        return refuse!(Collateral, "the ARK that the chip's ASK names is not cached");
    };
    let Some(found) = anchors.find(ark) else {
        return refuse!(
            CertificateChain,
            "the platform's root is not one of AMD's; evidence of an emulated platform needs its ARK in the broker's \
             trust.emulated_sev_arks"
        );
    };
    if !ask.signature().is_some_and(|signature| verify_rsa(ark, ask.body(), signature)) {
        return refuse!(CertificateChain, "the chip's ASK is not signed by the root that it names");
    }
    Ok(found)
}

/// Is `certificate` signed by `by`, in the one slot that says so?
fn signed(certificate: &Certificate, by: &Certificate) -> Result<(), Denial> {
    let (usage, signer) = (certificate.usage(), by.usage());
    let Some(signature) = certificate.signature(signer) else {
        return refuse!(CertificateChain, "the platform's {usage} has no signature by its {signer}");
    };
    let good = signature
        .ecdsa()
        .is_some_and(|value| verify_ecdsa(by, signature.algorithm, certificate.body(), &value));
    if !good {
        return refuse!(CertificateChain, "the platform's {usage} is not signed by its {signer}");
    }
    Ok(())
}
