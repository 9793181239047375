//! The API over a socket, with a source of keys and images that needs no VM: what the host may do, in
//! which order, and what it hears. Containers themselves run in the QEMU tests.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

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
use protocols::refusal::{Code, Refusal};
use protocols::{oci, types};
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

struct Source {
    config: Result<SealpodConfig, Refusal>,
    key: [u8; 32],
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
struct Pulls {
    waiting: AtomicUsize,
    held: AtomicBool,
}

impl Pulls {
    /// Waits until a request is stuck in a pull.
    async fn one_waits(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Stuck(Arc<Pulls>);

#[async_trait]
impl Images for Stuck {
    fn begin(&self, _: &SealedSpec) -> Result<(), Refusal> {
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
struct Button(AtomicBool);

impl PowerOff for Button {
    fn power_off(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Host {
    agent: AgentServiceClient,
    health: HealthClient,
    client: ttrpc::r#async::Client,
    document: String,
    button: Arc<Button>,
    pulls: Arc<Pulls>,
}

fn sealed() -> (SealedSpec, HeaderFields, SpecKey) {
    let container =
        |name: &str| Container { name: name.into(), image: "r.example/x:1".into(), ..Container::default() };
    let mut spec = SealedSpec::new(PodSpec {
        containers: vec![container("web")],
        init_containers: vec![container("setup")],
        ..PodSpec::default()
    });
    let image = || ImageRef {
        reference: "r.example/x:1".into(),
        digest: format!("sha256:{}", "0".repeat(64)),
        key: None,
    };
    spec.images = BTreeMap::from(["web", "setup"].map(|name| (name.to_owned(), image())));
    let (repository, lineage): (Repository, Lineage) = ("acme".parse().unwrap(), "web".parse().unwrap());
    let key_id = KeyId::generate(&repository, &lineage, 1).unwrap();
    let workload = Workload { kind: WorkloadKind::Pod, name: "web".into() };
    (spec, HeaderFields { key_id, namespace: "default".into(), workload }, SpecKey::generate().unwrap())
}

/// Runs a test against an agent of its own, in a mount namespace of its own.
fn with_agent<F: Future<Output = ()>>(boot: Result<(), Refusal>, test: impl FnOnce(Host) -> F) {
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

fn status<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (ttrpc::Code, Option<Code>) {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => {
            (status.code(), Refusal::parse(status.message()).map(|r| r.code))
        }
        other => panic!("{other:?}"),
    }
}

fn refusal<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> Option<Code> {
    status(result).1
}

fn soon() -> Context {
    ttrpc::context::with_timeout(30_000_000_000)
}

impl Host {
    async fn sandbox(&self) -> ttrpc::Result<protocols::empty::Empty> {
        let mut request = wire::CreateSandboxRequest::new();
        request.sandbox_id = "sandbox".into();
        request.hostname = "web-1".into();
        self.agent.create_sandbox(soon(), &request).await
    }

    async fn copy(&self, name: &str, text: &str) -> ttrpc::Result<protocols::empty::Empty> {
        let mut request = wire::CopyFileRequest::new();
        request.path = format!("{SHARED}/{name}");
        request.file_size = text.len() as i64;
        request.file_mode = 0o100_644;
        request.data = text.as_bytes().to_vec();
        self.agent.copy_file(soon(), &request).await
    }

    async fn create(&self, id: &str, name: &str) -> ttrpc::Result<protocols::empty::Empty> {
        let mut spec = oci::Spec::new();
        spec.Annotations.insert("io.kubernetes.cri.container-name".into(), name.into());
        let mut request = wire::CreateContainerRequest::new();
        request.container_id = id.into();
        request.OCI = Some(spec).into();
        self.agent.create_container(soon(), &request).await
    }

    async fn signal(&self, id: &str, number: u32) -> ttrpc::Result<protocols::empty::Empty> {
        let mut request = wire::SignalProcessRequest::new();
        request.container_id = id.into();
        request.signal = number;
        self.agent.signal_process(soon(), &request).await
    }

    async fn ready(&self) {
        self.copy("c1-spec", &self.document).await.unwrap();
        self.sandbox().await.unwrap();
        self.create("sandbox", "").await.unwrap();
    }
}

#[test]
fn a_vm_that_may_not_open_anything_is_healthy_and_says_why() {
    with_agent(Err(Refusal::new(Code::HostDataMismatch, "they differ")), |host| async move {
        host.health.check(soon(), &protocols::health::CheckRequest::new()).await.unwrap();
        let version = host.health.version(soon(), &protocols::health::CheckRequest::new()).await.unwrap();
        assert_eq!(version.grpc_version, "0.0.1");
        let refused = (ttrpc::Code::PERMISSION_DENIED, Some(Code::HostDataMismatch));
        assert_eq!(status(host.sandbox().await), refused);
        assert_eq!(status(host.sandbox().await), refused, "and says it again");
    });
}

#[test]
fn nothing_runs_before_there_is_a_sandbox_and_a_document() {
    with_agent(Ok(()), |host| async move {
        assert_eq!(refusal(host.create("c1", "web").await), Some(Code::SandboxState));
        let mut exec = wire::ExecProcessRequest::new();
        exec.container_id = "c1".into();
        assert_eq!(refusal(host.agent.exec_process(soon(), &exec).await), Some(Code::SpecNotOpen));
        host.sandbox().await.unwrap();
        assert_eq!(status(host.sandbox().await), (ttrpc::Code::INTERNAL, Some(Code::SandboxState)));
        host.create("sandbox", "").await.unwrap();
        assert_eq!(refusal(host.create("c1", "setup").await), Some(Code::SpecMissing));
        // A failed create leaves nothing behind: the next one finds the document.
        host.copy("c1-spec", &host.document).await.unwrap();
        assert_eq!(status(host.create("c1", "setup").await), (ttrpc::Code::INTERNAL, Some(Code::ImagePull)));
        assert_eq!(
            refusal(host.create("c1", "setup").await),
            Some(Code::ImagePull),
            "the slot was given back"
        );
    });
}

#[test]
fn the_host_can_make_no_container_of_its_own() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        assert_eq!(
            status(host.create("c1", "miner").await),
            (ttrpc::Code::PERMISSION_DENIED, Some(Code::ContainerUnknown))
        );
        assert_eq!(refusal(host.create("c1", "web").await), Some(Code::SlotOrder));
        assert_eq!(refusal(host.create("sandbox", "").await), Some(Code::ContainerDuplicate));
        assert_eq!(status(host.create("../c1", "web").await).0, ttrpc::Code::INVALID_ARGUMENT);
        let mut unnamed = wire::CreateContainerRequest::new();
        unnamed.container_id = "c1".into();
        let unnamed = host.agent.create_container(soon(), &unnamed).await;
        assert_eq!(refusal(unnamed), Some(Code::ContainerUnknown));
    });
}

#[test]
fn the_pause_container_lives_until_it_is_signalled() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        let mut start = wire::StartContainerRequest::new();
        start.container_id = "sandbox".into();
        host.agent.start_container(soon(), &start).await.unwrap();
        let mut read = wire::ReadStreamRequest::new();
        read.container_id = "sandbox".into();
        read.len = 8192;
        assert!(host.agent.read_stdout(soon(), &read).await.unwrap().data.is_empty());
        let mut wait = wire::WaitProcessRequest::new();
        wait.container_id = "sandbox".into();
        let waiting = tokio::spawn({
            let (agent, wait) = (host.agent.clone(), wait.clone());
            async move { agent.wait_process(soon(), &wait).await.unwrap().status }
        });
        assert_eq!(
            status(host.signal("sandbox", 1).await),
            (ttrpc::Code::PERMISSION_DENIED, Some(Code::SignalDenied))
        );
        host.signal("sandbox", 9).await.unwrap();
        assert_eq!(waiting.await.unwrap(), 137);
        assert_eq!(status(host.signal("sandbox", 9).await).0, ttrpc::Code::NOT_FOUND);
        assert_eq!(host.agent.wait_process(soon(), &wait).await.unwrap().status, 137, "for late waiters too");
        let mut remove = wire::RemoveContainerRequest::new();
        remove.container_id = "sandbox".into();
        host.agent.remove_container(soon(), &remove).await.unwrap();
        assert_eq!(status(host.signal("sandbox", 9).await).0, ttrpc::Code::INVALID_ARGUMENT);
    });
}

#[test]
fn a_stuck_pull_blocks_nobody_else() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        host.pulls.held.store(true, Ordering::SeqCst);
        let stuck = host.create("c1", "setup");
        let others = async {
            host.pulls.one_waits().await;
            host.health.check(soon(), &protocols::health::CheckRequest::new()).await.unwrap();
            host.signal("sandbox", 15).await.unwrap();
            host.pulls.held.store(false, Ordering::SeqCst);
        };
        let (stuck, ()) = tokio::join!(stuck, others);
        assert_eq!(refusal(stuck), Some(Code::ImagePull));
    });
}

#[test]
fn a_retry_under_a_new_id_takes_over_from_the_first_try() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        host.pulls.held.store(true, Ordering::SeqCst);
        let first = host.create("c1", "setup");
        let second = async {
            host.pulls.one_waits().await;
            let second = host.create("c2", "setup");
            let release = async {
                while host.pulls.waiting.load(Ordering::SeqCst) < 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                host.pulls.held.store(false, Ordering::SeqCst);
            };
            tokio::join!(second, release).0
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!(refusal(first), Some(Code::SlotBusy));
        assert_eq!(refusal(second), Some(Code::ImagePull), "it had the slot to itself");
        assert_eq!(
            refusal(host.create("c1", "setup").await),
            Some(Code::ImagePull),
            "nothing is left of either"
        );
    });
}

#[test]
fn what_weakens_the_guest_is_refused_and_what_is_not_built_says_so() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        let _ = host.create("c1", "setup").await;
        let denied = (ttrpc::Code::PERMISSION_DENIED, Some(Code::RpcDenied));
        assert_eq!(status(host.agent.set_policy(soon(), &wire::SetPolicyRequest::new()).await), denied);
        assert_eq!(status(host.agent.add_swap(soon(), &wire::AddSwapRequest::new()).await), denied);
        assert_eq!(status(host.agent.set_ip_tables(soon(), &wire::SetIPTablesRequest::new()).await), denied);
        let update = host.agent.update_container(soon(), &wire::UpdateContainerRequest::new()).await;
        assert_eq!(status(update).0, ttrpc::Code::INVALID_ARGUMENT, "there is no such container");
        let mut write = wire::WriteStreamRequest::new();
        write.container_id = "sandbox".into();
        assert_eq!(host.agent.write_stdin(soon(), &write).await.unwrap().len, 0, "empty data closes");
        write.data = b"x".to_vec();
        assert_eq!(refusal(host.agent.write_stdin(soon(), &write).await), Some(Code::AttachDenied));
        assert_eq!(refusal(host.copy("../../../etc/passwd", "x").await), Some(Code::CopyDenied));
        let mut clock = wire::SetGuestDateTimeRequest::new();
        clock.Sec = 1;
        assert_eq!(status(host.agent.set_guest_date_time(soon(), &clock).await).0, ttrpc::Code::INTERNAL);
        let mut interface = types::Interface::new();
        interface.name = "lo".into();
        interface.hwAddr = "00:00:00:00:00:00".into();
        let mut update = wire::UpdateInterfaceRequest::new();
        update.interface = Some(interface).into();
        assert_eq!(refusal(host.agent.update_interface(soon(), &update).await), Some(Code::NetworkDenied));
    });
}

#[test]
fn a_host_that_asked_for_what_the_spec_excludes_has_no_vm_any_more() {
    with_agent(Ok(()), |host| async move {
        host.copy("c1-spec", &host.document).await.unwrap();
        // Nobody can tell yet whether the sealed pod shares its pid namespace.
        let mut request = wire::CreateSandboxRequest::new();
        request.sandbox_id = "sandbox".into();
        request.sandbox_pidns = true;
        host.agent.create_sandbox(soon(), &request).await.unwrap();
        host.create("sandbox", "").await.unwrap();
        assert!(!host.button.0.load(Ordering::SeqCst));
        let denied = (ttrpc::Code::PERMISSION_DENIED, Some(Code::RpcDenied));
        assert_eq!(status(host.create("c1", "setup").await), denied);
        assert!(host.button.0.load(Ordering::SeqCst), "the VM ends");
        assert_eq!(refusal(host.create("c1", "setup").await), Some(Code::SandboxState));
    });
}

#[test]
fn each_row_of_the_table_holds_on_the_wire() {
    use sealpod_agent::policy::{Phase, ROWS, Rule};
    with_agent(Ok(()), |host| async move {
        let ask = async |phase: Phase| {
            for row in ROWS {
                // A long poll, and the ends of containers and of the VM.
                if matches!(row.rpc, "GetOOMEvent" | "DestroySandbox" | "OnlineCPUMem") {
                    continue;
                }
                let mut request = ttrpc::Request::new();
                request.service = "grpc.AgentService".into();
                request.method = row.rpc.into();
                request.timeout_nano = 5_000_000_000;
                let answer = host.client.request(request).await;
                let refused = match answer {
                    Err(ttrpc::Error::RpcStatus(status))
                        if status.code() == ttrpc::Code::PERMISSION_DENIED =>
                    {
                        assert!(!status.message().contains('\n'));
                        Refusal::parse(status.message()).map(|refusal| refusal.code)
                    }
                    _ => None,
                };
                let rule = if phase == Phase::Before { row.before } else { row.open };
                match rule {
                    Rule::Denied(code, _) => assert_eq!(refused, Some(code), "{} {phase:?}", row.rpc),
                    _ => assert!(
                        !matches!(refused, Some(Code::SpecNotOpen | Code::RpcDenied | Code::PauseDenied)),
                        "{} {phase:?}: {refused:?}",
                        row.rpc
                    ),
                }
            }
        };
        ask(Phase::Before).await;
        host.ready().await;
        let _ = host.create("c1", "setup").await;
        ask(Phase::Open).await;
    });
}

#[test]
fn destroying_answers_first_and_then_ends_the_vm() {
    with_agent(Ok(()), |host| async move {
        host.ready().await;
        let mut wait = wire::WaitProcessRequest::new();
        wait.container_id = "sandbox".into();
        let waiting = host.agent.wait_process(soon(), &wait);
        let destroying = async {
            tokio::task::yield_now().await;
            host.agent.destroy_sandbox(soon(), &wire::DestroySandboxRequest::new()).await.unwrap();
        };
        let (waited, ()) = tokio::join!(waiting, destroying);
        assert_eq!(waited.unwrap().status, 137);
        assert_eq!(refusal(host.create("c1", "setup").await), Some(Code::SandboxState));
        while !host.button.0.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
