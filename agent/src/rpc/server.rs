//! Who may call: the host, over vsock, with a bounded number of connections. A container that finds a
//! way to open an AF_VSOCK socket is nobody here.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;

use super::Service;
use crate::config::Address;

/// A runtime opens one connection; a few more leave room for its tools.
const MAX_CONNECTIONS: usize = 16;
/// Bytes read ahead from a connection; longer payloads are read past the buffer.
const READ_BUFFER: usize = 8192;

/// Where calls come from.
pub enum Peers {
    /// The host, on a vsock port.
    Vsock(VsockListener),
    /// Whoever reaches a socket: for tests of the API without a VM.
    Unix(UnixListener),
}

impl Peers {
    /// The host, on a vsock port.
    pub fn vsock(port: u32) -> io::Result<Self> {
        VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port)).map(Self::Vsock)
    }

    /// Listens where the configuration says. A socket file that nobody listens on is replaced.
    pub fn listen(address: &Address) -> io::Result<Self> {
        match address {
            Address::Vsock(port) => Self::vsock(*port),
            Address::Unix(path) => {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Ok(Self::Unix(listener))
            }
        }
    }
}

/// Serves until the server is dropped.
pub async fn serve(service: Service, peers: Peers) -> ttrpc::Result<Server> {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let listener = match peers {
        Peers::Vsock(listener) => Listener::new(host_only(listener, room)),
        Peers::Unix(listener) => Listener::new(anyone(listener, room)),
    };
    let mut server = Server::new().add_listener(listener).register_service(service.tables());
    server.start().await?;
    Ok(server)
}

fn host_only(
    listener: VsockListener,
    room: Arc<Semaphore>,
) -> impl Stream<Item = io::Result<Counted<tokio_vsock::VsockStream>>> {
    unfold((listener, room), |(listener, room)| async move {
        loop {
            let accepted = listener.accept().await;
            let stream = match accepted {
                // Dropped without a word: CID 2 is the host, everything else is inside the guest.
                Ok((_, peer)) if peer.cid() != VMADDR_CID_HOST => continue,
                Ok((stream, _)) => stream,
                Err(error) => return Some((Err(error), (listener, room))),
            };
            if let Ok(permit) = room.clone().try_acquire_owned() {
                return Some((Ok(Counted { stream: buffered(stream), _permit: permit }), (listener, room)));
            }
        }
    })
}

fn anyone(
    listener: UnixListener,
    room: Arc<Semaphore>,
) -> impl Stream<Item = io::Result<Counted<tokio::net::UnixStream>>> {
    unfold((listener, room), |(listener, room)| async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => return Some((Err(error), (listener, room))),
            };
            if let Ok(permit) = room.clone().try_acquire_owned() {
                return Some((Ok(Counted { stream: buffered(stream), _permit: permit }), (listener, room)));
            }
        }
    })
}

/// A connection that gives its place back when it ends.
struct Counted<S> {
    stream: BufReader<S>,
    _permit: OwnedSemaphorePermit,
}

/// A frame's header and a short payload in one system call.
fn buffered<S: AsyncRead>(stream: S) -> BufReader<S> {
    BufReader::with_capacity(READ_BUFFER, stream)
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
