//! The way to the broker: vsock to the host's relay or TCP, then TLS with the certificate that initdata
//! pins and for the name in its URL. Nobody else's certificate counts, no store of public CAs exists.
//! Without TLS only where the policy mode's initdata says `http`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocols::ports;
use protocols::refusal::{Code, Refusal};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sealed_spec::initdata::{BrokerAccess, SealpodConfig, Via};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

use super::Patience;
use crate::tee::chain;

const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How bytes get to the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transport {
    /// A vsock port; the host's relay listens there.
    Vsock {
        /// Context id; the host is 2.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// TCP over the pod's network.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl Transport {
    /// The one that initdata asks for.
    pub fn of(config: &SealpodConfig) -> Result<Self, Refusal> {
        match config.broker.via {
            Via::Relay => Ok(Self::Vsock { cid: VMADDR_CID_HOST, port: ports::BROKER }),
            Via::Direct => Self::direct(&config.broker.url),
        }
    }

    /// Over the pod's network, to where a URL says.
    pub fn direct(url: &str) -> Result<Self, Refusal> {
        let (host, port) = authority(url)?;
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Vsock { cid, port } => Box::new(VsockStream::connect(VsockAddr::new(*cid, *port)).await?),
            Self::Tcp { host, port } => {
                // A host can stand in brackets in a URL, not in a socket address.
                let host = host.trim_start_matches('[').trim_end_matches(']');
                Box::new(TcpStream::connect((host, *port)).await?)
            }
        })
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock {cid}:{port} (the host's relay)"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Where to connect and whom to believe.
pub(super) struct Target {
    transport: Transport,
    /// The URL's authority, for the Host header.
    pub(super) authority: String,
    /// None where initdata says `http`.
    tls: Option<(ServerName<'static>, TlsConnector)>,
}

impl Target {
    /// The broker of a sealed VM.
    pub(super) fn new(config: &SealpodConfig, transport: Transport) -> Result<Self, Refusal> {
        Self::at(&config.broker.url, Some(&config.broker.ca), transport)
    }

    /// The broker of a guest in the policy mode, over the pod's network.
    pub(super) fn open(broker: &BrokerAccess) -> Result<Self, Refusal> {
        Self::at(&broker.url, broker.ca.as_deref(), Transport::direct(&broker.url)?)
    }

    pub(super) fn at(url: &str, ca: Option<&str>, transport: Transport) -> Result<Self, Refusal> {
        let (host, _) = authority(url)?;
        let tls = match (url.starts_with("http://"), ca) {
            (true, None) => None,
            (false, Some(ca)) => {
                let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(name)
                    .map_err(|_| initdata(format!("broker.url: '{host}' is no host name or address")))?;
                Some((name, TlsConnector::from(Arc::new(tls(ca)?))))
            }
            _ => {
                return Err(initdata(format!(
                    "broker.url '{url}' and its certificate contradict each other"
                )));
            }
        };
        let authority = url.split_once("://").map_or("", |(_, authority)| authority).to_owned();
        Ok(Self { transport, authority, tls })
    }

    /// Whether whoever answers proved to be the broker.
    pub(super) fn is_authenticated(&self) -> bool {
        self.tls.is_some()
    }

    /// A connection whose other end proved to be the broker. Tries again while nobody answers; not when
    /// the wrong one does.
    pub(super) async fn connect(&self, patience: &Patience) -> Result<Box<dyn Stream>, Refusal> {
        let mut pause = patience.pause;
        let mut attempt = 1;
        loop {
            let error = match timeout(patience.connect, self.connect_once()).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(Attempt::Refused(refusal))) => return Err(refusal),
                Ok(Err(Attempt::Failed(error))) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            if attempt >= patience.attempts {
                return Err(Refusal::new(
                    Code::BrokerUnreachable,
                    format!(
                        "no connection to {} by {} after {attempt} tries: {error}",
                        self.authority, self.transport
                    ),
                ));
            }
            attempt += 1;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect_once(&self) -> Result<Box<dyn Stream>, Attempt> {
        let stream = self.transport.open().await.map_err(Attempt::Failed)?;
        let Some((name, tls)) = &self.tls else { return Ok(stream) };
        match tls.connect(name.clone(), stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(self.classify(error)),
        }
    }

    fn classify(&self, error: io::Error) -> Attempt {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            // A relay without a broker behind it accepts and hangs up.
            return Attempt::Failed(error);
        };
        let code = match tls {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Code::BrokerPin,
            // Whoever doesn't speak TLS, or another version, didn't prove to be the broker either.
            _ => Code::BrokerProtocol,
        };
        Attempt::Refused(Refusal::new(
            code,
            format!("TLS with {} by {}: {}", self.authority, self.transport, chain(tls)),
        ))
    }
}

enum Attempt {
    /// Worth another try.
    Failed(io::Error),
    /// The wrong one answered.
    Refused(Refusal),
}

fn tls(pem: &str) -> Result<ClientConfig, Refusal> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| initdata(format!("broker.ca is not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| {
            initdata(format!("broker.ca holds a certificate that can't be used: {error}"))
        })?;
    }
    if roots.is_empty() {
        return Err(initdata("broker.ca holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Refusal::new(Code::Internal, chain(&error)))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Host and port of `https://host[:port]`, or of the same with `http`.
fn authority(url: &str) -> Result<(&str, u16), Refusal> {
    let wrong = || initdata(format!("broker.url '{url}' is not https://host[:port]"));
    let (authority, default) = match url.strip_prefix("https://") {
        Some(authority) => (authority, HTTPS_PORT),
        None => (url.strip_prefix("http://").ok_or_else(wrong)?, HTTP_PORT),
    };
    match authority.rsplit_once(':') {
        // The last colon of a bare IPv6 address is inside its brackets.
        Some((host, port)) if !port.ends_with(']') => Ok((host, port.parse().map_err(|_| wrong())?)),
        _ => Ok((authority, default)),
    }
}

fn initdata(detail: String) -> Refusal {
    Refusal::new(Code::InitdataInvalid, detail)
}
