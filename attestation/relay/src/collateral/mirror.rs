//! The mirror: GET on the key distribution service's paths, from the cache or what stands behind it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use collateral::{Collateral, Key, Reach, Why};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use slog::{Logger, info, warn};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// For a request's header.
const HEADER: Duration = Duration::from_secs(10);
/// Bytes of it, and fields in it.
const HEADER_BYTES: usize = 16 * 1024;
const HEADER_FIELDS: usize = 64;
/// A connection lives that long, whatever happens on it.
const LIFETIME: Duration = Duration::from_secs(120);
/// A request waits that long for a fetch, less than a broker does for an answer.
const WAIT: Duration = Duration::from_secs(8);
/// Seconds after which to come again.
const AGAIN: HeaderValue = HeaderValue::from_static("2");
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` resolves; connections that are open then are closed.
pub async fn serve(
    listener: TcpListener,
    collateral: Arc<Collateral>,
    log: Logger,
    stop: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let collateral = Arc::clone(&collateral);
                connections.spawn(async move {
                    let _held = permit;
                    // How a client's connection ends is the client's affair.
                    let _ = timeout(LIFETIME, connection(stream, collateral)).await;
                });
            }
            Err(error) => {
                warn!(log, "accept failed"; "error" => %error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    info!(log, "stopped");
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, collateral: Arc<Collateral>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let collateral = Arc::clone(&collateral);
        async move { Ok::<_, Infallible>(answer(&collateral, &request).await) }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(HEADER_BYTES)
        .max_headers(HEADER_FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// One answer. What is stale is as good as not there: who asks has an older one already.
async fn answer<B>(collateral: &Arc<Collateral>, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        let mut response = told(StatusCode::METHOD_NOT_ALLOWED, "only GET is taken here");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let uri = request.uri();
    let Some(key) = Key::from_kds_path(uri.path(), uri.query()) else {
        return told(StatusCode::NOT_FOUND, "no such path");
    };
    let found = collateral.get(&key, Reach::Service, SystemTime::now(), WAIT).await;
    match (found.item, found.note) {
        (Some(item), None) => {
            let mut response = Response::new(Full::new(Bytes::copy_from_slice(item.bytes())));
            let kind = match key {
                Key::Vcek { .. } | Key::Vlek { .. } => "application/pkix-cert",
                Key::Crl(..) => "application/pkix-crl",
                Key::Chain(..) => "application/x-pem-file",
                Key::Cek(_) | Key::SevChain(_) => "application/octet-stream",
            };
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            response
        }
        (None, Some(note)) if matches!(note.why, Why::NotFound(_) | Why::NotCached) => {
            told(StatusCode::NOT_FOUND, &note.to_string())
        }
        (_, note) => {
            let line = note.map_or_else(|| "not now".to_owned(), |note| note.to_string());
            let mut response = told(StatusCode::SERVICE_UNAVAILABLE, &line);
            response.headers_mut().insert(RETRY_AFTER, AGAIN);
            response
        }
    }
}

fn told(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{line}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
