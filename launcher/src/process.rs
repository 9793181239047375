//! Child processes that can't outlive the launcher: killed on drop, on the launcher's death (parent-death signal)
//! and never by a recycled pid.

#![expect(unsafe_code, reason = "a parent-death signal can only be set between fork and exec")]

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getpid, getppid};
use tokio::sync::watch;

/// What goes wrong with a child process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("cannot start {program}{}", hint(.source))]
    Spawn {
        /// The program as it was to be run.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The thread that watches the child could not be started.
    #[error("cannot start the thread that watches {program}")]
    Watch {
        /// The program that was to be watched.
        program: String,
        /// Why.
        source: std::io::Error,
    },
}

fn hint(error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::NotFound {
        " (is it installed, and is the path right?)"
    } else {
        ""
    }
}

/// A running child. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// True once the pid may belong to somebody else.
    reaped: Arc<Mutex<bool>>,
    status: watch::Receiver<Option<ExitStatus>>,
    watcher: Option<JoinHandle<()>>,
    /// The child's standard input, when the command asked for a pipe.
    pub stdin: Option<ChildStdin>,
    /// The child's standard output, when the command asked for a pipe.
    pub stdout: Option<ChildStdout>,
}

impl Process {
    /// Starts `command` on a thread of its own that lives as long as the child.
    ///
    /// The kernel sends the parent-death signal when the *thread* that forked ends, so a runtime's worker thread,
    /// which may go away when idle, must not be the one.
    ///
    /// # Errors
    /// [`ProcessError`] when the program or its thread can't be started.
    pub fn spawn(mut command: Command) -> Result<Process, ProcessError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let launcher = getpid();
        // SAFETY: the closure runs between fork and exec and makes only async-signal-safe system calls (prctl,
        // getppid); it allocates nothing.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The launcher may have died before the signal was armed.
                if getppid() == launcher { Ok(()) } else { Err(std::io::Error::from_raw_os_error(3)) }
            });
        }
        let reaped = Arc::new(Mutex::new(false));
        let (status_out, status) = watch::channel(None);
        let (started_out, started) = sync_channel(1);
        let watched = reaped.clone();
        let watcher = std::thread::Builder::new()
            .name(format!("watch {}", program.rsplit('/').next().unwrap_or("child")))
            .spawn(move || {
                let mut child = match command.spawn() {
                    Ok(child) => child,
                    Err(error) => return drop(started_out.send(Err(error))),
                };
                let pid = Pid::from_raw(child.id().cast_signed());
                let pipes = (pid, child.stdin.take(), child.stdout.take());
                if started_out.send(Ok(pipes)).is_err() {
                    return;
                }
                // Look without reaping: the pid stays ours until `reaped` says otherwise.
                while matches!(
                    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT),
                    Err(nix::errno::Errno::EINTR)
                ) {}
                let mut gone = watched.lock().unwrap_or_else(PoisonError::into_inner);
                let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0x7f00));
                *gone = true;
                status_out.send_replace(Some(status));
            })
            .map_err(|source| ProcessError::Watch { program: program.clone(), source })?;
        match started.recv() {
            Ok(Ok((pid, stdin, stdout))) => {
                Ok(Process { pid, reaped, status, watcher: Some(watcher), stdin, stdout })
            }
            Ok(Err(source)) => Err(ProcessError::Spawn { program, source }),
            Err(_) => Err(ProcessError::Spawn { program, source: std::io::Error::other("its thread ended") }),
        }
    }

    /// The process id, for messages.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        *self.status.borrow()
    }

    /// Waits until the child has ended.
    pub async fn exited(&self) -> ExitStatus {
        let mut status = self.status.clone();
        let ended = status.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        ended.unwrap_or_else(|| ExitStatus::from_raw(0x7f00))
    }

    /// Waits for the end for at most `patience`; false if it still runs.
    pub async fn exited_within(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.exited()).await.is_ok()
    }

    /// Sends a signal, unless the child is gone.
    pub fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // It can only fail for a process that is already a zombie.
            let _ = kill(self.pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(watcher) = self.watcher.take() {
            // The watcher only ends with the child.
            let _ = watcher.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(pid: i32) -> bool {
        kill(Pid::from_raw(pid), None).is_ok()
    }

    #[tokio::test]
    async fn drop_kills_and_reaps() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let process = Process::spawn(command).unwrap();
        let pid = process.id();
        assert!(alive(pid));
        drop(process);
        assert!(!alive(pid));
    }

    #[tokio::test]
    async fn the_end_is_seen_by_everyone_who_asks() {
        let process = Process::spawn(Command::new("true")).unwrap();
        assert!(process.exited().await.success());
        assert!(process.exited().await.success());
        assert!(process.status().is_some());
        process.signal(Signal::SIGKILL);
    }

    #[tokio::test]
    async fn the_child_survives_the_thread_that_asked_for_it() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let process = std::thread::spawn(move || Process::spawn(command).unwrap()).join().unwrap();
        assert!(!process.exited_within(Duration::from_millis(50)).await);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Process::spawn(Command::new("/nonexistent/qemu")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/nonexistent/qemu") && text.contains("is it installed"), "{text}");
    }
}
