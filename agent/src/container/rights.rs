//! What the host may do with a container's processes.

/// Signals that may reach a container's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signals {
    /// Any.
    Any,
    /// TERM, KILL, and the image's stop signal if it has one.
    Stop(Option<i32>),
}

/// The host's rights over one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Which signals it may send.
    pub signals: Signals,
}

impl Rights {
    /// On the plain path: everything.
    pub fn all() -> Self {
        Self { signals: Signals::Any }
    }

    /// Whether a signal may be sent.
    pub fn signal(&self, number: i32) -> bool {
        match self.signals {
            Signals::Any => true,
            Signals::Stop(stop) => matches!(number, libc::SIGTERM | libc::SIGKILL) || stop == Some(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_signals_that_end_a_process_reach_a_sealed_one() {
        let rights = Rights { signals: Signals::Stop(Some(libc::SIGQUIT)) };
        for number in [libc::SIGTERM, libc::SIGKILL, libc::SIGQUIT] {
            assert!(rights.signal(number));
        }
        for number in [libc::SIGHUP, libc::SIGSTOP, 0, -1, 64] {
            assert!(!rights.signal(number));
        }
        assert!(Rights::all().signal(libc::SIGHUP));
    }
}
