//! Whom an https service is trusted by: the system's certification authorities, or those of a file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Where distributions keep their CAs in one file.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const BUNDLE_LIMIT: u64 = 8 * 1024 * 1024;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No bundle anywhere.
    #[error("no CA certificates found on this machine; install ca-certificates, or name a CA file")]
    NoSystemBundle,
    /// The file can't be read.
    #[error("CA file {path} can't be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file holds nothing that can be used.
    #[error("CA file {0} holds no usable certificate")]
    Empty(PathBuf),
    /// The TLS library refused.
    #[error("TLS can't be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// Trusts the CAs of `file`, or the system's.
pub(crate) fn client(file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let path = match file {
        Some(path) => path,
        None => {
            SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists()).ok_or(TlsError::NoSystemBundle)?
        }
    };
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let mut pem = Vec::new();
    File::open(path).and_then(|file| file.take(BUNDLE_LIMIT).read_to_end(&mut pem)).map_err(failed)?;
    let mut roots = RootCertStore::empty();
    // Old bundles hold a few certificates that no library reads: skipping them trusts less, not more.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(TlsError::Empty(path.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
