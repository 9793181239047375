//! gRPC over TLS with certificates on both sides; in each refusing test one certificate is wrong.

use std::path::PathBuf;

use owner_image::provider::Operation;
use owner_image::provider::server::{TlsFiles, tls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::peer::{Service, WRAPPED, configured, file, refusal, wrap, wrapped};

/// Certificates in files: `NAME.crt`, `NAME.key`, and the CAs.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        let all = Self(tempfile::tempdir().unwrap());
        for (ca, leaves) in [("ca", ["server", "client"]), ("other-ca", ["other-server", "other-client"])] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, ca);
            all.write(ca, "crt", &params.self_signed(&key).unwrap().pem());
            let issuer = Issuer::new(params, key);
            for leaf in leaves {
                let key = KeyPair::generate().unwrap();
                let params = CertificateParams::new(vec!["kms.example".into(), "127.0.0.1".into()]).unwrap();
                all.write(leaf, "crt", &params.signed_by(&key, &issuer).unwrap().pem());
                all.write(leaf, "key", &key.serialize_pem());
            }
        }
        all
    }

    fn write(&self, name: &str, kind: &str, text: &str) {
        std::fs::write(self.path(name, kind), text).unwrap();
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        file(&self.0, &format!("{name}.{kind}"))
    }

    /// A service with that certificate, for clients of `ca`.
    fn service(&self, server: &str) -> Service {
        let files = TlsFiles {
            certificate: self.path(server, "crt"),
            key: self.path(server, "key"),
            client_ca: self.path("ca", "crt"),
        };
        let service = Service::tcp(Some(tls(&files).unwrap()));
        service.scripted.says(Ok(wrapped(&json!(WRAPPED))));
        service
    }

    /// ocicrypt's settings of a client that trusts `ca` and shows the certificate `client`.
    fn settings(&self, ca: &str, client: &str) -> Value {
        json!({
            "root-ca-file": self.path(ca, "crt"),
            "cert-file": self.path(client, "crt"),
            "key-file": self.path(client, "key"),
        })
    }

    fn entry(service: &Service, settings: &Value) -> Value {
        json!({ "grpc": format!("127.0.0.1:{}", service.port), "grpc-tls": settings })
    }

    fn refused(&self, server: &str, settings: &Value) -> String {
        let service = self.service(server);
        let error = refusal(&configured(self.0.path(), &Self::entry(&service, settings)), Operation::Wrap);
        assert!(service.scripted.asked().is_empty(), "the key went to somebody else");
        error
    }
}

#[test]
fn both_sides_show_certificates() {
    let all = Certificates::new();
    let service = all.service("server");
    let mut settings = all.settings("ca", "client");
    assert_eq!(wrap(&configured(all.0.path(), &Certificates::entry(&service, &settings))).unwrap(), WRAPPED);
    settings["server-name"] = "kms.example".into();
    assert_eq!(wrap(&configured(all.0.path(), &Certificates::entry(&service, &settings))).unwrap(), WRAPPED);
}

#[test]
fn a_server_of_another_ca_gets_nothing() {
    let all = Certificates::new();
    let error = all.refused("other-server", &all.settings("ca", "client"));
    assert!(error.contains("no TLS connection"), "{error}");
}

#[test]
fn a_server_of_another_name_gets_nothing() {
    let all = Certificates::new();
    let mut settings = all.settings("ca", "client");
    settings["server-name"] = "other.example".into();
    assert!(all.refused("server", &settings).contains("no TLS connection"));
}

#[test]
fn a_client_of_another_ca_is_not_served() {
    let all = Certificates::new();
    all.refused("server", &all.settings("ca", "other-client"));
}

#[test]
fn a_client_without_certificate_is_not_served() {
    let all = Certificates::new();
    all.refused("server", &json!({ "root-ca-file": all.path("ca", "crt") }));
}

#[test]
fn a_client_in_clear_is_not_served() {
    let all = Certificates::new();
    let service = all.service("server");
    let entry = json!({ "grpc": format!("127.0.0.1:{}", service.port) });
    refusal(&configured(all.0.path(), &entry), Operation::Wrap);
    assert!(service.scripted.asked().is_empty());
}

#[test]
fn a_service_in_clear_gets_nothing() {
    let all = Certificates::new();
    let service = Service::tcp(None);
    let entry = Certificates::entry(&service, &all.settings("ca", "client"));
    assert!(refusal(&configured(all.0.path(), &entry), Operation::Wrap).contains("no TLS connection"));
    assert!(service.scripted.asked().is_empty());
}

#[test]
fn files_that_are_none_are_named() {
    let all = Certificates::new();
    all.write("empty", "crt", "");
    all.write("empty", "key", "");
    for (member, path) in [
        ("root-ca-file", all.path("empty", "crt")),
        ("cert-file", all.path("empty", "crt")),
        ("key-file", all.path("empty", "key")),
        ("key-file", all.path("missing", "key")),
        ("key-file", all.path("other-client", "key")),
    ] {
        let mut settings = all.settings("ca", "client");
        settings[member] = json!(path);
        let error = all.refused("server", &settings);
        assert!(error.contains(path.to_str().unwrap()), "{member}: {error}");
    }
    let files = |name| TlsFiles {
        certificate: all.path("server", "crt"),
        key: all.path("server", "key"),
        client_ca: all.path(name, "crt"),
    };
    assert!(tls(&files("empty")).is_err());
}
