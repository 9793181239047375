//! Programs that run beside a test: started with a log, awaited until ready, ended by pid on drop.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ten times what an idle machine needs.
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
const TAIL_BYTES: u64 = 4096;

/// A running program; dropping it sends TERM, then KILL, and waits.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with stdout and stderr in `log`.
    ///
    /// # Errors
    /// When the log can't be written or the program can't be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("cannot share the log file")?)
            .stderr(file)
            .spawn()
            .with_context(|| {
                format!("cannot start {name} ({:?}): run scripts/setup", command.get_program())
            })?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// When the program ends first or the time is up, with the last lines of its log.
    pub fn wait_until(&mut self, what: &str, ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + READY;
        while !ready() {
            if let Some(status) = self.child.try_wait().context("cannot look at the child")? {
                bail!("{} ended ({status}) before {what}:\n{}", self.name, self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{} did not reach '{what}' within {READY:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until something accepts connections on `address`.
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub fn wait_listening(&mut self, address: SocketAddr) -> Result<()> {
        self.wait_until(&format!("listening on {address}"), || {
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of what the program printed.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Ends the program and returns its status.
    ///
    /// # Errors
    /// When it can't be signalled or waited for.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait().context("cannot look at the child")? {
            return Ok(status);
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("pid out of range")?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot signal {}", self.name))?;
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot look at the child")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
                return self.child.wait().with_context(|| format!("cannot wait for {}", self.name));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}

fn tail(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A loopback address that was free a moment ago.
///
/// # Errors
/// When no port can be bound.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot bind a loopback port")?;
    listener.local_addr().context("cannot read the bound address")
}

/// What a finished program said.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Runs `command` to its end.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn of(command: &mut Command) -> Result<Self> {
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {:?}: run scripts/setup", command.get_program()))?;
        Ok(Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The output, when the program succeeded.
    ///
    /// # Errors
    /// With everything it printed, when it did not.
    pub fn success(self, what: &str) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        bail!("{what} failed ({}):\n{}{}", self.status, self.stdout, self.stderr)
    }
}
