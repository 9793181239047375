//! One slot a container name, at most one live instance in it.
//!
//! The kubelet makes a container again under a new id after every crash and time-out; the sealed
//! specification says how often that may be. Init containers run in order, and their success is what
//! the guest saw, not what the host says.

mod claim;

use claim::Rope;
pub(crate) use claim::superseded;
pub use claim::{Over, Patience, Try};

use std::collections::BTreeMap;

use sealed_spec::SealedSpec;
use sealed_spec::grants::DebugGrant;
use sealed_spec::podspec::RestartPolicy;
use tokio::sync::watch;

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
pub enum Role {
    /// Runs to completion before everything after it.
    Init,
    /// An init container with restartPolicy Always: has to have been started before everything after it,
    /// and runs on beside the others.
    Sidecar,
    /// Runs after all init containers.
    Main,
    /// Granted for debugging: comes whenever it is asked for, once, and nobody waits for it.
    Debug,
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
    /// Whether any instance of it was ever let go.
    ran: bool,
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
    /// The debug grant is used up.
    #[error("debug container '{name}': the sealed spec grants {count} in the life of this VM")]
    Debugged {
        /// Container name.
        name: String,
        /// How many are granted.
        count: u32,
    },
    /// Another instance is being made, or waits to be started.
    #[error("container '{name}' is being made as '{id}'")]
    Pending {
        /// Container name.
        name: String,
        /// The other instance.
        id: String,
    },
    /// A later try has taken over from this one.
    #[error("a later try to make container '{0}' has taken over")]
    Superseded(String),
    /// Another instance runs.
    #[error("container '{name}' runs already as '{id}'; remove it first")]
    Busy {
        /// Container name.
        name: String,
        /// The live instance.
        id: String,
    },
    /// An init container before it hasn't succeeded, or a sidecar before it was never started.
    #[error("container '{name}' comes after init container '{waits_for}', which has not {}", if *.sidecar { "been started" } else { "succeeded" })]
    Order {
        /// Container name.
        name: String,
        /// The first one that is missing.
        waits_for: String,
        /// Whether that is a sidecar.
        sidecar: bool,
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
    tries: BTreeMap<String, Rope>,
    debug: Option<DebugGrant>,
}

impl Slots {
    /// Slots for the pod's containers, in the order of the specification.
    pub fn new<'a>(containers: impl IntoIterator<Item = (Role, &'a str)>, policy: Restart) -> Self {
        Self {
            slots: containers.into_iter().map(|(role, name)| Slot::new(role, name)).collect(),
            policy,
            ids: BTreeMap::new(),
            tries: BTreeMap::new(),
            debug: None,
        }
    }

    /// Slots for everything that the specification may run.
    pub fn of(spec: &SealedSpec) -> Self {
        let policy = match spec.pod.effective_restart_policy() {
            RestartPolicy::Always => Restart::Always,
            RestartPolicy::OnFailure => Restart::OnFailure,
            RestartPolicy::Never => Restart::Never,
        };
        let role = |sidecar| if sidecar { Role::Sidecar } else { Role::Init };
        let init = spec.pod.init_containers.iter().map(|c| (role(c.is_sidecar()), c.name.as_str()));
        let main = spec.pod.containers.iter().map(|c| (Role::Main, c.name.as_str()));
        Self { debug: spec.grants.debug.clone(), ..Self::new(init.chain(main), policy) }
    }

    /// Reserves the slot of a container for a new instance.
    pub fn claim(&mut self, name: &str, id: &str) -> Result<Try, SlotError> {
        if self.ids.contains_key(id) {
            return Err(SlotError::Duplicate(id.to_owned()));
        }
        let at = self.find(name)?;
        let slot = &self.slots[at];
        let before = match &slot.state {
            State::Made { id, .. } => {
                return Err(SlotError::Pending { name: name.to_owned(), id: id.clone() });
            }
            State::Started { id, .. } => {
                return Err(SlotError::Busy { name: name.to_owned(), id: id.clone() });
            }
            State::Free(before) => *before,
        };
        if let Some(code) = before.filter(|code| !slot.role.again(self.policy, *code)) {
            return Err(SlotError::Restart { name: name.to_owned(), code });
        }
        let missing = self.slots[..at].iter().find(|slot| slot.blocks());
        if let Some(missing) = missing.filter(|_| slot.role != Role::Debug) {
            return Err(SlotError::Order {
                name: name.to_owned(),
                waits_for: missing.name.clone(),
                sidecar: missing.role == Role::Sidecar,
            });
        }
        self.slots[at].state = State::Made { id: id.to_owned(), before };
        self.ids.insert(id.to_owned(), at);
        let (attempt, rope) = Try::begin();
        self.tries.retain(|_, rope| !rope.ended());
        self.tries.insert(id.to_owned(), rope);
        Ok(attempt)
    }

    /// The slot of that name. One for debugging is made when its name first comes up.
    fn find(&mut self, name: &str) -> Result<usize, SlotError> {
        if let Some(at) = self.slots.iter().position(|slot| slot.name == name) {
            return Ok(at);
        }
        let debug = self.debug.as_ref().filter(|debug| debug.covers(name));
        let debug = debug.ok_or_else(|| SlotError::Unknown(name.to_owned()))?;
        let made = self.slots.iter().filter(|slot| slot.role == Role::Debug).count();
        if made >= debug.count as usize {
            return Err(SlotError::Debugged { name: name.to_owned(), count: debug.count });
        }
        self.slots.push(Slot::new(Role::Debug, name));
        Ok(self.slots.len() - 1)
    }

    /// Asks the try of that id to end, if it is under way; the result closes when it has.
    pub(crate) fn supersede(&mut self, id: &str) -> Option<watch::Receiver<()>> {
        self.tries.get(id).filter(|rope| !rope.ended()).map(Rope::pull)
    }

    /// The instance's process was let go.
    pub fn started(&mut self, id: &str) {
        if let Some(slot) = self.slot(id).filter(|slot| slot.holds(id)) {
            slot.state = State::Started { id: id.to_owned(), signal: None };
            slot.ran = true;
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

impl Role {
    /// Whether a container that ended with `code` may run again.
    fn again(self, policy: Restart, code: ExitCode) -> bool {
        match (self, policy) {
            (Self::Sidecar, _) => true,
            (Self::Debug, _) | (_, Restart::Never) => false,
            // An init container that has succeeded never runs again in the same sandbox.
            (Self::Init, _) | (Self::Main, Restart::OnFailure) => code != 0,
            (Self::Main, Restart::Always) => true,
        }
    }
}

impl Slot {
    fn new(role: Role, name: &str) -> Self {
        Self { name: name.to_owned(), role, state: State::Free(None), ran: false }
    }

    fn holds(&self, instance: &str) -> bool {
        matches!(&self.state, State::Made { id, .. } | State::Started { id, .. } if id == instance)
    }

    fn blocks(&self) -> bool {
        match self.role {
            Role::Init => self.state != State::Free(Some(0)),
            Role::Sidecar => !self.ran,
            Role::Main | Role::Debug => false,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
