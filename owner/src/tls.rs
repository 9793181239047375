//! TLS to the broker, which only its pinned certificates vouch for; and where this system's CAs are.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// Where distributions keep their CAs in one file.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there is no TLS configuration.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// Text without a usable certificate.
    #[error(
        "no usable certificate in the PEM text; give the CA's certificate, which starts with BEGIN CERTIFICATE"
    )]
    NoCertificate,
    /// A damaged certificate.
    #[error("certificate {0} of the PEM text is damaged")]
    Damaged(usize),
    /// The TLS library refused.
    #[error("TLS can't be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// Trusts only these certificates.
pub(crate) fn pinned(pem: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let certificate = certificate.map_err(|_| TlsError::Damaged(index + 1))?;
        roots.add(certificate).map_err(|_| TlsError::Damaged(index + 1))?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    configuration(roots)
}

/// Where this system's CAs are.
pub(crate) fn system_bundle() -> Option<PathBuf> {
    SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists())
}

fn configuration(roots: RootCertStore) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
