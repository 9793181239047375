//! The log on a vsock port, for a runtime that asked for one with `agent.log_vport`: the same records as
//! on the console. A reader that is too slow loses lines, never the agent's time.

use std::io::{self, Write};
use std::sync::Arc;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

/// Lines that a reader may be behind.
const BACKLOG: usize = 256;
/// Readers at a time.
const MAX_READERS: usize = 4;

/// Where lines go, and from where readers get them.
#[derive(Clone)]
pub struct Feed(broadcast::Sender<Arc<[u8]>>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

/// A writer of whole lines that also feeds the port's readers.
pub struct Tee<W> {
    writer: W,
    feed: Feed,
}

impl Feed {
    /// Copies what goes to `writer`.
    pub fn tee<W: Write>(&self, writer: W) -> Tee<W> {
        Tee { writer, feed: self.clone() }
    }

    /// Serves the host on a vsock port until the agent ends.
    pub async fn serve(self, port: u32) -> io::Result<()> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
        let room = Arc::new(Semaphore::new(MAX_READERS));
        loop {
            let (stream, peer) = listener.accept().await?;
            // Containers of the same guest have other context ids: their port is none of this.
            let permit = room.clone().try_acquire_owned();
            if let (VMADDR_CID_HOST, Ok(permit)) = (peer.cid(), permit) {
                let lines = self.0.subscribe();
                tokio::spawn(async move {
                    send(lines, stream).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn send(mut lines: broadcast::Receiver<Arc<[u8]>>, mut stream: impl AsyncWrite + Unpin) {
    loop {
        let written = match lines.recv().await {
            Ok(line) => stream.write_all(&line).await,
            Err(RecvError::Lagged(count)) => {
                stream.write_all(format!("{{\"msg\":\"lines lost\",\"count\":{count}}}\n").as_bytes()).await
            }
            Err(RecvError::Closed) => return,
        };
        if written.is_err() {
            return;
        }
    }
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        // Without a reader there is nobody to tell.
        let _ = self.feed.0.send(bytes[..count].into());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_reader_gets_lines_from_when_it_came_and_hears_of_those_it_was_too_slow_for() {
        let feed = Feed::default();
        let mut tee = feed.tee(Vec::new());
        tee.write_all(b"before\n").unwrap();
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let lines = feed.0.subscribe();
        for _ in 0..BACKLOG + 10 {
            tee.write_all(b"line\n").unwrap();
        }
        assert_eq!(tee.writer.len(), 7 + 5 * (BACKLOG + 10), "the console misses nothing");
        drop((tee, feed));
        send(lines, ours).await;
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("{\"msg\":\"lines lost\",\"count\":10}\nline\n"), "{text}");
        assert_eq!(text.lines().count(), BACKLOG + 1);
    }
}
