//! Processes: exec, signals, waiting, streams.

use anyhow::{Result, ensure};
use protobuf::MessageField;
use protocols::agent as wire;

use super::{Answer, Kata, answer, soon, spec};

/// The shim's read size.
pub const READ: u32 = 8192;

/// How a runtime names a container's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitExec {
    /// The Rust shim: the empty string.
    Empty,
    /// The Go shim: the container's id.
    ContainerId,
}

/// How a process ended, and everything that it wrote.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; 128 + n for signal n.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Ended {
    /// Standard output as text, without its last newline.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Its output, when it ended with 0.
    ///
    /// # Errors
    /// With everything it wrote when it didn't.
    pub fn good(&self) -> Result<String> {
        ensure!(
            self.status == 0,
            "exit code {}: {} {}",
            self.status,
            self.text(),
            String::from_utf8_lossy(&self.stderr)
        );
        Ok(self.text())
    }
}

impl Kata {
    fn exec_id(&self, id: &str, exec: &str) -> String {
        match self.init {
            InitExec::ContainerId if exec.is_empty() => id.to_owned(),
            _ => exec.to_owned(),
        }
    }

    /// `SignalProcess`; an empty `exec` is the container's first process.
    ///
    /// # Errors
    /// The agent's.
    pub async fn signal(&self, id: &str, exec: &str, signal: u32) -> Answer<()> {
        let mut request = wire::SignalProcessRequest::new();
        request.container_id = id.to_owned();
        request.exec_id = self.exec_id(id, exec);
        request.signal = signal;
        answer::of(self.agent().signal_process(soon(), &request).await).map(drop)
    }

    /// `WaitProcess`, without a time-out as runtimes call it.
    ///
    /// # Errors
    /// The agent's.
    pub async fn wait(&self, id: &str, exec: &str) -> Answer<i32> {
        let mut request = wire::WaitProcessRequest::new();
        request.container_id = id.to_owned();
        request.exec_id = self.exec_id(id, exec);
        let waited = self.agent().wait_process(ttrpc::context::Context::default(), &request).await;
        answer::of(waited).map(|answer| answer.status)
    }

    /// `ReadStdout` or `ReadStderr` once.
    ///
    /// # Errors
    /// The agent's.
    pub async fn read(&self, id: &str, exec: &str, error: bool, length: u32) -> Answer<Vec<u8>> {
        let mut request = wire::ReadStreamRequest::new();
        request.container_id = id.to_owned();
        request.exec_id = self.exec_id(id, exec);
        request.len = length;
        let context = ttrpc::context::Context::default();
        let read = match error {
            false => self.agent().read_stdout(context, &request).await,
            true => self.agent().read_stderr(context, &request).await,
        };
        answer::of(read).map(|answer| answer.data)
    }

    /// Reads a stream to its end.
    ///
    /// # Errors
    /// The agent's, before the stream's end.
    pub async fn drain(&self, id: &str, exec: &str, error: bool) -> Answer<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let piece = self.read(id, exec, error, READ).await?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend(piece);
        }
    }

    /// `WriteStdin`; the number of bytes taken.
    ///
    /// # Errors
    /// The agent's.
    pub async fn write(&self, id: &str, exec: &str, data: &[u8]) -> Answer<u32> {
        let mut request = wire::WriteStreamRequest::new();
        request.container_id = id.to_owned();
        request.exec_id = self.exec_id(id, exec);
        request.data = data.to_vec();
        answer::of(self.agent().write_stdin(soon(), &request).await).map(|answer| answer.len)
    }

    /// `CloseStdin`.
    ///
    /// # Errors
    /// The agent's.
    pub async fn close_stdin(&self, id: &str, exec: &str) -> Answer<()> {
        let mut request = wire::CloseStdinRequest::new();
        request.container_id = id.to_owned();
        request.exec_id = self.exec_id(id, exec);
        answer::of(self.agent().close_stdin(soon(), &request).await).map(drop)
    }

    /// `TtyWinResize`.
    ///
    /// # Errors
    /// The agent's.
    pub async fn resize(&self, id: &str, exec: &str, row: u32, column: u32) -> Answer<()> {
        let mut request = wire::TtyWinResizeRequest::new();
        request.container_id = id.to_owned();
        request.exec_id = self.exec_id(id, exec);
        (request.row, request.column) = (row, column);
        answer::of(self.agent().tty_win_resize(soon(), &request).await).map(drop)
    }

    /// Both streams to their end, and the exit code.
    ///
    /// # Errors
    /// The agent's.
    pub async fn follow(&self, id: &str, exec: &str) -> Answer<Ended> {
        let (stdout, stderr, status) =
            tokio::join!(self.drain(id, exec, false), self.drain(id, exec, true), self.wait(id, exec));
        Ok(Ended { status: status?, stdout: stdout?, stderr: stderr? })
    }

    /// `ExecProcess` with a process of the caller's.
    ///
    /// # Errors
    /// The agent's.
    pub async fn start_exec(&self, id: &str, exec: &str, process: protocols::oci::Process) -> Answer<()> {
        let mut request = wire::ExecProcessRequest::new();
        request.container_id = id.to_owned();
        request.exec_id = exec.to_owned();
        request.process = MessageField::some(process);
        answer::of(self.agent().exec_process(soon(), &request).await).map(drop)
    }

    /// Runs a command in a running container, to its end.
    ///
    /// # Errors
    /// The agent's.
    pub async fn exec(&self, id: &str, args: &[&str]) -> Answer<Ended> {
        let exec = unique("exec");
        self.start_exec(id, &exec, spec::process(args)).await?;
        self.follow(id, &exec).await
    }

    /// Creates, starts, reads, waits for and removes a container.
    ///
    /// # Errors
    /// The agent's.
    pub async fn run(&self, request: &wire::CreateContainerRequest) -> Answer<Ended> {
        self.create(request).await?;
        self.start(&request.container_id).await?;
        let ended = self.follow(&request.container_id, "").await?;
        self.remove(&request.container_id).await?;
        Ok(ended)
    }
}

/// A name that nothing else in this process has.
#[must_use]
pub fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
