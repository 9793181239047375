//! The broker's own CA and the server certificate under it (TLS 1.3 only, ring).
//!
//! Owners pin `ca.pem`. The server's key lives in memory only and is new with every start: what isn't
//! stored can't be copied from the disk.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// Years that the CA and the certificates under it are good for.
const YEARS: i64 = 10;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate can't be made.
    #[error("the broker's certificate can't be made")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused its configuration.
    #[error("TLS can't be configured")]
    Configure(#[from] rustls::Error),
}

/// A new CA.
pub struct NewCa {
    /// Certificate, PEM.
    pub certificate: String,
    /// Private key, PEM.
    pub key: Zeroizing<String>,
}

/// Makes a CA.
///
/// # Errors
/// [`TlsError::Certificate`].
pub fn new_ca() -> Result<NewCa, TlsError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = ca_params(&key).self_signed(&key)?.pem();
    Ok(NewCa { certificate, key: Zeroizing::new(key.serialize_pem()) })
}

/// Makes a server certificate for `names` under the CA with `ca_key`, and the configuration that serves it.
///
/// # Errors
/// [`TlsError`].
pub fn server_config(ca_key: &str, names: &[String]) -> Result<Arc<ServerConfig>, TlsError> {
    let ca_key = KeyPair::from_pem(ca_key)?;
    let issuer_params = ca_params(&ca_key);
    let issuer = Issuer::from_params(&issuer_params, ca_key);

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "sealpod-broker");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = validity();
    let certificate = params.signed_by(&key, &issuer)?.der().clone();

    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A guest handshakes once: tickets would only be state to hold for strangers.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The same for the same key, so that the CA's certificate need not be parsed to sign under it.
fn ca_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let id = ring::digest::digest(&ring::digest::SHA256, key.public_key_raw());
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Sealpod broker CA {}", hex::encode(&id.as_ref()[..4])));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity();
    params
}

fn validity() -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = time::OffsetDateTime::now_utc();
    // A guest's clock comes from its host and may be behind.
    (now - time::Duration::days(2), now + time::Duration::days(365 * YEARS))
}

#[cfg(test)]
mod tests {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    /// What a pinned client says to the certificate that `ca` would serve.
    fn accepts(pin: &NewCa, ca: &NewCa, name: &str) -> bool {
        let leaf = leaf_of(ca);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pin.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::now()).is_ok()
    }

    fn leaf_of(ca: &NewCa) -> CertificateDer<'static> {
        let names = ["broker.example".to_owned(), "10.0.2.2".to_owned()];
        let server = server_config(&ca.key, &names).unwrap();
        let (mut client, mut server) = (
            rustls::ClientConnection::new(blind(), "broker.example".try_into().unwrap()).unwrap(),
            rustls::ServerConnection::new(server).unwrap(),
        );
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        client.peer_certificates().unwrap()[0].clone()
    }

    /// A client that takes any certificate, to look at it.
    fn blind() -> Arc<rustls::ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Blind(provider)))
            .with_no_client_auth();
        Arc::new(config)
    }

    #[derive(Debug)]
    struct Blind(Arc<rustls::crypto::CryptoProvider>);

    impl ServerCertVerifier for Blind {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("TLS 1.2".into()))
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            let algorithms = &self.0.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }

    #[test]
    fn a_pinned_client_accepts_each_name() {
        let ca = new_ca().unwrap();
        assert!(accepts(&ca, &ca, "broker.example"));
        assert!(accepts(&ca, &ca, "10.0.2.2"));
    }

    #[test]
    fn a_pinned_client_refuses_another_name() {
        let ca = new_ca().unwrap();
        assert!(!accepts(&ca, &ca, "other.example"));
    }

    #[test]
    fn a_pinned_client_refuses_another_brokers_certificate() {
        assert!(!accepts(&new_ca().unwrap(), &new_ca().unwrap(), "broker.example"));
    }

    #[test]
    fn only_tls13_is_spoken() {
        let server = server_config(&new_ca().unwrap().key, &["broker.example".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let old = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client =
            rustls::ClientConnection::new(Arc::new(old), "broker.example".try_into().unwrap()).unwrap();
        let mut server = rustls::ServerConnection::new(server).unwrap();
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        assert!(server.process_new_packets().is_err());
    }
}
