//! The driver itself: sandbox, then init containers one after the other, then all containers, to their end.

mod end;
mod mounts;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use protobuf::MessageField;
use protocols::agent::{
    CloseStdinRequest, CreateContainerRequest, ExecProcessRequest, StartContainerRequest, Storage,
    WaitProcessRequest,
};
use protocols::oci::Spec;
use protocols::refusal::Code;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

use super::{
    Container, HostileKnobs, NetworkConfig, Outcome, Output, Patience, Pod, PodError, Stream, new_id,
    sandbox, spec, streams,
};
use crate::client::{AgentClient, AgentError, rpc};

/// Between two tries of the kubelet to create a container; ours is shorter, as nobody else waits.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const QUICK: Duration = Duration::from_secs(5);
const QUICK_FAILURES: usize = 3;

/// A pod that is driven through its life.
pub struct PodRun {
    client: AgentClient,
    pod: Pod,
    knobs: HostileKnobs,
    network: Option<NetworkConfig>,
    patience: Patience,
    output: Option<Sender<Output>>,
    sandbox_id: String,
    pause: Option<JoinHandle<Result<i32, AgentError>>>,
    memory_watch: Option<JoinHandle<()>>,
    memory_events: Arc<Mutex<Vec<String>>>,
    /// Ids of containers that were created and not removed, by name.
    created: BTreeMap<String, String>,
}

impl Drop for PodRun {
    fn drop(&mut self) {
        if let Some(watch) = &self.memory_watch {
            watch.abort();
        }
    }
}

/// A started container: its streams are being read.
pub struct RunningContainer {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    exec_id: String,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    wait: JoinHandle<Result<i32, AgentError>>,
}

impl std::fmt::Debug for PodRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodRun").field("pod", &self.pod.name).field("sandbox_id", &self.sandbox_id).finish()
    }
}

impl std::fmt::Debug for RunningContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningContainer").field("name", &self.name).field("id", &self.id).finish()
    }
}

impl RunningContainer {
    /// Waits for the process and for the end of its output.
    ///
    /// # Errors
    /// [`PodError::Container`] when the agent doesn't tell how it ended.
    pub async fn wait(self) -> Result<Outcome, PodError> {
        let failed = |error| PodError::Container { container: self.name.clone(), error };
        let lost = |error: tokio::task::JoinError| AgentError::Lost {
            rpc: "wait_process",
            detail: error.to_string(),
        };
        let exit_code = self.wait.await.unwrap_or_else(|error| Err(lost(error))).map_err(failed)?;
        let stdout = self.stdout.await.unwrap_or_default();
        let stderr = self.stderr.await.unwrap_or_default();
        Ok(Outcome { container: self.name, exit_code, stdout, stderr })
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.wait.is_finished()
    }
}

impl PodRun {
    /// A pod on an agent that answers, with QEMU's user-mode network and nothing hostile.
    ///
    /// # Errors
    /// [`PodError::Id`].
    pub fn new(client: AgentClient, mut pod: Pod) -> Result<PodRun, PodError> {
        if pod.hostname.is_empty() {
            pod.hostname.clone_from(&pod.name);
        }
        Ok(PodRun {
            client,
            pod,
            knobs: HostileKnobs::default(),
            network: Some(NetworkConfig::user_mode()),
            patience: Patience::default(),
            output: None,
            sandbox_id: new_id()?,
            pause: None,
            memory_watch: None,
            memory_events: Arc::default(),
            created: BTreeMap::new(),
        })
    }

    /// What the host does differently.
    #[must_use]
    pub fn with_knobs(mut self, knobs: HostileKnobs) -> PodRun {
        self.knobs = knobs;
        self
    }

    /// Another network, or none.
    #[must_use]
    pub fn with_network(mut self, network: Option<NetworkConfig>) -> PodRun {
        self.network = network;
        self
    }

    /// Other time-outs.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> PodRun {
        self.patience = patience;
        self
    }

    /// Where output goes as it comes.
    #[must_use]
    pub fn with_output(mut self, output: Sender<Output>) -> PodRun {
        self.output = Some(output);
        self
    }

    /// The sandbox's id.
    #[must_use]
    pub fn sandbox_id(&self) -> &str {
        &self.sandbox_id
    }

    /// The client, for requests that the driver doesn't make.
    #[must_use]
    pub fn client(&self) -> &AgentClient {
        &self.client
    }

    /// Containers that ran out of memory, as the agent says: names, or ids of those that were removed since.
    #[must_use]
    pub fn out_of_memory(&self) -> Vec<String> {
        let events = self.memory_events.lock().unwrap_or_else(PoisonError::into_inner);
        let name =
            |id: &String| self.created.iter().find(|(_, known)| *known == id).map(|(name, _)| name.clone());
        events.iter().map(|id| name(id).unwrap_or_else(|| id.clone())).collect()
    }

    /// Network, sandbox, pause container.
    ///
    /// # Errors
    /// [`PodError::Sandbox`].
    pub async fn start_sandbox(&mut self) -> Result<(), PodError> {
        let timeout = self.patience.request;
        sandbox::create(&self.client, &self.pod, &self.sandbox_id, self.network.as_ref(), timeout)
            .await
            .map_err(PodError::Sandbox)?;
        self.memory_watch = Some(sandbox::watch_memory(self.client.clone(), self.memory_events.clone()));
        let id = self.sandbox_id.clone();
        let request = create_request(&id, spec::pause(&self.pod, &id), Vec::new());
        rpc!(self.client, create_container, &request, self.patience.create).map_err(PodError::Sandbox)?;
        let request = StartContainerRequest { container_id: id.clone(), ..Default::default() };
        rpc!(self.client, start_container, &request, timeout).map_err(PodError::Sandbox)?;
        self.pause = Some(wait_task(self.client.clone(), id.clone(), id));
        Ok(())
    }

    /// Init containers in order; the first that fails ends it.
    ///
    /// # Errors
    /// [`PodError::Init`], or what failed.
    pub async fn run_init_containers(&mut self) -> Result<Vec<Outcome>, PodError> {
        let mut outcomes = Vec::new();
        for container in self.pod.init_containers.clone() {
            let outcome = self.start_container(&container).await?.wait().await?;
            self.remove(&container.name).await?;
            if outcome.exit_code != 0 {
                return Err(PodError::Init(outcome));
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// Files, `CreateContainer`, `StartContainer`, streams, `WaitProcess` for one container, whoever asked for it.
    ///
    /// # Errors
    /// [`PodError::Container`] with the agent's refusal.
    pub async fn start_container(&mut self, container: &Container) -> Result<RunningContainer, PodError> {
        let failed = |error| PodError::Container { container: container.name.clone(), error };
        let mut container = container.clone();
        container.env.extend(self.knobs.extra_env.iter().cloned());
        if let Some(args) = &self.knobs.args {
            container.command.clear();
            container.args.clone_from(args);
        }
        let deadline = Instant::now() + self.patience.creating;
        let mut quick_failures = 0;
        let id = loop {
            let id = new_id()?;
            let started = Instant::now();
            match self.create(&id, &container).await {
                Ok(()) => break id,
                Err(error) if retryable(&error) && Instant::now() < deadline => {
                    // A try that took its time was still pulling, and one that says so too; another failed.
                    let pulling = error.refusal().is_some_and(|refusal| refusal.code == Code::ImagePulling);
                    quick_failures += usize::from(!pulling && started.elapsed() < QUICK);
                    if quick_failures > QUICK_FAILURES {
                        return Err(error);
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
        self.created.insert(container.name.clone(), id.clone());
        let request = StartContainerRequest { container_id: id.clone(), ..Default::default() };
        rpc!(self.client, start_container, &request, self.patience.request).map_err(failed)?;
        Ok(self.follow(&container.name, &id, &id))
    }

    async fn create(&self, id: &str, container: &Container) -> Result<(), PodError> {
        let failed = |error| PodError::Container { container: container.name.clone(), error };
        let mounts = self.place_files(id, container).await?;
        let spec = spec::container(&self.pod, &self.sandbox_id, id, container, mounts);
        // What the runtime asks for when the guest is to pull the image itself.
        let image = Storage {
            driver: "image_guest_pull".to_owned(),
            driver_options: vec!["image_guest_pull={\"metadata\":{}}".to_owned()],
            source: container.image.clone(),
            fstype: "overlay".to_owned(),
            mount_point: spec::rootfs(id),
            ..Default::default()
        };
        let request = create_request(id, spec, vec![image]);
        rpc!(self.client, create_container, &request, self.patience.create).map_err(failed)?;
        Ok(())
    }

    fn follow(&self, name: &str, id: &str, exec_id: &str) -> RunningContainer {
        let process = (id.to_owned(), exec_id.to_owned());
        let stream = |stream| {
            streams::read(self.client.clone(), process.clone(), name.to_owned(), stream, self.output.clone())
        };
        RunningContainer {
            name: name.to_owned(),
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            stdout: stream(Stream::Stdout),
            stderr: stream(Stream::Stderr),
            wait: wait_task(self.client.clone(), id.to_owned(), exec_id.to_owned()),
        }
    }

    /// `kubectl exec`, or the kubelet's exec probe: starts `command` in a running container.
    ///
    /// # Errors
    /// [`PodError::Container`] with the agent's refusal.
    pub async fn exec(&self, container: &str, command: &[String]) -> Result<RunningContainer, PodError> {
        let failed = |error| PodError::Container { container: container.to_owned(), error };
        let id = self.id_of(container)?;
        let exec_id = new_id()?;
        let known = self.pod.containers.iter().chain(&self.pod.init_containers);
        let known = known.chain(&self.knobs.extra_containers).find(|one| one.name == container);
        let mut process = spec::process(&self.pod, &known.cloned().unwrap_or_default());
        process.Args = command.to_vec();
        process.Terminal = false;
        let request = ExecProcessRequest {
            container_id: id.clone(),
            exec_id: exec_id.clone(),
            process: MessageField::some(process),
            ..Default::default()
        };
        rpc!(self.client, exec_process, &request, self.patience.request).map_err(failed)?;
        Ok(self.follow(container, &id, &exec_id))
    }

    fn id_of(&self, container: &str) -> Result<String, PodError> {
        self.created.get(container).cloned().ok_or_else(|| PodError::Invalid {
            container: container.to_owned(),
            detail: "it has not been started".to_owned(),
        })
    }

    /// The containers of the pod, and those that a hostile host adds, all started.
    ///
    /// # Errors
    /// [`PodError::Container`] for the first that is refused.
    pub async fn start_containers(&mut self) -> Result<Vec<RunningContainer>, PodError> {
        let mut running = Vec::new();
        let containers: Vec<Container> =
            self.pod.containers.iter().chain(&self.knobs.extra_containers).cloned().collect();
        for container in &containers {
            running.push(self.start_container(container).await?);
        }
        Ok(running)
    }

    /// The whole life: sandbox, init containers, containers to their end. Call [`PodRun::destroy`] afterwards.
    ///
    /// # Errors
    /// [`PodError`].
    pub async fn run(&mut self) -> Result<Vec<Outcome>, PodError> {
        self.start_sandbox().await?;
        let mut outcomes = self.run_init_containers().await?;
        for container in self.start_containers().await? {
            outcomes.push(container.wait().await?);
        }
        Ok(outcomes)
    }

    /// `CloseStdin` of a container's first process.
    ///
    /// # Errors
    /// [`PodError::Container`].
    pub async fn close_stdin(&self, running: &RunningContainer) -> Result<(), PodError> {
        let request = CloseStdinRequest {
            container_id: running.id.clone(),
            exec_id: running.exec_id.clone(),
            ..Default::default()
        };
        rpc!(self.client, close_stdin, &request, self.patience.request)
            .map_err(|error| PodError::Container { container: running.name.clone(), error })?;
        Ok(())
    }
}

/// Errors after which the kubelet's next try may succeed: the agent goes on pulling while nobody waits.
fn retryable(error: &PodError) -> bool {
    let PodError::Container { error: source, .. } = error else { return false };
    let pulling =
        source.refusal().is_some_and(|one| matches!(one.code, Code::ImagePull | Code::ImagePulling));
    pulling || matches!(source.code(), Some(ttrpc::Code::UNAVAILABLE | ttrpc::Code::DEADLINE_EXCEEDED))
}

fn create_request(id: &str, spec: Spec, storages: Vec<Storage>) -> CreateContainerRequest {
    CreateContainerRequest {
        container_id: id.to_owned(),
        exec_id: id.to_owned(),
        storages,
        OCI: MessageField::some(spec),
        ..Default::default()
    }
}

fn wait_task(client: AgentClient, id: String, exec_id: String) -> JoinHandle<Result<i32, AgentError>> {
    tokio::spawn(async move {
        let request = WaitProcessRequest { container_id: id, exec_id, ..Default::default() };
        let answer = rpc!(client, wait_process, &request, Duration::ZERO)?;
        Ok(answer.status)
    })
}
