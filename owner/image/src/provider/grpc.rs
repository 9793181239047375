//! A provider behind gRPC: over TCP, in clear or with TLS, or a unix socket. Framing and status are tonic's,
//! connections hyper's; no connection outlives its question.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};
use zeroize::Zeroizing;

use super::address::{Address, LOCALHOST};
use super::command::one_line;
use super::config::GrpcTls;
use super::message::{self, MAX_ANSWER, OVERHEAD};
use super::tls;
use super::transport::{Operation, TransportError};

/// The service's name, package and all.
pub(super) const SERVICE: &str = "keyprovider.KeyProviderService";

impl Operation {
    /// The method's name.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Wrap => "WrapKey",
            Self::Unwrap => "UnWrapKey",
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Wrap => "/keyprovider.KeyProviderService/WrapKey",
            Self::Unwrap => "/keyprovider.KeyProviderService/UnWrapKey",
        }
    }
}

/// Asks; what the answer's message holds.
pub(super) async fn ask(
    address: &Address,
    tls: Option<&GrpcTls>,
    operation: Operation,
    request: &[u8],
) -> Result<Zeroizing<Vec<u8>>, TransportError> {
    let message = message::encode(request)?;
    match (address, tls) {
        (Address::Unix(path), _) => {
            let stream = UnixStream::connect(path)
                .await
                .map_err(|error| TransportError::rpc(address, format!("no connection: {error}")))?;
            call(address, "http://localhost", stream, operation, message).await
        }
        (Address::Tcp { host, port }, None) => {
            let stream = connect(address, host, *port).await?;
            call(address, &format!("http://{address}"), stream, operation, message).await
        }
        (Address::Tcp { host, port }, Some(settings)) => {
            let (connector, name) = tls::connector(settings, host)?;
            let stream = connect(address, host, *port).await?;
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|error| TransportError::rpc(address, format!("no TLS connection: {error}")))?;
            call(address, &format!("https://{address}"), stream, operation, message).await
        }
    }
}

async fn call(
    address: &Address,
    origin: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    operation: Operation,
    message: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, TransportError> {
    let failed =
        |problem: &dyn std::fmt::Display| TransportError::rpc(address, one_line(&problem.to_string()));
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(16 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let driver = tokio::spawn(connection);
    let origin = origin.parse().map_err(|error| failed(&error))?;
    let mut client = tonic::client::Grpc::with_origin(Connection(sender), origin)
        .max_decoding_message_size(MAX_ANSWER + OVERHEAD);
    client.ready().await.map_err(|error| failed(&error))?;
    let path = hyper::http::uri::PathAndQuery::from_static(operation.path());
    let answer = client.unary(tonic::Request::new(Message(message)), path, Codec).await;
    driver.abort();
    // A status is the provider's own text; what else it holds is of no interest.
    let answer =
        answer.map_err(|status| failed(&format_args!("{:?}: {}", status.code(), status.message())))?;
    Ok(Zeroizing::new(message::decode(&answer.into_inner().0)?.to_vec()))
}

/// `localhost` is this machine without asking; else the system's files first, then its name servers.
async fn connect(address: &Address, host: &str, port: u16) -> Result<TcpStream, TransportError> {
    let failed =
        |problem: &dyn std::fmt::Display| TransportError::rpc(address, format!("no connection: {problem}"));
    let ips: Vec<IpAddr> = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) if host == LOCALHOST => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Err(_) => {
            let resolver = hickory_resolver::TokioResolver::builder_tokio()
                .and_then(|builder| builder.build())
                .map_err(|error| failed(&error))?;
            resolver.lookup_ip(host).await.map_err(|error| failed(&error))?.iter().take(8).collect()
        }
    };
    let mut last = failed(&"its name has no address");
    for ip in ips {
        match TcpStream::connect(SocketAddr::new(ip, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = failed(&error),
        }
    }
    Err(last)
}

/// One connection as the service that tonic calls.
struct Connection(SendRequest<tonic::body::Body>);

type Answer = Result<hyper::Response<Incoming>, hyper::Error>;

impl tower_service::Service<hyper::Request<tonic::body::Body>> for Connection {
    type Response = hyper::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A whole message, in the form that `message` writes and reads.
pub(super) struct Message(pub(super) Zeroizing<Vec<u8>>);

/// Hands messages through as they are.
#[derive(Clone, Copy, Default)]
pub(super) struct Codec;

impl tonic::codec::Codec for Codec {
    type Encode = Message;
    type Decode = Message;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Codec {
    type Item = Message;
    type Error = Status;

    fn encode(&mut self, message: Message, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message.0);
        Ok(())
    }
}

impl Decoder for Codec {
    type Item = Message;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Message>, Status> {
        // tonic has held the length against the limit.
        let mut bytes = Zeroizing::new(vec![0; from.remaining()]);
        from.copy_to_slice(&mut bytes);
        Ok(Some(Message(bytes)))
    }
}
