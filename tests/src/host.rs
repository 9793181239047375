//! The host's side of a run, in our hands: what a node does with a sealed manifest, and everything that a
//! hostile one may do differently.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use launcher::pod::{HostView, HostileKnobs, Patience, Pod, PodError, PodRun};
use launcher::{BootError, BootOptions, Disk, Guest, GuestManifest, SevOptions};
use protocols::refusal::Refusal;
use sealed_spec::initdata::{self, Initdata, annotation, device};

use crate::installation::Installation;

const POWER_OFF: Duration = Duration::from_secs(10);
/// Ten times what an idle machine needs.
const BOOT: Duration = Duration::from_secs(180);

/// What the host was given, and what it makes of it.
#[derive(Clone, Debug)]
pub struct Host {
    /// The pod of placeholders.
    pub pod: Pod,
    /// The initdata that the guest's device will hold; empty: no device.
    pub initdata: Vec<u8>,
    /// What the initdata's device holds, where it is not the initdata in its frame; empty: no device.
    pub device: Option<Vec<u8>>,
    /// More disks.
    pub disks: Vec<Disk>,
    /// HOST_DATA, where it is not the digest of the initdata.
    pub host_data: Option<[u8; 32]>,
    /// What the guest is booted from.
    pub guest: GuestManifest,
    /// The relay's socket.
    pub relay: PathBuf,
    /// What it adds, changes or leaves out.
    pub knobs: HostileKnobs,
}

impl Host {
    /// An honest host.
    ///
    /// # Errors
    /// When the sealed manifest or the guest manifest can't be read.
    pub fn honest(sealed: &Path, guest: &Path, relay: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(sealed).with_context(|| format!("cannot read {}", sealed.display()))?;
        let objects: Vec<serde_json::Value> =
            serde_saphyr::from_multiple(&text).context("the sealed manifest is not YAML")?;
        let view = HostView::from_objects(&objects).context("the sealed manifest is not a pod")?;
        let Some(annotation) = view.annotations.get(annotation::ANNOTATION) else {
            bail!("the sealed manifest has no initdata annotation");
        };
        Ok(Self {
            pod: view.pod,
            initdata: annotation::decode(annotation).context("the annotation is not initdata")?,
            device: None,
            disks: Vec::new(),
            host_data: None,
            guest: GuestManifest::load(guest)?,
            relay: relay.to_owned(),
            knobs: HostileKnobs::default(),
        })
    }

    /// Boots the guest and connects to its agent.
    ///
    /// # Errors
    /// When the guest doesn't come up, with its console's last lines.
    pub async fn boot(&self, state: &Path) -> Result<Running> {
        let initdata_device = match (&self.device, self.initdata.as_slice()) {
            (Some(device), _) => device.clone(),
            (None, []) => Vec::new(),
            (None, initdata) => device::encode(initdata).context("cannot frame the initdata")?,
        };
        let options = BootOptions {
            initdata_device,
            disks: self.disks.clone(),
            host_data: self.host_data.unwrap_or_else(|| initdata::digest(&self.initdata)),
            relay_socket: Some(self.relay.clone()),
            sev: Initdata::parse(&self.initdata).ok().and_then(|initdata| {
                let broker = initdata.config.broker;
                let relay = Installation::find().ok()?.binary("sealpod-relay");
                Some(SevOptions { relay, broker: broker.url, broker_ca: broker.ca })
            }),
            state_dir: state.to_owned(),
            boot_timeout: BOOT,
            ..BootOptions::default()
        };
        let guest = Guest::boot(&self.guest, &options).await?;
        let client = guest.connect().await?;
        let patience = Patience { creating: Duration::from_secs(120), ..Patience::default() };
        let pod =
            PodRun::new(client, self.pod.clone())?.with_knobs(self.knobs.clone()).with_patience(patience);
        Ok(Running { guest, pod })
    }
}

/// A booted guest and the driver of its pod.
#[derive(Debug)]
pub struct Running {
    /// The guest.
    pub guest: Guest,
    /// The pod in it.
    pub pod: PodRun,
}

impl Running {
    /// Ends the pod and the guest; says whether the guest powered off by itself.
    ///
    /// # Errors
    /// When the agent refuses to end.
    pub async fn end(self) -> Result<bool> {
        let destroyed = self.pod.destroy().await;
        let by_itself = self.guest.shutdown(POWER_OFF).await;
        destroyed?;
        Ok(by_itself)
    }

    /// The guest's console, its end.
    #[must_use]
    pub fn console(&self) -> String {
        self.guest.console_tail(40)
    }
}

impl Host {
    /// Boots the guest and runs the pod until something is refused.
    ///
    /// # Errors
    /// When the guest doesn't come up, when something else than a refusal stops the pod, and when nothing does.
    pub async fn refusal(&self, state: &Path) -> Result<Refusal> {
        let mut running = match self.boot(state).await {
            Ok(running) => running,
            // A guest whose launch is refused doesn't come up.
            Err(error) => return refused_launch(&error).ok_or(error),
        };
        let stopped = running.start_everything().await;
        let console = running.console();
        running.end().await?;
        match stopped {
            Ok(()) => bail!("nothing was refused; the guest's console:\n{console}"),
            Err(error) => match error.refusal() {
                Some(refusal) => Ok(refusal.clone()),
                None => Err(anyhow::Error::new(error).context(format!("the guest's console:\n{console}"))),
            },
        }
    }
}

/// What the relay said that launched the guest.
fn refused_launch(error: &anyhow::Error) -> Option<Refusal> {
    let Some(BootError::Ended { qemu, .. }) = error.downcast_ref() else { return None };
    qemu.lines().find_map(|line| Refusal::parse(&line[line.find("sealpod[")?..]))
}

impl Running {
    /// Sandbox, init containers, containers.
    ///
    /// # Errors
    /// The first thing that is refused or fails.
    pub async fn start_everything(&mut self) -> Result<(), PodError> {
        self.pod.start_sandbox().await?;
        self.pod.run_init_containers().await?;
        self.pod.start_containers().await.map(drop)
    }
}
