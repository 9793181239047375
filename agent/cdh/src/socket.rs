//! One socket for one container, bounded in connections, that ends with the container.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;

use crate::identity::Identity;
use crate::services;

/// Connections of one container.
const MAX_CONNECTIONS: usize = 4;
/// The socket's name in its directory.
const NAME: &str = "cdh.sock";

/// Whether a process, by its id in the guest, belongs to the container. Somebody else who finds a way to
/// the socket is hung up on.
pub type PeerCheck = Box<dyn Fn(i32) -> bool + Send + Sync>;

/// A container's socket. Dropping it ends the service and removes the file.
pub struct Socket {
    path: PathBuf,
    _server: Server,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Socket").field(&self.path).finish()
    }
}

impl Socket {
    /// Where it is in the guest.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes the socket in `directory`, which exists and is this container's alone, and serves it.
///
/// # Errors
/// The socket can't be made.
pub async fn serve(directory: &Path, identity: Arc<dyn Identity>, peer: PeerCheck) -> io::Result<Socket> {
    let path = directory.join(NAME);
    let listener = UnixListener::bind(&path)?;
    // Any user of the container: the directory is nobody else's.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepted = unfold((listener, room, peer), |(listener, room, peer)| async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => return Some((Err(error), (listener, room, peer))),
            };
            let known = stream.peer_cred().ok().and_then(|peer| peer.pid()).is_some_and(&peer);
            if known && let Ok(permit) = room.clone().try_acquire_owned() {
                return Some((Ok(Counted { stream, _permit: permit }), (listener, room, peer)));
            }
        }
    });
    let mut server =
        Server::new().add_listener(Listener::new(accepted)).register_service(services::tables(identity));
    server.start().await.map_err(io::Error::other)?;
    Ok(Socket { path, _server: server })
}

/// A connection that gives its place back when it ends.
struct Counted {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
