//! A pseudo-terminal's master end.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;

/// The end that the agent reads and writes; the process has the other one.
pub struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    /// Takes over a master.
    pub fn new(master: OwnedFd) -> io::Result<Self> {
        super::awaitable(master).map(Self)
    }

    /// Waits for output. None is the end: every process has closed the other end.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(done) = ready.try_io(|fd| ended(nix::unistd::read(fd.get_ref(), buffer))) {
                return done;
            }
        }
    }

    /// Reads what is there now; nothing counts as the end.
    pub(super) fn left_over(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match nix::unistd::read(self.0.get_ref(), buffer) {
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => {}
                other => return ended(other),
            }
        }
    }

    /// Waits until the terminal takes some of the bytes.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(done) = ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                return done;
            }
        }
    }

    /// Tells the process the size of its window, in characters.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.0.get_ref(), size)?)
    }
}

/// EIO is how a master learns that nobody has the other end any more.
fn ended(read: nix::Result<usize>) -> io::Result<usize> {
    match read {
        Err(Errno::EIO) => Ok(0),
        other => other.map_err(Into::into),
    }
}
