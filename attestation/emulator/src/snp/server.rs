//! The emulated processor's socket: one guest, few connections, framed calls.

use crate::snp::processor::Processor;
use crate::snp::wire::Call;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

/// A guest's stand-in driver has one connection; a few more don't hurt.
const CONNECTIONS_MAX: usize = 8;

/// Why the socket can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody is serving there.
    #[error("{0} is in use by a running emulated processor; each VM needs its own socket")]
    InUse(PathBuf),
    /// The file system refused.
    #[error("listening on {path}: {source}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A bound socket, removed on drop.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `path`, replacing a socket that nobody listens on any more.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { path: path.to_owned(), source };
        match UnixStream::connect(path) {
            Ok(_) => return Err(ListenError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let socket = UnixListener::bind(path).map_err(failed)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Answers calls in threads of their own, until the process ends.
    pub fn serve(&self, processor: &Arc<Processor>) -> io::Result<()> {
        let socket = self.socket.try_clone()?;
        let processor = Arc::clone(processor);
        let open = Arc::new(AtomicUsize::new(0));
        thread::Builder::new().name("accept".to_owned()).spawn(move || {
            for stream in socket.incoming() {
                let Ok(stream) = stream else { continue };
                let slot = Slot::take(&open);
                let processor = Arc::clone(&processor);
                if let Some(slot) = slot {
                    let connection = move || {
                        // A broken connection is the guest's loss; it may connect again.
                        let _ = converse(stream, &processor);
                        drop(slot);
                    };
                    let _ = thread::Builder::new().name("guest".to_owned()).spawn(connection);
                }
            }
        })?;
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let one_more = |count: usize| (count < CONNECTIONS_MAX).then_some(count + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(Arc::clone(open)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn converse(mut stream: UnixStream, processor: &Processor) -> io::Result<()> {
    while let Some(call) = Call::read(&mut stream)? {
        processor.answer(&call).write(&mut stream)?;
    }
    Ok(())
}
