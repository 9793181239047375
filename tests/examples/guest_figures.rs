//! What a sealed pod costs on this machine: `cargo run --release -p sealpod-tests --example guest_figures [-- BOOTS]`.
//!
//! Needs what `make guest` builds. Times are by the clock, so measure on a machine that does nothing else; with
//! emulated hardware they say how the parts compare, not how fast a real guest is.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use launcher::pod::{Container, RunningContainer};
use protocols::agent::GetMetricsRequest;
use sealpod_tests::attempt::Stage;
use sealpod_tests::host::{Host, Running};
use sealpod_tests::image::Extra;
use sealpod_tests::installation::Installation;

const BOOTS: usize = 5;
/// Times that each container is made again after it was killed.
const AGAIN: usize = 2;
const EXECS: usize = 5;
const PULLED_MIB: usize = 64;
const SIGKILL: u32 = 9;
const MIB: f64 = 1024.0 * 1024.0;

/// Samples of everything that is measured more than once.
#[derive(Default)]
struct Samples {
    boot: Vec<Duration>,
    sandbox: Vec<Duration>,
    first: Vec<Duration>,
    container: Vec<Duration>,
    exec: Vec<Duration>,
    idle: Vec<f64>,
    after: Vec<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let boots = match std::env::args().nth(1) {
        Some(count) => count.parse().context("the number of boots")?,
        None => BOOTS,
    };
    ensure!(boots > 0, "at least one boot is needed");
    let installation = Installation::find()?;
    sizes(&installation)?;

    let stage = Stage::set(&testdata(), &["--grant-exec", "first=true"], &mut |_| {})?;
    let mut samples = Samples::default();
    for boot in 1..=boots {
        eprintln!("boot {boot} of {boots}");
        one_guest(&stage, &mut samples).await?;
    }
    println!("\n| guest, {boots} boots | min | median | max |\n|---|---|---|---|");
    times("QEMU start → first `Check` answered", samples.boot);
    times("network, CreateSandbox (attestation, key release), pause container", samples.sandbox);
    times("first container: files, create (with its image pull), start", samples.first);
    times("later containers: files, create, start", samples.container);
    times("exec of `true`, start to exit code", samples.exec);
    memory("agent's resident memory, idle", samples.idle);
    memory("agent's resident memory, after the containers", samples.after);

    eprintln!("one more boot, for the pull");
    let rate = pull(&stage).await?;
    println!("\n| pull in the guest | |\n|---|---|");
    println!("| {PULLED_MIB} MiB of random bytes as one gzip layer | {rate:.1} MiB/s |");
    Ok(())
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/figures.yaml")
}

/// The release profile strips what it builds, so a file's size is the stripped size.
fn sizes(installation: &Installation) -> Result<()> {
    println!("| file | MB |\n|---|---|");
    let binaries = ["sealpod-agent", "sealpod-broker", "sealpod-relay", "sealpod"];
    let images = ["initrd-production.img", "initrd-test.img", "bzImage"];
    let binaries = binaries.map(|name| (name, installation.binary(name)));
    let images = images.map(|name| (name, installation.guest_file(name)));
    for (name, path) in binaries.into_iter().chain(images) {
        let bytes = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
        println!("| {name} | {:.1} |", bytes as f64 / 1e6);
    }
    Ok(())
}

async fn one_guest(stage: &Stage, samples: &mut Samples) -> Result<()> {
    let host = stage.honest_host()?;
    let mut running = host.boot(&stage.state()).await?;
    samples.boot.push(running.guest.started().elapsed());
    samples.idle.push(resident(&running).await?);

    samples.sandbox.push(timed(running.pod.start_sandbox()).await?.0);
    let mut containers = Vec::new();
    for container in &host.pod.containers {
        let (took, started) = start(&mut running, container).await?;
        if containers.is_empty() {
            samples.first.push(took);
        } else {
            samples.container.push(took);
        }
        containers.push(started);
    }
    for _ in 0..EXECS {
        let exec = async { running.pod.exec("first", &["true".to_owned()]).await?.wait().await };
        let (took, outcome) = timed(exec).await?;
        ensure!(outcome.exit_code == 0, "exec ended with exit code {}", outcome.exit_code);
        samples.exec.push(took);
    }
    for _ in 0..AGAIN {
        for (container, ended) in host.pod.containers.iter().zip(std::mem::take(&mut containers)) {
            end(&mut running, ended).await?;
            let (took, started) = start(&mut running, container).await?;
            samples.container.push(took);
            containers.push(started);
        }
    }
    samples.after.push(resident(&running).await?);
    ensure!(running.end().await?, "the guest did not power off by itself");
    Ok(())
}

/// Until its process runs.
async fn start(running: &mut Running, container: &Container) -> Result<(Duration, RunningContainer)> {
    Ok(timed(running.pod.start_container(container)).await?)
}

/// As the kubelet ends a container before it makes the next one of that name.
async fn end(running: &mut Running, container: RunningContainer) -> Result<()> {
    let name = container.name.clone();
    running.pod.signal(&name, SIGKILL).await?;
    container.wait().await?;
    Ok(running.pod.remove(&name).await?)
}

/// What `GetMetrics` says of the agent's own memory, in MiB.
async fn resident(running: &Running) -> Result<f64> {
    let agent = running.pod.client().agent();
    let answer = agent.get_metrics(Default::default(), &GetMetricsRequest::default()).await?;
    let value = answer.metrics.lines().find_map(|line| line.strip_prefix("kata_agent_total_rss "));
    let bytes: f64 = value.context("GetMetrics doesn't tell the agent's memory")?.parse()?;
    Ok(bytes / MIB)
}

/// MiB a second of a large image: the time of its first container less that of the same one made again.
async fn pull(stage: &Stage) -> Result<f64> {
    let mut ballast = vec![0; PULLED_MIB << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut ballast)?;
    stage.world.registry().push("large", &Extra { ballast: &ballast, ..Extra::default() })?;
    let directory = stage.world.directory();
    let manifest = directory.join("large.yaml");
    let text = std::fs::read_to_string(testdata())?;
    let (head, _) = text.split_once("    - name: second").context("figures.yaml has one container")?;
    let text = head.replace("busybox:v1", "large:v1").replace("name: figures", "name: large");
    std::fs::write(&manifest, text)?;
    let sealed =
        stage.owner.seal(&manifest, &directory.join("large-sealed.yaml"), stage.world.registry(), &[])?;
    stage.owner.push(&sealed, &stage.measurement)?;

    let host = Host::honest(&sealed.manifest, &stage.guest, &stage.world.relay_socket())?;
    let container = host.pod.containers.first().context("the pod has no container")?;
    let mut running = host.boot(&stage.state()).await?;
    running.pod.start_sandbox().await?;
    let (first, started) = start(&mut running, container).await?;
    end(&mut running, started).await?;
    let (again, _) = start(&mut running, container).await?;
    running.end().await?;
    Ok(PULLED_MIB as f64 / first.saturating_sub(again).as_secs_f64())
}

async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<(Duration, T), E> {
    let began = Instant::now();
    let done = work.await?;
    Ok((began.elapsed(), done))
}

fn times(name: &str, samples: Vec<Duration>) {
    let milliseconds = samples.into_iter().map(|sample| sample.as_secs_f64() * 1e3).collect();
    row(name, milliseconds, |value| format!("{value:.0} ms"));
}

fn memory(name: &str, samples: Vec<f64>) {
    row(name, samples, |value| format!("{value:.1} MiB"));
}

fn row<D: Display>(name: &str, mut samples: Vec<f64>, shown: impl Fn(f64) -> D) {
    samples.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (samples.first(), samples.last()) else { return };
    let median = samples.get(samples.len() / 2).unwrap_or(most);
    println!("| {name} | {} | {} | {} |", shown(*least), shown(*median), shown(*most));
}
