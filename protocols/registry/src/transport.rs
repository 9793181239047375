//! One HTTP/1.1 exchange over TCP or TLS, through a proxy where one is set; every wait bounded in time and
//! every buffer in size. Redirects, authentication and retries are decided a level up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::Limits;
use crate::body::Outgoing;
use crate::origin::Origin;
use crate::pool::{Key, Pool, Sender};
use crate::proxy::Proxy;
use crate::resolver::Resolver;

/// Head of an answer may not be larger; body chunks are at most this.
const MAX_BUFFER: usize = 256 << 10;
const MAX_HEADERS: usize = 100;
/// An answer that nobody reads is read to its end if it is this small, so that its connection can be used
/// again.
const MAX_DISCARDED: u64 = 16 << 10;

/// Makes connections, and keeps some.
#[derive(Clone)]
pub(crate) struct Transport {
    resolver: Resolver,
    limits: Arc<Limits>,
    agent: &'static str,
    pool: Pool,
}

/// Where a request goes.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) origin: &'a Origin,
    /// Must be given for a TLS origin.
    pub(crate) tls: Option<&'a Arc<ClientConfig>>,
    pub(crate) proxy: Option<&'a Proxy>,
}

/// A request.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Outgoing,
    /// Idle time-outs that the answer may take, counted from the last byte that left.
    pub(crate) patience: u32,
}

/// An answer whose body hasn't been read yet.
pub(crate) struct Response {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// Headers, bounded by the transport.
    pub(crate) headers: HeaderMap,
    body: Incoming,
    pace: Pace,
    /// For the pool, once the body has been read.
    connection: Option<(Pool, Key, Sender)>,
}

impl Transport {
    pub(crate) fn new(resolver: Resolver, limits: Arc<Limits>, agent: &'static str) -> Self {
        Self { resolver, limits, agent, pool: Pool::default() }
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn exchange(&self, route: Route<'_>, call: Call) -> Result<Response, String> {
        let key = Key {
            origin: route.origin.clone(),
            tls: route.tls.map_or(0, |config| Arc::as_ptr(config).addr()),
            proxy: route.proxy.map(|proxy| proxy.authority().to_owned()),
        };
        let Call { method, target, headers, body, patience } = call;
        let (pulse, mut spare) = (body.pulse(), body.again());
        let mut request = self.request(route, &method, &target, headers.clone(), body)?;
        loop {
            let pooled = self.pool.take(&key);
            let reused = pooled.is_some();
            let mut sender = match pooled {
                Some(sender) => sender,
                None => self.open(route).await?,
            };
            // The connection's task may not have noticed yet that the last answer is over, or the server gone.
            let ready = timeout(self.limits.connect_timeout, sender.ready()).await;
            if reused && !matches!(ready, Ok(Ok(()))) {
                continue;
            }
            let mut answer = std::pin::pin!(sender.try_send_request(request));
            let (mut waited, mut sent) = (0, 0);
            let answer = loop {
                if let Ok(answer) = timeout(self.limits.idle_timeout, &mut answer).await {
                    break answer;
                }
                match pulse.as_ref().map_or(0, |pulse| pulse.sent()) {
                    now if now > sent => (waited, sent) = (0, now),
                    _ => waited += 1,
                }
                if waited >= patience {
                    return Err("no answer in time".to_owned());
                }
            };
            match answer {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    // A streamed request may still be on its way when the answer is read.
                    let connection = pulse.is_none().then(|| (self.pool.clone(), key, sender));
                    return Ok(Response {
                        status: parts.status,
                        headers: parts.headers,
                        body,
                        pace: Pace::new(&self.limits),
                        connection,
                    });
                }
                Err(mut failure) => {
                    // The server may have closed an idle connection just now: that says nothing.
                    let unsent = failure.take_message();
                    let again = match (unsent, &method) {
                        (Some(request), _) => Some(request),
                        (None, &Method::GET | &Method::HEAD) => match spare.take() {
                            Some(body) => {
                                spare = body.again();
                                Some(self.request(route, &method, &target, headers.clone(), body)?)
                            }
                            None => None,
                        },
                        _ => None,
                    };
                    match again {
                        Some(again) if reused => request = again,
                        _ => return Err(format!("HTTP: {}", cause(failure.error()))),
                    }
                }
            }
        }
    }

    fn request(
        &self,
        route: Route<'_>,
        method: &Method,
        target: &str,
        headers: HeaderMap,
        body: Outgoing,
    ) -> Result<Request<Outgoing>, String> {
        // A proxy that is asked for a plain http resource is told the whole of it (RFC 9112 section 3.2.2).
        let forwarded = route.proxy.filter(|_| !route.origin.tls);
        let uri = match forwarded {
            Some(_) => format!("{}{target}", route.origin),
            None => target.to_owned(),
        };
        let length = body.size_hint().exact();
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .body(body)
            .map_err(|e| format!("request for {target}: {e}"))?;
        *request.headers_mut() = headers;
        let host =
            HeaderValue::from_str(&route.origin.authority()).map_err(|e| format!("host header: {e}"))?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(self.agent));
        if let Some(length) = length
            && !matches!(*method, Method::GET | Method::HEAD)
        {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if let Some(login) = forwarded.and_then(Proxy::authorization) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, login.clone());
        }
        Ok(request)
    }

    async fn open(&self, route: Route<'_>) -> Result<Sender, String> {
        let origin = route.origin;
        let tcp = match route.proxy {
            None => self.connect(&origin.host, origin.port).await?,
            Some(proxy) => {
                let mut tcp = self
                    .connect(proxy.host(), proxy.port())
                    .await
                    .map_err(|e| format!("proxy {}: {e}", proxy.authority()))?;
                if origin.tls {
                    // The proxy resolves the name.
                    timeout(self.limits.idle_timeout, proxy.tunnel(&mut tcp, origin))
                        .await
                        .map_err(|_| format!("proxy {}: no answer in time", proxy.authority()))??;
                }
                tcp
            }
        };
        if !origin.tls {
            return handshake(tcp).await;
        }
        let config = route.tls.ok_or("no trust anchors for a TLS connection")?;
        let name = ServerName::try_from(origin.host.clone()).map_err(|e| format!("TLS host name: {e}"))?;
        let connecting = tokio_rustls::TlsConnector::from(config.clone()).connect(name, tcp);
        let stream = timeout(self.limits.connect_timeout, connecting)
            .await
            .map_err(|_| "the TLS handshake timed out".to_owned())?
            .map_err(|e| format!("TLS handshake: {e}"))?;
        handshake(stream).await
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let limit = self.limits.connect_timeout;
        let addresses = timeout(limit, self.resolver.resolve(host, port))
            .await
            .map_err(|_| format!("host name {host}: the look-up timed out"))??;
        let mut last = String::new();
        for address in addresses {
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Only latency is lost if the option can't be set.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(e)) => last = format!("no connection to {address}: {e}"),
                Err(_) => last = format!("no connection to {address} in time"),
            }
        }
        Err(last)
    }
}

async fn handshake<S>(stream: S) -> Result<Sender, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| format!("HTTP: {e}"))?;
    // Ends with its sender, which the answer or the pool holds.
    tokio::spawn(connection);
    Ok(sender)
}

impl Response {
    /// The next bytes of the body; `None` at its end. An early end is an error, and so is crawling.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let asked = Instant::now();
            let frame = timeout(self.pace.idle, self.body.frame())
                .await
                .map_err(|_| "the transfer stalled".to_owned())?;
            match frame {
                None => {
                    if let Some((pool, key, sender)) = self.connection.take() {
                        pool.put(key, sender);
                    }
                    return Ok(None);
                }
                Some(Err(e)) => return Err(format!("transfer: {}", cause(&e))),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.pace.check(asked.elapsed(), data.len())?;
                    if !data.is_empty() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Lets the connection be used again, if that is cheap.
    pub(crate) async fn discard(self) {
        drop(self.remains().await);
    }

    /// What there is to read if it is short; nothing if it isn't, or breaks.
    pub(crate) async fn remains(mut self) -> Vec<u8> {
        let mut body = Vec::new();
        if self.body.size_hint().upper().is_some_and(|length| length <= MAX_DISCARDED) {
            while let Ok(Some(chunk)) = self.chunk().await {
                body.extend_from_slice(&chunk);
            }
        }
        body
    }
}

/// Tells slow from dead: only the time counts in which bytes were waited for, not what is done with them.
struct Pace {
    idle: Duration,
    window: Duration,
    least: u64,
    waited: Duration,
    came: u64,
}

impl Pace {
    fn new(limits: &Limits) -> Self {
        Self {
            idle: limits.idle_timeout,
            window: limits.slow_window,
            least: limits.slow_bytes,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    fn check(&mut self, waited: Duration, came: usize) -> Result<(), String> {
        self.waited += waited;
        self.came += came as u64;
        if self.waited < self.window {
            return Ok(());
        }
        if self.came < self.least {
            let seconds = self.window.as_secs();
            return Err(format!("only {} bytes came in {seconds} s", self.came));
        }
        (self.waited, self.came) = (Duration::ZERO, 0);
        Ok(())
    }
}

/// hyper's own text leaves out what the operating system said.
fn cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crawling_is_told_from_waiting() {
        let limits = Limits { slow_window: Duration::from_secs(60), slow_bytes: 1000, ..Limits::default() };
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(&limits);
        assert!((0..59).all(|_| pace.check(second, 1).is_ok()));
        assert_eq!(pace.check(second, 1).unwrap_err(), "only 60 bytes came in 60 s");
        // Enough in each window, however long it takes; and a reader that is slow itself waits for nothing.
        let mut pace = Pace::new(&limits);
        assert!((0..600).all(|_| pace.check(second, 17).is_ok()));
        let mut pace = Pace::new(&limits);
        assert!((0..600).all(|_| pace.check(Duration::ZERO, 1).is_ok()));
    }
}
