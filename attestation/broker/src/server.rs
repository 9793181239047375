//! The accept loop: TLS 1.3, HTTP/1.1, and a bound on everything that a stranger can hold.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use protocols::rcar::KbsError;
use protocols::refusal::{Code, Refusal};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::broker::Broker;
use crate::config::Limits;
use crate::http::{self, Peer};
use crate::sessions::share_of;

/// Bytes of a request's header, and the number of its fields.
const HEADER_BYTES: usize = 64 * 1024;
const HEADER_FIELDS: usize = 64;

/// How long requests under way may take once the broker is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves `broker` on `listener` until `stop` says true (or its sender is gone), then drains.
pub async fn serve(
    broker: Arc<Broker>,
    tls: Arc<ServerConfig>,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) {
    let connections = Connections::new(broker.limits());
    let acceptor = TlsAcceptor::from(tls);
    let router = http::router(broker.clone());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or a connection that died in the queue: neither ends the broker.
                slog::warn!(broker.log(), "accept failed"; "error" => %error);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        broker.counters().connections.add();
        let Some(slot) = connections.admit(peer.ip()) else {
            broker.counters().connections_refused.add();
            continue;
        };
        let one = One {
            broker: broker.clone(),
            acceptor: acceptor.clone(),
            router: router.clone(),
            stop: stop.clone(),
        };
        tokio::spawn(async move {
            one.serve(stream, peer).await;
            drop(slot);
        });
    }
    drop(listener);
    if timeout(DRAIN, connections.all_closed()).await.is_err() {
        slog::warn!(broker.log(), "stopping with connections still open");
    }
}

/// One connection.
struct One {
    broker: Arc<Broker>,
    acceptor: TlsAcceptor,
    router: Router,
    stop: watch::Receiver<bool>,
}

impl One {
    async fn serve(mut self, stream: TcpStream, peer: SocketAddr) {
        let limits = self.broker.limits().clone();
        let handshake = Duration::from_secs(limits.handshake_seconds);
        // Answers are one small write; waiting for more only delays them.
        let _ = stream.set_nodelay(true);
        let Ok(Ok(stream)) = timeout(handshake, self.acceptor.accept(stream)).await else {
            self.broker.counters().tls_failed.add();
            return;
        };
        let router = TowerToHyperService::new(self.router.layer(Extension(Peer(peer.ip()))));
        let request_limit = Duration::from_secs(limits.request_seconds);
        let service =
            service_fn(move |request: Request<Incoming>| answer(router.clone(), request, request_limit));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(handshake)
            .max_headers(HEADER_FIELDS)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let lifetime = Duration::from_secs(limits.connection_seconds);
        let ended = timeout(lifetime, async {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                _ = self.stop.wait_for(|stop| *stop) => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        });
        // How a stranger's connection ends is the stranger's affair.
        let _ = ended.await;
    }
}

/// Answers one request in bounded time, its body's arrival included.
async fn answer(
    router: TowerToHyperService<Router>,
    request: Request<Incoming>,
    limit: Duration,
) -> Result<Response<Body>, std::convert::Infallible> {
    match timeout(limit, router.call(request)).await {
        Ok(response) => response,
        Err(_) => {
            let line = Refusal::new(Code::Overloaded, "the request took too long; try again");
            let body =
                serde_json::to_vec(&KbsError::new("InternalError", line.to_string())).unwrap_or_default();
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
            Ok(response)
        }
    }
}

/// How many connections there are, in all and for each address.
#[derive(Clone)]
struct Connections {
    most: usize,
    most_per_address: usize,
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place, given back when dropped.
struct Slot {
    _permit: OwnedSemaphorePermit,
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Connections {
    fn new(limits: &Limits) -> Self {
        Self {
            most: limits.connections,
            most_per_address: limits.connections_per_address,
            all: Arc::new(Semaphore::new(limits.connections)),
            by_address: Arc::default(),
        }
    }

    fn admit(&self, address: IpAddr) -> Option<Slot> {
        let permit = self.all.clone().try_acquire_owned().ok()?;
        let address = share_of(address);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let open = by_address.entry(address).or_insert(0);
        if *open >= self.most_per_address {
            return None;
        }
        *open += 1;
        Some(Slot { _permit: permit, address, by_address: self.by_address.clone() })
    }

    async fn all_closed(&self) {
        let all = u32::try_from(self.most).unwrap_or(u32::MAX);
        let _ = self.all.acquire_many(all).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by_address.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Binds the address of the configuration.
///
/// # Errors
/// What the system said, with the address.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("can't listen on {address}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others() {
        let limits = Limits { connections: 4, connections_per_address: 3, ..Limits::default() };
        let connections = Connections::new(&limits);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut slots: Vec<_> = (0..10).filter_map(|_| connections.admit(a)).collect();
        assert_eq!(slots.len(), 3);
        slots.push(connections.admit(b).unwrap());
        assert!(connections.admit(b).is_none());
        slots.clear();
        // All of a /64 is one machine's.
        slots.extend((0..10).filter_map(|n| connections.admit(format!("2001:db8::{n}").parse().unwrap())));
        assert_eq!(slots.len(), 3);
        slots.push(connections.admit("2001:db8:0:1::1".parse().unwrap()).unwrap());
        slots.clear();
        assert!(connections.by_address.lock().unwrap().is_empty());
        assert!(connections.admit(a).is_some());
    }
}
