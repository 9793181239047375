//! The wrapper's own process: everything up to QEMU's start, then it *becomes* QEMU, so that pid, exit code, signals,
//! open files and standard streams are exactly what the runtime knows of QEMU. Only for `-daemonize`, where the
//! runtime waits for an exit code and finds the guest by its pidfile, it stays until the guest runs.

use std::ffi::OsString;
use std::future::Future;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command as Spawning;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::attendant::{self, Handover};
use super::broker::Broker;
use super::command_line::{self, CommandLine, Object, POLICY_ES};
use super::config::Config;
use super::launch::{self, Session};
use super::private::Private;
use super::process::{self, Handle};
use super::{SevError, initdata, system};
use crate::qmp::{Capabilities, Client};

/// Where the wrapper listens; QEMU connects there.
const MONITOR: &str = "monitor";

/// A launch that has a session and no QEMU.
struct Prepared {
    private: Private,
    listener: StdUnixListener,
    session: Session,
    words: Vec<OsString>,
}

pub(super) fn run(words: &[OsString]) -> Result<ExitCode, SevError> {
    let config = Config::load(&Config::path())?;
    let Some(line) = CommandLine::parse(words.to_vec())? else { return Err(become_qemu(&config, words)) };
    let prepared = interruptible(prepare(&config, &line))?;
    if line.daemonize {
        return interruptible(in_background(&config, prepared, !line.stopped));
    }
    let Prepared { private, listener, session, words } = prepared;
    attendant::start(private, listener, &Handover { config: config.clone(), session, run: !line.stopped })?;
    Err(become_qemu(&config, &words))
}

pub(super) fn platform() -> Result<(), SevError> {
    let config = Config::load(&Config::path())?;
    let capabilities = interruptible(async { probe(&config, &Private::create(&config.runtime_dir)?).await })?;
    let text = serde_json::to_string_pretty(&capabilities).map_err(std::io::Error::from);
    println!("{}", text.map_err(system("printing"))?);
    Ok(())
}

/// Only returns if that failed.
fn become_qemu(config: &Config, words: &[OsString]) -> SevError {
    let source = qemu(config, words).exec();
    SevError::Start { program: config.qemu.join(" "), source }
}

fn qemu(config: &Config, words: &[OsString]) -> Command {
    let mut command = Command::new(&config.qemu[0]);
    command.args(&config.qemu[1..]).args(words);
    command
}

/// Runs it, unless a signal comes; whatever it holds is dropped then.
fn interruptible<T>(work: impl Future<Output = Result<T, SevError>>) -> Result<T, SevError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("starting the runtime"))?;
    runtime.block_on(async {
        let watch = |kind| signal(kind).map_err(system("watching for signals"));
        let (mut terminate, mut interrupt, mut hangup) =
            (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?, watch(SignalKind::hangup())?);
        tokio::select! {
            outcome = work => outcome,
            _ = terminate.recv() => Err(SevError::Interrupted(15)),
            _ = interrupt.recv() => Err(SevError::Interrupted(2)),
            _ = hangup.recv() => Err(SevError::Interrupted(1)),
        }
    })
}

async fn prepare(config: &Config, line: &CommandLine) -> Result<Prepared, SevError> {
    let init_data = initdata::find(&line.drives)?;
    let es = config.es.unwrap_or(line.policy.is_some_and(|policy| policy & POLICY_ES != 0));
    let broker = Broker::new(config)?;
    let private = Private::create(&config.runtime_dir)?;
    let platform = match &config.platform {
        Some(path) => launch::platform(path)?,
        None => probe(config, &private).await?,
    };
    let cbitpos = config.cbitpos.unwrap_or(platform.cbitpos);
    let reduced_phys_bits = config.reduced_phys_bits.unwrap_or(platform.reduced_phys_bits);
    let answer = launch::open_session(&broker, init_data, es, platform).await?;
    let godh = private.write("godh", &answer.godh)?;
    let session = private.write("session", &answer.session_blob)?;
    let monitor = private.join(MONITOR);
    let words = line.launch(&Object {
        cbitpos,
        reduced_phys_bits,
        policy: answer.policy,
        godh: &godh,
        session: &session,
        monitor: &monitor,
    });
    let listener = StdUnixListener::bind(&monitor).map_err(system("binding the monitor's socket"))?;
    let session = Session { session: answer.session, policy: answer.policy };
    Ok(Prepared { private, listener, session, words })
}

/// Asks a QEMU without a guest.
async fn probe(config: &Config, private: &Private) -> Result<Capabilities, SevError> {
    let monitor = private.join("probe");
    let listener = UnixListener::bind(&monitor).map_err(system("binding the probe's socket"))?;
    let mut command = qemu(config, &command_line::probe(&monitor));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    process::bind_to_us(&mut command);
    let program = config.qemu.join(" ");
    let start = |source| SevError::Start { program: program.clone(), source };
    // Killed on drop: it has nothing to lose.
    let mut child = Spawning::from(command).kill_on_drop(true).spawn().map_err(start)?;
    let asking = async {
        let stream = accept(&listener, config, config.seconds.probe).await?;
        Ok(Client::greet(stream, config.seconds.of_probe()).await?.sev_capabilities().await?)
    };
    let outcome = tokio::select! {
        outcome = asking => outcome,
        status = child.wait() => Err(ended(config, status)),
    };
    // Gone before the guest's QEMU starts.
    let _ = child.kill().await;
    outcome
}

/// For `-daemonize`: QEMU's first process ends when the guest is set up, the second is the guest.
async fn in_background(config: &Config, prepared: Prepared, run: bool) -> Result<ExitCode, SevError> {
    let Prepared { private: _private, listener, session, words } = prepared;
    let broker = Broker::new(config)?;
    let listener = listen(listener)?;
    let program = config.qemu.join(" ");
    let child = Spawning::from(qemu(config, &words)).spawn();
    let mut child = child.map_err(|source| SevError::Start { program, source })?;
    let stream = tokio::select! {
        stream = accept(&listener, config, config.seconds.start) => stream?,
        // It may also end well before it is seen here that its second process has connected.
        status = child.wait() => match status {
            Ok(status) if status.success() => accept(&listener, config, config.seconds.start).await?,
            // The code that the caller would have got.
            Ok(status) => return Ok(ExitCode::from(status.code().and_then(|code| code.try_into().ok()).unwrap_or(1))),
            Err(_) => return Err(ended(config, status)),
        },
    };
    let guest = Guest(Some(Handle::open(peer(&stream)?).map_err(system("finding qemu's process"))?));
    launch::attest(stream, config.seconds.of_launch(), &broker, &session, run).await?;
    let status = child.wait().await;
    if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        return Err(ended(config, status));
    }
    guest.let_go();
    Ok(ExitCode::SUCCESS)
}

/// A guest that nobody else ends yet.
struct Guest(Option<Handle>);

impl Guest {
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.kill();
        }
    }
}

fn ended(config: &Config, status: std::io::Result<std::process::ExitStatus>) -> SevError {
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    SevError::Ended { program: config.qemu.join(" "), status }
}

/// A listener of the standard library in this runtime.
pub(super) fn listen(listener: StdUnixListener) -> Result<UnixListener, SevError> {
    listener.set_nonblocking(true).map_err(system("preparing the monitor's socket"))?;
    UnixListener::from_std(listener).map_err(system("preparing the monitor's socket"))
}

/// QEMU's connection.
pub(super) async fn accept(
    listener: &UnixListener,
    config: &Config,
    seconds: u64,
) -> Result<UnixStream, SevError> {
    match timeout(Duration::from_secs(seconds), listener.accept()).await {
        Ok(accepted) => Ok(accepted.map_err(system("accepting qemu's connection"))?.0),
        Err(_) => Err(SevError::NoMonitor { program: config.qemu.join(" "), seconds }),
    }
}

/// The process at the other end.
pub(super) fn peer(stream: &UnixStream) -> Result<i32, SevError> {
    let peer = stream.peer_cred().map_err(system("asking who connected"))?;
    peer.pid().ok_or_else(|| system("asking who connected")(std::io::Error::other("the system doesn't tell")))
}

/// This program, for a process beside it.
pub(super) fn ourselves() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}
