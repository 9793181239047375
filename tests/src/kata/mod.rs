//! The Kata agent's API as a runtime uses it, request by request, over one connection. What a runtime does with a
//! whole pod is in `launcher::pod`; here every request can be another than an honest runtime's.

mod answer;
mod process;
pub mod spec;

use std::time::Duration;

use anyhow::Result;
use launcher::AgentClient;
use protocols::agent as wire;
use protocols::agent_ttrpc::AgentServiceClient;
use ttrpc::context::{Context, with_duration};

pub use answer::{Answer, Failure, fails, of as answer_of, refused};
pub use process::{Ended, InitExec, READ, unique};

/// For one request; ten times what the slowest needs on an idle machine.
const PATIENCE: Duration = Duration::from_secs(50);

/// A request's context.
#[must_use]
pub fn soon() -> Context {
    with_duration(PATIENCE)
}

/// One connection to an agent. Clones share it.
#[derive(Clone, Debug)]
pub struct Kata {
    client: AgentClient,
    /// How this runtime names a container's first process.
    pub init: InitExec,
}

impl Kata {
    /// A runtime that speaks over `client`.
    #[must_use]
    pub fn new(client: AgentClient, init: InitExec) -> Self {
        Self { client, init }
    }

    /// The connection.
    #[must_use]
    pub fn client(&self) -> &AgentClient {
        &self.client
    }

    /// The generated client.
    #[must_use]
    pub fn agent(&self) -> &AgentServiceClient {
        self.client.agent()
    }

    /// `CreateSandbox`, with a `/dev/shm` as runtimes ask for it.
    ///
    /// # Errors
    /// The agent's.
    pub async fn sandbox(&self, id: &str) -> Answer<()> {
        let mut request = wire::CreateSandboxRequest::new();
        request.sandbox_id = id.to_owned();
        request.hostname = "pod".to_owned();
        request.dns = vec!["nameserver 10.0.2.3".to_owned(), String::new()];
        request.storages = vec![spec::shm()];
        answer::of(self.agent().create_sandbox(soon(), &request).await).map(drop)
    }

    /// `CreateContainer`.
    ///
    /// # Errors
    /// The agent's.
    pub async fn create(&self, request: &wire::CreateContainerRequest) -> Answer<()> {
        answer::of(self.agent().create_container(soon(), request).await).map(drop)
    }

    /// `StartContainer`.
    ///
    /// # Errors
    /// The agent's.
    pub async fn start(&self, id: &str) -> Answer<()> {
        let mut request = wire::StartContainerRequest::new();
        request.container_id = id.to_owned();
        answer::of(self.agent().start_container(soon(), &request).await).map(drop)
    }

    /// `RemoveContainer`.
    ///
    /// # Errors
    /// The agent's.
    pub async fn remove(&self, id: &str) -> Answer<()> {
        let mut request = wire::RemoveContainerRequest::new();
        request.container_id = id.to_owned();
        request.timeout = 10;
        answer::of(self.agent().remove_container(soon(), &request).await).map(drop)
    }

    /// `GetMetrics`: the value of a metric without labels.
    ///
    /// # Errors
    /// When the agent has no such metric.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let answer = answer::of(self.agent().get_metrics(soon(), &wire::GetMetricsRequest::new()).await)?;
        let line = answer.metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.ok_or_else(|| anyhow::anyhow!("GetMetrics doesn't tell {name}"))?;
        Ok(value.trim().parse()?)
    }
}
