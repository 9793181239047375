//! Start, signal, wait, remove, destroy.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use protocols::refusal::Code;
use slog::info;

use super::{Container, Instance, Stage, Target, cgroup};
use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::reaper::{ExitCode, SignalError};

/// A killed process that has not ended by then hangs in the kernel.
const KILL_PATIENCE: Duration = Duration::from_secs(60);
/// Between the answer to DestroySandbox and the end of the VM.
const LAST_WORDS: Duration = Duration::from_millis(200);

impl Agent {
    /// Lets a created container's process go.
    pub async fn start(&self, id: &str) -> Result<()> {
        let instance = match self.containers.find(id)? {
            Container::Pause(_) => return Ok(()),
            Container::Instance(instance) => instance,
        };
        instance.advance(&[Stage::Created], Stage::Starting).map_err(|stage| {
            Error::Internal(match stage {
                Stage::Starting | Stage::Started => "the container was started already".into(),
                _ => "the container is being removed".into(),
            })
        })?;
        // Before the process runs: it may be over before the helper is.
        self.containers.note(|slots| slots.started(id));
        let started = self.launcher.start(id).await;
        let _ = instance.advance(&[Stage::Starting], Stage::Started);
        Ok(started?)
    }

    /// Sends a signal that the sealed specification's process has to expect: TERM, KILL, or the image's.
    pub fn signal(&self, id: &str, exec: &str, number: u32) -> Result<()> {
        let number = i32::try_from(number).unwrap_or(-1);
        let instance = match self.containers.find(id)? {
            Container::Instance(instance) => instance,
            Container::Pause(pause) => {
                if !matches!(number, libc::SIGTERM | libc::SIGKILL) {
                    return Err(denied(number));
                }
                return if pause.end(128 + number) { Ok(()) } else { Err(gone()) };
            }
        };
        let target = Target::parse(id, exec);
        let process = instance.process(target)?;
        if !instance.rights.signal(number) {
            return Err(denied(number));
        }
        let watched = &process.watched;
        let deaf = target == Target::Init && number == libc::SIGTERM && !handles(watched.pid(), number);
        // The kernel ignores a signal without handler for the first process of a namespace.
        let number = if deaf { libc::SIGKILL } else { number };
        let killed = target == Target::Init && number == libc::SIGKILL && watched.code().is_none();
        if killed {
            self.kill_cgroup(&instance.cgroup);
        }
        if target == Target::Init && watched.code().is_none() {
            self.containers.note(|slots| slots.signalled(id, number));
        }
        match self.reaper.signal(watched, number) {
            // Killed with its cgroup and reaped a moment ago: what was asked for has happened.
            Err(SignalError::Gone) if killed => Ok(()),
            Ok(()) => Ok(()),
            Err(SignalError::Gone) => Err(gone()),
            Err(SignalError::Kernel(errno)) => {
                Err(Error::Internal(format!("the kernel refused the signal: {errno}")))
            }
        }
    }

    /// Waits for a process; as many as like, as late as they like.
    pub async fn wait(&self, id: &str, exec: &str) -> Result<ExitCode> {
        let instance = match self.containers.find(id)? {
            Container::Pause(pause) => return Ok(pause.wait().await),
            Container::Instance(instance) => instance,
        };
        let target = Target::parse(id, exec);
        let code = instance.process(target)?.watched.wait().await;
        instance.note_waited(target);
        if target == Target::Init {
            // Before the host can act on it.
            self.containers.note(|slots| slots.exited(id, code));
        }
        Ok(code)
    }

    /// Kills what still runs in a container and takes it apart. `limit`: how long a killed process may
    /// take to end.
    pub async fn remove(&self, id: &str, limit: Option<Duration>) -> Result<()> {
        let instance = match self.containers.find(id)? {
            Container::Instance(instance) => instance,
            Container::Pause(pause) => {
                pause.end(128 + libc::SIGKILL);
                self.containers.remove(id);
                return Ok(());
            }
        };
        let from = instance.stage();
        instance.advance(&[Stage::Created, Stage::Started], Stage::Removing).map_err(|stage| {
            Error::Internal(match stage {
                Stage::Removing => "the container is being removed".into(),
                _ => "the container is being started".into(),
            })
        })?;
        let removed = self.take_apart(&instance, limit.unwrap_or(KILL_PATIENCE)).await;
        if removed.is_err() {
            let _ = instance.advance(&[Stage::Removing], from);
        }
        removed
    }

    async fn take_apart(&self, instance: &Arc<Instance>, limit: Duration) -> Result<()> {
        let id = &instance.id;
        let init = &instance.init.watched;
        if init.code().is_none() {
            self.kill_cgroup(&instance.cgroup);
            let _ = self.reaper.signal(init, libc::SIGKILL);
            if tokio::time::timeout(limit, init.wait()).await.is_err() {
                return Err(Error::Internal(format!(
                    "the container has not ended {} s after KILL",
                    limit.as_secs()
                )));
            }
        }
        // With what the first process couldn't take with it: others may share its pid namespace.
        let removed = cgroup::remove(&self.paths.cgroups, &instance.cgroup).await;
        removed.map_err(Error::step("removing the container's cgroup"))?;
        self.launcher.delete(id).await?;
        let keeps = instance.take_keeps();
        let directory = instance.directory.clone();
        let cleared = tokio::task::spawn_blocking(move || {
            drop(keeps);
            fs::remove_dir_all(directory)
        });
        if !matches!(cleared.await, Ok(Ok(()))) {
            info!(self.log, # "host", "files of a container are left over"; "id" => id);
        }
        self.containers.note(|slots| slots.removed(id));
        self.containers.remove(id);
        let _ = self.quarantine.forget(id);
        Ok(())
    }

    /// Kills everything and ends the VM, a moment after the answer.
    pub async fn destroy(self: &Arc<Self>) -> Result<()> {
        self.end_life()?;
        self.oom.close();
        for id in self.containers.ids() {
            match self.containers.find(&id) {
                Ok(Container::Instance(instance)) => {
                    self.kill_cgroup(&instance.cgroup);
                    let _ = self.reaper.signal(&instance.init.watched, libc::SIGKILL);
                }
                Ok(Container::Pause(pause)) => {
                    pause.end(128 + libc::SIGKILL);
                }
                Err(_) => {}
            }
        }
        info!(self.log, # "host", "the sandbox has ended");
        let power = self.power.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            power.power_off();
        });
        Ok(())
    }

    /// All processes of a container at once, also those that the first one can't take with it.
    fn kill_cgroup(&self, path: &str) {
        cgroup::kill(&self.paths.cgroups, path);
    }
}

/// The number of a signal as image configurations name it.
pub(super) fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let (base, offset) = match name.split_once(['+', '-']) {
        Some((base, offset)) => (base, offset.parse::<i32>().ok()?),
        None => (name, 0),
    };
    let number = match (base, name.contains('-')) {
        ("RTMIN", false) => 34 + offset,
        ("RTMAX", true) => 64 - offset,
        ("RTMAX", false) if offset == 0 => 64,
        _ if offset == 0 => format!("SIG{base}").parse::<nix::sys::signal::Signal>().ok()? as i32,
        _ => return None,
    };
    (1..=64).contains(&number).then_some(number)
}

/// Whether a process catches a signal; unknown counts as yes.
fn handles(pid: i32, number: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
        return true;
    };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & (1 << (number - 1)) != 0)
}

fn denied(number: i32) -> Error {
    Error::refused(
        Code::SignalDenied,
        format!("signal {number} is neither TERM, KILL nor the image's stop signal"),
    )
}

fn gone() -> Error {
    Error::NotFound("the process has ended".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_read_as_images_write_them() {
        for (name, number) in [
            ("SIGQUIT", Some(3)),
            ("QUIT", Some(3)),
            ("3", Some(3)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("SIGWINCH", Some(28)),
            ("SIGNOPE", None),
            ("SIGTERM+1", None),
            ("0", None),
            ("65", None),
            ("SIGRTMIN+99", None),
            ("", None),
        ] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }

    #[test]
    fn a_process_without_handler_is_told_from_one_that_is_gone() {
        // The test's own process has none for TERM.
        assert!(!handles(std::process::id() as i32, libc::SIGTERM));
        assert!(handles(0x7fff_fffe, libc::SIGTERM));
    }
}
