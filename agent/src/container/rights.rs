//! What the host may do with a container's processes.

use sealed_spec::SealedSpec;
use sealed_spec::podspec::Container;

/// Signals that may reach a container's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signals {
    /// Any.
    Any,
    /// TERM, KILL, and the stop signal of the image or the sealed container if there is one.
    Stop(Option<i32>),
}

/// The host's rights over one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Which signals it may send.
    pub signals: Signals,
    /// Whether it may write to the first process' standard input, and close it.
    pub stdin: bool,
    /// Whether it may resize the first process' terminal.
    pub resize: bool,
}

impl Rights {
    /// From the sealed specification's grants. `stop`: the image's stop signal.
    pub fn sealed(spec: &SealedSpec, container: &Container, stop: Option<i32>) -> Self {
        let sealed = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
        let debug = spec.pod.container(&container.name).is_none();
        let attach = debug || spec.grants.attach.contains(&container.name);
        Self {
            signals: Signals::Stop(sealed.and_then(super::life::signal_number).or(stop)),
            stdin: attach && container.stdin == Some(true),
            resize: attach && container.tty == Some(true),
        }
    }

    /// On the plain path: everything.
    pub fn all() -> Self {
        Self { signals: Signals::Any, stdin: true, resize: true }
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
    use sealed_spec::PodSpec;
    use sealed_spec::podspec::Lifecycle;

    use super::*;

    fn rights(change: impl FnOnce(&mut SealedSpec, &mut Container), stop: Option<i32>) -> Rights {
        let mut container = Container { name: "web".into(), ..Container::default() };
        let mut spec = SealedSpec::new(PodSpec::default());
        change(&mut spec, &mut container);
        spec.pod.containers.push(container.clone());
        Rights::sealed(&spec, &container, stop)
    }

    #[test]
    fn only_signals_that_end_a_process_reach_a_sealed_one() {
        let image = rights(|_, _| (), Some(libc::SIGQUIT));
        for number in [libc::SIGTERM, libc::SIGKILL, libc::SIGQUIT] {
            assert!(image.signal(number));
        }
        for number in [libc::SIGHUP, libc::SIGSTOP, 0, -1, 64] {
            assert!(!image.signal(number));
        }
        assert!(Rights::all().signal(libc::SIGHUP));
        // The pod's own stop signal is in the place of the image's.
        let lifecycle = Lifecycle { stop_signal: Some("SIGUSR1".into()), ..Lifecycle::default() };
        let pod = rights(|_, container| container.lifecycle = Some(lifecycle), Some(libc::SIGQUIT));
        assert!(pod.signal(libc::SIGUSR1) && pod.signal(libc::SIGTERM) && !pod.signal(libc::SIGQUIT));
    }

    #[test]
    fn a_host_attaches_where_it_is_granted_and_the_container_asks_for_it() {
        let asks = |container: &mut Container| (container.stdin, container.tty) = (Some(true), Some(true));
        let granted = |spec: &mut SealedSpec| {
            spec.grants.attach.insert("web".into());
        };
        let of = |rights: Rights| (rights.stdin, rights.resize);
        assert_eq!(of(rights(|_, c| asks(c), None)), (false, false));
        assert_eq!(of(rights(|s, _| granted(s), None)), (false, false));
        let both = rights(
            |s, c| {
                granted(s);
                asks(c);
            },
            None,
        );
        assert_eq!(of(both), (true, true));
        // A debug container is there to be attached to.
        let mut debug = Container { name: "debugger".into(), ..Container::default() };
        asks(&mut debug);
        assert!(Rights::sealed(&SealedSpec::new(PodSpec::default()), &debug, None).stdin);
    }
}
