//! The agent's parts, put together once. RPCs are thin shims over what is here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use agent_network::Network;
use agent_resources::machine::Machine;
use agent_resources::metrics::Metrics;
use agent_resources::{Hierarchy, OomEvents};
use protocols::refusal::{Code, Refusal};
use slog::{Logger, crit, info};
use tokio::sync::OnceCell;

use crate::config::Config;
use crate::container::Containers;
use crate::error::{Error, Result};
use crate::images::Images;
use crate::launch::Launcher;
use crate::mode::Mode;
use crate::opening::Opening;
use crate::pid1::PowerOff;
use crate::plain::Plain;
use crate::quarantine::Quarantine;
use crate::reaper::Reaper;
use crate::record::Record;
use crate::sandbox::{HostRequest, Sandbox};
use crate::slots::Slots;
use crate::volumes::Volumes;

/// Directories, by value: nothing else in the agent knows where it is.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The agent's own state; only it can enter.
    pub state: PathBuf,
    /// Where CopyFile lands.
    pub quarantine: PathBuf,
    /// Where the agent's own resolver looks for resolv.conf.
    pub etc: PathBuf,
    /// This binary, for launch helpers.
    pub program: PathBuf,
    /// The cgroup file system.
    pub cgroups: PathBuf,
}

impl Paths {
    /// In a VM.
    pub fn guest() -> Self {
        Self {
            state: "/run/sealpod".into(),
            quarantine: crate::quarantine::SHARED.into(),
            etc: "/etc".into(),
            program: "/proc/self/exe".into(),
            cgroups: "/sys/fs/cgroup".into(),
        }
    }

    /// Directory of one container.
    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.state.join("containers").join(id)
    }
}

/// How far the sandbox is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Life {
    None,
    Creating,
    Created(HostRequest),
    Destroyed,
}

/// Why containers have nothing to share; kept, since it is for good.
#[derive(Debug, Clone)]
enum Unfurnished {
    Refused(Refusal),
    Failed(String),
}

/// What an [`Agent`] is made of.
pub struct Parts {
    /// What the runtime configured.
    pub config: Config,
    /// Where it keeps things.
    pub paths: Paths,
    /// Who reaps.
    pub reaper: Arc<Reaper>,
    /// What this VM is.
    pub mode: Mode,
    /// The way to root file systems.
    pub images: Box<dyn Images>,
    /// The kernel's network configuration, where there is one.
    pub network: Option<Network>,
    /// How it ends.
    pub power: Arc<dyn PowerOff>,
    /// Records that are safe for the host.
    pub log: Logger,
}

/// The agent.
pub struct Agent {
    /// What the runtime configured.
    pub config: Config,
    pub(crate) paths: Paths,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) launcher: Launcher,
    pub(crate) mode: Mode,
    pub(crate) images: Box<dyn Images>,
    pub(crate) quarantine: Quarantine,
    pub(crate) volumes: Volumes,
    pub(crate) record: Record,
    pub(crate) plain: Plain,
    pub(crate) containers: Containers,
    pub(crate) oom: OomEvents,
    pub(crate) hierarchy: Hierarchy,
    pub(crate) machine: Machine,
    pub(crate) metrics: Metrics,
    pub(crate) network: Option<Network>,
    pub(crate) power: Arc<dyn PowerOff>,
    pub(crate) log: Logger,
    life: Mutex<Life>,
    address: Mutex<Option<IpAddr>>,
    sandbox: OnceCell<std::result::Result<Arc<Sandbox>, Unfurnished>>,
}

impl Agent {
    /// Makes the agent's directories and puts it together.
    pub fn new(parts: Parts) -> std::io::Result<Arc<Self>> {
        let Parts { config, paths, reaper, mode, images, network, power, log } = parts;
        crate::launch::private_dir(&paths.state)?;
        let launcher = Launcher::new(reaper.clone(), paths.program.clone(), paths.state.join("launch"))?;
        let quarantine = Quarantine::new(&paths.quarantine)?;
        let plain = Plain::new(&config, &paths);
        let hierarchy = Hierarchy::detect(&paths.cgroups).map_err(std::io::Error::other)?;
        Ok(Arc::new(Self {
            config,
            paths,
            reaper,
            launcher,
            mode,
            images,
            quarantine,
            volumes: Volumes::default(),
            record: Record::default(),
            plain,
            containers: Containers::default(),
            oom: OomEvents::default(),
            hierarchy,
            machine: Machine::this(),
            metrics: Metrics::default(),
            network,
            power,
            log,
            life: Mutex::new(Life::None),
            address: Mutex::new(None),
            sandbox: OnceCell::new(),
        }))
    }

    /// The way to the sealed specification; there is none on the plain path.
    pub(crate) fn opening(&self) -> Result<&Opening> {
        self.mode.sealed().ok_or_else(|| Error::Internal("this VM has no sealed specification".into()))
    }

    /// The container of that id, the pause container aside.
    pub fn instance(&self, id: &str) -> Result<Arc<crate::container::Instance>> {
        self.containers.instance(id)
    }

    /// The pod's address, for `/etc/hosts`.
    pub(crate) fn set_address(&self, address: IpAddr) {
        self.address.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(address);
    }

    /// Makes the sandbox: asks for the key, and opens the specification if it is there.
    pub async fn create_sandbox(&self, host: HostRequest) -> Result<()> {
        self.change(|life| match life {
            Life::None => Ok(Life::Creating),
            Life::Destroyed => Err("the sandbox has ended"),
            Life::Creating | Life::Created(_) => Err("the sandbox exists already"),
        })?;
        if !host.dropped.is_empty() {
            info!(self.log, # "host", "not done for the sandbox"; "asked" => host.dropped.join(", "));
        }
        let opening = self.opening()?;
        let released = match opening.release().await {
            Ok(()) => {
                self.change(|life| match life {
                    Life::Creating => Ok(Life::Created(host)),
                    _ => Err("the sandbox has ended"),
                })?;
                match opening.spec() {
                    Some(_) => self.furnish().await.map(|_| ()),
                    None => Ok(()),
                }
            }
            Err(refusal) => Err(refusal.into()),
        };
        if let Err(error) = &released {
            info!(self.log, # "host", "the sandbox is refused"; "reason" => error.to_string());
            // The runtime may try again: a broker may be reachable later.
            self.change(|life| match life {
                Life::Destroyed => Ok(Life::Destroyed),
                _ => Ok(Life::None),
            })?;
        }
        released
    }

    /// What the sandbox was created with.
    pub(crate) fn sandbox_request(&self) -> Result<HostRequest> {
        match &*self.life.lock().unwrap_or_else(PoisonError::into_inner) {
            Life::Created(host) => Ok(host.clone()),
            Life::Destroyed => Err(Error::refused(Code::SandboxState, "the sandbox has ended")),
            _ => Err(Error::refused(Code::SandboxState, "there is no sandbox yet; call CreateSandbox first")),
        }
    }

    /// No container is made any more.
    pub(crate) fn end_life(&self) -> Result<()> {
        self.change(|_| Ok(Life::Destroyed))
    }

    /// What containers share, made once after the specification was opened. A failure is for good.
    pub(crate) async fn furnish(&self) -> Result<Arc<Sandbox>> {
        let made = self
            .sandbox
            .get_or_init(|| async {
                self.make_sandbox().await.map(Arc::new).map_err(|error| match error {
                    Error::Refused(refusal) => Unfurnished::Refused(refusal),
                    other => Unfurnished::Failed(other.to_string()),
                })
            })
            .await;
        made.clone().map_err(|failure| match failure {
            Unfurnished::Refused(refusal) => refusal.into(),
            Unfurnished::Failed(text) => Error::Internal(text),
        })
    }

    async fn make_sandbox(&self) -> Result<Sandbox> {
        let host = self.sandbox_request()?;
        let spec = self.opening()?.require()?;
        let before = self.record.settle(&spec.pod).map_err(|refusal| self.betrayed(refusal))?;
        let address = *self.address.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = self.paths.state.join("sandbox");
        let made =
            Sandbox::make(&directory, &self.paths.etc, &self.launcher, &spec.pod, &host, address).await?;
        self.containers.set_slots(Slots::of(&spec));
        self.quarantine.grant(crate::volumes::granted_bytes(&spec));
        self.images.begin(&spec, self.opening()?.source()).await?;
        info!(self.log, # "host", "the sealed spec is open"; "containers" => spec.images.len(), "before" => before);
        Ok(made)
    }

    /// What the host asked for before the specification was open is excluded by it: whatever came of that,
    /// nothing runs here.
    fn betrayed(&self, refusal: Refusal) -> Error {
        crit!(self.log, # "host", "the host asked for what the sealed spec excludes; the VM ends"; "reason" => refusal.to_string());
        let _ = self.end_life();
        self.power.power_off();
        refusal.into()
    }

    fn change(&self, next: impl FnOnce(&Life) -> std::result::Result<Life, &'static str>) -> Result<()> {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        *life = next(&life).map_err(|reason| Error::refused(Code::SandboxState, reason))?;
        Ok(())
    }
}
