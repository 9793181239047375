//! Output of a process: the kernel's pipe is the bounded buffer, and a host that doesn't read it makes
//! the process wait. After the process has ended, what it had written is still read, then comes the end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use sealed_spec::log::{LogInfo, LogRecipient, Sealer, SealerError};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{Terminal, size_pipe};
use crate::reaper::Watched;

/// Most bytes that one read returns, whatever the host asks for.
const READ_MAX: usize = 256 * 1024;
/// Bytes that are sealed at a time.
const SEAL_READ: usize = 8192;
/// After which the beginning of a line is sealed by itself.
const SILENCE: Duration = Duration::from_secs(1);

/// Whether the host may see what a process writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputPolicy {
    /// Drained, so that the process never waits, and thrown away; the host reads the end at once.
    Discard,
    /// Passed on as written.
    Clear,
}

/// One output stream.
pub struct Output {
    source: Source,
    /// Where the host gets sealed lines alone.
    sealing: OnceLock<Mutex<Sealing>>,
}

/// A stream on its way to the owner.
struct Sealing {
    /// `None`: the stream has ended.
    sealer: Option<Sealer>,
    /// Sealed lines that the host hasn't fetched.
    ready: Vec<u8>,
}

enum Source {
    Closed,
    Pipe(Mutex<pipe::Receiver>),
    Terminal(Mutex<Arc<Terminal>>),
}

impl Output {
    /// A stream that has ended.
    pub fn closed() -> Self {
        Self::of(Source::Closed)
    }

    fn of(source: Source) -> Self {
        Self { source, sealing: OnceLock::new() }
    }

    /// From now on the host gets lines that only the owner opens. To be called before it can read.
    pub fn seal(&self, recipient: &LogRecipient, info: &LogInfo) -> Result<(), SealerError> {
        if matches!(self.source, Source::Closed) {
            return Ok(());
        }
        let mut ready = Vec::new();
        let sealer = Sealer::new(recipient, info, &mut ready)?;
        self.sealing.get_or_init(|| Mutex::new(Sealing { sealer: Some(sealer), ready }));
        Ok(())
    }

    /// A stream, and the end that the process writes to.
    pub fn pipe(policy: OutputPolicy, size: u32) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        size_pipe(&writer, size);
        let mut receiver = pipe::Receiver::from_owned_fd(reader.into())?;
        let output = match policy {
            OutputPolicy::Clear => Self::of(Source::Pipe(Mutex::new(receiver))),
            OutputPolicy::Discard => {
                tokio::spawn(async move {
                    let mut buffer = vec![0; 8192];
                    while matches!(receiver.read(&mut buffer).await, Ok(1..)) {}
                });
                Self::closed()
            }
        };
        Ok((output, writer.into()))
    }

    /// What a terminal shows.
    pub fn terminal(policy: OutputPolicy, terminal: Arc<Terminal>) -> Self {
        match policy {
            OutputPolicy::Clear => Self::of(Source::Terminal(Mutex::new(terminal))),
            OutputPolicy::Discard => {
                tokio::spawn(async move {
                    let mut buffer = vec![0; 8192];
                    while matches!(terminal.read(&mut buffer).await, Ok(1..)) {}
                });
                Self::closed()
            }
        }
    }

    /// Waits for output and returns at most `length` bytes of it; empty at the end.
    ///
    /// A descendant that outlives the process may keep the pipe open: its output after the process' end
    /// is not waited for.
    pub async fn read(&self, length: usize, process: &Watched) -> io::Result<Vec<u8>> {
        match self.sealing.get() {
            None => self.read_clear(length, process).await,
            Some(sealing) => self.read_sealed(length, process, &mut *sealing.lock().await).await,
        }
    }

    async fn read_sealed(
        &self,
        length: usize,
        process: &Watched,
        sealing: &mut Sealing,
    ) -> io::Result<Vec<u8>> {
        let failed = |error: SealerError| io::Error::other(error.to_string());
        while sealing.ready.is_empty() {
            let Some(sealer) = &mut sealing.sealer else { return Ok(Vec::new()) };
            let silence = async {
                match sealer.has_pending() {
                    true => tokio::time::sleep(SILENCE).await,
                    false => std::future::pending().await,
                }
            };
            let bytes = tokio::select! {
                biased;
                bytes = self.read_clear(SEAL_READ, process) => Some(Zeroizing::new(bytes?)),
                () = silence => None,
            };
            match bytes {
                // Something like a prompt, which no line end follows.
                None => sealer.flush(&mut sealing.ready).map_err(failed)?,
                Some(bytes) if bytes.is_empty() => {
                    if let Some(sealer) = sealing.sealer.take() {
                        sealer.finish(&mut sealing.ready).map_err(failed)?;
                    }
                }
                Some(bytes) => sealer.push(&bytes, &mut sealing.ready).map_err(failed)?,
            }
        }
        let rest = sealing.ready.split_off(length.clamp(1, READ_MAX).min(sealing.ready.len()));
        Ok(std::mem::replace(&mut sealing.ready, rest))
    }

    async fn read_clear(&self, length: usize, process: &Watched) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::new();
        let count = match &self.source {
            Source::Closed => 0,
            Source::Pipe(receiver) => {
                let mut receiver = receiver.lock().await;
                buffer.resize(length.clamp(1, READ_MAX), 0);
                tokio::select! {
                    biased;
                    count = receiver.read(&mut buffer) => count?,
                    _ = process.wait() => left_over(&receiver, &mut buffer)?,
                }
            }
            Source::Terminal(terminal) => {
                let terminal = terminal.lock().await;
                buffer.resize(length.clamp(1, READ_MAX), 0);
                tokio::select! {
                    biased;
                    count = terminal.read(&mut buffer) => count?,
                    _ = process.wait() => terminal.left_over(&mut buffer)?,
                }
            }
        };
        buffer.truncate(count);
        Ok(buffer)
    }
}

/// Reads what is in the pipe now; straight from the kernel, whose answer no reactor can be late with.
fn left_over(receiver: &pipe::Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match nix::unistd::read(receiver, buffer) {
            Err(Errno::EAGAIN) => return Ok(0),
            Err(Errno::EINTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::reaper::Reaper;

    pub(in super::super) fn running() -> Watched {
        let reaper = Reaper::new();
        let since = reaper.epoch();
        let watched = reaper.adopt(1_000_001, since);
        // Without the reaper, the process would count as ended.
        std::mem::forget(reaper);
        watched
    }

    pub(in super::super) fn ended() -> Watched {
        let reaper = Reaper::new();
        let since = reaper.epoch();
        reaper.adopt(1_000_001, since)
    }

    #[tokio::test]
    async fn what_was_written_before_the_end_is_read_after_it() {
        let (output, writer) = Output::pipe(OutputPolicy::Clear, 0).unwrap();
        let mut writer = File::from(writer);
        writer.write_all(b"last words").unwrap();
        // A descendant holds the pipe open.
        let process = ended();
        assert_eq!(output.read(4, &process).await.unwrap(), b"last");
        assert_eq!(output.read(100, &process).await.unwrap(), b" words");
        assert_eq!(output.read(100, &process).await.unwrap(), b"");
        drop(writer);
    }

    #[tokio::test]
    async fn a_running_process_is_waited_for() {
        let (output, writer) = Output::pipe(OutputPolicy::Clear, 0).unwrap();
        let output = Arc::new(output);
        let process = running();
        let reading = tokio::spawn({
            let output = output.clone();
            async move { output.read(8192, &process).await.unwrap() }
        });
        tokio::task::yield_now().await;
        assert!(!reading.is_finished());
        File::from(writer).write_all(b"hello").unwrap();
        assert_eq!(reading.await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn the_pipe_bounds_what_a_process_can_write_unread() {
        let (_output, writer) = Output::pipe(OutputPolicy::Clear, 0).unwrap();
        // Makes it non-blocking.
        let sender = pipe::Sender::from_owned_fd(writer).unwrap();
        let mut written = 0;
        while let Ok(count) = nix::unistd::write(&sender, &[0; 4096]) {
            written += count;
            assert!(written <= 1024 * 1024, "no back-pressure");
        }
        assert!(written > 0);
    }

    #[tokio::test]
    async fn discarded_output_ends_at_once_and_never_blocks_the_writer() {
        let (output, writer) = Output::pipe(OutputPolicy::Discard, 0).unwrap();
        let process = running();
        assert_eq!(output.read(8192, &process).await.unwrap(), b"");
        let writing = tokio::task::spawn_blocking(move || File::from(writer).write_all(&[1; 1024 * 1024]));
        writing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_configured_size_is_the_pipes() {
        let (_output, writer) = Output::pipe(OutputPolicy::Clear, 1 << 19).unwrap();
        assert_eq!(rustix::pipe::fcntl_getpipe_size(&writer).unwrap(), 1 << 19);
        // More than the kernel allows is no reason to fail.
        Output::pipe(OutputPolicy::Clear, u32::MAX).unwrap();
    }

    #[tokio::test]
    async fn a_terminal_is_read_to_its_end() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let terminal = Arc::new(Terminal::new(pty.master).unwrap());
        terminal.resize(24, 100).unwrap();
        assert_eq!(rustix::termios::tcgetwinsize(&pty.slave).unwrap().ws_col, 100);
        let output = Output::terminal(OutputPolicy::Clear, terminal);
        let mut slave = File::from(pty.slave);
        slave.write_all(b"hello").unwrap();
        let process = running();
        assert_eq!(output.read(100, &process).await.unwrap(), b"hello");
        slave.write_all(b"last words").unwrap();
        drop(slave);
        assert_eq!(output.read(100, &process).await.unwrap(), b"last words");
        assert_eq!(output.read(100, &process).await.unwrap(), b"", "EIO is the end");
    }

    #[tokio::test]
    async fn a_huge_read_length_allocates_no_more_than_the_bound() {
        let (output, writer) = Output::pipe(OutputPolicy::Clear, 0).unwrap();
        File::from(writer).write_all(b"x").unwrap();
        assert_eq!(output.read(usize::MAX, &ended()).await.unwrap(), b"x");
    }

    #[tokio::test]
    async fn sealed_output_opens_for_the_owner_alone() {
        use sealed_spec::log::{Content, Line, LogKey, LogStream, Opener};
        let key = LogKey::generate().unwrap();
        let (output, writer) = Output::pipe(OutputPolicy::Clear, 0).unwrap();
        let info = LogInfo {
            spec: format!("sha256:{}", "0".repeat(64)),
            container: "web".into(),
            instance: "c1".into(),
            stream: LogStream::Stdout,
        };
        output.seal(&key.recipient(), &info).unwrap();
        File::from(writer).write_all(b"hunter2\nand no line end").unwrap();
        let process = ended();
        let mut text = Vec::new();
        loop {
            let part = output.read(100, &process).await.unwrap();
            if part.is_empty() {
                break;
            }
            assert!(part.len() <= 100);
            text.extend(part);
        }
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("hunter2") && text.ends_with('\n'), "{text}");
        let mut opener = Opener::new(key);
        let mut clear = Vec::new();
        for line in text.lines() {
            match opener.line(line.as_bytes()) {
                Line::Sealed(opened) => {
                    if let Content::Text(bytes) = opened.content {
                        clear.extend_from_slice(&bytes);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(String::from_utf8(clear).unwrap(), "hunter2\nand no line end");
    }
}
