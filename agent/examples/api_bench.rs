//! How fast an agent serves its API, and how much memory it takes: starts an agent outside a VM, in
//! namespaces of its own, and drives it over its unix socket as a runtime would.
//!
//! ```text
//! cargo build --release -p sealpod-agent --bin sealpod-agent --example api_bench
//! target/…/release/examples/api_bench target/…/release/sealpod-agent [ROUNDS [SOAK]]
//! ```
//!
//! As root. The agent's configuration file is the stock one's, so that one can be measured beside it.

#![allow(clippy::unwrap_used, reason = "a measurement that fails has no result")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use protocols::agent as wire;
use protocols::agent_ttrpc::AgentServiceClient;
use protocols::health::CheckRequest;
use protocols::health_ttrpc::HealthClient;
use protocols::oci;
use ttrpc::context::{Context, with_timeout};

/// Directories of the host that containers see.
const PROGRAMS: [&str; 5] = ["bin", "lib", "lib64", "usr", "etc"];
const CAPABILITIES: [&str; 4] = ["CHOWN", "KILL", "SETUID", "SETGID"];
/// Containers that exist at once.
const MANY: usize = 50;
/// What a process writes for the host to read.
const OUTPUT: u64 = 1 << 30;

struct Bench {
    agent: AgentServiceClient,
    health: HealthClient,
    directory: PathBuf,
    process: Child,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().unwrap_or_else(|| "target/release/sealpod-agent".into());
    let rounds = arguments.next().map_or(100, |text| text.parse().unwrap());
    let soak: usize = arguments.next().map_or(500, |text| text.parse().unwrap());
    let program = fs::canonicalize(&program).unwrap();
    use CloneFlags as Flags;
    unshare(Flags::CLONE_NEWNS | Flags::CLONE_NEWNET | Flags::CLONE_NEWUTS | Flags::CLONE_NEWIPC).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let directory = tempfile::tempdir().unwrap();
    // The agent writes below these; the namespace takes it all away.
    tmpfs(directory.path());
    tmpfs(Path::new("/run"));
    let (upper, work) = (directory.path().join("upper"), directory.path().join("work"));
    fs::create_dir_all(&upper).unwrap();
    fs::create_dir_all(&work).unwrap();
    let layers = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(layers.as_str())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure(&program, directory.path(), rounds, soak));
    nix::mount::umount2(directory.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

fn tmpfs(path: &Path) {
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
}

async fn measure(program: &Path, directory: &Path, rounds: usize, soak: usize) {
    let mut bench = Bench::start(program, directory).await;
    bench.report_memory("idle");
    let mut request = wire::CreateSandboxRequest::new();
    request.sandbox_id = "bench".into();
    request.hostname = "bench".into();
    bench.agent.create_sandbox(soon(), &request).await.unwrap();
    bench.checks().await;
    bench.lifecycles(rounds).await;
    bench.execs(rounds).await;
    bench.throughput().await;
    for number in 0..MANY {
        bench.run(&format!("many{number}"), &["/bin/sleep", "1000"]).await;
    }
    bench.report_memory("50 containers");
    for number in 0..MANY {
        bench.remove(&format!("many{number}")).await;
    }
    bench.soak(soak).await;
    let _ = bench.process.kill();
    let _ = bench.process.wait();
    for tree in trees() {
        let _ = fs::remove_dir(tree.join("sealpod-bench"));
    }
}

impl Bench {
    async fn start(program: &Path, directory: &Path) -> Self {
        let (socket, config) = (directory.join("agent.sock"), directory.join("agent.toml"));
        let text = format!(
            "unsealed = \"allow\"\nserver_addr = \"unix://{}\"\nlog_level = \"error\"\n",
            socket.display()
        );
        fs::write(&config, text).unwrap();
        let begun = Instant::now();
        let process =
            Command::new(program).arg("--config").arg(&config).stdout(Stdio::null()).spawn().unwrap();
        let address = format!("unix://{}", socket.display());
        let client = loop {
            match ttrpc::r#async::Client::connect(&address).await {
                Ok(client) => break client,
                Err(_) => tokio::time::sleep(Duration::from_micros(200)).await,
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "the agent doesn't listen");
        };
        let health = HealthClient::new(client.clone());
        health.check(soon(), &CheckRequest::new()).await.unwrap();
        println!("{:<24} {:>8.2} ms after exec", "first Check", milliseconds(begun.elapsed()));
        Self { agent: AgentServiceClient::new(client), health, directory: directory.to_owned(), process }
    }

    async fn checks(&self) {
        let (count, begun) = (40_000, Instant::now());
        for _ in 0..count {
            self.health.check(Context::default(), &CheckRequest::new()).await.unwrap();
        }
        let rate = f64::from(count) / begun.elapsed().as_secs_f64() / 1000.0;
        println!("{:<24} {rate:>8.1} k/s", "sequential Check");
    }

    async fn lifecycles(&self, rounds: usize) {
        let (mut creates, mut runs, mut removes) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..rounds {
            let id = format!("life{number}");
            let spec = self.spec(&id, &["/bin/true"]);
            creates.push(timed(self.create(&id, spec)).await);
            let run = async {
                self.start_one(&id).await;
                self.wait(&id, "").await;
            };
            runs.push(timed(run).await);
            removes.push(timed(self.remove(&id)).await);
        }
        report("create", creates);
        report("start + wait", runs);
        report("remove", removes);
    }

    async fn execs(&self, rounds: usize) {
        self.run("execs", &["/bin/sleep", "1000"]).await;
        let mut times = Vec::new();
        for number in 0..rounds {
            let mut request = wire::ExecProcessRequest::new();
            request.container_id = "execs".into();
            request.exec_id = format!("e{number}");
            request.process = Some(process(&["/bin/true"])).into();
            times.push(timed(async { self.agent.exec_process(soon(), &request).await.unwrap() }).await);
            self.wait("execs", &request.exec_id).await;
        }
        report("exec", times);
        self.remove("execs").await;
    }

    async fn throughput(&self) {
        let mut request = wire::ReadStreamRequest::new();
        request.container_id = "reads".into();
        request.len = 65536;
        self.run("reads", &["/usr/bin/head", "-c", &OUTPUT.to_string(), "/dev/zero"]).await;
        let (mut bytes, begun) = (0, Instant::now());
        loop {
            let some = self.agent.read_stdout(Context::default(), &request).await.unwrap().data.len();
            if some == 0 {
                break;
            }
            bytes += some as u64;
        }
        assert_eq!(bytes, OUTPUT);
        let rate = bytes as f64 / 1e6 / begun.elapsed().as_secs_f64();
        println!("{:<24} {rate:>8.0} MB/s", "ReadStdout of 64 KiB");
        self.remove("reads").await;
    }

    async fn soak(&self, rounds: usize) {
        let before = (resident(self.process.id()), self.traces());
        for number in 0..rounds {
            let id = format!("soak{number}");
            self.run(&id, &["/bin/true"]).await;
            self.wait(&id, "").await;
            self.remove(&id).await;
        }
        let growth = resident(self.process.id()) - before.0;
        println!("{:<24} {growth:>+8.1} MB RSS", format!("soak of {rounds}"));
        println!("descriptors, mounts, cgroups, zombies: {:?}, then {:?}", before.1, self.traces());
    }

    fn spec(&self, id: &str, argv: &[&str]) -> oci::Spec {
        let root = self.directory.join("roots").join(id);
        for inner in PROGRAMS.iter().chain(&["proc", "dev", "tmp"]) {
            fs::create_dir_all(root.join(inner)).unwrap();
        }
        let mut spec = oci::Spec::new();
        spec.Version = "1.1.0".into();
        spec.Process = Some(process(argv)).into();
        let mut place = oci::Root::new();
        place.Path = root.display().to_string();
        spec.Root = Some(place).into();
        let mut add = |destination: &str, kind: &str, source: &str, options: &[&str]| {
            let mut mount = oci::Mount::new();
            mount.destination = destination.into();
            mount.type_ = kind.into();
            mount.source = source.into();
            mount.options = options.iter().map(|o| (*o).to_owned()).collect();
            spec.Mounts.push(mount);
        };
        add("/proc", "proc", "proc", &["nosuid"]);
        add("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755"]);
        for inner in PROGRAMS.iter().filter(|p| Path::new("/").join(p).exists()) {
            add(&format!("/{inner}"), "bind", &format!("/{inner}"), &["rbind", "ro"]);
        }
        let mut linux = oci::Linux::new();
        linux.CgroupsPath = format!("/sealpod-bench/{id}");
        for kind in ["pid", "ipc", "uts", "mnt"] {
            let mut namespace = oci::LinuxNamespace::new();
            namespace.Type = kind.into();
            linux.Namespaces.push(namespace);
        }
        spec.Linux = Some(linux).into();
        spec
    }

    async fn run(&self, id: &str, argv: &[&str]) {
        self.create(id, self.spec(id, argv)).await;
        self.start_one(id).await;
    }

    async fn create(&self, id: &str, spec: oci::Spec) {
        let mut request = wire::CreateContainerRequest::new();
        request.container_id = id.into();
        request.OCI = Some(spec).into();
        self.agent.create_container(soon(), &request).await.unwrap();
    }

    async fn start_one(&self, id: &str) {
        let mut request = wire::StartContainerRequest::new();
        request.container_id = id.into();
        self.agent.start_container(soon(), &request).await.unwrap();
    }

    async fn wait(&self, id: &str, exec: &str) {
        let mut request = wire::WaitProcessRequest::new();
        request.container_id = id.into();
        request.exec_id = exec.into();
        self.agent.wait_process(soon(), &request).await.unwrap();
    }

    async fn remove(&self, id: &str) {
        let mut request = wire::RemoveContainerRequest::new();
        request.container_id = id.into();
        self.agent.remove_container(soon(), &request).await.unwrap();
        let _ = fs::remove_dir_all(self.directory.join("roots").join(id));
    }

    /// Of the agent, and of its helper, most of whose pages are the same ones.
    fn report_memory(&self, when: &str) {
        let own = resident(self.process.id());
        let helpers: f64 = self.children().into_iter().filter(|pid| is_helper(*pid)).map(resident).sum();
        println!("{:<24} {own:>8.1} MB, helper {:.1} MB", format!("RSS, {when}"), helpers.abs());
    }

    fn children(&self) -> Vec<u32> {
        let parent = format!("PPid:\t{}\n", self.process.id());
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| status(*pid).contains(&parent))
            .collect()
    }

    fn traces(&self) -> [usize; 4] {
        let pid = self.process.id();
        let inner = |tree: PathBuf| fs::read_dir(tree.join("sealpod-bench")).into_iter().flatten().flatten();
        [
            fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap().lines().count(),
            trees().into_iter().flat_map(inner).filter(|e| e.path().is_dir()).count(),
            self.children().into_iter().filter(|pid| status(*pid).contains("State:\tZ")).count(),
        ]
    }
}

/// Where cgroups are: below the root itself, or below each controller.
fn trees() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut all: Vec<_> = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path()).collect();
    all.push(root.to_owned());
    all
}

fn process(argv: &[&str]) -> oci::Process {
    let mut process = oci::Process::new();
    process.Args = argv.iter().map(|a| (*a).to_owned()).collect();
    process.Env = vec!["PATH=/usr/bin:/bin".into()];
    process.Cwd = "/".into();
    process.User = Some(oci::User::new()).into();
    let all = || CAPABILITIES.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
    let mut capabilities = oci::LinuxCapabilities::new();
    (capabilities.Bounding, capabilities.Effective, capabilities.Permitted) = (all(), all(), all());
    process.Capabilities = Some(capabilities).into();
    process
}

fn status(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

fn is_helper(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("launch-helper"))
}

/// Resident memory in megabytes.
fn resident(pid: u32) -> f64 {
    let status = status(pid);
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1000.0
}

async fn timed<T>(work: impl Future<Output = T>) -> f64 {
    let begun = Instant::now();
    work.await;
    milliseconds(begun.elapsed())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn report(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!("{what:<24} {:>8.2} ms p50, {:.2} ms p95", at(50), at(95));
}

fn soon() -> Context {
    with_timeout(60_000_000_000)
}
