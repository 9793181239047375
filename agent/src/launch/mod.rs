//! Containers' processes, through libcontainer in single-threaded helpers.
//!
//! libcontainer forks by raw clone3, allocates in the child, changes the working directory and makes its
//! process non-dumpable: in a threaded PID 1 each of these is a bug. So there is a copy of this binary that
//! does nothing but fork ([`helper`]), and each operation runs in a fork of it, which has the container's
//! standard streams as its own and leaves the new process behind; the kernel hands the orphan to the agent,
//! whose reaper adopts it. What needs no fork, letting a process go and forgetting it, needs no helper.

mod alive;
mod executor;
mod helper;
mod operation;
mod warm;
mod wire;

pub(crate) use alive::started_at;
pub use helper::{ARGUMENT, run as run_helper};

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libcontainer::container::{ContainerStatus, State};
use libcontainer::oci_spec::runtime::{Process as OciProcess, Spec};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::process::{Process, Streams, StreamsWanted, null_input};
use crate::reaper::{Reaper, Watched};
use warm::Warm;

/// A helper that takes longer has met a file system or a cgroup that never answers.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// libcontainer's socket on which a created process waits to be let go.
const NOTIFY: &str = "notify.sock";

/// What a helper is asked to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// Namespaces, root file system, limits; the process waits to be let go.
    Create { id: String, bundle: PathBuf, terminal: bool },
    /// Lets a created process go, where hooks follow.
    Start { id: String },
    /// One more process in a running container. `dir` has the state that libcontainer wants to see below
    /// `id`, and the OCI process as JSON. `init` is the container's first process, which started at `started`.
    Exec { id: String, bundle: PathBuf, dir: PathBuf, terminal: bool, init: i32, started: u64 },
    /// Kills what is left and removes cgroup and state, where hooks follow.
    Delete { id: String },
    /// New ipc and uts namespaces, held by bind mounts below `dir`.
    Namespaces { dir: PathBuf, hostname: String },
    /// A new pid namespace with a first process that only reaps.
    PidNamespace,
}

/// What a helper is asked, and where containers' states are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) state: PathBuf,
    pub(crate) operation: Operation,
}

/// The helper's answers: that it has begun, then how it went.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The process that performs the operation.
    Begun { worker: i32 },
    /// The new process, where the operation makes one.
    Done { pid: Option<i32> },
    /// What failed.
    Failed(Failure),
}

/// What an operation has made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// The new process, where it makes one.
    pub(crate) pid: Option<i32>,
    /// The master of its terminal, where it has one.
    pub(crate) console: Option<OwnedFd>,
}

/// What failed, in words that may leave the guest, and in words that may not.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[error("{summary}")]
pub struct Failure {
    /// Safe for the host: nothing of the sealed specification.
    pub summary: String,
    /// libcontainer's own words; may hold paths and arguments.
    pub detail: String,
}

/// Why an operation didn't happen.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The helper says so.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The helper can't be run or understood, or files that it needs can't be made.
    #[error("{step}: {source}")]
    Helper {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The helper was killed.
    #[error("the launch helper did not answer within {} s", HELPER_TIMEOUT.as_secs())]
    Timeout,
    /// The helper died.
    #[error("the launch helper died before it answered; try again, there is another one")]
    NoAnswer,
}

impl LaunchError {
    /// Whether a helper ended half-way: it may have left behind what nobody knows of.
    pub fn half_done(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

/// Standard streams of a new process.
#[derive(Debug)]
pub struct Stdio3 {
    /// Read by the process.
    pub stdin: OwnedFd,
    /// Written by the process.
    pub stdout: OwnedFd,
    /// Written by the process.
    pub stderr: OwnedFd,
}

impl Stdio3 {
    fn null() -> io::Result<Self> {
        let sink = || File::options().write(true).open("/dev/null").map(OwnedFd::from);
        Ok(Self { stdin: null_input()?, stdout: sink()?, stderr: sink()? })
    }
}

/// Runs operations.
pub struct Launcher {
    reaper: Arc<Reaper>,
    warm: Warm,
    directory: PathBuf,
    next: AtomicU64,
    hooked: Mutex<HashSet<String>>,
}

impl Launcher {
    /// `program` is this binary; state lives below `directory`.
    pub fn new(reaper: Arc<Reaper>, program: PathBuf, directory: PathBuf) -> io::Result<Self> {
        private_dir(&directory.join("state"))?;
        private_dir(&directory.join("operations"))?;
        let warm = Warm::new(reaper.clone(), program);
        Ok(Self { reaper, warm, directory, next: AtomicU64::new(0), hooked: Mutex::default() })
    }

    /// Makes the helper ready before it is needed.
    pub async fn warm_up(&self) {
        self.warm.up().await;
    }

    /// Makes a container whose process waits for [`Launcher::start`].
    pub async fn create(
        &self,
        id: &str,
        bundle: &Path,
        spec: &Spec,
        wanted: StreamsWanted,
    ) -> Result<Process, LaunchError> {
        private_dir(bundle).map_err(step("making the bundle"))?;
        write_json(&bundle.join("config.json"), spec).map_err(step("writing config.json"))?;
        if has_late_hooks(spec) {
            self.hooked().insert(id.to_owned());
        }
        let terminal = spec.process().as_ref().is_some_and(|process| process.terminal() == Some(true));
        let operation = Operation::Create { id: id.to_owned(), bundle: bundle.to_owned(), terminal };
        self.launch(operation, terminal, wanted).await
    }

    /// Lets a created container's process go.
    pub async fn start(&self, id: &str) -> Result<(), LaunchError> {
        if self.hooked().contains(id) {
            return self.plain(Operation::Start { id: id.to_owned() }).await.map(|_| ());
        }
        // A path that is too long for a socket's address is named through its directory.
        let directory = File::open(self.state().join(id)).map_err(step("finding the container"))?;
        let path = format!("/proc/self/fd/{}/{NOTIFY}", directory.as_raw_fd());
        let told = async {
            let mut socket = UnixStream::connect(path).await?;
            socket.write_all(b"start container").await
        };
        told.await.map_err(step("starting the process"))
    }

    /// Starts one more process in a running container, whose first process is `init`.
    pub async fn exec(
        &self,
        id: &str,
        init: &Watched,
        bundle: &Path,
        process: &OciProcess,
        wanted: StreamsWanted,
    ) -> Result<Process, LaunchError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.directory.join("operations").join(number.to_string());
        let started = self.exec_in(&dir, id, init, bundle, process, wanted).await;
        let _ = fs::remove_dir_all(dir);
        started
    }

    /// libcontainer leaves sockets where it finds a container's state: each process gets a state of its own.
    async fn exec_in(
        &self,
        dir: &Path,
        id: &str,
        init: &Watched,
        bundle: &Path,
        process: &OciProcess,
        wanted: StreamsWanted,
    ) -> Result<Process, LaunchError> {
        let ended = || step("joining the container")(io::Error::from(io::ErrorKind::NotFound));
        let started = self.reaper.started_at(init).ok_or_else(ended)?;
        private_dir(&dir.join(id)).map_err(step("making the process' directory"))?;
        let state = State::new(id, ContainerStatus::Running, Some(init.pid()), bundle.to_owned());
        write_json(&State::file_path(&dir.join(id)), &state).map_err(step("writing state.json"))?;
        write_json(&dir.join("process.json"), process).map_err(step("writing process.json"))?;
        let terminal = process.terminal() == Some(true);
        let operation = Operation::Exec {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            dir: dir.to_owned(),
            terminal,
            init: init.pid(),
            started,
        };
        self.launch(operation, terminal, wanted).await
    }

    /// Forgets a container whose processes and cgroups are gone.
    pub async fn delete(&self, id: &str) -> Result<(), LaunchError> {
        if self.hooked().contains(id) {
            self.plain(Operation::Delete { id: id.to_owned() }).await?;
            self.hooked().remove(id);
        }
        match fs::remove_dir_all(self.state().join(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(step("removing the state")(error)),
            _ => Ok(()),
        }
    }

    /// Makes the sandbox' ipc and uts namespaces.
    pub async fn namespaces(&self, dir: &Path, hostname: &str) -> Result<(), LaunchError> {
        let operation = Operation::Namespaces { dir: dir.to_owned(), hostname: hostname.to_owned() };
        self.plain(operation).await.map(|_| ())
    }

    /// Makes a pid namespace for the sandbox' containers to share: `/proc/PID/ns/pid` of the process
    /// returned, which reaps in it until it is killed, and everything in it with it.
    pub async fn pid_namespace(&self) -> Result<Watched, LaunchError> {
        let since = self.reaper.epoch();
        let made = self.plain(Operation::PidNamespace).await?;
        let pid = made.pid.ok_or_else(no_process)?;
        Ok(self.reaper.adopt(pid, since))
    }

    async fn launch(
        &self,
        operation: Operation,
        terminal: bool,
        wanted: StreamsWanted,
    ) -> Result<Process, LaunchError> {
        let since = self.reaper.epoch();
        let streams = step("making streams");
        let (ours, theirs) = match terminal {
            true => (None, Stdio3::null().map_err(&streams)?),
            false => Streams::pipes(wanted).map(|(ours, theirs)| (Some(ours), theirs)).map_err(&streams)?,
        };
        let made = self.warm.ask(&self.request(operation), theirs).await?;
        let watched = self.reaper.adopt(made.pid.ok_or_else(no_process)?, since);
        let streams = match (ours, made.console) {
            (Some(ours), _) => ours,
            (None, Some(master)) => Streams::terminal(master, wanted).map_err(streams)?,
            (None, None) => return Err(step("reading the answer")(io::Error::other("it has no terminal"))),
        };
        Ok(Process { watched, streams })
    }

    async fn plain(&self, operation: Operation) -> Result<Made, LaunchError> {
        let stdio = Stdio3::null().map_err(step("making streams"))?;
        self.warm.ask(&self.request(operation), stdio).await
    }

    fn request(&self, operation: Operation) -> Request {
        Request { state: self.state(), operation }
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    fn hooked(&self) -> MutexGuard<'_, HashSet<String>> {
        self.hooked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hooks that run after a start or a removal: those are a helper's business then.
fn has_late_hooks(spec: &Spec) -> bool {
    let some = |hooks: &Option<Vec<_>>| hooks.as_ref().is_some_and(|hooks| !hooks.is_empty());
    spec.hooks().as_ref().is_some_and(|hooks| some(hooks.poststart()) || some(hooks.poststop()))
}

fn no_process() -> LaunchError {
    step("reading the answer")(io::Error::other("it names no process"))
}

fn step(step: &'static str) -> impl Fn(io::Error) -> LaunchError {
    move |source| LaunchError::Helper { step, source }
}

/// Makes a directory that only the agent can enter, with its parents.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    // Below a directory that only the agent can enter.
    fs::write(path, serde_json::to_vec(value)?)
}
