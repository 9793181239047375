//! A GET, bounded in every direction: one request a connection, no redirects, no state.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::header::{HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;
const MAX_ADDRESSES: usize = 4;

/// How long a service gets.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For an answer.
    pub answer: Duration,
    /// Before the second and the third try.
    pub pauses: [Duration; 2],
    /// Longest that a service's own Retry-After is waited for; after a longer one it isn't asked again
    /// until then.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            pauses: [Duration::from_millis(500), Duration::from_secs(2)],
            longest_pause: Duration::from_secs(5),
        }
    }
}

/// Why a base URL can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// Not of the form.
    #[error("'{0}' is not a URL of the form https://host[:port][/path]")]
    Form(String),
    /// Without TLS, and not allowed to be.
    #[error("'{0}' is without TLS, which has to be allowed explicitly")]
    Plain(String),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpError {
    /// The host's name.
    #[error("host name can't be resolved: {0}")]
    Resolve(String),
    /// TCP or TLS.
    #[error("no connection: {0}")]
    Connect(String),
    /// HTTP.
    #[error("no answer: {0}")]
    Exchange(String),
    /// Longer than what was asked for ever is.
    #[error("answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Where a service is.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    host: String,
    port: u16,
    prefix: String,
    tls: Option<Arc<ClientConfig>>,
}

/// What a service said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Retry-After in seconds; its date form counts as none.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

impl Base {
    /// Is TLS needed for this URL?
    pub(crate) fn needs_tls(url: &str) -> bool {
        url.starts_with("https://")
    }

    /// From a URL; `tls` is there for https.
    pub(crate) fn new(
        url: &str,
        tls: Option<Arc<ClientConfig>>,
        allow_plain: bool,
    ) -> Result<Self, UrlError> {
        let form = || UrlError::Form(url.to_owned());
        let uri: hyper::Uri = url.parse().map_err(|_| form())?;
        let (tls, port) = match uri.scheme_str() {
            Some("https") if tls.is_some() => (tls, 443),
            Some("http") if !allow_plain => return Err(UrlError::Plain(url.to_owned())),
            Some("http") => (None, 80),
            _ => return Err(form()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(form)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if uri.query().is_some() || url.contains('@') || url.contains('#') {
            return Err(form());
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(port), prefix, tls })
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.prefix)
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    /// One GET.
    pub(crate) async fn get(
        &self,
        path: &str,
        limit: usize,
        patience: &Patience,
    ) -> Result<Answer, HttpError> {
        let connected = timeout(patience.connect, self.connect()).await;
        let stream = connected.map_err(|_| HttpError::Connect("none in time".to_owned()))??;
        let Some(tls) = &self.tls else {
            return self.exchange(TokioIo::new(stream), path, limit, patience).await;
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| HttpError::Connect(format!("'{}' is no name for a certificate", self.host)))?;
        let handshake =
            timeout(patience.connect, TlsConnector::from(tls.clone()).connect(name, stream)).await;
        let stream = handshake
            .map_err(|_| HttpError::Connect("TLS takes too long".to_owned()))?
            .map_err(|error| HttpError::Connect(format!("TLS: {error}")))?;
        self.exchange(TokioIo::new(stream), path, limit, patience).await
    }

    async fn connect(&self) -> Result<TcpStream, HttpError> {
        let mut problem = "the name has no address".to_owned();
        for address in resolve(&self.host, self.port).await?.into_iter().take(MAX_ADDRESSES) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => problem = format!("{address}: {error}"),
            }
        }
        Err(HttpError::Connect(problem))
    }

    async fn exchange<T>(
        &self,
        io: T,
        path: &str,
        limit: usize,
        patience: &Patience,
    ) -> Result<Answer, HttpError>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| HttpError::Exchange(error.to_string());
        let request = Request::get(format!("{}{path}", self.prefix))
            .header(HOST, self.authority())
            .header(USER_AGENT, concat!("sealpod/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| HttpError::Exchange(error.to_string()))?;
        let exchange = async {
            let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
                .max_buf_size(MAX_HEAD)
                .max_headers(MAX_HEADERS)
                .handshake(io)
                .await
                .map_err(broken)?;
            let driver = tokio::spawn(connection);
            let answer = async {
                let response = sender.send_request(request).await.map_err(broken)?;
                let (head, body) = response.into_parts();
                // What comes with a refusal is of no use.
                let limit = if head.status == StatusCode::OK { limit } else { MAX_HEAD };
                let body = Limited::new(body, limit).collect().await.map_err(|error| match error
                    .downcast_ref::<LengthLimitError>(
                ) {
                    Some(_) => HttpError::TooLong(limit),
                    None => HttpError::Exchange(error.to_string()),
                })?;
                let retry_after = head
                    .headers
                    .get(RETRY_AFTER)
                    .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                    .map(Duration::from_secs);
                Ok(Answer { status: head.status, retry_after, body: body.to_bytes() })
            };
            let answer = answer.await;
            driver.abort();
            answer
        };
        timeout(patience.answer, exchange)
            .await
            .map_err(|_| HttpError::Exchange("none in time".to_owned()))?
    }
}

/// The system's resolver first; a static binary on a foreign distribution may lack its plug-ins, so
/// the name servers of resolv.conf are asked directly then.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, HttpError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let problem = match tokio::net::lookup_host((host, port)).await {
        Ok(addresses) => return Ok(addresses.collect()),
        Err(error) => error.to_string(),
    };
    let resolver = hickory_resolver::TokioResolver::builder_tokio().and_then(|builder| builder.build());
    let Ok(resolver) = resolver else { return Err(HttpError::Resolve(problem)) };
    match resolver.lookup_ip(host).await {
        Ok(found) => Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect()),
        Err(_) => Err(HttpError::Resolve(problem)),
    }
}
