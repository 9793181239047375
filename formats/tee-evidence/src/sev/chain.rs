//! The chain that PDH_CERT_EXPORT (and so QMP's `query-sev-capabilities`) hands out beside the PDH: PEK, OCA and
//! CEK, one after the other. AMD 55766 §5.12.

use super::{Certificate, CertificateError, Usage};

/// Why bytes are not a platform's chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not three certificates.
    #[error("SEV certificate chain has {0} bytes; PEK, OCA and CEK have {len}", len = CertChain::LEN)]
    Length(usize),
    /// One of them can't be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A kind is missing, and so another one is there twice or doesn't belong there.
    #[error("SEV certificate chain holds no {0}, or another certificate twice")]
    Missing(Usage),
}

/// A chain that can be read. Nothing in it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertChain {
    /// Platform endorsement key.
    pub pek: Certificate,
    /// Owner's certificate authority.
    pub oca: Certificate,
    /// Chip endorsement key.
    pub cek: Certificate,
}

impl CertChain {
    /// Bytes of a chain.
    pub const LEN: usize = 3 * Certificate::LEN;

    /// Reads a chain. What a certificate is, it says itself; its place counts for nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, ChainError> {
        if bytes.len() != Self::LEN {
            return Err(ChainError::Length(bytes.len()));
        }
        let mut certificates = Vec::with_capacity(3);
        for certificate in bytes.chunks_exact(Certificate::LEN) {
            certificates.push(Certificate::parse(certificate)?);
        }
        let mut take = |usage: Usage| {
            let at = certificates.iter().position(|certificate| certificate.usage() == usage);
            at.map(|at| certificates.swap_remove(at)).ok_or(ChainError::Missing(usage))
        };
        Ok(Self { pek: take(Usage::Pek)?, oca: take(Usage::Oca)?, cek: take(Usage::Cek)? })
    }

    /// The bytes, in the firmware's order.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.pek, &self.oca, &self.cek].map(|certificate| certificate.bytes().as_slice()).concat()
    }
}
