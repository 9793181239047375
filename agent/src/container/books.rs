//! Who exists: containers by id, their processes by exec id, their slots by name.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocols::refusal::Code;
use tokio::sync::watch;

use super::{Rights, valid_id};
use crate::error::{Error, Result};
use crate::images::Root;
use crate::process::Process;
use crate::reaper::ExitCode;
use crate::slots::Slots;

/// Processes started in one container by exec, alive or not yet asked about.
const MAX_EXECS: usize = 64;

/// Containers that exist, most of them ended and not removed: each keeps its root file system in memory.
const MAX_CONTAINERS: usize = 256;

/// What an instance is doing. Nothing waits while it is being changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its process waits to be let go.
    Created,
    /// It is being let go.
    Starting,
    /// Its process was let go.
    Started,
    /// It is being taken apart.
    Removing,
}

/// A container of the host's making.
pub enum Container {
    /// The sandbox' own: no process, only an end.
    Pause(Arc<Pause>),
    /// One of the sealed specification's.
    Instance(Arc<Instance>),
}

impl Clone for Container {
    fn clone(&self) -> Self {
        match self {
            Self::Pause(pause) => Self::Pause(pause.clone()),
            Self::Instance(instance) => Self::Instance(instance.clone()),
        }
    }
}

/// The sandbox' container: what the host waits for and kills to end the sandbox.
pub struct Pause {
    end: watch::Sender<Option<ExitCode>>,
}

impl Default for Pause {
    fn default() -> Self {
        Self { end: watch::channel(None).0 }
    }
}

impl Pause {
    /// Ends it, once.
    pub fn end(&self, code: ExitCode) -> bool {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(code);
            first
        })
    }

    /// Waits for its end.
    pub async fn wait(&self) -> ExitCode {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(code) => code.unwrap_or_default(),
            Err(_) => 128 + libc::SIGKILL,
        }
    }
}

/// One container instance with its processes.
pub struct Instance {
    /// The host's id.
    pub id: String,
    /// The sealed name; on the plain path, its id.
    pub name: String,
    /// config.json and files of its own.
    pub directory: PathBuf,
    /// Its cgroup, below `/sys/fs/cgroup`.
    pub cgroup: String,
    /// What the host may do with its processes.
    pub rights: Rights,
    /// Its first process.
    pub init: Arc<Process>,
    inner: Mutex<Inner>,
}

struct Inner {
    stage: Stage,
    root: Option<Root>,
    execs: BTreeMap<u64, (String, Option<Arc<Process>>)>,
    next: u64,
}

/// Which process of a container a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// The first one.
    Init,
    /// One started by exec.
    Exec(&'a str),
}

impl<'a> Target<'a> {
    /// The Rust runtime sends no exec id for the first process, the Go runtime the container's id.
    pub fn parse(container: &str, exec: &'a str) -> Self {
        if exec.is_empty() || exec == container { Self::Init } else { Self::Exec(exec) }
    }
}

impl Instance {
    /// An instance whose process waits to be let go.
    pub fn new(
        id: &str,
        name: &str,
        directory: PathBuf,
        cgroup: String,
        rights: Rights,
        init: Arc<Process>,
        root: Root,
    ) -> Self {
        let inner = Inner { stage: Stage::Created, root: Some(root), execs: BTreeMap::new(), next: 0 };
        let inner = Mutex::new(inner);
        Self { id: id.to_owned(), name: name.to_owned(), directory, cgroup, rights, init, inner }
    }

    /// What it is doing.
    pub fn stage(&self) -> Stage {
        self.inner().stage
    }

    /// Goes from one stage to another, if it is there; else says where it is.
    pub fn advance(&self, from: &[Stage], to: Stage) -> std::result::Result<(), Stage> {
        let mut inner = self.inner();
        if !from.contains(&inner.stage) {
            return Err(inner.stage);
        }
        inner.stage = to;
        Ok(())
    }

    /// The process that a request means.
    pub fn process(&self, target: Target<'_>) -> Result<Arc<Process>> {
        let Target::Exec(exec) = target else {
            return Ok(self.init.clone());
        };
        let inner = self.inner();
        let found = inner.execs.values().find(|(id, _)| id == exec).and_then(|(_, process)| process.clone());
        found.ok_or_else(|| Error::NotFound(format!("no process '{}' in the container", clip(exec))))
    }

    /// Reserves an exec id; makes room by forgetting processes that have ended.
    pub fn reserve_exec(&self, exec: &str) -> Result<()> {
        if !valid_id(exec) || exec == self.id {
            return Err(Error::InvalidArgument("malformed exec id".into()));
        }
        let mut inner = self.inner();
        if inner.execs.values().any(|(id, _)| id == exec) {
            return Err(Error::refused(Code::ContainerDuplicate, format!("exec id '{exec}' exists already")));
        }
        if inner.execs.len() >= MAX_EXECS {
            let ended = |p: &Option<Arc<Process>>| p.as_ref().is_some_and(|p| p.watched.code().is_some());
            let oldest = inner.execs.iter().find(|(_, (_, process))| ended(process)).map(|(at, _)| *at);
            let Some(oldest) = oldest else {
                return Err(Error::Busy(format!("{MAX_EXECS} processes run in the container already")));
            };
            inner.execs.remove(&oldest);
        }
        let at = inner.next;
        inner.next += 1;
        inner.execs.insert(at, (exec.to_owned(), None));
        Ok(())
    }

    /// Fills or frees a reserved exec id.
    pub fn settle_exec(&self, exec: &str, process: Option<Arc<Process>>) {
        let mut inner = self.inner();
        match process {
            None => inner.execs.retain(|_, (id, _)| id != exec),
            Some(process) => {
                if let Some((_, slot)) = inner.execs.values_mut().find(|(id, _)| id == exec) {
                    *slot = Some(process);
                }
            }
        }
    }

    /// Takes the root file system away, to be unmounted.
    pub fn take_root(&self) -> Option<Root> {
        self.inner().root.take()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every container of the sandbox.
#[derive(Default)]
pub struct Containers {
    by_id: Mutex<HashMap<String, Container>>,
    slots: Mutex<Option<Slots>>,
}

impl Containers {
    /// The container of that id.
    pub fn find(&self, id: &str) -> Result<Container> {
        let found = self.by_id().get(id).cloned();
        found.ok_or_else(|| Error::InvalidArgument(format!("no container '{}'", clip(id))))
    }

    /// The instance of that id; the pause container has no processes.
    pub fn instance(&self, id: &str) -> Result<Arc<Instance>> {
        match self.find(id)? {
            Container::Instance(instance) => Ok(instance),
            Container::Pause(_) => Err(Error::InvalidArgument("the pause container has no process".into())),
        }
    }

    /// Every instance.
    pub fn instances(&self) -> Vec<Arc<Instance>> {
        let instance = |c: &Container| match c {
            Container::Instance(instance) => Some(instance.clone()),
            Container::Pause(_) => None,
        };
        self.by_id().values().filter_map(instance).collect()
    }

    /// Every container's id.
    pub fn ids(&self) -> Vec<String> {
        self.by_id().keys().cloned().collect()
    }

    /// Refuses one more when the host lets ended ones pile up.
    pub fn room(&self) -> Result<()> {
        if self.by_id().len() >= MAX_CONTAINERS {
            return Err(Error::Busy(format!(
                "{MAX_CONTAINERS} containers exist; remove those that have ended"
            )));
        }
        Ok(())
    }

    /// Adds a container, if its id is free.
    pub fn insert(&self, id: &str, container: Container) -> Result<()> {
        let mut by_id = self.by_id();
        if by_id.contains_key(id) {
            return Err(Error::refused(
                Code::ContainerDuplicate,
                format!("container id '{id}' exists already"),
            ));
        }
        by_id.insert(id.to_owned(), container);
        Ok(())
    }

    /// Forgets a container.
    pub fn remove(&self, id: &str) {
        self.by_id().remove(id);
    }

    /// Sets the slots, once.
    pub fn set_slots(&self, slots: Slots) {
        self.slots_lock().get_or_insert(slots);
    }

    /// Works with the slots for a moment.
    pub fn slots<T>(&self, work: impl FnOnce(&mut Slots) -> T) -> Result<T> {
        match self.slots_lock().as_mut() {
            Some(slots) => Ok(work(slots)),
            None => Err(Error::refused(Code::SpecNotOpen, "the sealed spec is not open")),
        }
    }

    /// Tells the slots what happened, where there are any: without a sealed specification there are none.
    pub fn note(&self, work: impl FnOnce(&mut Slots)) {
        if let Some(slots) = self.slots_lock().as_mut() {
            work(slots);
        }
    }

    fn by_id(&self) -> MutexGuard<'_, HashMap<String, Container>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots_lock(&self) -> MutexGuard<'_, Option<Slots>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The beginning of a host's word, for messages.
fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_containers_that_nobody_removes_are_bounded() {
        let containers = Containers::default();
        for id in 0..MAX_CONTAINERS {
            containers.room().unwrap();
            containers.insert(&id.to_string(), Container::Pause(Arc::default())).unwrap();
        }
        assert!(matches!(containers.room(), Err(Error::Busy(_))));
        containers.remove("0");
        containers.room().unwrap();
    }
}
