//! Bodies of the fuzz targets of the agent's API: the host's bytes, from the socket to the refusal. In a VM that may not
//! open its specification nothing that they say has an effect outside the quarantine.

#![allow(dead_code)] // Each target uses one of them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use protocols::agent as wire;
use protocols::refusal::{Code, Refusal};
use sealed_spec::initdata::SealpodConfig;
use sealed_spec::{ImageRef, SealedSpec, SpecKey};
use sealpod_agent::agent::{Agent, Parts, Paths};
use sealpod_agent::config::Config;
use sealpod_agent::images::{Images, Root};
use sealpod_agent::log::logger;
use sealpod_agent::mode::Mode;
use sealpod_agent::opening::{KeySource, Opening};
use sealpod_agent::pid1::PowerOff;
use sealpod_agent::plain::convert::{self, Controllers};
use sealpod_agent::policy::{HostSpec, ROWS, Rule};
use sealpod_agent::quarantine::{Copy, Quarantine, SHARED};
use sealpod_agent::reaper::Reaper;
use sealpod_agent::rpc::{Peers, Service, serve};
use sealpod_agent::slots::Patience;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use ttrpc::r#async::TtrpcContext;

const SERVICE: &str = "grpc.AgentService";
/// They would set this machine's clock and CPUs, whoever calls them.
const NOT_HERE: [&str; 2] = ["SetGuestDateTime", "OnlineCPUMem"];
/// Longest wait for a call that waits for something: it is cancelled, as when a client goes away.
const PATIENCE: Duration = Duration::from_millis(20);

/// A few requests of the agent's API, each `method byte, length of its payload (u16, little-endian), payload`: any
/// payload. What the table denies before the specification is open is denied.
pub(crate) fn requests(data: &[u8]) {
    let world = World::of_this_process();
    world.runtime.block_on(async {
        for (method, payload) in calls(data) {
            let row = ROWS[usize::from(method) % ROWS.len()];
            if NOT_HERE.contains(&row.rpc) {
                continue;
            }
            let answered = tokio::time::timeout(PATIENCE, world.call(row.rpc, payload)).await;
            let code = answered.ok().map(|status| status.code());
            if matches!(row.before, Rule::Denied(..)) {
                // Either it was no request at all, or it was refused.
                let refused =
                    [ttrpc::Code::PERMISSION_DENIED, ttrpc::Code::UNKNOWN, ttrpc::Code::INVALID_ARGUMENT];
                assert!(code.is_some_and(|code| refused.contains(&code)), "{}: {code:?}", row.rpc);
            }
        }
    });
    world.unharmed();
}

/// Whatever comes over a connection: afterwards another one is served.
pub(crate) fn frames(data: &[u8]) {
    let world = World::of_this_process();
    world.runtime.block_on(async {
        let mut stream = UnixStream::connect(&world.socket).await.expect("the agent listens");
        // The agent may hang up in the middle.
        let _ = stream.write_all(&harmless(data)).await;
        let _ = stream.shutdown().await;
        let mut answers = [0; 4096];
        let drained = async { while stream.read(&mut answers).await.is_ok_and(|length| length > 0) {} };
        let _ = tokio::time::timeout(PATIENCE, drained).await;
        let version = ask_version(&world.socket);
        let answered = tokio::time::timeout(Duration::from_secs(60), version).await;
        assert!(matches!(answered, Ok(true)), "the agent does not answer any more");
    });
    world.unharmed();
}

/// A few CopyFile requests, framed as [`requests`] without looking at the method: nothing leaves the quarantine.
pub(crate) fn copies(data: &[u8]) {
    let directory = tempfile::tempdir_in(scratch_space()).expect("a directory");
    let (root, outside) = (directory.path().join("quarantine"), directory.path().join("outside"));
    std::fs::write(&outside, "untouched").expect("a file outside");
    let quarantine = Quarantine::new(&root).expect("a quarantine");
    for (_, payload) in calls(data) {
        let Ok(request) = <wire::CopyFileRequest as protobuf::Message>::parse_from_bytes(payload) else {
            continue;
        };
        // Most paths would fail at their first byte: as a path below the shared directory, too.
        for path in [request.path.clone(), format!("{SHARED}/{}", request.path)] {
            let _ = quarantine.copy(&Copy {
                path: &path,
                mode: request.file_mode,
                size: request.file_size,
                offset: request.offset,
                data: &request.data,
            });
        }
    }
    assert_eq!(std::fs::read(&outside).expect("still there"), b"untouched");
    assert_eq!(std::fs::read_dir(directory.path()).expect("still there").count(), 2, "something new outside");
    let mut bytes = 0;
    weigh(&root, &mut bytes);
    assert!(bytes <= 16 << 20, "{bytes} bytes in the quarantine");
}

/// CreateContainer as it comes from the wire: what of it is looked at is bounded, and means one container at most.
pub(crate) fn specifications(data: &[u8]) {
    let Ok(request) = <wire::CreateContainerRequest as protobuf::Message>::parse_from_bytes(data) else {
        return;
    };
    let host = HostSpec::read(&request);
    assert!(host.mounts.len() <= 512 && host.environment.len() <= 16_384);
    let Some(spec) = request.OCI.as_ref() else { return };
    if let Some(name) = &host.name {
        assert!(spec.Annotations.values().any(|value| value == name), "a name that nobody gave");
    }
    // The plain path's: what is converted runs what was asked for.
    let controllers = Controllers { io: true, hugetlb: data.len().is_multiple_of(2) };
    let Ok(converted) = convert::spec(spec, controllers) else { return };
    let (process, root) = (converted.value.process().as_ref(), converted.value.root().as_ref());
    let asked = spec.Process.as_ref().expect("it has a process");
    assert_eq!(process.and_then(|process| process.args().clone()).unwrap_or_default(), asked.Args);
    assert_eq!(root.map(|root| root.path().as_path()), Some(Path::new(&spec.Root.Path)));
    assert!(serde_json::to_vec(&converted.value).is_ok(), "it can't be written");
}

fn weigh(directory: &Path, bytes: &mut u64) {
    for entry in std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
        let kind = entry.metadata().expect("what it is");
        assert!(kind.is_dir() || kind.is_file() || kind.is_symlink(), "{:?} is something else", entry.path());
        if kind.is_dir() {
            weigh(&entry.path(), bytes);
        } else {
            *bytes += kind.len();
        }
    }
}

/// Frames that name a method of [`NOT_HERE`] lose its name.
fn harmless(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    for name in NOT_HERE {
        while let Some(at) = data.windows(name.len()).position(|window| window == name.as_bytes()) {
            data[at] = b'x';
        }
    }
    data
}

fn calls(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = data.split_first_chunk::<3>()?;
        let length = usize::from(u16::from_le_bytes([head[1], head[2]])).min(rest.len());
        let (payload, rest) = rest.split_at(length);
        data = rest;
        Some((head[0], payload))
    })
    .take(16)
}

async fn ask_version(socket: &Path) -> bool {
    let address = format!("unix://{}", socket.display());
    let Ok(client) = ttrpc::r#async::Client::connect(&address).await else { return false };
    let health = protocols::health_ttrpc::HealthClient::new(client);
    health.version(ttrpc::context::with_timeout(0), &protocols::health::CheckRequest::new()).await.is_ok()
}

fn scratch_space() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// An agent whose VM is not what its owner asked for, for the life of the process.
struct World {
    runtime: tokio::runtime::Runtime,
    tables: HashMap<String, ttrpc::r#async::Service>,
    socket: PathBuf,
    directory: PathBuf,
    _server: ttrpc::r#async::Server,
}

impl World {
    fn of_this_process() -> std::sync::MutexGuard<'static, World> {
        static WORLD: OnceLock<Mutex<World>> = OnceLock::new();
        let world = WORLD.get_or_init(|| Mutex::new(World::new()));
        world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new() -> World {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let directory = tempfile::tempdir_in(scratch_space()).expect("a directory").keep();
        let below = |name: &str| directory.join(name);
        let (service, server) = runtime.block_on(async {
            let parts = Parts {
                config: Config::default(),
                paths: Paths {
                    state: below("state"),
                    quarantine: below("quarantine"),
                    etc: below("etc"),
                    program: "/nonexistent".into(),
                    cgroups: below("cgroup"),
                },
                reaper: Reaper::new(),
                mode: Mode::Sealed(Opening::new(Box::new(Nobody))),
                images: Box::new(Nobody),
                network: None,
                power: Arc::new(Nobody),
                log: logger(std::io::sink()),
            };
            let service = Service::new(Agent::new(parts).expect("an agent"));
            let listener = UnixListener::bind(below("socket")).expect("a socket");
            let server = serve(service.clone(), Peers::Unix(listener)).await.expect("a server");
            (service, server)
        });
        let socket = below("socket");
        World { runtime, tables: service.tables(), socket, directory, _server: server }
    }

    async fn call(&self, rpc: &str, payload: &[u8]) -> ttrpc::Status {
        let method =
            self.tables.get(SERVICE).and_then(|service| service.methods.get(rpc)).expect("it has a method");
        let context = TtrpcContext {
            mh: Default::default(),
            metadata: HashMap::new(),
            timeout_nano: 0,
            connection_data: Default::default(),
        };
        let request = ttrpc::Request {
            service: SERVICE.into(),
            method: rpc.into(),
            payload: payload.to_vec(),
            ..Default::default()
        };
        match method.handler(context, request).await {
            Ok(response) => response.status.unwrap_or_default(),
            Err(ttrpc::Error::RpcStatus(status)) => status,
            Err(error) => ttrpc::get_status(ttrpc::Code::UNKNOWN, error.to_string()),
        }
    }

    /// No container came to be, and nothing new lies beside the agent's directories.
    fn unharmed(&self) {
        for entry in
            std::fs::read_dir(&self.directory).expect("still there").map(|entry| entry.expect("an entry"))
        {
            let name = entry.file_name();
            let known = ["state", "quarantine", "etc", "cgroup", "socket"].iter().any(|known| name == *known);
            assert!(known, "{} is new", name.display());
        }
        let containers = self.directory.join("state/containers");
        let count = std::fs::read_dir(containers).map_or(0, Iterator::count);
        assert_eq!(count, 0, "a container was made");
    }
}

/// Nothing is there, and nothing is given.
struct Nobody;

#[async_trait]
impl KeySource for Nobody {
    fn config(&self) -> Result<&SealpodConfig, Refusal> {
        Err(Refusal::new(Code::HostDataMismatch, "a fuzz target"))
    }

    fn document(&self) -> Option<&str> {
        None
    }

    async fn release_key(&self) -> Result<SpecKey, Refusal> {
        Err(Refusal::new(Code::HostDataMismatch, "a fuzz target"))
    }
}

#[async_trait]
impl Images for Nobody {
    async fn begin(&self, _: &SealedSpec, _: Arc<dyn KeySource>) -> Result<(), Refusal> {
        Ok(())
    }

    async fn root(&self, _: &ImageRef, _: &Path, _: Patience) -> Result<Root, Refusal> {
        Err(Refusal::new(Code::HostDataMismatch, "a fuzz target"))
    }
}

impl PowerOff for Nobody {
    fn power_off(&self) {}
}
