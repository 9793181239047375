//! How containers and pods end: signals, removal, the end of the sandbox.

use std::time::{Duration, Instant};

use protocols::agent::{DestroySandboxRequest, RemoveContainerRequest, SignalProcessRequest};

use super::{PodRun, RunningContainer};
use crate::client::{AgentError, rpc};
use crate::pod::{Outcome, PodError};

const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;
/// What the runtime gives `RemoveContainer`, in seconds.
const REMOVE_TIMEOUT: u32 = 10;

impl PodRun {
    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// [`PodError::Container`].
    pub async fn signal(&self, container: &str, signal: u32) -> Result<(), PodError> {
        let id = self.id_of(container)?;
        self.signal_id(&id, signal)
            .await
            .map_err(|error| PodError::Container { container: container.to_owned(), error })
    }

    async fn signal_id(&self, id: &str, signal: u32) -> Result<(), AgentError> {
        let request = SignalProcessRequest {
            container_id: id.to_owned(),
            exec_id: id.to_owned(),
            signal,
            ..Default::default()
        };
        match rpc!(self.client, signal_process, &request, self.patience.request) {
            // The shim maps it to "already terminated".
            Err(error) if error.code() == Some(ttrpc::Code::NOT_FOUND) => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Removes a container that has ended.
    ///
    /// # Errors
    /// [`PodError::Container`].
    pub async fn remove(&mut self, container: &str) -> Result<(), PodError> {
        let id = self.id_of(container)?;
        let request =
            RemoveContainerRequest { container_id: id, timeout: REMOVE_TIMEOUT, ..Default::default() };
        rpc!(self.client, remove_container, &request, self.patience.request)
            .map_err(|error| PodError::Container { container: container.to_owned(), error })?;
        self.created.remove(container);
        Ok(())
    }

    /// Ends containers that run: TERM, `grace`, KILL; how each ended.
    ///
    /// # Errors
    /// [`PodError::Container`].
    pub async fn stop(
        &self,
        running: Vec<RunningContainer>,
        grace: Duration,
    ) -> Result<Vec<Outcome>, PodError> {
        for container in &running {
            self.signal(&container.name, SIGTERM).await?;
        }
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline && !running.iter().all(RunningContainer::ended) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut outcomes = Vec::new();
        for container in running {
            if !container.ended() {
                self.signal(&container.name, SIGKILL).await?;
            }
            outcomes.push(container.wait().await?);
        }
        Ok(outcomes)
    }

    /// Removes what is left, ends the pause container and the sandbox. The guest powers off.
    ///
    /// # Errors
    /// The first request that failed; the others were made.
    pub async fn destroy(mut self) -> Result<(), PodError> {
        let mut first = Ok(());
        let mut note = |outcome: Result<(), PodError>| {
            if first.is_ok() {
                first = outcome;
            }
        };
        for name in self.created.keys().cloned().collect::<Vec<_>>() {
            note(self.signal(&name, SIGKILL).await);
            note(self.remove(&name).await);
        }
        if let Some(pause) = self.pause.take() {
            let id = self.sandbox_id.clone();
            note(self.signal_id(&id, SIGKILL).await.map_err(PodError::Sandbox));
            let _ = tokio::time::timeout(self.patience.request, pause).await;
            let request =
                RemoveContainerRequest { container_id: id, timeout: REMOVE_TIMEOUT, ..Default::default() };
            let removed = rpc!(self.client, remove_container, &request, self.patience.request);
            note(removed.map(drop).map_err(PodError::Sandbox));
        }
        let request = DestroySandboxRequest::default();
        match rpc!(self.client, destroy_sandbox, &request, self.patience.request) {
            // The power may go off before the answer is out.
            Ok(_) | Err(AgentError::Lost { .. }) => {}
            Err(error) => note(Err(PodError::Sandbox(error))),
        }
        first
    }
}
