//! `sealpod run`: a sealed workload without Kubernetes. Boots the guest on this machine and drives its agent as a
//! node would. This side is the untrusted host: it needs no key and learns nothing that a node wouldn't.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use launcher::pod::{HostView, Outcome, Output, PodRun, RunningContainer, Stream};
use launcher::{BootOptions, Choice, Guest, GuestManifest, Network, SevOptions};
use sealed_spec::initdata::{self, Initdata, annotation, device};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Sealed manifests are a few hundred KiB; a ConfigMap holds 1 MiB at most.
const LARGEST_MANIFEST: u64 = 8 * 1024 * 1024;
/// After `DestroySandbox`, until the power is taken away.
const POWER_OFF: Duration = Duration::from_secs(10);

/// Boot a sealed workload on this machine and show its output.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The manifest that 'sealpod seal' wrote.
    manifest: PathBuf,
    /// What the guest is booted from.
    #[arg(long, value_name = "GUEST.TOML")]
    guest: PathBuf,
    /// The relay's socket; needed unless the sealed workload reaches its broker directly.
    #[arg(long, value_name = "unix:PATH", value_parser = relay)]
    relay: Option<PathBuf>,
    /// The relay's program, which launches guests of kind sev and sev-es.
    #[arg(long, value_name = "PROGRAM", default_value = "sealpod-relay")]
    relay_program: PathBuf,
    /// auto, kvm or tcg. auto boots a small guest once to see what works here.
    #[arg(long, default_value = "auto")]
    accelerator: Choice,
    /// Where it is remembered what works here.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How long the guest may take to come up, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    boot_timeout: u64,
    /// What running containers get between TERM and KILL when the run ends, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    grace: u64,
    /// Once all containers run, execute the command after -- in this one, then end the pod.
    #[arg(long, value_name = "CONTAINER", requires = "command")]
    exec: Option<String>,
    /// The command for --exec.
    #[arg(last = true, value_name = "COMMAND", requires = "exec")]
    command: Vec<String>,
}

fn relay(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err("give it as unix:PATH, as in 'sealpod-relay --listen unix:PATH'".to_owned()),
    }
}

/// Runs the workload; the exit code is that of the first container that failed, or of the command.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        // Whichever way this ends, dropping the work ends everything that it started.
        tokio::select! {
            outcome = boot_and_drive(args) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(interrupted(2)),
            _ = terminate.recv() => Ok(interrupted(15)),
        }
    })
}

fn interrupted(signal: u8) -> ExitCode {
    eprintln!("sealpod: interrupted; the guest is gone");
    ExitCode::from(128 + signal)
}

async fn boot_and_drive(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let manifest = GuestManifest::load(&args.guest)?;
    let view = host_view(&args.manifest)?;
    let options = boot_options(args, &view)?;
    eprintln!("sealpod: booting {}", manifest.kernel.display());
    let guest = Guest::boot(&manifest, &options).await?;
    let client = guest.connect().await?;
    let elapsed = guest.started().elapsed().as_secs_f32();
    eprintln!("sealpod: guest is up after {elapsed:.1} s ({})", guest.accelerator());
    let (output, printed) = printer();
    let mut pod = PodRun::new(client, view.pod)?.with_output(output);
    let result = tokio::select! {
        result = drive(&mut pod, args) => result,
        _ = guest.exited() => {
            bail!("the guest ended in the middle of the run; its console's last lines:\n{}", guest.console_tail(25))
        }
    };
    for container in pod.out_of_memory() {
        eprintln!("sealpod: {container} ran out of memory; raise its limit, or memory_mib of the guest");
    }
    let destroyed = pod.destroy().await;
    if !guest.shutdown(POWER_OFF).await {
        eprintln!("sealpod: the guest did not power off by itself; its power was taken away");
    }
    // The streams end with the guest at the latest.
    let _ = tokio::time::timeout(Duration::from_secs(2), printed).await;
    // Why the run failed is worth more than that the end failed, too.
    let code = result?;
    destroyed?;
    Ok(code)
}

async fn drive(pod: &mut PodRun, args: &RunArgs) -> anyhow::Result<ExitCode> {
    pod.start_sandbox().await?;
    eprintln!("sealpod: the agent has the key and the sandbox runs");
    let mut outcomes = pod.run_init_containers().await?;
    let running = pod.start_containers().await?;
    let Some(container) = &args.exec else {
        outcomes.extend(finish(running).await?);
        return Ok(report(&outcomes));
    };
    let executed = async { pod.exec(container, &args.command).await?.wait().await }.await;
    let stopped = pod.stop(running, Duration::from_secs(args.grace)).await;
    let executed = executed?;
    stopped?;
    Ok(report(&[executed]))
}

async fn finish(running: Vec<RunningContainer>) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for container in running {
        outcomes.push(container.wait().await?);
    }
    Ok(outcomes)
}

fn report(outcomes: &[Outcome]) -> ExitCode {
    for outcome in outcomes {
        eprintln!("sealpod: {} ended with exit code {}", outcome.container, outcome.exit_code);
    }
    let failed = outcomes.iter().map(|outcome| outcome.exit_code).find(|code| *code != 0).unwrap_or(0);
    // Exit codes are a byte; what isn't one is still a failure.
    ExitCode::from(u8::try_from(failed).unwrap_or(1))
}

fn host_view(path: &std::path::Path) -> anyhow::Result<HostView> {
    use std::io::Read as _;
    let named = || format!("cannot read sealed manifest {}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(named)?;
    file.take(LARGEST_MANIFEST + 1).read_to_string(&mut text).with_context(named)?;
    if text.len() as u64 > LARGEST_MANIFEST {
        bail!("{} is larger than {LARGEST_MANIFEST} bytes; is it the right file?", path.display());
    }
    let objects: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("{} is not YAML", path.display()))?;
    HostView::from_objects(&objects).with_context(|| format!("cannot run {}", path.display()))
}

fn boot_options(args: &RunArgs, view: &HostView) -> anyhow::Result<BootOptions> {
    let Some(text) = view.annotations.get(annotation::ANNOTATION) else {
        bail!(
            "{} has no annotation {}, so it is not sealed; run 'sealpod seal' first",
            args.manifest.display(),
            annotation::ANNOTATION
        );
    };
    let toml =
        annotation::decode(text).context("the initdata annotation can't be read; seal the pod again")?;
    let mut options = BootOptions {
        initdata_device: device::encode(&toml)?,
        host_data: initdata::digest(&toml),
        relay_socket: args.relay.clone(),
        // What initdata pins is whom the launch session is asked from; the guest itself checks initdata.
        sev: Initdata::parse(&toml).ok().map(|initdata| SevOptions {
            relay: args.relay_program.clone(),
            broker: initdata.config.broker.url,
            broker_ca: initdata.config.broker.ca,
        }),
        accelerator: args.accelerator,
        network: Network::User,
        boot_timeout: Duration::from_secs(args.boot_timeout),
        ..BootOptions::default()
    };
    options.state_dir = args.state.clone().unwrap_or_else(default_state);
    Ok(options)
}

fn default_state() -> PathBuf {
    let home = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    home("XDG_STATE_HOME")
        .or_else(|| home("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("sealpod")
}

/// Prints output as it comes, each line under its container's name.
fn printer() -> (mpsc::Sender<Output>, tokio::task::JoinHandle<()>) {
    let (sender, mut pieces) = mpsc::channel::<Output>(64);
    let task = tokio::spawn(async move {
        let mut lines = Lines::default();
        while let Some(piece) = pieces.recv().await {
            lines.push(&piece);
        }
        lines.flush();
    });
    (sender, task)
}

/// Output is bytes in pieces; people read lines.
#[derive(Default)]
struct Lines {
    unfinished: std::collections::BTreeMap<(String, bool), Vec<u8>>,
}

impl Lines {
    fn push(&mut self, piece: &Output) {
        /// A line that long is printed in parts.
        const LONGEST: usize = 16 * 1024;
        let key = (piece.container.clone(), piece.stream == Stream::Stderr);
        let line = self.unfinished.entry(key.clone()).or_default();
        for byte in &piece.data {
            if *byte == b'\n' || line.len() >= LONGEST {
                print_line(&key, line);
                line.clear();
            }
            if *byte != b'\n' {
                line.push(*byte);
            }
        }
    }

    fn flush(&mut self) {
        for (key, line) in std::mem::take(&mut self.unfinished) {
            if !line.is_empty() {
                print_line(&key, &line);
            }
        }
    }
}

fn print_line((container, stderr): &(String, bool), line: &[u8]) {
    use std::io::Write as _;
    let text = [format!("[{container}] ").as_bytes(), line, b"\n"].concat();
    // A closed terminal doesn't stop the pod.
    let _ = if *stderr { std::io::stderr().write_all(&text) } else { std::io::stdout().write_all(&text) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_named_by_their_socket() {
        assert_eq!(relay("unix:/run/relay.sock").unwrap(), PathBuf::from("/run/relay.sock"));
        assert!(relay("/run/relay.sock").unwrap_err().contains("unix:PATH"));
        assert!(relay("unix:").is_err());
    }

    #[test]
    fn a_manifest_that_is_not_sealed_says_so() {
        let directory = std::env::temp_dir().join(format!("sealpod-run-test-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("pod.yaml");
        std::fs::write(
            &path,
            "kind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: b}]}\n",
        )
        .unwrap();
        let args = RunArgs {
            manifest: path.clone(),
            guest: PathBuf::new(),
            relay: None,
            relay_program: PathBuf::from("sealpod-relay"),
            accelerator: Choice::Auto,
            state: None,
            boot_timeout: 1,
            grace: 1,
            exec: None,
            command: Vec::new(),
        };
        let error = boot_options(&args, &host_view(&path).unwrap()).unwrap_err().to_string();
        assert!(error.contains("not sealed") && error.contains("sealpod seal"), "{error}");
        std::fs::write(&path, "kind: [").unwrap();
        let error = format!("{:#}", host_view(&path).unwrap_err());
        assert!(error.contains("is not YAML"), "{error}");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn exit_codes_are_the_first_failure() {
        let outcome =
            |exit_code| Outcome { container: "c".into(), exit_code, stdout: vec![], stderr: vec![] };
        let shown = |codes: &[i32]| {
            let outcomes: Vec<Outcome> = codes.iter().map(|code| outcome(*code)).collect();
            format!("{:?}", report(&outcomes))
        };
        assert_eq!(shown(&[0, 0]), format!("{:?}", ExitCode::from(0)));
        assert_eq!(shown(&[0, 3, 137]), format!("{:?}", ExitCode::from(3)));
        assert_eq!(shown(&[-1]), format!("{:?}", ExitCode::from(1)));
    }
}
