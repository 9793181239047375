//! That a pid still means the process that it meant: between the request for an exec and the namespaces
//! that libcontainer finds by number, the container's first process may end and its pid be another's.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process, held by a descriptor that no other process ever answers to.
#[derive(Clone)]
pub(super) struct Alive(Arc<OwnedFd>);

impl Alive {
    /// The process of that pid, if it started when the wanted one did.
    pub(super) fn open(pid: i32, started: u64) -> io::Result<Self> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the container's first process has ended");
        let number = Pid::from_raw(pid).ok_or_else(gone)?;
        let fd = pidfd_open(number, PidfdFlags::empty()).map_err(|_| gone())?;
        // In this order: who has the wanted start is the one that was opened, or it is over.
        if started_at(pid) != Some(started) {
            return Err(gone());
        }
        Ok(Self(Arc::new(fd)))
    }

    /// Whether it still lives. If so, its pid was its own all the time.
    pub(super) fn check(&self) -> bool {
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut ended, Some(&now)), Ok(0))
    }
}

/// When a process started, in clock ticks since the machine did (proc(5), stat, field 22).
pub(crate) fn started_at(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, also a closing parenthesis: the last one ends it.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_itself_until_it_ends() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = started_at(pid).unwrap();
        let alive = Alive::open(pid, started).unwrap();
        assert!(alive.check());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!alive.check());
        assert!(Alive::open(pid, started).is_err(), "nobody has that pid now");
    }

    #[test]
    fn another_process_under_the_same_pid_is_somebody_else() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let started = started_at(pid).unwrap();
        assert!(Alive::open(pid, started).is_ok());
        assert!(Alive::open(pid, started + 1).is_err());
    }
}
