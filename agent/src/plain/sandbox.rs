//! CreateSandbox and what ends it, on the plain path.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_storage::StorageRequest;
use protocols::agent as wire;
use protocols::refusal::Code;
use slog::info;
use tokio::sync::OnceCell;

use super::hooks::GuestHooks;
use super::image::NoImages;
use super::modules::{self, Module};
use super::{Life, request};
use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::launch::private_dir;
use crate::reaper::Watched;

const MAX_HOSTNAME: usize = 64;
const MAX_DNS_LINES: usize = 256;
const MAX_DNS_LINE: usize = 1024;
/// How long a container may take to end with the sandbox.
const END: Duration = Duration::from_secs(5);
/// How long one stale share may take to answer.
const STAT: Duration = Duration::from_secs(2);
const SHARES: &str = "/run/kata-containers/shared/containers";

/// What containers of the sandbox share.
pub(crate) struct PlainSandbox {
    pub(super) id: String,
    pub(super) ipc: PathBuf,
    pub(super) uts: PathBuf,
    pub(super) hooks: GuestHooks,
    /// The containers see each other's processes.
    pub(super) shares_pids: bool,
    /// `/etc/resolv.conf`, if the host sent one.
    pub(super) resolv_conf: Option<PathBuf>,
    /// Our own pause, which holds the pid namespace; made when it is needed.
    pause: OnceCell<Watched>,
}

/// A request, checked.
#[derive(Debug)]
struct Checked {
    id: String,
    hostname: String,
    resolv_conf: Option<String>,
    modules: Vec<Module>,
    hooks: GuestHooks,
    storages: Vec<StorageRequest>,
    shares_pids: bool,
}

impl Checked {
    fn read(request: wire::CreateSandboxRequest) -> Result<Self> {
        let name_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if request.hostname.len() > MAX_HOSTNAME || !request.hostname.chars().all(name_like) {
            return Err(Error::Internal(
                "the host name is made of at most 64 letters, digits, '-', '.'".into(),
            ));
        }
        if !request.sandbox_id.is_empty() && !crate::container::valid_id(&request.sandbox_id) {
            return Err(Error::Internal("malformed sandbox id".into()));
        }
        Ok(Self {
            resolv_conf: resolv_conf(&request.dns)?,
            modules: modules::check(&request.kernel_modules)?,
            hooks: GuestHooks::find(&request.guest_hook_path)?,
            storages: request::storages(request.storages),
            shares_pids: request.sandbox_pidns,
            hostname: request.hostname,
            id: request.sandbox_id,
        })
    }
}

/// The lines as they came; an empty one is one.
fn resolv_conf(lines: &[String]) -> Result<Option<String>> {
    let fits = |line: &String| line.len() <= MAX_DNS_LINE && !line.contains(['\0', '\n', '\r']);
    if lines.len() > MAX_DNS_LINES || !lines.iter().all(fits) {
        return Err(Error::Internal(
            "DNS is at most 256 lines of resolv.conf, of at most 1024 bytes each".into(),
        ));
    }
    if lines.iter().all(String::is_empty) {
        return Ok(None);
    }
    Ok(Some(lines.iter().map(|line| format!("{line}\n")).collect()))
}

impl Agent {
    /// Makes the sandbox that the host asks for.
    pub async fn create_plain_sandbox(self: &Arc<Self>, request: wire::CreateSandboxRequest) -> Result<()> {
        if let crate::mode::Mode::Policy(gatekeeper) = &self.mode
            && let Some(refusal) = gatekeeper.failure()
        {
            return Err(refusal.into());
        }
        let checked = Checked::read(request)?;
        {
            let mut life = self.plain.life();
            let problem = match &*life {
                Life::None => None,
                Life::Ended => Some("the sandbox has ended"),
                Life::Creating | Life::Created(_) => Some("the sandbox exists already"),
            };
            if let Some(problem) = problem {
                return Err(Error::refused(Code::SandboxState, problem));
            }
            *life = Life::Creating;
        }
        let made = self.make_plain_sandbox(checked).await;
        let mut life = self.plain.life();
        match (&*life, made) {
            (Life::Creating, Ok(sandbox)) => {
                info!(self.log, # "host", "a sandbox"; "id" => &sandbox.id, "mode" => self.mode.name());
                *life = Life::Created(Arc::new(sandbox));
                Ok(())
            }
            (Life::Creating, Err(error)) => {
                // The runtime may try again.
                *life = Life::None;
                drop(life);
                self.plain.storages.release_all();
                info!(self.log, # "host", "no sandbox"; "reason" => error.to_string());
                Err(error)
            }
            (_, made) => made.and(Err(Error::refused(Code::SandboxState, "the sandbox has ended"))),
        }
    }

    async fn make_plain_sandbox(&self, checked: Checked) -> Result<PlainSandbox> {
        self.load_modules(checked.modules).await?;
        let directory = self.paths.state.join("sandbox");
        private_dir(&directory).map_err(Error::step("making the sandbox"))?;
        let resolv_conf = match checked.resolv_conf {
            None => None,
            Some(text) => Some(self.write_resolv_conf(&directory, &text)?),
        };
        let hostname = match checked.hostname.as_str() {
            "" => nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()),
            name => Some(name.to_owned()),
        };
        // What fails by the host's fault comes first: namespaces that were kept can't be made again.
        let storages = self.plain.storages.clone();
        let requests = checked.storages;
        super::blocking(move || Ok(storages.add(None, &requests, &NoImages).map(drop)?)).await?;
        let namespaces = directory.join("namespaces");
        self.launcher.namespaces(&namespaces, hostname.as_deref().unwrap_or("localhost")).await?;
        Ok(PlainSandbox {
            id: checked.id,
            ipc: namespaces.join("ipc"),
            uts: namespaces.join("uts"),
            hooks: checked.hooks,
            shares_pids: checked.shares_pids,
            resolv_conf,
            pause: OnceCell::new(),
        })
    }

    /// For containers that have none of their own, and for the agent's own pulls.
    fn write_resolv_conf(&self, directory: &Path, text: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join("resolv.conf");
        let write = || -> std::io::Result<()> {
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
            // Outside of a VM this is another machine's.
            if std::process::id() == 1 {
                fs::create_dir_all(&self.paths.etc)?;
                fs::write(self.paths.etc.join("resolv.conf"), text)?;
            }
            Ok(())
        };
        write().map_err(Error::step("writing resolv.conf"))?;
        Ok(path)
    }

    /// The pid namespace that containers share, held by a process of our own.
    pub(super) async fn shared_pids(&self, sandbox: &PlainSandbox) -> Result<PathBuf> {
        let pause = sandbox.pause.get_or_try_init(|| self.launcher.pid_namespace()).await?;
        if pause.code().is_some() {
            return Err(Error::Internal("the process that holds the pid namespace has ended".into()));
        }
        Ok(PathBuf::from(format!("/proc/{}/ns/pid", pause.pid())))
    }

    /// Ends every container and takes every storage away, before the VM ends.
    pub async fn end_plain(self: &Arc<Self>) {
        let life = std::mem::replace(&mut *self.plain.life(), Life::Ended);
        let ends = self.containers.ids().into_iter().map(|id| async move {
            let _ = self.remove(&id, Some(END)).await;
        });
        futures::future::join_all(ends).await;
        if let Life::Created(sandbox) = life
            && let Some(pause) = sandbox.pause.get()
        {
            let _ = self.reaper.signal(pause, libc::SIGKILL);
        }
        let storages = self.plain.storages.clone();
        let left = super::blocking(move || {
            let left = storages.release_all();
            // What was written to a disk is on it when the VM is gone.
            nix::unistd::sync();
            Ok(left)
        });
        for error in left.await.unwrap_or_default() {
            info!(self.log, # "host", "a storage is left over"; "reason" => error.to_string());
        }
    }

    /// Remounts memory with the options that the host names.
    pub async fn update_plain_mounts(&self, list: Vec<wire::Storage>) -> Result<()> {
        let requests = request::storages(list);
        let private = self.plain.private.clone();
        super::blocking(move || Ok(agent_storage::update_ephemeral(&requests, &private)?)).await
    }

    /// Looks at every shared mount once: the host's daemon then lets go of what is gone. One that doesn't
    /// answer is left to itself.
    pub async fn remove_stale_shares(&self) -> Result<()> {
        let points = super::blocking(|| {
            let mounts = agent_storage::mounts().map_err(Error::step("listing mounts"))?;
            let points = mounts.into_iter().map(|(point, _)| point);
            Ok(points.filter(|point| point.starts_with(SHARES)).collect::<BTreeSet<_>>())
        });
        for point in points.await? {
            let looked = super::blocking(move || {
                drop(fs::metadata(point));
                Ok(())
            });
            if tokio::time::timeout(STAT, looked).await.is_err() {
                info!(self.log, # "host", "a shared mount does not answer");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(list: &[&str]) -> Vec<String> {
        list.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn dns_lines_are_written_as_they_came() {
        let dns = lines(&["search a.b", "", "nameserver 10.0.0.1"]);
        assert_eq!(resolv_conf(&dns).unwrap().unwrap(), "search a.b\n\nnameserver 10.0.0.1\n");
        assert_eq!(resolv_conf(&[]).unwrap(), None);
        assert_eq!(resolv_conf(&lines(&[""])).unwrap(), None);
        for wrong in ["a\nb", "a\0", &"x".repeat(1025)] {
            assert!(resolv_conf(&lines(&[wrong])).is_err(), "{wrong}");
        }
        assert!(resolv_conf(&vec![String::from("x"); 257]).is_err());
    }

    #[test]
    fn each_wrong_field_of_a_sandbox_is_refused() {
        type Change = fn(&mut wire::CreateSandboxRequest);
        Checked::read(wire::CreateSandboxRequest { hostname: "pod-1.x".into(), ..Default::default() })
            .unwrap();
        for change in [
            (|r| r.hostname = "a b".into()) as Change,
            |r| r.hostname = "x".repeat(65),
            |r| r.sandbox_id = "../x".into(),
            |r| r.dns = vec!["a\nb".into()],
            |r| r.guest_hook_path = "relative".into(),
            |r| r.kernel_modules.push(wire::KernelModule { name: "a/b".into(), ..Default::default() }),
        ] {
            let mut request = wire::CreateSandboxRequest::new();
            change(&mut request);
            assert!(Checked::read(request.clone()).is_err(), "{request:?}");
        }
    }
}
