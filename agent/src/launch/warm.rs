//! The agent's side of the helper: it is started when first needed, kept, and replaced when it dies.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use super::{ARGUMENT, HELPER_TIMEOUT, LaunchError, Made, Reply, Request, Stdio3, step, wire};
use crate::process::awaitable;
use crate::reaper::{Reaper, Watched};

/// Helpers that one request can outlive, and the one that serves it.
const ATTEMPTS: usize = 2;

/// The helper, while there is one.
pub(super) struct Warm {
    reaper: Arc<Reaper>,
    program: PathBuf,
    helper: Mutex<Option<Arc<Helper>>>,
}

struct Helper {
    socket: AsyncFd<OwnedFd>,
    watched: Watched,
}

impl Warm {
    pub(super) fn new(reaper: Arc<Reaper>, program: PathBuf) -> Self {
        Self { reaper, program, helper: Mutex::default() }
    }

    pub(super) async fn up(&self) {
        // Whoever needs it next will hear why there is none.
        let _ = self.helper().await;
    }

    /// Has an operation performed.
    pub(super) async fn ask(&self, request: &Request, stdio: Stdio3) -> Result<Made, LaunchError> {
        let patience = tokio::time::sleep(HELPER_TIMEOUT);
        tokio::pin!(patience);
        let (answers, worker) = tokio::select! {
            begun = self.begin(request, &stdio) => begun?,
            () = &mut patience => {
                // It forks and does nothing else: it hangs, and the next request needs another one.
                self.give_up().await;
                return Err(LaunchError::Timeout);
            }
        };
        // From now on the new process alone has them: the end of its output is the end.
        drop(stdio);
        let done = tokio::select! {
            biased;
            done = receive::<Reply>(&answers) => done.map_err(step("reading the answer")),
            // Its children may hold its end of the socket: its own end counts, after what it has said.
            _ = worker.wait() => wire::receive(answers.get_ref()).map_err(step("reading the answer")),
            () = &mut patience => Err(LaunchError::Timeout),
        };
        match done {
            Ok(Some((Reply::Done { pid }, fds))) => Ok(Made { pid, console: fds.into_iter().next() }),
            Ok(Some((Reply::Failed(failure), _))) => {
                end(&self.reaper, &worker);
                Err(failure.into())
            }
            other => {
                end(&self.reaper, &worker);
                Err(other
                    .err()
                    .filter(|e| matches!(e, LaunchError::Timeout))
                    .unwrap_or(LaunchError::NoAnswer))
            }
        }
    }

    /// Has a worker begin. A helper that dies before one has, has done nothing, and another one is asked.
    async fn begin(
        &self,
        request: &Request,
        stdio: &Stdio3,
    ) -> Result<(AsyncFd<OwnedFd>, Watched), LaunchError> {
        for _ in 0..ATTEMPTS {
            let since = self.reaper.epoch();
            let (ours, theirs) = wire::pair().map_err(step("making a socket"))?;
            let answers = awaitable(ours).map_err(step("making a socket"))?;
            let helper = self.helper().await.map_err(step("starting the launch helper"))?;
            let fds = [&theirs, &stdio.stdin, &stdio.stdout, &stdio.stderr].map(AsFd::as_fd);
            let sent = helper.send(request, &fds).await;
            drop(theirs);
            let begun = match sent {
                Ok(()) => receive::<Reply>(&answers).await.map_err(step("reading the answer"))?,
                Err(_) => None,
            };
            match begun {
                Some((Reply::Begun { worker }, _)) => return Ok((answers, self.reaper.adopt(worker, since))),
                Some((Reply::Failed(failure), _)) => return Err(failure.into()),
                Some(_) | None => self.forget(&helper).await,
            }
        }
        Err(LaunchError::NoAnswer)
    }

    async fn helper(&self) -> io::Result<Arc<Helper>> {
        let mut slot = self.helper.lock().await;
        if let Some(helper) = slot.as_ref()
            && helper.watched.code().is_none()
        {
            return Ok(helper.clone());
        }
        let (ours, theirs) = wire::pair()?;
        let mut command = Command::new(&self.program);
        command.arg(ARGUMENT).env_clear().current_dir("/");
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let watched = self.reaper.spawn(&mut command)?;
        let helper = Arc::new(Helper { socket: awaitable(ours)?, watched });
        *slot = Some(helper.clone());
        Ok(helper)
    }

    async fn forget(&self, helper: &Arc<Helper>) {
        let mut slot = self.helper.lock().await;
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, helper)) {
            *slot = None;
        }
    }

    async fn give_up(&self) {
        if let Some(helper) = self.helper.lock().await.take() {
            let _ = self.reaper.signal(&helper.watched, libc::SIGKILL);
        }
    }
}

impl Helper {
    async fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            if let Ok(sent) = ready.try_io(|socket| wire::send(socket.get_ref(), request, fds)) {
                return sent;
            }
        }
    }
}

/// Ends an operation with the processes that it has begun to make and that have no session of their own
/// yet; those that have one are in the container's cgroup.
fn end(reaper: &Reaper, worker: &Watched) {
    if let Some(group) = Pid::from_raw(worker.pid()) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = reaper.signal(worker, libc::SIGKILL);
}

async fn receive<T: DeserializeOwned>(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(received) = ready.try_io(|socket| wire::receive(socket.get_ref())) {
            return received;
        }
    }
}
