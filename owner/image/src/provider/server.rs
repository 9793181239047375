//! The provider's side of gRPC: `keyprovider.KeyProviderService` on a TCP or unix socket, for whichever program
//! holds the keys. Everything of a client's is bounded: connections, streams, headers, messages, time.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use super::grpc::{Codec, Message};
use super::message::{self, MAX_MESSAGE, OVERHEAD};
use super::tls;
use super::transport::Operation;

/// Clients at a time; others wait.
const CONNECTIONS: usize = 64;
/// Requests of one client at a time.
const STREAMS: u32 = 16;
/// How long a handshake, and how long a request's message may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers requests: JSON in, JSON out. May block.
pub trait Handler: Send + Sync + 'static {
    /// The reply, or one line that says why there is none. No secret must be in that line.
    ///
    /// # Errors
    /// That line.
    fn answer(&self, operation: Operation, request: &[u8]) -> Result<Zeroizing<Vec<u8>>, String>;
}

/// TLS files of a server, PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificates, its own first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CAs of clients: who shows no certificate of theirs is not served.
    pub client_ca: PathBuf,
}

/// Why a server doesn't come up, or stops.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The TLS files.
    #[error("{0}")]
    Tls(String),
    /// The system.
    #[error("{operation} failed: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Reads the files and makes what accepts connections with them.
///
/// # Errors
/// [`ServeError::Tls`].
pub fn tls(files: &TlsFiles) -> Result<TlsAcceptor, ServeError> {
    let refuse = |error: &dyn std::fmt::Display| ServeError::Tls(error.to_string());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in tls::certificates(&files.client_ca).map_err(|error| refuse(&error))? {
        roots.add(certificate).map_err(|error| refuse(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| refuse(&error))?;
    let certificates = tls::certificates(&files.certificate).map_err(|error| refuse(&error))?;
    let key = tls::private_key(&files.key).map_err(|error| refuse(&error))?;
    let mut configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(&error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates, key)
        .map_err(|error| refuse(&error))?;
    configuration.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(configuration)))
}

/// A socket at `path` that only its owner can connect to. One that a process which is gone left is replaced.
///
/// # Errors
/// [`ServeError::System`].
pub fn listen_unix(path: &Path) -> Result<UnixListener, ServeError> {
    use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
    let failed = |operation| move |source| ServeError::System { operation, source };
    let left = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err();
    if left {
        std::fs::remove_file(path).map_err(failed("replacing an old socket"))?;
    }
    // Bound where nobody else can enter, so that there is no moment in which others could connect.
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| failed("drawing a name")(io::Error::other(error)))?;
    let private = path.with_file_name(format!(".{}", hex::encode(random)));
    std::fs::DirBuilder::new().mode(0o700).create(&private).map_err(failed("making a private directory"))?;
    let draft = private.join("s");
    let bound = (|| {
        let listener = UnixListener::bind(&draft).map_err(failed("listening"))?;
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o600))
            .map_err(failed("making the socket private"))?;
        // Unlike a rename, a link replaces nothing.
        std::fs::hard_link(&draft, path).map_err(failed("naming the socket"))?;
        Ok(listener)
    })();
    let _ = std::fs::remove_file(&draft);
    let _ = std::fs::remove_dir(&private);
    bound
}

/// Serves a TCP socket, over TLS if `tls` says so, until accepting fails.
///
/// # Errors
/// [`ServeError::System`].
pub async fn serve_tcp(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handler: Arc<dyn Handler>,
) -> Result<(), ServeError> {
    let (places, mut failures) = (Arc::new(Semaphore::new(CONNECTIONS)), Failures::default());
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let Some((stream, _)) = failures.take(listener.accept().await).await? else { continue };
        let (tls, handler) = (tls.clone(), handler.clone());
        tokio::spawn(async move {
            let _place = place;
            match tls {
                None => serve(stream, handler).await,
                // Who fails the handshake isn't a client; there is nobody to tell.
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
                        serve(stream, handler).await;
                    }
                }
            }
        });
    }
}

/// Serves a unix socket until accepting fails.
///
/// # Errors
/// [`ServeError::System`].
pub async fn serve_unix(listener: UnixListener, handler: Arc<dyn Handler>) -> Result<(), ServeError> {
    let (places, mut failures) = (Arc::new(Semaphore::new(CONNECTIONS)), Failures::default());
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let Some((stream, _)) = failures.take(listener.accept().await).await? else { continue };
        let handler = handler.clone();
        tokio::spawn(async move {
            let _place = place;
            serve(stream, handler).await;
        });
    }
}

/// Accepting fails when a client goes away in the queue, or when the machine is short of something; neither ends
/// a service. What fails again and again does.
#[derive(Default)]
struct Failures(u32);

impl Failures {
    /// In a row.
    const LIMIT: u32 = 600;
    /// For the machine to get what it was short of.
    const PAUSE: Duration = Duration::from_millis(100);

    /// What was accepted; `None` to try again.
    async fn take<T>(&mut self, accepted: io::Result<T>) -> Result<Option<T>, ServeError> {
        match accepted {
            Ok(accepted) => {
                self.0 = 0;
                Ok(Some(accepted))
            }
            Err(source) if self.0 >= Self::LIMIT => {
                Err(ServeError::System { operation: "accepting a connection", source })
            }
            Err(_) => {
                self.0 += 1;
                tokio::time::sleep(Self::PAUSE).await;
                Ok(None)
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: Arc<dyn Handler>) {
    let service = service_fn(move |request| answer(request, handler.clone()));
    // An error here is a connection that broke; the next one starts anew.
    let _ = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(16 * 1024)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    handler: Arc<dyn Handler>,
) -> Result<Response<tonic::body::Body>, Infallible> {
    let operation = [Operation::Wrap, Operation::Unwrap]
        .into_iter()
        .find(|operation| operation.path() == request.uri().path());
    let Some(operation) = operation else {
        return Ok(Status::new(
            Code::Unimplemented,
            "only WrapKey and UnWrapKey of keyprovider.KeyProviderService",
        )
        .into_http());
    };
    if request.headers().get(hyper::header::CONTENT_TYPE).is_none_or(|kind| !is_grpc(kind)) {
        let mut response = Response::new(tonic::body::Body::empty());
        *response.status_mut() = hyper::StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Ok(response);
    }
    let mut grpc = tonic::server::Grpc::new(Codec).max_decoding_message_size(MAX_MESSAGE + OVERHEAD);
    let unary = grpc.unary(Method { operation, handler }, request);
    let late = || Status::new(Code::DeadlineExceeded, "the request took too long to arrive").into_http();
    Ok(tokio::time::timeout(2 * PATIENCE, unary).await.unwrap_or_else(|_| late()))
}

fn is_grpc(kind: &HeaderValue) -> bool {
    matches!(kind.as_bytes(), b"application/grpc" | b"application/grpc+proto")
}

/// One method, as tonic calls it.
struct Method {
    operation: Operation,
    handler: Arc<dyn Handler>,
}

impl tower_service::Service<tonic::Request<Message>> for Method {
    type Response = tonic::Response<Message>;
    type Error = Status;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Status>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Message>) -> Self::Future {
        let (operation, handler) = (self.operation, self.handler.clone());
        Box::pin(async move {
            let message = request.into_inner().0;
            let answering = tokio::task::spawn_blocking(move || {
                let request = message::decode(&message).map_err(|error| error.to_string())?;
                let reply = handler.answer(operation, request)?;
                message::encode(&reply).map_err(|error| error.to_string())
            });
            match answering.await {
                Ok(Ok(reply)) => Ok(tonic::Response::new(Message(reply))),
                Ok(Err(line)) => Err(Status::new(Code::FailedPrecondition, line)),
                Err(_) => Err(Status::new(Code::Internal, "the request could not be answered")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failing_to_accept_once_ends_no_service() {
        let mut failures = Failures::default();
        let aborted = || Err::<(), _>(io::ErrorKind::ConnectionAborted.into());
        assert!(failures.take(aborted()).await.unwrap().is_none());
        failures.0 = Failures::LIMIT - 1;
        assert!(failures.take(aborted()).await.unwrap().is_none());
        assert!(failures.take(aborted()).await.is_err());
        assert!(failures.take(Ok(())).await.unwrap().is_some());
        assert!(failures.take(aborted()).await.unwrap().is_none());
    }
}
