//! Which roots are trusted: AMD's, pinned here by fingerprint, and emulated ones only where the
//! configuration of whoever verifies names their certificate.

use std::sync::Arc;

use tee_evidence::snp::Product;
use x509_cert::der::asn1::ObjectIdentifier;

use super::certificate::{Certificate, CertificateError};
use super::memo::Verified;
use crate::Trust;

/// Critical extension of every certificate of an emulated processor. Nothing that carries it is ever
/// accepted under AMD's roots.
pub const EMULATED_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.58270.1.1");

/// SHA-256 of the root certificates that AMD's key distribution service hands out.
const AMD_ROOTS: [(Product, [u8; 32]); 3] = [
    (
        Product::Milan, // ARK-Milan, serial 0x10000, 2020-10-22 to 2045-10-22
        [
            0x69, 0xd0, 0x63, 0xb4, 0x53, 0x44, 0xd2, 0x6a, 0x2e, 0x94, 0xe1, 0xf4, 0x21, 0x0d, 0xe4, 0x9e,
            0xf5, 0x55, 0x30, 0x82, 0x87, 0xd4, 0xc1, 0x74, 0x44, 0x5c, 0x95, 0x63, 0x9a, 0x54, 0x0b, 0xcd,
        ],
    ),
    (
        Product::Genoa, // ARK-Genoa, serial 0x20000, 2022-01-26 to 2047-01-26
        [
            0x4c, 0x65, 0x98, 0xd1, 0x9c, 0x18, 0x71, 0x9c, 0x5d, 0xfd, 0x4a, 0x7d, 0x33, 0x5f, 0x67, 0x4e,
            0x5b, 0xfe, 0x1d, 0x8f, 0x80, 0x0c, 0xea, 0x2c, 0xf2, 0x70, 0xc1, 0x0d, 0x10, 0x3d, 0xb2, 0xf1,
        ],
    ),
    (
        Product::Turin, // ARK-Turin, serial 0x30000, 2023-05-15 to 2048-05-15
        [
            0x1f, 0x08, 0x41, 0x61, 0xa4, 0x4b, 0xb6, 0xd9, 0x37, 0x78, 0xa9, 0x04, 0x87, 0x7d, 0x48, 0x19,
            0xca, 0xfa, 0x5d, 0x05, 0xef, 0x41, 0x93, 0xb2, 0xde, 0xd9, 0xdd, 0x9c, 0x73, 0xdd, 0x3f, 0x6a,
        ],
    ),
];

/// Why a certificate is not taken as an emulated root.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// Not a certificate of the right form, or not self-signed.
    #[error("emulated root: certificate {0}")]
    Certificate(String),
    /// It does not say that it is an emulated one, so it must not be trusted as one.
    #[error(
        "emulated root '{0}' has no common name with 'EMULATED' or lacks the critical extension {EMULATED_OID}; use the certificate that 'sealpod-emulator init' wrote"
    )]
    NotMarked(String),
}

/// The roots that evidence may lead to. Keep one and clone it: the clones remember together which
/// certificate signatures have verified, so that only a chip's first report costs RSA.
#[derive(Debug, Clone)]
pub struct Anchors {
    amd: Vec<(Product, [u8; 32])>,
    emulated: Vec<Certificate>,
    pub(super) verified: Arc<Verified>,
}

/// A root, found for a chain.
#[derive(Debug)]
pub(crate) enum Anchor<'a> {
    Amd(Product),
    Emulated(&'a Certificate),
}

impl Anchors {
    /// AMD's roots for Milan, Genoa and Turin.
    pub fn amd() -> Self {
        Self { amd: AMD_ROOTS.to_vec(), emulated: Vec::new(), verified: Arc::default() }
    }

    /// Also trusts an emulated root, given as DER or PEM. Evidence under it is only ever of the kind
    /// [`crate::TeeKind::SnpEmulated`].
    pub fn with_emulated(mut self, certificate: &[u8]) -> Result<Self, AnchorError> {
        let not = |error: CertificateError| AnchorError::Certificate(error.to_string());
        let root = Certificate::parse(certificate).map_err(not)?;
        if !root.marked_emulated() {
            return Err(AnchorError::NotMarked(root.common_name()));
        }
        root.check_authority().map_err(not)?;
        root.check_issued_by(&root, &self.verified).map_err(not)?;
        self.emulated.push(root);
        Ok(self)
    }

    /// The same roots, with no memory of what has verified: for measuring what that is worth.
    #[must_use]
    pub fn forgetful(&self) -> Self {
        Self { verified: Arc::default(), ..self.clone() }
    }

    /// The emulated roots, for whoever has to say loudly that there are some.
    pub fn emulated(&self) -> impl Iterator<Item = Trust> {
        self.emulated.iter().map(emulated_trust)
    }

    /// SHA-256 of each root's certificate, for a cache that keeps nothing under other roots.
    pub fn fingerprints(&self) -> Vec<[u8; 32]> {
        let amd = self.amd.iter().map(|(_, fingerprint)| *fingerprint);
        amd.chain(self.emulated.iter().map(Certificate::fingerprint)).collect()
    }

    /// The anchor that this root certificate is, if any.
    pub(crate) fn find(&self, root: &Certificate) -> Option<Anchor<'_>> {
        let fingerprint = root.fingerprint();
        if let Some((product, _)) = self.amd.iter().find(|(_, pinned)| *pinned == fingerprint) {
            return Some(Anchor::Amd(*product));
        }
        self.emulated.iter().find(|anchor| anchor.fingerprint() == fingerprint).map(Anchor::Emulated)
    }

    /// Other fingerprints in the place of AMD's: with AMD's own, no test could break one thing in a chain.
    #[cfg(test)]
    pub(crate) fn pinned(product: Product, root: &[u8]) -> Self {
        let fingerprint = Certificate::parse(root).map(|root| root.fingerprint()).unwrap_or_default();
        Self { amd: vec![(product, fingerprint)], emulated: Vec::new(), verified: Arc::default() }
    }
}

pub(crate) fn emulated_trust(root: &Certificate) -> Trust {
    Trust::Emulated { common_name: root.common_name(), fingerprint: root.fingerprint() }
}
