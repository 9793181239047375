//! One HTTP/1.1 GET over TCP or TLS, every step bounded in time and every buffer in size. Redirects,
//! authentication and retries are decided a level up, by the registry client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Limits;
use crate::reference::Origin;
use crate::resolver::Resolver;

/// Head of an answer may not be larger; body chunks are at most this.
const MAX_BUFFER: usize = 256 << 10;
const MAX_HEADERS: usize = 100;

/// Makes connections.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    resolver: Resolver,
    connect_timeout: Duration,
    idle_timeout: Duration,
}

/// An answer whose body hasn't been read yet.
pub(crate) struct Response {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// Headers, bounded by the transport.
    pub(crate) headers: HeaderMap,
    body: Incoming,
    idle_timeout: Duration,
}

impl Transport {
    pub(crate) fn new(resolver: Resolver, limits: &Limits) -> Self {
        Self { resolver, connect_timeout: limits.connect_timeout, idle_timeout: limits.idle_timeout }
    }

    /// Asks `origin` for `target` (path and query). `tls` must be given for a TLS origin.
    pub(crate) async fn get(
        &self,
        origin: &Origin,
        tls: Option<Arc<ClientConfig>>,
        target: &str,
        headers: HeaderMap,
    ) -> Result<Response, String> {
        let tcp = self.connect(origin).await?;
        if !origin.tls {
            return self.exchange(tcp, origin, target, headers).await;
        }
        let config = tls.ok_or("no trust anchors for a TLS connection")?;
        let name = ServerName::try_from(origin.host.clone()).map_err(|e| format!("TLS host name: {e}"))?;
        let handshake = tokio_rustls::TlsConnector::from(config).connect(name, tcp);
        let stream = timeout(self.connect_timeout, handshake)
            .await
            .map_err(|_| "the TLS handshake timed out".to_owned())?
            .map_err(|e| format!("TLS handshake: {e}"))?;
        self.exchange(stream, origin, target, headers).await
    }

    async fn connect(&self, origin: &Origin) -> Result<TcpStream, String> {
        let addresses = timeout(self.connect_timeout, self.resolver.resolve(&origin.host, origin.port))
            .await
            .map_err(|_| format!("host name {}: the look-up timed out", origin.host))??;
        let mut last = String::new();
        for address in addresses {
            match timeout(self.connect_timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Only latency is lost if the option can't be set.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(e)) => last = format!("{address}: {e}"),
                Err(_) => last = format!("{address}: the connection timed out"),
            }
        }
        Err(last)
    }

    async fn exchange<S>(
        &self,
        stream: S,
        origin: &Origin,
        target: &str,
        headers: HeaderMap,
    ) -> Result<Response, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| format!("HTTP: {e}"))?;
        // Ends with the exchange: the sender is dropped below, the body when its reader is.
        tokio::spawn(connection);
        let mut request = Request::get(target)
            .body(Empty::<Bytes>::new())
            .map_err(|e| format!("request for {target}: {e}"))?;
        *request.headers_mut() = headers;
        let authority = origin.to_string();
        let authority = authority.split_once("://").map_or(authority.as_str(), |(_, rest)| rest);
        let host = HeaderValue::from_str(authority).map_err(|e| format!("host header: {e}"))?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("sealpod-agent"));
        let response = timeout(self.idle_timeout, sender.send_request(request))
            .await
            .map_err(|_| "no answer in time".to_owned())?
            .map_err(|e| format!("HTTP: {}", cause(&e)))?;
        let (parts, body) = response.into_parts();
        Ok(Response { status: parts.status, headers: parts.headers, body, idle_timeout: self.idle_timeout })
    }
}

impl Response {
    /// The next bytes of the body; `None` at its end. An early end is an error.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = timeout(self.idle_timeout, self.body.frame())
                .await
                .map_err(|_| "the transfer stalled".to_owned())?;
            match frame {
                None => return Ok(None),
                Some(Err(e)) => return Err(format!("transfer: {}", cause(&e))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// hyper's own text leaves out what the operating system said.
fn cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
