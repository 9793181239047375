//! Listening: one relay an address. A unix socket left behind by a crash is replaced, a live one never;
//! its own one is removed at the end.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use crate::address::Listen;

/// A guest's connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// Who connected: the guest's context id, or on a unix socket the process that carries its bytes (one a
/// guest), where the system tells.
pub type Peer = Option<u32>;

/// Why the relay can't listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody answers there.
    #[error("{0} is in use: another relay listens there; stop it or choose another address")]
    InUse(Listen),
    /// Something else has the name.
    #[error("{} exists and is not a socket; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("{listen}: {operation} failed")]
    System {
        /// The address.
        listen: Listen,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A bound address.
pub enum Listener {
    /// A vsock port.
    Vsock(VsockListener),
    /// A unix socket, removed on drop.
    Unix(UnixListener, OwnSocket),
}

impl Listener {
    /// Binds. Must be called inside a runtime.
    pub fn bind(listen: &Listen) -> Result<Self, ListenError> {
        let failed = |operation| {
            move |source: io::Error| match source.kind() {
                io::ErrorKind::AddrInUse => ListenError::InUse(listen.clone()),
                _ => ListenError::System { listen: listen.clone(), operation, source },
            }
        };
        match listen {
            Listen::Vsock(port) => VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port))
                .map(Self::Vsock)
                .map_err(failed("binding")),
            Listen::Unix(path) => {
                // Held while looking and binding, so that of two relays that start at once one loses.
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let directory =
                    File::open(parent.unwrap_or(Path::new("."))).map_err(failed("opening the directory"))?;
                directory.lock().map_err(failed("locking the directory"))?;
                match fs::symlink_metadata(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(failed("looking")(error)),
                    Ok(metadata) if !metadata.file_type().is_socket() => {
                        return Err(ListenError::NotASocket(path.clone()));
                    }
                    Ok(_) => match StdUnixStream::connect(path) {
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                            fs::remove_file(path).map_err(failed("removing the dead socket"))?;
                        }
                        // A full backlog is a live listener too.
                        _ => return Err(ListenError::InUse(listen.clone())),
                    },
                }
                let listener = UnixListener::bind(path).map_err(failed("binding"))?;
                let metadata = fs::symlink_metadata(path).map_err(failed("looking"))?;
                let own = OwnSocket { path: path.clone(), id: (metadata.dev(), metadata.ino()) };
                Ok(Self::Unix(listener, own))
            }
        }
    }

    /// The next guest.
    pub async fn accept(&self) -> io::Result<(Box<dyn Connection>, Peer)> {
        Ok(match self {
            Self::Vsock(listener) => {
                let (stream, address) = listener.accept().await?;
                (Box::new(stream), Some(address.cid()))
            }
            Self::Unix(listener, _) => {
                let stream = listener.accept().await?.0;
                let process = stream.peer_cred().ok().and_then(|peer| peer.pid()?.try_into().ok());
                (Box::new(stream), process)
            }
        })
    }
}

/// A socket's name in the file system, removed on drop if it still is the same socket.
pub struct OwnSocket {
    path: PathBuf,
    id: (u64, u64),
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.id);
        if same {
            // Nothing is left to do if it fails; the next start finds a dead socket.
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &Path) -> Result<Listener, ListenError> {
        Listener::bind(&Listen::Unix(path.to_owned()))
    }

    #[tokio::test]
    async fn removes_its_socket_and_only_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.sock");
        drop(bind(&path).unwrap());
        assert!(!path.exists());

        let first = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn replaces_a_dead_socket_and_refuses_a_live_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(ListenError::InUse(_))));
        drop(live);
    }

    #[tokio::test]
    async fn leaves_other_files_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.sock");
        fs::write(&path, "mine").unwrap();
        assert!(matches!(bind(&path), Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let missing = dir.path().join("no/relay.sock");
        assert!(matches!(
            bind(&missing),
            Err(ListenError::System { operation: "opening the directory", .. })
        ));
    }
}
