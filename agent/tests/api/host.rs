//! An agent without containers, and a host that drives it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use protocols::agent as wire;
use protocols::agent_ttrpc::AgentServiceClient;
use protocols::health_ttrpc::HealthClient;
use protocols::oci;
use protocols::refusal::{Code, Refusal};
use sealed_spec::initdata::{BrokerPin, SealpodConfig, Via};
use sealed_spec::podspec::{Container, PodSpec};
use sealed_spec::{
    HeaderFields, ImageRef, KeyId, Lineage, Repository, SealedSpec, SpecKey, Workload, WorkloadKind, seal,
};
use sealpod_agent::agent::{Agent, Parts, Paths};
use sealpod_agent::config::Config;
use sealpod_agent::images::{Images, Root};
use sealpod_agent::log::logger;
use sealpod_agent::mode::Mode;
use sealpod_agent::opening::{KeySource, Opening};
use sealpod_agent::pid1::PowerOff;
use sealpod_agent::quarantine::SHARED;
use sealpod_agent::reaper::Reaper;
use sealpod_agent::rpc::{Peers, Service, serve};
use sealpod_agent::slots::{Over, Patience};
use tokio::net::UnixListener;
use ttrpc::context::Context;

/// One reaper a process: the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) struct Source {
    pub(crate) config: Result<SealpodConfig, Refusal>,
    pub(crate) key: [u8; 32],
}

#[async_trait]
impl KeySource for Source {
    fn config(&self) -> Result<&SealpodConfig, Refusal> {
        self.config.as_ref().map_err(Clone::clone)
    }

    fn document(&self) -> Option<&str> {
        None
    }

    async fn release_key(&self) -> Result<SpecKey, Refusal> {
        Ok(SpecKey::from_bytes(&self.key).unwrap())
    }
}

/// A registry that never delivers; a pull ends when the test lets it.
#[derive(Default)]
pub(crate) struct Pulls {
    pub(crate) waiting: AtomicUsize,
    pub(crate) held: AtomicBool,
}

impl Pulls {
    /// Waits until a request is stuck in a pull.
    pub(crate) async fn one_waits(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) struct Stuck(Arc<Pulls>);

#[async_trait]
impl Images for Stuck {
    async fn begin(&self, _: &SealedSpec, _: Arc<dyn KeySource>) -> Result<(), Refusal> {
        Ok(())
    }

    async fn root(&self, _: &ImageRef, _: &Path, mut patience: Patience) -> Result<Root, Refusal> {
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let held = async {
            while self.0.held.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = held => Err(Refusal::new(Code::ImagePull, "pulling 0 %")),
            over = patience.over() => {
                assert_eq!(over, Over::Superseded);
                Err(Refusal::new(Code::SlotBusy, "taken over"))
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct Button(pub(crate) AtomicBool);

impl PowerOff for Button {
    fn power_off(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(crate) struct Host {
    pub(crate) agent: AgentServiceClient,
    pub(crate) health: HealthClient,
    pub(crate) client: ttrpc::r#async::Client,
    pub(crate) document: String,
    pub(crate) button: Arc<Button>,
    pub(crate) pulls: Arc<Pulls>,
}

pub(crate) fn sealed() -> (SealedSpec, HeaderFields, SpecKey) {
    let container =
        |name: &str| Container { name: name.into(), image: "r.example/x:1".into(), ..Container::default() };
    let mut spec = SealedSpec::new(PodSpec {
        containers: vec![container("web")],
        init_containers: vec![container("setup")],
        ..PodSpec::default()
    });
    let image = || ImageRef::pinned("r.example/x:1", format!("sha256:{}", "0".repeat(64)));
    spec.images = BTreeMap::from(["web", "setup"].map(|name| (name.to_owned(), image())));
    let (repository, lineage): (Repository, Lineage) = ("acme".parse().unwrap(), "web".parse().unwrap());
    let key_id = KeyId::generate(&repository, &lineage, 1).unwrap();
    let workload = Workload { kind: WorkloadKind::Pod, name: "web".into() };
    (spec, HeaderFields { key_id, namespace: "default".into(), workload }, SpecKey::generate().unwrap())
}

/// Runs a test against an agent of its own, in a mount namespace of its own.
pub(crate) fn with_agent<F: Future<Output = ()>>(boot: Result<(), Refusal>, test: impl FnOnce(Host) -> F) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // The namespace goes with the test's threads, and with it what was mounted here.
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (spec, fields, key) = sealed();
        let document = seal(&spec, &fields, &key).unwrap();
        let broker = BrokerPin { url: "https://broker".into(), via: Via::Relay, ca: String::new() };
        let config = SealpodConfig { sealed_spec: document.digest(), key_id: fields.key_id, broker };
        let source = Source { config: boot.map(|()| config), key: *key.as_bytes() };
        let reaper = Reaper::new();
        tokio::spawn(reaper.clone().run());
        let button = Arc::new(Button::default());
        let pulls = Arc::new(Pulls::default());
        let paths = Paths {
            state: dir.path().join("state"),
            quarantine: dir.path().join("quarantine"),
            etc: dir.path().join("etc"),
            program: env!("CARGO_BIN_EXE_sealpod-agent").into(),
            cgroups: dir.path().join("cgroup"),
        };
        let agent = Agent::new(Parts {
            config: Config::default(),
            paths,
            reaper,
            mode: Mode::Sealed(Opening::new(Box::new(source))),
            images: Box::new(Stuck(pulls.clone())),
            network: None,
            power: button.clone(),
            log: logger(std::io::sink()),
        })
        .unwrap();
        let socket = dir.path().join("agent.sock");
        let peers = Peers::Unix(UnixListener::bind(&socket).unwrap());
        let _server = serve(Service::new(agent), peers).await.unwrap();
        let address = format!("unix://{}", socket.display());
        let client = ttrpc::r#async::Client::connect(&address).await.unwrap();
        let host = Host {
            agent: AgentServiceClient::new(client.clone()),
            health: HealthClient::new(client.clone()),
            client,
            document: document.as_str().to_owned(),
            button,
            pulls,
        };
        test(host).await;
    });
}

pub(crate) fn status<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (ttrpc::Code, Option<Code>) {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => {
            (status.code(), Refusal::parse(status.message()).map(|r| r.code))
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn refusal<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> Option<Code> {
    status(result).1
}

pub(crate) fn soon() -> Context {
    ttrpc::context::with_timeout(30_000_000_000)
}

impl Host {
    pub(crate) async fn sandbox(&self) -> ttrpc::Result<protocols::empty::Empty> {
        let mut request = wire::CreateSandboxRequest::new();
        request.sandbox_id = "sandbox".into();
        request.hostname = "web-1".into();
        self.agent.create_sandbox(soon(), &request).await
    }

    pub(crate) async fn copy(&self, name: &str, text: &str) -> ttrpc::Result<protocols::empty::Empty> {
        let mut request = wire::CopyFileRequest::new();
        request.path = format!("{SHARED}/{name}");
        request.file_size = text.len() as i64;
        request.file_mode = 0o100_644;
        request.data = text.as_bytes().to_vec();
        self.agent.copy_file(soon(), &request).await
    }

    pub(crate) async fn create(&self, id: &str, name: &str) -> ttrpc::Result<protocols::empty::Empty> {
        let mut spec = oci::Spec::new();
        spec.Annotations.insert("io.kubernetes.cri.container-name".into(), name.into());
        let mut request = wire::CreateContainerRequest::new();
        request.container_id = id.into();
        request.OCI = Some(spec).into();
        self.agent.create_container(soon(), &request).await
    }

    pub(crate) async fn signal(&self, id: &str, number: u32) -> ttrpc::Result<protocols::empty::Empty> {
        let mut request = wire::SignalProcessRequest::new();
        request.container_id = id.into();
        request.signal = number;
        self.agent.signal_process(soon(), &request).await
    }

    pub(crate) async fn ready(&self) {
        self.copy("c1-spec", &self.document).await.unwrap();
        self.sandbox().await.unwrap();
        self.create("sandbox", "").await.unwrap();
    }
}
