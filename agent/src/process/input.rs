//! Input of a process. The kernel's pipe bounds what the process hasn't read: a write of more waits for
//! it, until it ends or its input is closed, and nobody else waits with it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, watch};

use super::{Terminal, size_pipe};
use crate::reaper::Watched;

/// Why bytes were not written.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The process was given none, or it was closed.
    #[error("the process' input is closed")]
    Closed,
    /// The process has ended, or closed its end.
    #[error("the process does not read its input any more")]
    Ended,
    /// The kernel refused.
    #[error("writing to the process' input: {0}")]
    Kernel(#[source] io::Error),
}

/// The agent's end of a process' standard input.
pub struct Input {
    sink: Mutex<Sink>,
    closed: watch::Sender<bool>,
}

enum Sink {
    Closed,
    Pipe(pipe::Sender),
    Terminal(Arc<Terminal>),
}

impl Input {
    /// An input at its end.
    pub fn closed() -> Self {
        Self { sink: Mutex::new(Sink::Closed), closed: watch::channel(true).0 }
    }

    /// An input, and the end that the process reads from.
    pub fn pipe(size: u32) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        size_pipe(&writer, size);
        let sink = Sink::Pipe(pipe::Sender::from_owned_fd(writer.into())?);
        Ok((Self { sink: Mutex::new(sink), closed: watch::channel(false).0 }, reader.into()))
    }

    /// What is typed at a terminal.
    pub fn terminal(terminal: Arc<Terminal>) -> Self {
        Self { sink: Mutex::new(Sink::Terminal(terminal)), closed: watch::channel(false).0 }
    }

    /// Writes all bytes, in the order of the calls.
    pub async fn write(&self, bytes: &[u8], process: &Watched) -> Result<(), InputError> {
        let mut closing = self.closed.subscribe();
        let written = tokio::select! {
            biased;
            _ = closing.wait_for(|closed| *closed) => Err(InputError::Closed),
            written = self.write_all(bytes) => written,
            _ = process.wait() => Err(InputError::Ended),
        };
        if *self.closed.borrow() {
            self.let_go().await;
        }
        written
    }

    /// Lets the process read the end, after what it was sent. Writes that still wait fail. A terminal has
    /// no end: it stays for whoever types next.
    pub async fn close(&self) {
        if let Ok(sink) = self.sink.try_lock()
            && matches!(*sink, Sink::Terminal(_))
        {
            return;
        }
        self.closed.send_replace(true);
        self.let_go().await;
    }

    /// No write holds the lock for long once the input counts as closed.
    async fn let_go(&self) {
        *self.sink.lock().await = Sink::Closed;
    }

    async fn write_all(&self, mut bytes: &[u8]) -> Result<(), InputError> {
        let mut sink = self.sink.lock().await;
        let written = match &mut *sink {
            Sink::Closed => return Err(InputError::Closed),
            Sink::Pipe(pipe) => pipe.write_all(bytes).await,
            Sink::Terminal(terminal) => loop {
                if bytes.is_empty() {
                    break Ok(());
                }
                match terminal.write(bytes).await {
                    Ok(count) => bytes = &bytes[count.min(bytes.len())..],
                    Err(error) => break Err(error),
                }
            },
        };
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => InputError::Ended,
            _ if error.raw_os_error() == Some(libc::EIO) => InputError::Ended,
            _ => InputError::Kernel(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::super::output::tests::{ended, running};
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_and_then_comes_the_end() {
        let (input, reader) = Input::pipe(0).unwrap();
        let process = running();
        input.write(b"one ", &process).await.unwrap();
        input.write(b"two", &process).await.unwrap();
        input.close().await;
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
        assert!(matches!(input.write(b"x", &process).await, Err(InputError::Closed)));
        input.close().await;
    }

    #[tokio::test]
    async fn a_write_waits_for_the_reader_and_close_ends_the_wait() {
        let (input, reader) = Input::pipe(0).unwrap();
        let input = Arc::new(input);
        let writing = tokio::spawn({
            let input = input.clone();
            async move { input.write(&[7; 1024 * 1024], &running()).await }
        });
        let mut reader = File::from(reader);
        let first = tokio::task::spawn_blocking(move || {
            reader.read_exact(&mut [0]).unwrap();
            reader
        });
        let mut reader = first.await.unwrap();
        assert!(!writing.is_finished(), "a full pipe makes the write wait");
        input.close().await;
        assert!(matches!(writing.await.unwrap(), Err(InputError::Closed)));
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert!(bytes.len() < 1024 * 1024);
    }

    #[tokio::test]
    async fn the_end_of_the_process_ends_the_wait() {
        let (input, _reader) = Input::pipe(0).unwrap();
        assert!(matches!(input.write(&[7; 1024 * 1024], &ended()).await, Err(InputError::Ended)));
        let (input, reader) = Input::pipe(0).unwrap();
        drop(reader);
        assert!(matches!(input.write(b"x", &running()).await, Err(InputError::Ended)));
    }

    #[tokio::test]
    async fn a_process_without_input_takes_none() {
        assert!(matches!(Input::closed().write(b"x", &running()).await, Err(InputError::Closed)));
    }
}
