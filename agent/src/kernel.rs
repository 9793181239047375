//! What no safe wrapper offers: forking a sibling, taking back what the language's run-time did to a signal,
//! and sending signals that have no name.

#![expect(unsafe_code, reason = "forking and signals are the process' own business")]

use std::io;

use nix::errno::Errno;

/// Forks. The new process is the caller's sibling, so that whoever reaps the caller reaps it too, and the
/// caller has no children to care about. `None` in the new process, its id in the old one.
///
/// To be called from a process with one thread only.
pub(crate) fn sibling() -> io::Result<Option<i32>> {
    fork(libc::CLONE_PARENT)
}

/// Forks, as ever. `None` in the new process, its id in the old one.
///
/// To be called from a process with one thread only.
pub(crate) fn child() -> io::Result<Option<i32>> {
    fork(0)
}

fn fork(flags: libc::c_int) -> io::Result<Option<i32>> {
    // SAFETY: without a stack and without CLONE_VM this is fork(2): the new process has a copy of the one
    // thread's stack and memory, and no lock can be held by a thread that it doesn't have.
    match unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) } {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        pid => i32::try_from(pid).map(Some).map_err(io::Error::other),
    }
}

/// Rust programs ignore SIGPIPE, and an ignored signal stays ignored through execve: a container's
/// process has to die of it, as everywhere else.
pub(crate) fn restore_sigpipe() {
    // SAFETY: SIG_DFL is no function; the process has one thread and is about to become another program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Sends a signal, also one of the real-time signals, by number.
pub(crate) fn send_signal(pid: i32, number: i32) -> Result<(), Errno> {
    if pid <= 0 || !(1..=64).contains(&number) {
        // A process group, everybody, or no signal: never meant here.
        return Err(Errno::EINVAL);
    }
    // SAFETY: two integers.
    match unsafe { libc::kill(pid, number) } {
        0 => Ok(()),
        _ => Err(Errno::last()),
    }
}
