//! The two things that no safe wrapper offers to a helper: forking a sibling, and taking back what the
//! language's run-time did to a signal.

#![expect(unsafe_code, reason = "forking and signal dispositions are the process' own business")]

use std::io;

/// Forks. The new process is the caller's sibling, so that whoever reaps the caller reaps it too, and the
/// caller has no children to care about. `None` in the new process, its id in the old one.
///
/// To be called from a process with one thread only.
pub(super) fn sibling() -> io::Result<Option<i32>> {
    fork(libc::CLONE_PARENT)
}

/// Forks, as ever. `None` in the new process, its id in the old one.
///
/// To be called from a process with one thread only.
pub(super) fn child() -> io::Result<Option<i32>> {
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
pub(super) fn restore_sigpipe() {
    // SAFETY: SIG_DFL is no function; the process has one thread and is about to become another program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}
