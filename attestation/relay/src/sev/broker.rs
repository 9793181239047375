//! The broker as the launch needs it: two requests over HTTPS, each on its own connection, with the CA that the
//! settings name and no other. Connecting is tried again; a request that may have arrived never is, because a
//! session is good for one measurement.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use protocols::rcar::KbsError;
use protocols::refusal::{Code, Refusal};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::config::Config;
use crate::address;
use crate::listener::Connection;

const HTTPS_PORT: u16 = 443;
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Longest answer in bytes; the longest honest one is a secret packet.
const MAX_ANSWER: usize = 64 * 1024;
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// `https://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Url {
    /// As written, for the Host header.
    authority: String,
    /// Without brackets.
    host: String,
    port: u16,
}

/// Where to connect instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connect {
    /// Host, without brackets, and port.
    Tcp(String, u16),
    /// A socket behind which the broker is: a relay's.
    Unix(PathBuf),
}

/// Text that is no address.
#[derive(Debug, Error)]
#[error("not an address of the expected form")]
pub struct NotAnAddress;

impl FromStr for Url {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let authority = text.strip_prefix("https://").ok_or(NotAnAddress)?;
        let named = match authority.rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => authority.to_owned(),
            _ => format!("{authority}:{HTTPS_PORT}"),
        };
        let address::Broker { host, port } = named.parse().map_err(|_| NotAnAddress)?;
        if host.contains(['?', '#', '%', '\\']) {
            return Err(NotAnAddress);
        }
        Ok(Self { authority: authority.to_owned(), host, port })
    }
}

impl TryFrom<String> for Url {
    type Error = NotAnAddress;

    fn try_from(text: String) -> Result<Self, NotAnAddress> {
        text.parse()
    }
}

impl From<Url> for String {
    fn from(url: Url) -> Self {
        url.to_string()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority)
    }
}

impl FromStr for Connect {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        match text.strip_prefix("unix:") {
            Some("") => Err(NotAnAddress),
            Some(path) => Ok(Self::Unix(path.into())),
            None => {
                let address::Broker { host, port } = text.parse().map_err(|_| NotAnAddress)?;
                // Another scheme would be taken for a host.
                if host == "vsock" { Err(NotAnAddress) } else { Ok(Self::Tcp(host, port)) }
            }
        }
    }
}

/// Whom to ask, and how long to wait.
pub struct Broker {
    url: Url,
    connect: Connect,
    name: ServerName<'static>,
    tls: TlsConnector,
    connecting: Duration,
    answering: Duration,
}

impl Broker {
    /// From the settings.
    ///
    /// # Errors
    /// A refusal when the CA can't be used.
    pub fn new(config: &Config) -> Result<Self, Refusal> {
        let url = config.broker.clone();
        let name = ServerName::try_from(url.host.clone())
            .map_err(|_| pin(format!("'{}' is no host name or address", url.host)))?;
        let connect = config.connect.clone().unwrap_or_else(|| Connect::Tcp(url.host.clone(), url.port));
        Ok(Self {
            connect,
            name,
            tls: TlsConnector::from(Arc::new(tls(&config.broker_ca)?)),
            connecting: Duration::from_secs(config.seconds.connect),
            answering: Duration::from_secs(config.seconds.broker),
            url,
        })
    }

    /// One request and its answer.
    ///
    /// # Errors
    /// The broker's own refusal, or one that says what was wrong with the way to it.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Refusal> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Refusal::new(Code::Internal, format!("request for {path}: {error}")))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, &self.url.authority)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Refusal::new(Code::Internal, format!("request for {path}: {error}")))?;
        let stream = self.open().await?;
        let (status, body) = timeout(self.answering, exchange(stream, request))
            .await
            .map_err(|_| protocol(format!("no answer from {} to {path} in time", self.url)))?
            .map_err(|error| protocol(format!("{} for {path}: {error}", self.url)))?;
        if status != StatusCode::OK {
            return Err(refused(path, status, &body));
        }
        serde_json::from_slice(&body)
            .map_err(|error| protocol(format!("{} for {path}: not the expected JSON: {error}", self.url)))
    }

    async fn open(&self) -> Result<Box<dyn Connection>, Refusal> {
        let mut attempt = 1;
        loop {
            let error = match timeout(self.connecting, self.open_once()).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                    // Whoever answered is not the broker, or doesn't speak TLS 1.3.
                    Some(rustls::Error::InvalidCertificate(why)) => {
                        return Err(pin(format!(
                            "the certificate of {} is not from broker_ca: {why}",
                            self.url
                        )));
                    }
                    Some(other) => return Err(protocol(format!("TLS with {}: {other}", self.url))),
                    None => error.to_string(),
                },
                Err(_) => "no answer in time".to_owned(),
            };
            if attempt == ATTEMPTS {
                return Err(Refusal::new(
                    Code::BrokerUnreachable,
                    format!("no connection to {} after {ATTEMPTS} tries: {error}", self.url),
                ));
            }
            attempt += 1;
            sleep(PAUSE).await;
        }
    }

    async fn open_once(&self) -> io::Result<Box<dyn Connection>> {
        let stream: Box<dyn Connection> = match &self.connect {
            Connect::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Connect::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        Ok(Box::new(self.tls.connect(self.name.clone(), stream).await?))
    }
}

/// Why a connection gave no answer; only for people.
type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    stream: Box<dyn Connection>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Failed> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?;
        Ok((head.status, body.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection may end before its last bytes are collected.
        ended = connection => { ended?; answer.await }
    }
}

/// The broker's own line where there is one.
fn refused(path: &str, status: StatusCode, body: &[u8]) -> Refusal {
    match serde_json::from_slice::<KbsError>(body) {
        Ok(error) => Refusal::parse(&error.detail)
            .unwrap_or_else(|| protocol(format!("status {} for {path}: {}", status.as_u16(), error.detail))),
        Err(_) => protocol(format!("status {} for {path}", status.as_u16())),
    }
}

fn tls(pem: &str) -> Result<ClientConfig, Refusal> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| pin(format!("broker_ca is not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| pin(format!("broker_ca can't be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(pin("broker_ca holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn pin(detail: String) -> Refusal {
    Refusal::new(Code::BrokerPin, detail)
}

fn protocol(detail: String) -> Refusal {
    Refusal::new(Code::BrokerProtocol, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let url: Url = "https://broker.example".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port), ("broker.example", 443));
        let url: Url = "https://[::1]:8443".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port, url.authority.as_str()), ("::1", 8443, "[::1]:8443"));
        assert_eq!(url.to_string(), "https://[::1]:8443");
        let url: Url = "https://[::1]".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 443));
        for text in
            ["broker:1", "http://b", "https://", "https://b/x", "https://u@b", "https://b:0", "https://b?x"]
        {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
        assert_eq!("b:1".parse::<Connect>().unwrap(), Connect::Tcp("b".into(), 1));
        assert_eq!("unix:/s".parse::<Connect>().unwrap(), Connect::Unix("/s".into()));
        for text in ["unix:", "b", "vsock:1", "b:0"] {
            assert!(text.parse::<Connect>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_brokers_own_line_is_passed_on() {
        let body = r#"{"type":"x","detail":"sealpod[LAUNCH_DIGEST]: digest 00 is not in the policy"}"#;
        let refusal = refused("/x", StatusCode::FORBIDDEN, body.as_bytes());
        assert_eq!(refusal, Refusal::new(Code::LaunchDigest, "digest 00 is not in the policy"));
        for body in [&b"\xff"[..], b"{}", br#"{"type":"x","detail":"nginx"}"#] {
            let refusal = refused("/x", StatusCode::BAD_GATEWAY, body);
            assert_eq!(refusal.code, Code::BrokerProtocol);
            assert!(refusal.detail.contains("502"));
        }
    }

    #[test]
    fn a_ca_that_is_none_is_refused() {
        for pem in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(tls(pem).unwrap_err().code, Code::BrokerPin);
        }
    }
}
