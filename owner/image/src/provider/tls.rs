//! TLS of gRPC providers: the configured CA or the system's, and the client's certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::config::GrpcTls;
use super::transport::TransportError;

const LIMIT: u64 = 8 * 1024 * 1024;
/// Where distributions keep their CAs in one file.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What makes the connection, and whom the certificate must be for.
pub(super) fn connector(
    settings: &GrpcTls,
    host: &str,
) -> Result<(TlsConnector, ServerName<'static>), TransportError> {
    let name = settings.server_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| refuse(Path::new(name), "not a name that a certificate can be for"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(Path::new("TLS"), error))?
        .with_root_certificates(roots(settings)?);
    let mut configuration = match (&settings.cert_file, &settings.key_file) {
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| refuse(key, format!("with {}: {error}", certificate.display())))?,
        _ => builder.with_no_client_auth(),
    };
    configuration.alpn_protocols = vec![b"h2".to_vec()];
    Ok((TlsConnector::from(Arc::new(configuration)), server))
}

fn roots(settings: &GrpcTls) -> Result<RootCertStore, TransportError> {
    let mut roots = RootCertStore::empty();
    match &settings.root_ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| refuse(path, error))?;
            }
        }
        None => {
            let path = SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists()).ok_or_else(|| {
                refuse(Path::new("TLS"), "no CA certificates on this machine; give root-ca-file")
            })?;
            let pem = read(path)?;
            // Old bundles hold a few that no library reads: skipping them trusts less, not more.
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
        }
    }
    Ok(roots)
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let pem = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(refuse(path, "no PEM certificates")),
    }
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TransportError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| refuse(path, "no PEM private key without a password"))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TransportError> {
    use std::io::Read as _;
    let mut bytes = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).map_err(|error| refuse(path, error))?;
    file.take(LIMIT).read_to_end(&mut bytes).map_err(|error| refuse(path, error))?;
    Ok(bytes)
}

fn refuse(path: &Path, problem: impl std::fmt::Display) -> TransportError {
    TransportError::Tls { path: path.into(), problem: problem.to_string() }
}
