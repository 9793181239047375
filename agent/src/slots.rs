//! One slot a container name, at most one live instance in it.
//!
//! The kubelet makes a container again under a new id after every crash and time-out; the sealed
//! specification says how often that may be. Init containers run in order, and their success is what
//! the guest saw, not what the host says.

use std::collections::BTreeMap;

use crate::reaper::ExitCode;

/// When a container may run again, as Kubernetes defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Whatever its exit code was.
    Always,
    /// After a failure.
    OnFailure,
    /// Not once it has run.
    Never,
}

/// What a slot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Runs to completion before everything after it.
    Init,
    /// Runs after all init containers.
    Main,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// No instance; the outcome of the last one that ran.
    Free(Option<ExitCode>),
    /// An instance that is being made, or made and not started; with the outcome before it.
    Made { id: String, before: Option<ExitCode> },
    /// An instance whose process was let go; with the last signal that the host sent it.
    Started { id: String, signal: Option<i32> },
}

struct Slot {
    name: String,
    role: Role,
    state: State,
}

/// Why an instance may not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The sealed specification has no such container.
    #[error("the sealed spec has no container '{0}'")]
    Unknown(String),
    /// The id is taken.
    #[error("container id '{0}' exists already")]
    Duplicate(String),
    /// Another instance lives.
    #[error("container '{name}' runs already as '{id}'; remove it first")]
    Busy {
        /// Container name.
        name: String,
        /// The live instance.
        id: String,
    },
    /// An init container before it hasn't succeeded.
    #[error("container '{name}' comes after init container '{waits_for}', which has not succeeded")]
    Order {
        /// Container name.
        name: String,
        /// The first one that is missing.
        waits_for: String,
    },
    /// The restart policy forbids one more.
    #[error("container '{name}' ended with {code}, and the sealed restart policy does not run it again")]
    Restart {
        /// Container name.
        name: String,
        /// What it ended with.
        code: ExitCode,
    },
}

/// The slots of a pod.
pub struct Slots {
    slots: Vec<Slot>,
    policy: Restart,
    ids: BTreeMap<String, usize>,
}

impl Slots {
    /// Slots for the pod's containers, in the order of the specification.
    pub fn new<'a>(
        init: impl IntoIterator<Item = &'a str>,
        main: impl IntoIterator<Item = &'a str>,
        policy: Restart,
    ) -> Self {
        let slot = |role| move |name: &str| Slot { name: name.to_owned(), role, state: State::Free(None) };
        let slots = init.into_iter().map(slot(Role::Init)).chain(main.into_iter().map(slot(Role::Main)));
        Self { slots: slots.collect(), policy, ids: BTreeMap::new() }
    }

    /// Reserves the slot of a container for a new instance.
    pub fn claim(&mut self, name: &str, id: &str) -> Result<(), SlotError> {
        if self.ids.contains_key(id) {
            return Err(SlotError::Duplicate(id.to_owned()));
        }
        let at = self
            .slots
            .iter()
            .position(|slot| slot.name == name)
            .ok_or_else(|| SlotError::Unknown(name.to_owned()))?;
        let slot = &self.slots[at];
        let before = match &slot.state {
            State::Made { id, .. } | State::Started { id, .. } => {
                return Err(SlotError::Busy { name: name.to_owned(), id: id.clone() });
            }
            State::Free(before) => *before,
        };
        // An init container that has succeeded never runs again in the same sandbox.
        let again = match (slot.role, self.policy, before) {
            (_, _, None) => true,
            (Role::Init, _, Some(0)) | (_, Restart::Never, Some(_)) => false,
            (_, Restart::OnFailure, Some(code)) => code != 0,
            (_, Restart::Always, Some(_)) => true,
        };
        if let (false, Some(code)) = (again, before) {
            return Err(SlotError::Restart { name: name.to_owned(), code });
        }
        if let Some(missing) = self.slots[..at].iter().find(|slot| slot.blocks()) {
            return Err(SlotError::Order { name: name.to_owned(), waits_for: missing.name.clone() });
        }
        self.slots[at].state = State::Made { id: id.to_owned(), before };
        self.ids.insert(id.to_owned(), at);
        Ok(())
    }

    /// The instance's process was let go.
    pub fn started(&mut self, id: &str) {
        if let Some(slot) = self.slot(id).filter(|slot| slot.holds(id)) {
            slot.state = State::Started { id: id.to_owned(), signal: None };
        }
    }

    /// The host is about to signal the instance's process.
    pub fn signalled(&mut self, id: &str, number: i32) {
        if let Some(slot) = self.slot(id).filter(|slot| slot.holds(id))
            && let State::Started { signal, .. } = &mut slot.state
        {
            *signal = Some(number);
        }
    }

    /// The instance's process ended. Its id stays taken until it is removed.
    pub fn exited(&mut self, id: &str, code: ExitCode) {
        if let Some(slot) = self.slot(id).filter(|slot| slot.holds(id)) {
            slot.state = match &slot.state {
                // It never ran: the outcome before it still counts.
                State::Made { before, .. } => State::Free(*before),
                // Many programs end with 0 when they are told to end: what the host cut short is no success.
                State::Started { signal: Some(number), .. } if slot.role == Role::Init && code == 0 => {
                    State::Free(Some(128 + number))
                }
                _ => State::Free(Some(code)),
            };
        }
    }

    /// The instance is gone; if it never started, as if it had never been.
    pub fn removed(&mut self, id: &str) {
        self.exited(id, 128 + libc::SIGKILL);
        self.ids.remove(id);
    }

    /// The container name of an instance.
    pub fn name(&self, id: &str) -> Option<&str> {
        self.ids.get(id).map(|at| self.slots[*at].name.as_str())
    }

    fn slot(&mut self, id: &str) -> Option<&mut Slot> {
        let at = *self.ids.get(id)?;
        self.slots.get_mut(at)
    }
}

impl Slot {
    fn holds(&self, instance: &str) -> bool {
        matches!(&self.state, State::Made { id, .. } | State::Started { id, .. } if id == instance)
    }

    fn blocks(&self) -> bool {
        self.role == Role::Init && self.state != State::Free(Some(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(policy: Restart) -> Slots {
        Slots::new(["first", "second"], ["web", "log"], policy)
    }

    fn run(slots: &mut Slots, name: &str, id: &str, code: ExitCode) -> Result<(), SlotError> {
        slots.claim(name, id)?;
        slots.started(id);
        slots.exited(id, code);
        Ok(())
    }

    fn ready(policy: Restart) -> Slots {
        let mut slots = pod(policy);
        run(&mut slots, "first", "i1", 0).unwrap();
        run(&mut slots, "second", "i2", 0).unwrap();
        slots
    }

    #[test]
    fn an_unknown_container_has_no_slot() {
        assert_eq!(ready(Restart::Always).claim("miner", "x"), Err(SlotError::Unknown("miner".into())));
    }

    #[test]
    fn init_containers_come_first_and_in_order() {
        let mut slots = pod(Restart::Always);
        let order = |name: &str, waits: &str| SlotError::Order { name: name.into(), waits_for: waits.into() };
        assert_eq!(slots.claim("web", "w"), Err(order("web", "first")));
        assert_eq!(slots.claim("second", "s"), Err(order("second", "first")));
        run(&mut slots, "first", "a", 0).unwrap();
        assert_eq!(slots.claim("web", "w"), Err(order("web", "second")));
        // A failure and a running instance are no success.
        run(&mut slots, "second", "b", 1).unwrap();
        assert_eq!(slots.claim("web", "w"), Err(order("web", "second")));
        slots.claim("second", "c").unwrap();
        slots.started("c");
        assert_eq!(slots.claim("web", "w"), Err(order("web", "second")));
        slots.exited("c", 0);
        slots.claim("web", "w").unwrap();
        slots.claim("log", "l").unwrap();
    }

    #[test]
    fn removing_an_init_container_that_never_ran_is_no_success() {
        let mut slots = pod(Restart::Always);
        slots.claim("first", "a").unwrap();
        slots.removed("a");
        assert!(matches!(slots.claim("second", "b"), Err(SlotError::Order { .. })));
        slots.claim("first", "a2").unwrap();
        slots.started("a2");
        slots.removed("a2");
        assert!(matches!(slots.claim("second", "b"), Err(SlotError::Order { .. })));
    }

    #[test]
    fn an_init_container_that_the_host_told_to_end_has_not_succeeded() {
        let mut slots = pod(Restart::OnFailure);
        slots.claim("first", "a").unwrap();
        slots.started("a");
        slots.signalled("a", libc::SIGTERM);
        slots.exited("a", 0);
        assert!(matches!(slots.claim("second", "b"), Err(SlotError::Order { .. })));
        run(&mut slots, "first", "a2", 0).unwrap();
        slots.claim("second", "b").unwrap();
        // A main container that ends with 0 on TERM has ended well.
        let mut slots = ready(Restart::OnFailure);
        slots.claim("web", "w").unwrap();
        slots.started("w");
        slots.signalled("w", libc::SIGTERM);
        slots.exited("w", 0);
        assert_eq!(slots.claim("web", "w2"), Err(SlotError::Restart { name: "web".into(), code: 0 }));
    }

    #[test]
    fn a_second_instance_waits_for_the_first_to_end() {
        let mut slots = ready(Restart::Always);
        slots.claim("web", "w1").unwrap();
        assert_eq!(slots.claim("web", "w2"), Err(SlotError::Busy { name: "web".into(), id: "w1".into() }));
        slots.started("w1");
        assert!(matches!(slots.claim("web", "w2"), Err(SlotError::Busy { .. })));
        assert_eq!(slots.claim("log", "w1"), Err(SlotError::Duplicate("w1".into())));
        slots.exited("w1", 0);
        slots.claim("web", "w2").unwrap();
        // Late news about the first one change nothing for the second.
        slots.exited("w1", 5);
        slots.removed("w1");
        assert!(matches!(slots.claim("web", "w3"), Err(SlotError::Busy { .. })));
    }

    #[test]
    fn the_sealed_restart_policy_decides() {
        for (policy, code, again) in [
            (Restart::Always, 0, true),
            (Restart::Always, 1, true),
            (Restart::OnFailure, 0, false),
            (Restart::OnFailure, 1, true),
            (Restart::Never, 0, false),
            (Restart::Never, 1, false),
        ] {
            let mut slots = ready(policy);
            run(&mut slots, "web", "w1", code).unwrap();
            assert_eq!(slots.claim("web", "w2").is_ok(), again, "{policy:?} after {code}");
        }
        // An init container that has succeeded is done; one that failed follows the policy.
        assert!(matches!(ready(Restart::Always).claim("first", "x"), Err(SlotError::Restart { .. })));
        for (policy, again) in [(Restart::Always, true), (Restart::OnFailure, true), (Restart::Never, false)]
        {
            let mut slots = pod(policy);
            run(&mut slots, "first", "a", 1).unwrap();
            assert_eq!(slots.claim("first", "b").is_ok(), again);
        }
    }

    #[test]
    fn an_instance_that_never_started_does_not_count() {
        let mut slots = ready(Restart::Never);
        slots.claim("web", "w1").unwrap();
        slots.removed("w1");
        slots.claim("web", "w2").unwrap();
        // A created process that was killed before it was let go.
        slots.exited("w2", 137);
        slots.removed("w2");
        slots.claim("web", "w3").unwrap();
    }

    #[derive(Debug, Clone)]
    enum Step {
        Claim(usize, u8),
        Start(u8),
        Exit(u8, i32),
        Remove(u8),
        Signal(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0usize..4, 0u8..6).prop_map(|(n, id)| Step::Claim(n, id)),
            (0u8..6).prop_map(Step::Start),
            (0u8..6, 0i32..2).prop_map(|(id, code)| Step::Exit(id, code)),
            (0u8..6).prop_map(Step::Remove),
            (0u8..6).prop_map(Step::Signal),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_the_host_asks_mains_run_after_inits_and_alone(steps in steps()) {
            let names = ["first", "second", "web", "log"];
            let mut slots = pod(Restart::OnFailure);
            for step in steps {
                match step {
                    Step::Claim(n, id) => { let _ = slots.claim(names[n], &id.to_string()); }
                    Step::Start(id) => slots.started(&id.to_string()),
                    Step::Exit(id, code) => slots.exited(&id.to_string(), code),
                    Step::Remove(id) => slots.removed(&id.to_string()),
                    Step::Signal(id) => slots.signalled(&id.to_string(), libc::SIGTERM),
                }
                let inits_done = slots.slots[..2].iter().all(|s| s.state == State::Free(Some(0)));
                let main_live = slots.slots[2..].iter().any(|s| !matches!(s.state, State::Free(None)));
                prop_assert!(!main_live || inits_done);
            }
        }
    }
}
