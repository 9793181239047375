//! One function reaps every child, and one table says who waits for which.
//!
//! PID 1 inherits each orphan of the VM. Children that the agent starts itself are registered under the
//! lock that reaping takes, so no status is ever stolen; processes that a helper forked and left behind
//! are adopted by pid, and a status that arrives before the adoption is kept for it. A signal is sent
//! under the same lock, so it never reaches a process that took over a freed pid.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use rustix::process::{WaitOptions, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal as unix_signal};
use tokio::sync::watch;

use crate::kernel;
use crate::launch::started_at;

/// Statuses of processes that nobody has adopted yet; older ones are forgotten.
const UNCLAIMED: usize = 256;

/// Most bytes of each of a helper program's output streams.
const OUTPUT_MAX: usize = 4 * 1024 * 1024;

/// A helper program that takes longer is killed.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(30);

/// What a helper program has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub code: ExitCode,
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it complained of.
    pub stderr: Vec<u8>,
}

/// Exit status as Kubernetes shows it: the exit code, or 128 + the number of the signal.
pub type ExitCode = i32;

/// The process has ended and been reaped: its pid may already be someone else's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SignalError {
    /// Nothing to signal any more.
    #[error("the process has ended")]
    Gone,
    /// The kernel refused.
    #[error("the kernel refused the signal: {0}")]
    Kernel(Errno),
}

/// A process whose end can be awaited by any number of tasks, early or late.
#[derive(Debug, Clone)]
pub struct Watched {
    pid: i32,
    exit: watch::Receiver<Option<ExitCode>>,
}

impl Watched {
    /// The process' id in the agent's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The exit code if the process has ended.
    pub fn code(&self) -> Option<ExitCode> {
        *self.exit.borrow()
    }

    /// Waits for the end. A reaper that went away counts as killed: nothing can run after PID 1.
    pub async fn wait(&self) -> ExitCode {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or(128 + libc::SIGKILL),
            Err(_) => 128 + libc::SIGKILL,
        }
    }
}

#[derive(Default)]
struct Table {
    live: HashMap<i32, watch::Sender<Option<ExitCode>>>,
    unclaimed: VecDeque<(u64, i32, ExitCode)>,
    epoch: u64,
}

/// The table of living children.
#[derive(Default)]
pub struct Reaper {
    table: Mutex<Table>,
}

/// A moment before which no status belongs to a process adopted later: guards against a reused pid.
#[derive(Debug, Clone, Copy)]
pub struct Epoch(u64);

impl Reaper {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Starts a child and registers it before it can be reaped.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Watched> {
        self.spawn_child(command).map(|(watched, _)| watched)
    }

    fn spawn_child(&self, command: &mut Command) -> io::Result<(Watched, Child)> {
        let mut table = self.table();
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        Ok((watch_pid(&mut table, pid), child))
    }

    /// Runs a helper program to its end and returns what it wrote: the only way to do so that can't lose
    /// its status to the reaping of orphans. Bounded in time and output; a program that exceeds either is
    /// killed.
    pub async fn output(&self, command: &mut Command, input: &[u8]) -> io::Result<Output> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (watched, mut child) = self.spawn_child(command)?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let work = async {
            let (Some(stdin), Some(stdout), Some(stderr)) = streams else {
                return Err(io::Error::other("the program has no streams"));
            };
            let mut stdin = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
            let feed = async {
                // A program that doesn't want all of it is no failure of ours.
                let _ = stdin.write_all(input).await;
                drop(stdin);
                Ok(())
            };
            let ((), stdout, stderr) =
                tokio::try_join!(feed, bounded(stdout.into()), bounded(stderr.into()))?;
            Ok(Output { code: watched.wait().await, stdout, stderr })
        };
        let done = tokio::time::timeout(OUTPUT_PATIENCE, work).await;
        if !matches!(done, Ok(Ok(_))) {
            let _ = self.signal(&watched, libc::SIGKILL);
        }
        done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// To be taken before the helper starts that will leave a process behind.
    pub fn epoch(&self) -> Epoch {
        let mut table = self.table();
        table.epoch += 1;
        Epoch(table.epoch)
    }

    /// Adopts a process that a helper forked after `since`.
    pub fn adopt(&self, pid: i32, since: Epoch) -> Watched {
        let mut table = self.table();
        let ended = table.unclaimed.iter().position(|(epoch, p, _)| *p == pid && *epoch >= since.0);
        if let Some((_, _, code)) = ended.and_then(|at| table.unclaimed.remove(at)) {
            return Watched { pid, exit: watch::channel(Some(code)).1 };
        }
        watch_pid(&mut table, pid)
    }

    /// When the process started: with its pid a name that no other process has. None once it was reaped.
    pub fn started_at(&self, process: &Watched) -> Option<u64> {
        // Nothing is reaped meanwhile, so the pid is still its own.
        let table = self.table();
        table.live.contains_key(&process.pid).then(|| started_at(process.pid)).flatten()
    }

    /// Sends a signal, if the process has not been reaped.
    pub fn signal(&self, process: &Watched, number: i32) -> Result<(), SignalError> {
        let table = self.table();
        if !table.live.contains_key(&process.pid) || process.code().is_some() {
            return Err(SignalError::Gone);
        }
        match kernel::send_signal(process.pid, number) {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => Err(SignalError::Gone),
            Err(errno) => Err(SignalError::Kernel(errno)),
        }
    }

    /// Reaps everything that has ended.
    pub fn reap(&self) {
        let mut table = self.table();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            // A signal need not have a name: there are real-time ones.
            let killed = status.terminating_signal().map(|number| 128 + number);
            if let Some(code) = status.exit_status().or(killed) {
                record(&mut table, pid.as_raw_nonzero().get(), code);
            }
        }
    }

    /// Reaps on each SIGCHLD, for ever.
    pub async fn run(self: Arc<Self>) -> io::Result<()> {
        let mut ended = unix_signal(SignalKind::child())?;
        loop {
            // Before the first wait too: a child may have ended before the handler stood.
            self.reap();
            if ended.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn bounded(stream: OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = OUTPUT_MAX as u64 + 1;
    pipe::Receiver::from_owned_fd(stream)?.take(limit).read_to_end(&mut bytes).await?;
    if bytes.len() > OUTPUT_MAX {
        return Err(io::Error::other(format!("the program wrote more than {OUTPUT_MAX} bytes")));
    }
    Ok(bytes)
}

fn watch_pid(table: &mut Table, pid: i32) -> Watched {
    let (sender, exit) = watch::channel(None);
    table.live.insert(pid, sender);
    Watched { pid, exit }
}

fn record(table: &mut Table, pid: i32, code: ExitCode) {
    if let Some(waiters) = table.live.remove(&pid) {
        waiters.send_replace(Some(code));
        return;
    }
    if table.unclaimed.len() == UNCLAIMED {
        table.unclaimed.pop_front();
    }
    let epoch = table.epoch;
    table.unclaimed.push_back((epoch, pid, code));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_came_before_the_adoption_is_kept() {
        let reaper = Reaper::default();
        let since = reaper.epoch();
        record(&mut reaper.table(), 4711, 3);
        assert_eq!(reaper.adopt(4711, since).code(), Some(3));
        // It belongs to one adopter only.
        assert_eq!(reaper.adopt(4711, since).code(), None);
    }

    #[test]
    fn a_status_from_before_the_launch_is_not_mistaken_for_a_reused_pid() {
        let reaper = Reaper::default();
        reaper.epoch();
        record(&mut reaper.table(), 4711, 3);
        let since = reaper.epoch();
        assert_eq!(reaper.adopt(4711, since).code(), None);
    }

    #[test]
    fn unclaimed_statuses_are_bounded() {
        let reaper = Reaper::default();
        let since = reaper.epoch();
        for pid in 0..=UNCLAIMED as i32 {
            record(&mut reaper.table(), pid + 1_000_000, 0);
        }
        assert_eq!(reaper.table().unclaimed.len(), UNCLAIMED);
        assert_eq!(reaper.adopt(1_000_000, since).code(), None, "the oldest one is forgotten");
    }

    #[tokio::test]
    async fn early_and_late_waiters_get_the_same_status() {
        let reaper = Reaper::default();
        let since = reaper.epoch();
        let process = reaper.adopt(4712, since);
        let early = tokio::spawn({
            let process = process.clone();
            async move { process.wait().await }
        });
        tokio::task::yield_now().await;
        record(&mut reaper.table(), 4712, 137);
        assert_eq!(early.await.unwrap(), 137);
        assert_eq!(process.wait().await, 137);
    }

    #[test]
    fn a_reaped_process_is_never_signalled() {
        let reaper = Reaper::default();
        let since = reaper.epoch();
        let process = reaper.adopt(4713, since);
        record(&mut reaper.table(), 4713, 0);
        assert_eq!(reaper.signal(&process, libc::SIGTERM), Err(SignalError::Gone));
    }
}
