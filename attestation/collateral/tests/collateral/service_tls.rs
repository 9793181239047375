//! Services over TLS: a configured CA is believed, others aren't, and plain HTTP has to be allowed.

use std::path::Path;
use std::sync::Arc;

use collateral::{AMD_KDS, Bounds, Collateral, OpenError, Roots, Settings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sealpod_emulator::snp::KeyKind;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::platform::{CHAIN, Platform, WAIT, now, patience};
use crate::stand_in::StandIn;

fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The stand-in behind TLS, with a certificate for 127.0.0.1.
async fn behind_tls(service: &StandIn, ca: &CertifiedIssuer<'static, KeyPair>) -> String {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, ca).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (acceptor, service) = (TlsAcceptor::from(Arc::new(config)), service.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                drop(service.serve(stream).await);
            }
        }
    });
    url
}

fn settings(directory: &Path, url: &str, ca: Option<&Path>) -> Settings {
    Settings {
        kds: vec![url.to_owned()],
        ca: ca.map(Path::to_owned),
        patience: patience(),
        bounds: Bounds::default(),
        ..Settings::offline(directory.to_owned(), Roots::Any)
    }
}

#[tokio::test]
async fn only_the_configured_ca_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let service = StandIn::start().await;
    service.has(&CHAIN, Platform::milan().chain(KeyKind::Vcek));
    let (own, other) = (ca(), ca());
    let url = behind_tls(&service, &own).await;
    for (name, authority, good) in [("other.pem", &other, false), ("own.pem", &own, true)] {
        let file = dir.path().join(name);
        std::fs::write(&file, authority.pem()).unwrap();
        let cache = Collateral::open(settings(&dir.path().join("cache"), &url, Some(&file))).unwrap();
        let found = cache.get(&CHAIN, collateral::Reach::Service, now(), WAIT).await;
        assert_eq!(found.item.is_some(), good, "{:?}", found.note.map(|note| note.detail()));
    }
}

#[test]
fn plain_http_and_other_urls_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, ca().pem()).unwrap();
    let open = |url: &str| Collateral::open(settings(dir.path(), url, Some(&file))).map(drop);
    assert!(open(AMD_KDS).is_ok());
    for url in [
        "http://kds.example",
        "ftp://kds.example",
        "kds.example",
        "https://a@b",
        "https://a/?b=c",
        "https://",
    ] {
        assert!(matches!(open(url), Err(OpenError::Url(_))), "{url}");
    }
    std::fs::write(&file, "no certificate").unwrap();
    assert!(matches!(open(AMD_KDS), Err(OpenError::Tls(_))));
}
