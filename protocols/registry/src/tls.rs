//! TLS towards registries: a certificate that is pinned for the registry if there is one, else the bundle.
//! Provider is ring, chosen here and not by process-wide state.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Debian's bundle is 220 KiB.
const MAX_BUNDLE: u64 = 4 << 20;

/// Trusts only the certificates in `pem` (those of a source).
pub(crate) fn trusting(pem: &str) -> Result<Arc<ClientConfig>, String> {
    let roots = roots(pem.as_bytes(), "the pinned registry certificate", false)?;
    configuration(roots)
}

/// Trusts the certificates in the bundle.
pub(crate) fn from_bundle(path: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let Some(path) = path else {
        return Err("there is no CA bundle here; pin the registry's CA certificate".into());
    };
    let name = format!("CA bundle {}", path.display());
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BUNDLE + 1).read_to_end(&mut pem))
        .map_err(|e| format!("{name}: {e}; pin the registry's CA certificate"))?;
    if pem.len() as u64 > MAX_BUNDLE {
        return Err(format!("{name} is larger than {MAX_BUNDLE} bytes"));
    }
    configuration(roots(&pem, &name, true)?)
}

/// Reads certificates. A bundle may hold a few that rustls can't use as anchors; a pin may not.
fn roots(pem: &[u8], name: &str, skip_unusable: bool) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| format!("{name} is not PEM: {e}"))?;
        match roots.add(certificate) {
            Ok(()) => {}
            Err(_) if skip_unusable => {}
            Err(e) => return Err(format!("{name} can't be a trust anchor: {e}")),
        }
    }
    if roots.is_empty() { Err(format!("{name} holds no certificate")) } else { Ok(roots) }
}

fn configuration(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS configuration: {e}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
