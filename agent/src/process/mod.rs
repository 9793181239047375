//! A process that the host may wait for, signal and read from.

mod streams;

pub use streams::{Output, OutputPolicy, null_input};

use std::io;

use crate::launch::Stdio3;
use crate::reaper::Watched;

/// The agent's ends of a process' standard streams, made before the process.
pub struct Streams {
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
}

impl Streams {
    /// Pipes for a process that is about to start. Its input is empty: the host writes to nobody.
    pub fn pipes(policy: OutputPolicy) -> io::Result<(Self, Stdio3)> {
        let (stdout, out) = Output::pipe(policy)?;
        let (stderr, err) = Output::pipe(policy)?;
        Ok((Self { stdout, stderr }, Stdio3 { stdin: null_input()?, stdout: out, stderr: err }))
    }

    /// No streams: both end at once.
    pub fn closed() -> Self {
        Self { stdout: Output::closed(), stderr: Output::closed() }
    }
}

/// A process with its streams.
pub struct Process {
    /// Its pid and end.
    pub watched: Watched,
    /// What it writes.
    pub streams: Streams,
}
