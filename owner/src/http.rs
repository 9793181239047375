//! A small HTTP/1.1 client: one request a connection, everything bounded, retries where they can help.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const CONNECT: Duration = Duration::from_secs(5);
const EXCHANGE: Duration = Duration::from_secs(30);
/// Pauses before the second and the third attempt.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1200)];

/// A server: `http://` or `https://` with what it is trusted by.
#[derive(Clone)]
pub(crate) struct Server {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

/// What is asked.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(hyper::header::HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    /// Longest answer, in bytes.
    pub(crate) limit: usize,
}

/// What is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why there is no answer. Each names the address.
#[derive(Debug, Error)]
pub(crate) enum HttpError {
    #[error("{0}: not a URL of the form https://host[:port]")]
    Url(String),
    #[error("{server}: host name can't be resolved: {problem}")]
    Resolve { server: String, problem: String },
    #[error("{server}: no connection to {address}: {problem}")]
    Connect { server: String, address: String, problem: String },
    #[error("{server}: certificate refused: {problem}")]
    Certificate { server: String, problem: String },
    #[error("{server}: no answer: {problem}")]
    Exchange { server: String, problem: String },
    #[error("{server}: answer is longer than {limit} bytes")]
    TooLong { server: String, limit: usize },
    #[error("{server}: request can't be made: {problem}")]
    Request { server: String, problem: String },
}

impl Server {
    /// From `https://host[:port]` or `http://host[:port]`; `tls` is asked for https only.
    pub(crate) fn new<E: From<HttpError>>(
        url: &str,
        tls: impl FnOnce() -> Result<Arc<ClientConfig>, E>,
    ) -> Result<Self, E> {
        let refuse = || HttpError::Url(url.to_owned());
        let uri: hyper::Uri = url.parse().map_err(|_| refuse())?;
        let (tls, port) = match uri.scheme_str() {
            Some("https") => (Some(tls()?), 443),
            Some("http") => (None, 80),
            _ => return Err(refuse().into()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(refuse)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if uri.path() != "/" && !uri.path().is_empty() || uri.query().is_some() || url.contains('@') {
            return Err(refuse().into());
        }
        Ok(Self { host, port: uri.port_u16().unwrap_or(port), tls })
    }

    /// `https://host:port`, for people.
    pub(crate) fn name(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Asks up to three times while the server can't be reached or says that it is busy.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, HttpError> {
        for pause in PAUSES {
            match self.ask_once(ask).await {
                Ok(answer) if !busy(answer.status) => return Ok(answer),
                Err(error) if !error.may_pass() => return Err(error),
                _ => tokio::time::sleep(pause).await,
            }
        }
        self.ask_once(ask).await
    }

    async fn ask_once(&self, ask: &Ask<'_>) -> Result<Answer, HttpError> {
        let stream = self.connect().await?;
        match &self.tls {
            None => self.exchange(TokioIo::new(stream), ask).await,
            Some(tls) => {
                let name =
                    ServerName::try_from(self.host.clone()).map_err(|_| HttpError::Url(self.name()))?;
                let handshake = TlsConnector::from(tls.clone()).connect(name, stream);
                let stream =
                    timeout(CONNECT, handshake).await.map_err(|_| self.silent())?.map_err(|error| {
                        let problem = error.to_string();
                        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                            Some(rustls::Error::InvalidCertificate(_)) => {
                                HttpError::Certificate { server: self.name(), problem }
                            }
                            _ => HttpError::Exchange { server: self.name(), problem },
                        }
                    })?;
                self.exchange(TokioIo::new(stream), ask).await
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream, HttpError> {
        let addresses = resolve(&self.host, self.port)
            .await
            .map_err(|problem| HttpError::Resolve { server: self.name(), problem })?;
        let mut last = HttpError::Resolve { server: self.name(), problem: "it has no address".into() };
        for address in addresses {
            let problem = match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", CONNECT.as_secs()),
            };
            last = HttpError::Connect { server: self.name(), address: address.to_string(), problem };
        }
        Err(last)
    }

    async fn exchange<T>(&self, io: T, ask: &Ask<'_>) -> Result<Answer, HttpError>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let request = |error: &dyn std::fmt::Display| HttpError::Request {
            server: self.name(),
            problem: error.to_string(),
        };
        let broken =
            |error: hyper::Error| HttpError::Exchange { server: self.name(), problem: error.to_string() };
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(64 * 1024)
            .handshake(io)
            .await
            .map_err(broken)?;
        let driver = tokio::spawn(connection);
        let mut message = Request::builder().method(ask.method.clone()).uri(ask.path);
        message = message
            .header(HOST, self.authority())
            .header(USER_AGENT, concat!("sealpod/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &ask.headers {
            message = message.header(name, value);
        }
        let message = message.body(Full::new(ask.body.clone())).map_err(|error| request(&error))?;
        let result = timeout(EXCHANGE, async {
            let response = sender.send_request(message).await.map_err(broken)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ask.limit).collect().await.map_err(|error| {
                match error.downcast_ref::<http_body_util::LengthLimitError>() {
                    Some(_) => HttpError::TooLong { server: self.name(), limit: ask.limit },
                    None => HttpError::Exchange { server: self.name(), problem: error.to_string() },
                }
            })?;
            Ok(Answer { status: parts.status, body: body.to_bytes() })
        })
        .await;
        driver.abort();
        result.map_err(|_| self.silent())?
    }

    fn silent(&self) -> HttpError {
        HttpError::Exchange { server: self.name(), problem: format!("none within {} s", EXCHANGE.as_secs()) }
    }
}

impl HttpError {
    /// Whether another attempt may succeed.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Resolve { .. } | Self::Connect { .. } | Self::Exchange { .. })
    }
}

fn busy(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// The system's resolver first; a static binary on a foreign distribution may lack its plug-ins, so
/// the name servers of resolv.conf are asked directly then.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let problem = match timeout(CONNECT, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(addresses)) => return Ok(addresses.take(8).collect()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "time-out".to_owned(),
    };
    let resolver = hickory_resolver::TokioResolver::builder_tokio().and_then(|builder| builder.build());
    let Ok(resolver) = resolver else { return Err(problem) };
    match timeout(CONNECT, resolver.lookup_ip(host)).await {
        Ok(Ok(found)) => Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).take(8).collect()),
        _ => Err(problem),
    }
}
