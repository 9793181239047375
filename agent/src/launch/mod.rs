//! Containers' processes, through libcontainer in a single-threaded helper.
//!
//! libcontainer forks by raw clone3, allocates in the child, changes the working directory and makes its
//! process non-dumpable: in a threaded PID 1 each of these is a bug. So each operation runs in a fresh
//! copy of this binary, which has the container's standard streams as its own and leaves the new process
//! behind; the kernel hands the orphan to the agent, whose reaper adopts it.

mod executor;
mod helper;

pub use helper::{ARGUMENT, run as run_helper};

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libcontainer::oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use crate::reaper::{Reaper, Watched};

/// A helper that takes longer has met a file system or a cgroup that never answers.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// What a helper is asked to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// Namespaces, root file system, limits; the process waits to be let go.
    Create { id: String, bundle: PathBuf },
    /// Lets a created process go.
    Start { id: String },
    /// One more process in a running container; `process` is the OCI process as JSON.
    Exec { id: String, bundle: PathBuf, process: PathBuf },
    /// Kills what is left and removes cgroup and state.
    Delete { id: String },
    /// New ipc and uts namespaces, held by bind mounts below `dir`.
    Namespaces { dir: PathBuf, hostname: String },
}

/// What a helper was asked, and where the answer goes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) state: PathBuf,
    pub(crate) operation: Operation,
}

/// The helper's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The new process, where the operation makes one.
    Done { pid: Option<i32> },
    /// What failed.
    Failed(Failure),
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
    /// The helper can't be run or understood.
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
    #[error("the launch helper ended with status {0} and no answer")]
    NoAnswer(i32),
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

/// Runs helpers.
pub struct Launcher {
    reaper: Arc<Reaper>,
    program: PathBuf,
    directory: PathBuf,
    next: AtomicU64,
}

impl Launcher {
    /// `program` is this binary; state lives below `directory`.
    pub fn new(reaper: Arc<Reaper>, program: PathBuf, directory: PathBuf) -> io::Result<Self> {
        private_dir(&directory.join("state"))?;
        private_dir(&directory.join("operations"))?;
        Ok(Self { reaper, program, directory, next: AtomicU64::new(0) })
    }

    /// Makes a container whose process waits for [`Launcher::start`].
    pub async fn create(
        &self,
        id: &str,
        bundle: &Path,
        spec: &Spec,
        stdio: Stdio3,
    ) -> Result<Watched, LaunchError> {
        private_dir(bundle).map_err(step("making the bundle"))?;
        write_json(&bundle.join("config.json"), spec).map_err(step("writing config.json"))?;
        let operation = Operation::Create { id: id.to_owned(), bundle: bundle.to_owned() };
        self.launch(operation, stdio).await
    }

    /// Lets a created container's process go.
    pub async fn start(&self, id: &str) -> Result<(), LaunchError> {
        self.plain(Operation::Start { id: id.to_owned() }).await
    }

    /// Starts one more process in a running container.
    pub async fn exec(
        &self,
        id: &str,
        bundle: &Path,
        process: &Process,
        stdio: Stdio3,
    ) -> Result<Watched, LaunchError> {
        let path = bundle.join(format!("process-{}.json", self.next.fetch_add(1, Ordering::Relaxed)));
        write_json(&path, process).map_err(step("writing process.json"))?;
        let operation =
            Operation::Exec { id: id.to_owned(), bundle: bundle.to_owned(), process: path.clone() };
        let started = self.launch(operation, stdio).await;
        let _ = fs::remove_file(path);
        started
    }

    /// Removes what libcontainer keeps of a container, and kills what still runs in it.
    pub async fn delete(&self, id: &str) -> Result<(), LaunchError> {
        self.plain(Operation::Delete { id: id.to_owned() }).await
    }

    /// Makes the sandbox' ipc and uts namespaces.
    pub async fn namespaces(&self, dir: &Path, hostname: &str) -> Result<(), LaunchError> {
        let operation = Operation::Namespaces { dir: dir.to_owned(), hostname: hostname.to_owned() };
        self.plain(operation).await
    }

    async fn launch(&self, operation: Operation, stdio: Stdio3) -> Result<Watched, LaunchError> {
        let since = self.reaper.epoch();
        let streams = [stdio.stdin.into(), stdio.stdout.into(), stdio.stderr.into()];
        match self.run(operation, streams).await? {
            Some(pid) => Ok(self.reaper.adopt(pid, since)),
            None => Err(step("reading the answer")(io::Error::other("it names no process"))),
        }
    }

    async fn plain(&self, operation: Operation) -> Result<(), LaunchError> {
        self.run(operation, [Stdio::null(), Stdio::null(), Stdio::null()]).await.map(|_| ())
    }

    async fn run(&self, operation: Operation, streams: [Stdio; 3]) -> Result<Option<i32>, LaunchError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let request = self.directory.join("operations").join(format!("{number}.request"));
        let answer = self.directory.join("operations").join(format!("{number}.answer"));
        let result = self.run_with(operation, streams, &request, &answer).await;
        let _ = fs::remove_file(&request);
        let _ = fs::remove_file(&answer);
        match result? {
            Reply::Done { pid } => Ok(pid),
            Reply::Failed(failure) => Err(failure.into()),
        }
    }

    async fn run_with(
        &self,
        operation: Operation,
        [stdin, stdout, stderr]: [Stdio; 3],
        request: &Path,
        answer: &Path,
    ) -> Result<Reply, LaunchError> {
        let body = Request { state: self.directory.join("state"), operation };
        write_json(request, &body).map_err(step("writing the request"))?;
        let helper = {
            let mut command = Command::new(&self.program);
            command.arg(ARGUMENT).arg(request).arg(answer).env_clear().current_dir("/");
            command.stdin(stdin).stdout(stdout).stderr(stderr);
            self.reaper.spawn(&mut command).map_err(step("starting the launch helper"))?
        };
        let Ok(status) = tokio::time::timeout(HELPER_TIMEOUT, helper.wait()).await else {
            let _ = self.reaper.signal(&helper, libc::SIGKILL);
            return Err(LaunchError::Timeout);
        };
        match fs::read(answer) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| step("reading the answer")(e.into())),
            Err(_) => Err(LaunchError::NoAnswer(status)),
        }
    }
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
