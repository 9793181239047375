//! A process that the host may wait for, signal, read from, and, where it may, write to.

mod input;
mod output;
mod terminal;

pub use input::{Input, InputError};
pub use output::{Output, OutputPolicy};
pub use terminal::Terminal;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;

use crate::launch::Stdio3;
use crate::reaper::Watched;

/// How a process' streams shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamsWanted {
    /// Whether the host may see the output.
    pub output: OutputPolicy,
    /// Whether the process gets an input; without one it reads the end at once.
    pub input: bool,
    /// Bytes of each pipe; 0 for the kernel's choice.
    pub pipe_size: u32,
}

/// The agent's ends of a process' standard streams.
pub struct Streams {
    /// Standard input.
    pub stdin: Input,
    /// Standard output; with a terminal everything that it shows.
    pub stdout: Output,
    /// Standard error; with a terminal at its end.
    pub stderr: Output,
    /// The terminal, if the process has one.
    pub terminal: Option<Arc<Terminal>>,
}

impl Streams {
    /// Pipes for a process that is about to start.
    pub fn pipes(wanted: StreamsWanted) -> io::Result<(Self, Stdio3)> {
        let (stdout, out) = Output::pipe(wanted.output, wanted.pipe_size)?;
        let (stderr, err) = Output::pipe(wanted.output, wanted.pipe_size)?;
        let (stdin, input) =
            if wanted.input { Input::pipe(wanted.pipe_size)? } else { (Input::closed(), null_input()?) };
        Ok((
            Self { stdin, stdout, stderr, terminal: None },
            Stdio3 { stdin: input, stdout: out, stderr: err },
        ))
    }

    /// The streams of a process that was started with a terminal.
    pub fn terminal(master: OwnedFd, wanted: StreamsWanted) -> io::Result<Self> {
        let terminal = Arc::new(Terminal::new(master)?);
        let stdin = if wanted.input { Input::terminal(terminal.clone()) } else { Input::closed() };
        let stdout = Output::terminal(wanted.output, terminal.clone());
        Ok(Self { stdin, stdout, stderr: Output::closed(), terminal: Some(terminal) })
    }

    /// No streams: both end at once.
    pub fn closed() -> Self {
        Self { stdin: Input::closed(), stdout: Output::closed(), stderr: Output::closed(), terminal: None }
    }
}

/// A process with its streams.
pub struct Process {
    /// Its pid and end.
    pub watched: Watched,
    /// What it reads and writes.
    pub streams: Streams,
}

/// An input that is at its end.
pub fn null_input() -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
}

/// A descriptor that tasks can wait for.
pub(crate) fn awaitable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    #[expect(deprecated, reason = "an OwnedFd keeps what the newer, unsafe function asks for")]
    AsyncFd::new(fd)
}

/// Sets the size of a pipe, where one was configured. The kernel rounds it up, and refuses one beyond
/// its own bound: the runtime's wish is not worth a container.
fn size_pipe(pipe: impl AsFd, size: u32) {
    if size > 0 {
        let _ = rustix::pipe::fcntl_setpipe_size(pipe, size as usize);
    }
}
