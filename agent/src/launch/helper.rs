//! The helper: forks for each request, and does nothing else. Single-threaded by construction, and small,
//! so that a fork of it is cheap.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use pathrs::procfs::ProcfsHandle;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::operation::{self, failure};
use super::{Reply, Request, Stdio3, wire};
use crate::kernel;

/// First argument of a helper. Never looked at in PID 1, whose arguments the kernel command line makes.
pub const ARGUMENT: &str = "launch-helper";

/// Serves requests from standard input until the agent goes away. Returns the exit status.
pub fn run(_: impl Iterator<Item = OsString>) -> i32 {
    // Standard error is the container's: a panic's words must not appear there.
    std::panic::set_hook(Box::new(|_| {}));
    let Ok(requests) = take_socket() else {
        return 2;
    };
    // libcontainer looks at /proc through a mount of its own, which pathrs makes once a process and keeps: made
    // here, forks share it, and none waits for the kernel to dissolve its own. It is closed on execve.
    let _procfs = ProcfsHandle::new();
    loop {
        match wire::receive_bytes(&requests) {
            Ok((bytes, _)) if bytes.is_empty() => return 0,
            Ok((bytes, fds)) => match kernel::sibling() {
                Ok(Some(_)) => {}
                Ok(None) => {
                    drop(requests);
                    return work(&bytes, fds);
                }
                Err(error) => refuse(&fds, &error),
            },
            // One message that can't be read is its sender's trouble: it sees the answer's socket close.
            Err(_) => {}
        }
    }
}

/// Moves the agent's socket away from standard input, where each worker puts another file.
fn take_socket() -> io::Result<OwnedFd> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    dup2_stdin(Stdio3::null()?.stdin)?;
    Ok(socket)
}

/// A worker's life: it has a process group of its own, so that all it begins can be ended with it.
fn work(bytes: &[u8], fds: Vec<OwnedFd>) -> i32 {
    let mut fds = fds.into_iter();
    let (Some(answers), Some(stdin), Some(stdout), Some(stderr)) =
        (fds.next(), fds.next(), fds.next(), fds.next())
    else {
        return 2;
    };
    let own_group = rustix::process::setpgid(None, None);
    let begun = Reply::Begun { worker: std::process::id().cast_signed() };
    if own_group.is_err() || wire::send(&answers, &begun, &[]).is_err() {
        return 3;
    }
    let reply = prepare(stdin, stdout, stderr)
        .and_then(|()| Ok(serde_json::from_slice::<Request>(bytes)?))
        .map_err(|e| failure("reading the request", &e))
        .and_then(|request| operation::perform(&request));
    let sent = match reply {
        Ok(made) => {
            let console: Vec<_> = made.console.iter().map(AsFd::as_fd).collect();
            wire::send(&answers, &Reply::Done { pid: made.pid }, &console)
        }
        Err(failure) => wire::send(&answers, &Reply::Failed(failure), &[]),
    };
    i32::from(sent.is_err())
}

fn prepare(stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<()> {
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    Ok(())
}

fn refuse(fds: &[OwnedFd], error: &io::Error) {
    if let Some(answers) = fds.first() {
        let _ = wire::send(answers, &Reply::Failed(failure("forking the launch helper", error)), &[]);
    }
}
