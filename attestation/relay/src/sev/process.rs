//! QEMU processes: one that can't outlive the relay, and one that is known by a handle, so that never a recycled
//! pid is killed.

#![expect(
    unsafe_code,
    reason = "what a child is given can only be chosen between fork and exec; registering a descriptor promises that it lives"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

/// Makes the command's process end with this one, and keeps the caller's open files to this one. For commands that
/// are spawned from the main thread: the signal comes when the thread that forked ends.
pub(crate) fn bind_to_us(command: &mut Command) {
    let us = getpid();
    // SAFETY: the closure runs between fork and exec and makes only async-signal-safe system calls (close_range,
    // prctl, getppid); it allocates nothing.
    unsafe {
        command.pre_exec(move || {
            close_on_exec()?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // We may have died before the signal was armed.
            if getppid() == us { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
        });
    }
}

/// Keeps the caller's open files, beyond the first three, from the command's process.
pub(crate) fn without_files(command: &mut Command) {
    // SAFETY: as above, close_range alone.
    unsafe {
        command.pre_exec(close_on_exec);
    }
}

/// Not closed at once: the standard library has a descriptor of its own open to report a failed exec.
fn close_on_exec() -> io::Result<()> {
    // SAFETY: close_range takes no pointers and, with this flag, closes nothing.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A process that isn't necessarily our child.
pub(crate) struct Handle(AsyncFd<OwnedFd>);

impl Handle {
    /// From a pidfd. Must be called inside a runtime.
    pub(crate) fn new(pidfd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd is one open descriptor for as long as it lives, and nobody else has this one.
        Ok(Self(unsafe { AsyncFd::register(pidfd) }?))
    }

    /// Of a running process.
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        Self::new(pidfd(pid)?)
    }

    /// Resolves when the process has ended.
    pub(crate) async fn ended(&self) {
        // An error of the poll would otherwise be an end that didn't happen.
        while self.0.readable().await.is_err() {}
    }

    /// Kills the process, if it still is there.
    pub(crate) fn kill(&self) {
        // It can only fail for a process that is gone.
        let _ = pidfd_send_signal(self.0.get_ref(), rustix::process::Signal::KILL);
    }
}

/// A handle that can be given to another program.
pub(crate) fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handle_kills_and_tells_the_end() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let handle = Handle::open(child.id() as i32).unwrap();
        handle.kill();
        handle.ended().await;
        assert!(!child.wait().unwrap().success());
        // The pid is free now, and the handle doesn't reach whoever has it.
        handle.kill();
        assert!(Handle::open(0).is_err());
    }

    #[test]
    fn files_of_the_caller_stay_behind() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let inherited = nix::unistd::dup(&file).unwrap();
        nix::fcntl::fcntl(&inherited, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let list = |prepare: fn(&mut Command)| {
            let mut command = Command::new("ls");
            command.arg("/proc/self/fd");
            prepare(&mut command);
            String::from_utf8(command.output().unwrap().stdout).unwrap().lines().count()
        };
        // ls has its own directory open.
        assert_eq!(list(without_files), 4);
        assert_eq!(list(bind_to_us), 4);
        assert!(list(|_| {}) > 4);
    }
}
