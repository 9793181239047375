//! Who exists: containers by id, their processes by exec id, their slots by name.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocols::refusal::Code;
use tokio::sync::watch;

use super::{Rights, valid_id};
use crate::error::{Error, Result};
use crate::process::Process;
use crate::reaper::ExitCode;
use crate::slots::Slots;

/// Processes started in one container by exec, alive or not yet asked about.
const MAX_EXECS: usize = 256;

/// Of these, ended ones are kept for late waiters until there are so many.
const KEPT_EXECS: usize = 32;

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
    keeps: Option<Keeps>,
    execs: BTreeMap<u64, Exec>,
    next: u64,
}

/// What a container needs as long as it exists, and what is unmounted and taken away when that is dropped.
pub type Keeps = Box<dyn Any + Send + Sync>;

struct Exec {
    id: String,
    /// None as long as it is being started.
    process: Option<Arc<Process>>,
    /// Whether its status was handed out: its id may be used again then.
    waited: bool,
}

impl Exec {
    fn ended(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.watched.code().is_some())
    }
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
        keeps: Keeps,
    ) -> Self {
        let inner = Inner { stage: Stage::Created, keeps: Some(keeps), execs: BTreeMap::new(), next: 0 };
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
        let found = inner.execs.values().find(|e| e.id == exec).and_then(|e| e.process.clone());
        found.ok_or_else(|| Error::NotFound(format!("no process '{}' in the container", clip(exec))))
    }

    /// Reserves an exec id. Makes room by forgetting processes that have ended, the oldest first; the id of
    /// one whose status was asked for is free again.
    pub fn reserve_exec(&self, exec: &str) -> Result<()> {
        if !valid_id(exec) || exec == self.id {
            return Err(Error::InvalidArgument("malformed exec id".into()));
        }
        let mut inner = self.inner();
        inner.execs.retain(|_, e| !(e.id == exec && e.waited && e.ended()));
        if inner.execs.values().any(|e| e.id == exec) {
            return Err(Error::refused(Code::ContainerDuplicate, format!("exec id '{exec}' exists already")));
        }
        while inner.execs.len() >= KEPT_EXECS {
            let Some(oldest) = inner.execs.iter().find(|(_, e)| e.ended()).map(|(at, _)| *at) else { break };
            inner.execs.remove(&oldest);
        }
        if inner.execs.len() >= MAX_EXECS {
            return Err(Error::Busy(format!("{MAX_EXECS} processes run in the container already")));
        }
        let at = inner.next;
        inner.next += 1;
        inner.execs.insert(at, Exec { id: exec.to_owned(), process: None, waited: false });
        Ok(())
    }

    /// Fills or frees a reserved exec id.
    pub fn settle_exec(&self, exec: &str, process: Option<Arc<Process>>) {
        let mut inner = self.inner();
        match process {
            None => inner.execs.retain(|_, e| e.id != exec),
            Some(process) => {
                if let Some(e) = inner.execs.values_mut().find(|e| e.id == exec) {
                    e.process = Some(process);
                }
            }
        }
    }

    /// The status of a process was handed out.
    pub fn note_waited(&self, target: Target<'_>) {
        if let Target::Exec(exec) = target
            && let Some(e) = self.inner().execs.values_mut().find(|e| e.id == exec)
        {
            e.waited = true;
        }
    }

    /// Takes away what the container needed, to be dropped where that may take its time.
    pub fn take_keeps(&self) -> Option<Keeps> {
        self.inner().keeps.take()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every container of the sandbox.
#[derive(Default)]
pub struct Containers {
    by_id: Mutex<HashMap<String, Option<Container>>>,
    slots: Mutex<Option<Slots>>,
}

impl Containers {
    /// The container of that id.
    pub fn find(&self, id: &str) -> Result<Container> {
        let found = self.by_id().get(id).cloned().flatten();
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
        let instance = |c: &Option<Container>| match c {
            Some(Container::Instance(instance)) => Some(instance.clone()),
            Some(Container::Pause(_)) | None => None,
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

    /// Takes an id for a container that is about to be made. Before it is, nobody finds it; if it never
    /// is, the id is free again.
    pub fn reserve(&self, id: &str) -> Result<Reserved<'_>> {
        if !valid_id(id) {
            return Err(Error::InvalidArgument("malformed container id".into()));
        }
        self.room()?;
        let mut by_id = self.by_id();
        if by_id.contains_key(id) {
            return Err(Error::refused(
                Code::ContainerDuplicate,
                format!("container id '{id}' exists already"),
            ));
        }
        by_id.insert(id.to_owned(), None);
        Ok(Reserved { containers: self, id: id.to_owned() })
    }

    /// Adds a container, if its id is free.
    pub fn insert(&self, id: &str, container: Container) -> Result<()> {
        self.reserve(id)?.fill(container);
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

    fn by_id(&self) -> MutexGuard<'_, HashMap<String, Option<Container>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots_lock(&self) -> MutexGuard<'_, Option<Slots>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An id that is taken.
pub struct Reserved<'a> {
    containers: &'a Containers,
    id: String,
}

impl Reserved<'_> {
    /// Puts the container there.
    pub fn fill(self, container: Container) {
        self.containers.by_id().insert(self.id.clone(), Some(container));
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut by_id = self.containers.by_id();
        if matches!(by_id.get(&self.id), Some(None)) {
            by_id.remove(&self.id);
        }
    }
}

/// The beginning of a host's word, for messages.
fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

#[cfg(test)]
#[path = "books_tests.rs"]
mod tests;
