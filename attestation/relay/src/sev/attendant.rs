//! The process beside a starting guest: it takes over the monitor's listening socket and a handle on the process that
//! becomes QEMU, attests the launch, and ends. If it can't, it ends the guest. Its parent is gone when the guest
//! starts, so that it never is a child of QEMU's.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::broker::Broker;
use super::config::Config;
use super::launch::{self, LaunchError, Session};
use super::private::Private;
use super::process::{self, Handle};
use super::wrapper::{accept, listen, ourselves, peer};
use super::{SevError, report, system};
use crate::qmp::QmpError;

/// Starts the attendant and ends.
pub(super) const DETACH: &str = "sev-detach";
/// Is the attendant.
pub(super) const ATTEST: &str = "sev-attest";
const HANDOVER: &str = "handover";
/// What a QEMU that closed its monitor has to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(2);
const MAX_HANDOVER: usize = 1024 * 1024;

/// What the wrapper knows and the attendant needs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handover {
    pub(super) config: Config,
    pub(super) session: Session,
    pub(super) run: bool,
}

/// Starts the attendant for this process, which then becomes QEMU.
pub(super) fn start(
    private: Private,
    listener: StdUnixListener,
    handover: &Handover,
) -> Result<(), SevError> {
    let text =
        serde_json::to_string(handover).map_err(std::io::Error::from).map_err(system("handing over"))?;
    private.write(HANDOVER, &text)?;
    let us = nix::unistd::getpid().as_raw();
    let handle = process::pidfd(us).map_err(system("opening a handle on this process"))?;
    let mut command = Command::new(ourselves());
    // The two descriptors travel as standard input and output.
    command.arg(DETACH).arg(private.join("")).stdin(handle).stdout(OwnedFd::from(listener));
    process::without_files(&mut command);
    let status = command.status().map_err(system("starting the attendant"))?;
    if !status.success() {
        let source = std::io::Error::other(status.to_string());
        return Err(system("starting the attendant")(source));
    }
    private.hand_over();
    Ok(())
}

/// The process in between.
pub(super) fn detach(directory: &Path) -> Result<(), SevError> {
    let mut command = Command::new(ourselves());
    command.arg(ATTEST).arg(directory);
    command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    command.spawn().map(drop).map_err(system("starting the attendant"))
}

/// The attendant.
pub(super) fn run(directory: PathBuf) -> Result<(), SevError> {
    let private = Private::adopt(directory);
    let own = |fd: std::io::Result<OwnedFd>| fd.map_err(system("taking over descriptors"));
    let handle = own(std::io::stdin().as_fd().try_clone_to_owned())?;
    let listener = own(std::io::stdout().as_fd().try_clone_to_owned())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("starting the runtime"))?;
    runtime.block_on(async {
        let guest = Handle::new(handle).map_err(system("watching the guest"))?;
        let outcome = tokio::select! {
            outcome = attest(&private, StdUnixListener::from(listener)) => outcome,
            // QEMU, or whoever ended it, says why.
            () = guest.ended() => return Ok(()),
        };
        if let Err(error) = &outcome {
            if hung_up(error) && timeout(LAST_WORDS, guest.ended()).await.is_ok() {
                return Ok(());
            }
            // Before the caller sees the guest's end.
            report(error);
            guest.kill();
            guest.ended().await;
        }
        Ok(())
    })
}

/// Whether QEMU closed its monitor: it may be about to end, and then its own exit code says why.
const fn hung_up(error: &SevError) -> bool {
    matches!(error, SevError::Launch(LaunchError::Qmp(QmpError::Closed { .. } | QmpError::Io { .. })))
}

async fn attest(private: &Private, listener: StdUnixListener) -> Result<(), SevError> {
    // A terminal's or a supervisor's signals are for the guest; this process ends with it.
    let ignored = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let _ignored = ignored.map(signal);
    let Handover { config, session, run } = read(private)?;
    let broker = Broker::new(&config)?;
    let listener = listen(listener)?;
    let stream = accept(&listener, &config, config.seconds.start).await?;
    // The directory's name is the process that becomes QEMU.
    let (found, wanted) = (peer(&stream)?, private.pid());
    if found != wanted {
        return Err(SevError::Stranger { found, wanted });
    }
    launch::attest(stream, config.seconds.of_launch(), &broker, &session, run).await?;
    Ok(())
}

fn read(private: &Private) -> Result<Handover, SevError> {
    let path = private.join(HANDOVER);
    let bad = |detail: String| SevError::Handover { path: path.clone(), detail };
    let text = std::fs::read(&path).map_err(|error| bad(error.to_string()))?;
    if text.len() > MAX_HANDOVER {
        return Err(bad(format!("longer than {MAX_HANDOVER} bytes")));
    }
    serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
}
