//! An agent with real containers: namespaces, cgroups and a root file system of the host's programs, in a
//! mount namespace of the test's own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "a module of several tests, of which none uses all")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use libcontainer::oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    MountBuilder, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use protocols::agent as wire;
use protocols::agent_ttrpc::AgentServiceClient;
use protocols::health_ttrpc::HealthClient;
use protocols::refusal::{Code, Refusal};
use sealed_spec::{ImageRef, SealedSpec};
use sealpod_agent::agent::{Agent, Parts, Paths};
use sealpod_agent::config::Config;
use sealpod_agent::container::{Plan, Rights};
use sealpod_agent::images::{Images, Root};
use sealpod_agent::log::logger;
use sealpod_agent::mode::Mode;
use sealpod_agent::opening::KeySource;
use sealpod_agent::pid1::PowerOff;
use sealpod_agent::process::{OutputPolicy, StreamsWanted};
use sealpod_agent::reaper::Reaper;
use sealpod_agent::rpc::{Peers, Service, serve};
use sealpod_agent::slots::Patience;
use tokio::net::UnixListener;
use ttrpc::context::Context;

const CGROUPS: &str = "/sys/fs/cgroup";
/// Directories of the host that a container sees.
const PROGRAMS: [&str; 5] = ["bin", "lib", "lib64", "usr", "etc"];

/// One reaper a process: the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

struct NoImages;

#[async_trait]
impl Images for NoImages {
    async fn begin(&self, _: &SealedSpec, _: Arc<dyn KeySource>) -> Result<(), Refusal> {
        Ok(())
    }

    async fn root(&self, _: &ImageRef, _: &Path, _: Patience) -> Result<Root, Refusal> {
        Err(Refusal::new(Code::ImagePull, "no images here"))
    }
}

struct NoPower;

impl PowerOff for NoPower {
    fn power_off(&self) {}
}

/// An agent and the host's end of it.
pub struct Bed {
    pub core: Arc<Agent>,
    pub agent: AgentServiceClient,
    pub health: HealthClient,
    pub directory: PathBuf,
    /// The cgroup above those of the containers.
    pub cgroup: String,
}

/// Runs a test against an agent of its own.
pub fn bed<F: Future<Output = ()>>(test: impl FnOnce(Arc<Bed>) -> F) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let cgroup = format!("/sealpod-test-{}-{number}", std::process::id());
    if let Err(reason) = possible(&cgroup) {
        println!("skipped: {reason}");
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let dir = tempfile::tempdir().unwrap();
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(async {
            let bed = Arc::new(Bed::new(dir.path(), &cgroup).await);
            test(bed.clone()).await;
            bed.clean().await;
        });
    }));
    if outcome.is_err() {
        end_all(&cgroup);
    }
    drop(runtime);
    nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    for directory in directories(&cgroup) {
        let _ = fs::remove_dir(directory);
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Whether containers can be made here.
fn possible(cgroup: &str) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("not root".into());
    }
    let trees = ["", "pids"].map(|tree| Path::new(CGROUPS).join(tree).join(&cgroup[1..]));
    let made =
        trees.iter().any(|tree| tree.parent().is_some_and(Path::exists) && fs::create_dir_all(tree).is_ok());
    for tree in trees {
        let _ = fs::remove_dir(tree);
    }
    if made { Ok(()) } else { Err("no cgroups can be made".into()) }
}

/// Ends what a failed test leaves running, and removes its cgroups.
fn end_all(cgroup: &str) {
    let inner = || {
        let all =
            directories(cgroup).into_iter().flat_map(|directory| fs::read_dir(directory).unwrap().flatten());
        all.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    for _ in 0..100 {
        for directory in inner() {
            let processes = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            for pid in processes.lines().filter_map(|line| line.parse().ok()) {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            let _ = fs::remove_dir(directory);
        }
        if inner().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Where a cgroup exists.
pub fn directories(cgroup: &str) -> Vec<PathBuf> {
    let relative = &cgroup[1..];
    let mut all = vec![Path::new(CGROUPS).join(relative)];
    for tree in fs::read_dir(CGROUPS).unwrap().flatten() {
        all.push(tree.path().join(relative));
    }
    all.retain(|path| path.is_dir());
    all
}

impl Bed {
    async fn new(directory: &Path, cgroup: &str) -> Self {
        let reaper = Reaper::new();
        tokio::spawn(reaper.clone().run());
        let paths = Paths {
            state: directory.join("state"),
            quarantine: directory.join("quarantine"),
            etc: directory.join("etc"),
            program: env!("CARGO_BIN_EXE_sealpod-agent").into(),
            cgroups: CGROUPS.into(),
        };
        let core = Agent::new(Parts {
            config: Config::default(),
            paths,
            reaper,
            mode: Mode::Unsealed,
            images: Box::new(NoImages),
            network: None,
            power: Arc::new(NoPower),
            log: logger(std::io::sink()),
        })
        .unwrap();
        let socket = directory.join("agent.sock");
        let peers = Peers::Unix(UnixListener::bind(&socket).unwrap());
        let server = serve(Service::new(core.clone()), peers).await.unwrap();
        // As long as the run-time.
        std::mem::forget(server);
        let address = format!("unix://{}", socket.display());
        let client = ttrpc::r#async::Client::connect(&address).await.unwrap();
        Self {
            core,
            agent: AgentServiceClient::new(client.clone()),
            health: HealthClient::new(client),
            directory: directory.to_owned(),
            cgroup: cgroup.to_owned(),
        }
    }

    /// Removes what a test has left, and checks that nothing is left then.
    async fn clean(&self) {
        for id in self.core.container_ids() {
            self.remove(&id).await.unwrap();
        }
        for directory in directories(&self.cgroup) {
            let inner = fs::read_dir(&directory).unwrap().flatten().filter(|e| e.path().is_dir()).count();
            assert_eq!(inner, 0, "cgroups are left in {}", directory.display());
        }
        let left: Vec<_> =
            fs::read_dir(self.directory.join("state/launch/state")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let left: Vec<_> =
            fs::read_dir(self.directory.join("state/launch/operations")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// The specification of a container that runs a shell script.
    pub fn spec(&self, id: &str, script: &str) -> Spec {
        let root = self.directory.join("roots").join(id);
        for inner in PROGRAMS.iter().chain(&["proc", "dev", "tmp"]) {
            fs::create_dir_all(root.join(inner)).unwrap();
        }
        let bind = |inner: &&str| {
            MountBuilder::default()
                .destination(format!("/{inner}"))
                .typ("bind")
                .source(format!("/{inner}"))
                .options(["rbind", "ro"].map(str::to_owned).to_vec())
                .build()
                .unwrap()
        };
        let kernel = |destination: &str, kind: &str, options: &[&str]| {
            MountBuilder::default()
                .destination(destination)
                .typ(kind)
                .source(kind)
                .options(options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
                .build()
                .unwrap()
        };
        let mut mounts = vec![
            kernel("/proc", "proc", &["nosuid"]),
            kernel("/dev", "tmpfs", &["nosuid", "mode=755"]),
            kernel("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
        ];
        mounts.extend(PROGRAMS.iter().filter(|p| Path::new("/").join(p).exists()).map(bind));
        use LinuxNamespaceType::{Ipc, Mount, Pid, Uts};
        let namespaces: Vec<_> = [Pid, Ipc, Uts, Mount]
            .into_iter()
            .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build().unwrap())
            .collect();
        let linux = LinuxBuilder::default()
            .namespaces(namespaces)
            .cgroups_path(format!("{}/{id}", self.cgroup))
            .build()
            .unwrap();
        SpecBuilder::default()
            .root(RootBuilder::default().path(root).readonly(false).build().unwrap())
            .mounts(mounts)
            .linux(linux)
            .process(process(&["/bin/sh", "-c", script]))
            .build()
            .unwrap()
    }

    /// Makes a container from a specification.
    pub async fn make(&self, id: &str, spec: &Spec) -> Result<(), String> {
        let directory = self.directory.join("state/containers").join(id);
        fs::create_dir_all(&directory).unwrap();
        let streams = StreamsWanted { output: OutputPolicy::Clear, input: true, pipe_size: 0 };
        let plan = Plan {
            id,
            name: id,
            directory,
            cgroup: format!("{}/{id}", self.cgroup),
            spec,
            rights: Rights::all(),
            streams,
        };
        self.core.make(plan, Box::new(())).await.map(|_| ()).map_err(|e| e.to_string())
    }

    /// Makes and starts a container that runs a shell script.
    pub async fn run(&self, id: &str, script: &str) {
        self.make(id, &self.spec(id, script)).await.unwrap();
        self.start(id).await.unwrap();
    }

    pub async fn start(&self, id: &str) -> ttrpc::Result<protocols::empty::Empty> {
        let mut request = wire::StartContainerRequest::new();
        request.container_id = id.into();
        self.agent.start_container(soon(), &request).await
    }

    pub async fn remove(&self, id: &str) -> ttrpc::Result<protocols::empty::Empty> {
        let mut request = wire::RemoveContainerRequest::new();
        request.container_id = id.into();
        self.agent.remove_container(soon(), &request).await
    }

    pub async fn signal(&self, id: &str, exec: &str, number: i32) -> ttrpc::Result<protocols::empty::Empty> {
        let mut request = wire::SignalProcessRequest::new();
        request.container_id = id.into();
        request.exec_id = exec.into();
        request.signal = number as u32;
        self.agent.signal_process(soon(), &request).await
    }

    pub async fn wait(&self, id: &str, exec: &str) -> i32 {
        let mut request = wire::WaitProcessRequest::new();
        request.container_id = id.into();
        request.exec_id = exec.into();
        self.agent.wait_process(soon(), &request).await.unwrap().status
    }

    pub async fn write(&self, id: &str, exec: &str, bytes: &[u8]) -> ttrpc::Result<u32> {
        let mut request = wire::WriteStreamRequest::new();
        request.container_id = id.into();
        request.exec_id = exec.into();
        request.data = bytes.to_vec();
        self.agent.write_stdin(soon(), &request).await.map(|response| response.len)
    }

    pub async fn read(&self, id: &str, exec: &str, length: u32) -> Vec<u8> {
        let mut request = wire::ReadStreamRequest::new();
        request.container_id = id.into();
        request.exec_id = exec.into();
        request.len = length;
        self.agent.read_stdout(soon(), &request).await.unwrap().data
    }

    pub async fn read_error(&self, id: &str, exec: &str) -> Vec<u8> {
        let mut request = wire::ReadStreamRequest::new();
        request.container_id = id.into();
        request.exec_id = exec.into();
        request.len = 8192;
        self.agent.read_stderr(soon(), &request).await.unwrap().data
    }

    /// Everything that a process writes.
    pub async fn output(&self, id: &str, exec: &str) -> String {
        let mut all = Vec::new();
        loop {
            let some = self.read(id, exec, 8192).await;
            if some.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            all.extend(some);
        }
    }

    /// Reads until a line holds the word.
    pub async fn until(&self, id: &str, exec: &str, word: &str) -> String {
        let mut all = String::new();
        while !all.contains(word) {
            let some = self.read(id, exec, 8192).await;
            assert!(!some.is_empty(), "the end came before '{word}': {all}");
            all.push_str(&String::from_utf8(some).unwrap());
        }
        all
    }

    pub async fn exec(&self, id: &str, exec: &str, process: Process) -> Result<(), String> {
        self.core.exec_as_told(id, exec, process).await.map_err(|e| e.to_string())
    }
}

/// A process as a host describes it, with all the capabilities that a shell could want.
pub fn process(argv: &[&str]) -> Process {
    let all: Vec<Capability> =
        vec![Capability::Chown, Capability::Kill, Capability::Setuid, Capability::Setgid];
    let set = || all.iter().copied().collect::<std::collections::HashSet<_>>();
    let mut capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set())
        .effective(set())
        .permitted(set())
        .build()
        .unwrap();
    capabilities.set_inheritable(None);
    capabilities.set_ambient(None);
    let mut process = ProcessBuilder::default()
        .args(argv.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
        .env(["PATH=/usr/bin:/bin".to_owned(), "TERM=dumb".to_owned()])
        .cwd("/")
        .user(UserBuilder::default().uid(0u32).gid(0u32).build().unwrap())
        .capabilities(capabilities)
        .build()
        .unwrap();
    process.set_rlimits(None);
    process
}

pub fn soon() -> Context {
    ttrpc::context::with_timeout(60_000_000_000)
}

pub fn code<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> ttrpc::Code {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => status.code(),
        other => panic!("{other:?}"),
    }
}

/// Children of this process: their ids and states.
pub fn children() -> BTreeMap<i32, char> {
    let own = std::process::id().to_string();
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut fields = rest.split(' ');
        if let (Some(state), Some(parent)) = (fields.next(), fields.next())
            && parent == own
        {
            found.insert(pid, state.chars().next().unwrap());
        }
    }
    found
}

/// Waits until something holds, however long that takes on this machine.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
