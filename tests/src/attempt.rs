//! What a hostile host or another tenant tries. Each attempt changes one thing and is refused with one code.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocols::refusal::{Code, Refusal};
use sealed_spec::SealedDocument;
use sealed_spec::initdata::Initdata;

use crate::host::Host;
use crate::owner::{Owner, Sealed};
use crate::world::World;

/// A pod that was sealed and pushed, on a machine that can run it.
#[derive(Debug)]
pub struct Stage {
    /// Everything beside the guest.
    pub world: World,
    /// The pod's owner.
    pub owner: Owner,
    /// The sealed pod.
    pub sealed: Sealed,
    /// `guest.toml`, as measured.
    pub guest: PathBuf,
    /// What was measured.
    pub measurement: PathBuf,
}

impl Stage {
    /// Seals and pushes `manifest`.
    ///
    /// # Errors
    /// When a step fails, with what it printed.
    pub fn set(manifest: &Path, grants: &[&str], progress: &mut dyn FnMut(&str)) -> Result<Self> {
        Self::set_in(World::start(progress)?, manifest, grants)
    }

    /// The same in a world that runs already.
    ///
    /// # Errors
    /// When a step fails, with what it printed.
    pub fn set_in(world: World, manifest: &Path, grants: &[&str]) -> Result<Self> {
        Self::set_with(world, manifest, grants, &[])
    }

    /// The same with more arguments for `sealpod push`.
    ///
    /// # Errors
    /// When a step fails, with what it printed.
    pub fn set_with(world: World, manifest: &Path, grants: &[&str], push: &[&str]) -> Result<Self> {
        let owner = world.enrolled_owner("acme")?;
        Self::set_by(owner, world, manifest, grants, push)
    }

    /// The same by an owner who did something before, with images or keys.
    ///
    /// # Errors
    /// When a step fails, with what it printed.
    pub fn set_by(
        owner: Owner,
        world: World,
        manifest: &Path,
        grants: &[&str],
        push: &[&str],
    ) -> Result<Self> {
        let (guest, measurement) =
            (world.guest_manifest("guest", None)?, world.directory().join("measurement.json"));
        owner.measure(&guest, &measurement)?;
        let sealed =
            owner.seal(manifest, &world.directory().join("pod-sealed.yaml"), world.registry(), grants)?;
        owner.push_with(&sealed, &measurement, push)?;
        Ok(Self { world, owner, sealed, guest, measurement })
    }

    /// The host as it should be.
    ///
    /// # Errors
    /// When the sealed manifest can't be read.
    pub fn honest_host(&self) -> Result<Host> {
        Host::honest(&self.sealed.manifest, &self.guest, &self.world.relay_socket())
    }

    /// For what is remembered between boots: the accelerator that works.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        crate::world::launcher_state()
    }
}

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// One byte of the initrd is another.
    ChangedInitrd,
    /// The kernel command line has one more word.
    ChangedCommandLine,
    /// Another owner's genuine guest asks for this pod's key.
    ForeignInitdata,
    /// A genuine guest of another pod of the same owner asks for this pod's key.
    OtherPod,
    /// The guest was launched for other initdata than it finds.
    OtherHostData,
    /// The guest is launched without initdata.
    NoInitdata,
    /// One character of the sealed document is another.
    TamperedDocument,
    /// The sealed document never arrives.
    WithheldDocument,
    /// The relay leads to the host's own broker.
    BrokerInBetween,
    /// A container that the sealed spec doesn't know.
    UnknownContainer,
}

impl Attempt {
    /// Those that the demo shows.
    pub const SHOWN: [Self; 7] = [
        Self::ChangedInitrd,
        Self::ForeignInitdata,
        Self::OtherPod,
        Self::OtherHostData,
        Self::TamperedDocument,
        Self::BrokerInBetween,
        Self::UnknownContainer,
    ];

    /// What is tried, in words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::ChangedInitrd => "one byte of the initrd changed",
            Self::ChangedCommandLine => "one word added to the kernel command line",
            Self::ForeignInitdata => "another owner's genuine guest asks for this pod's key",
            Self::OtherPod => "a genuine guest of the owner's other pod asks for this pod's key",
            Self::OtherHostData => "initdata that doesn't match HOST_DATA",
            Self::NoInitdata => "a guest without initdata",
            Self::TamperedDocument => "one character of the sealed document changed",
            Self::WithheldDocument => "the sealed document withheld",
            Self::BrokerInBetween => "a relay that leads to the host's own broker",
            Self::UnknownContainer => "a container that the sealed spec doesn't know",
        }
    }

    /// The code that it must be refused with.
    #[must_use]
    pub fn expected(self) -> Code {
        match self {
            Self::ChangedInitrd | Self::ChangedCommandLine => Code::LaunchDigest,
            // The same answer as for a key that doesn't exist: tenants learn nothing of each other.
            Self::ForeignInitdata => Code::Resource,
            Self::OtherPod => Code::SpecDigest,
            Self::OtherHostData => Code::HostDataMismatch,
            Self::NoInitdata => Code::InitdataMissing,
            Self::TamperedDocument => Code::SpecDigestMismatch,
            Self::WithheldDocument => Code::SpecMissing,
            Self::BrokerInBetween => Code::BrokerPin,
            Self::UnknownContainer => Code::ContainerUnknown,
        }
    }

    /// Makes the attempt and returns how it was refused.
    ///
    /// # Errors
    /// When it can't be set up, and when it isn't refused.
    pub async fn make(self, stage: &Stage) -> Result<Refusal> {
        let mut host = stage.honest_host()?;
        // What an attempt needs beside the guest lives until the guest is gone.
        let mut in_between = None;
        match self {
            Self::ChangedInitrd => host.guest.initrd = stage.world.initrd_with_one_byte_changed()?,
            Self::ChangedCommandLine => host.guest.append.push_str(" quiet"),
            Self::ForeignInitdata => {
                let mallory = stage.world.enrolled_owner("mallory")?;
                host.initdata = initdata_of_another_pod(stage, &mallory, &host.initdata)?;
            }
            Self::OtherPod => host.initdata = initdata_of_another_pod(stage, &stage.owner, &host.initdata)?,
            Self::OtherHostData => host.host_data = Some([0x5a; 32]),
            Self::NoInitdata => {
                host.initdata.clear();
                host.host_data = Some([0; 32]);
            }
            Self::TamperedDocument => replace_document(&mut host, tampered)?,
            Self::WithheldDocument => host.knobs.withhold_files = true,
            Self::BrokerInBetween => {
                let (broker, relay, socket) = stage.world.broker_in_between()?;
                host.relay = socket;
                in_between = Some((relay, broker));
            }
            Self::UnknownContainer => {
                let mut other = host.pod.containers.first().context("the pod has no container")?.clone();
                other.name = "miner".to_owned();
                host.knobs.extra_containers.push(other);
            }
        }
        let refusal = host.refusal(&stage.state()).await;
        drop(in_between);
        refusal
    }
}

/// Initdata of another pod that `owner` sealed and pushed, with this pod's key id in it.
fn initdata_of_another_pod(stage: &Stage, owner: &Owner, ours: &[u8]) -> Result<Vec<u8>> {
    let manifest = stage.world.directory().join("other.yaml");
    fs::write(&manifest, OTHER_POD).context("cannot write the other pod")?;
    let output = stage.world.directory().join("other-sealed.yaml");
    let sealed = owner.seal(&manifest, &output, stage.world.registry(), &[])?;
    owner.push(&sealed, &stage.measurement)?;
    let theirs = Host::honest(&sealed.manifest, &stage.guest, &stage.world.relay_socket())?.initdata;

    let key_of = |initdata: &[u8]| -> Result<String> {
        Ok(Initdata::parse(initdata).context("cannot read the initdata")?.config.key_id.to_string())
    };
    let text = String::from_utf8(theirs.clone()).context("initdata is not text")?;
    Ok(text.replace(&key_of(&theirs)?, &key_of(ours)?).into_bytes())
}

const OTHER_POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  containers:
    - name: main
      image: registry.example/busybox:v1
";

/// Applies `change` to the sealed document among the pod's files.
fn replace_document(host: &mut Host, change: fn(&str) -> String) -> Result<()> {
    let files = host.pod.volumes.values().filter_map(|volume| match volume {
        launcher::pod::Volume::Files(files) => Some(files),
        launcher::pod::Volume::Empty(_) => None,
    });
    let (name, document) = files
        .flatten()
        .find_map(|(name, bytes)| {
            let text = std::str::from_utf8(bytes).ok()?;
            SealedDocument::parse(text).ok().map(|_| (name.clone(), text.to_owned()))
        })
        .context("the pod carries no sealed document")?;
    host.knobs.replaced_files.insert(name, change(&document).into_bytes());
    Ok(())
}

/// Another base64url character in the middle of the ciphertext.
fn tampered(document: &str) -> String {
    let middle = document.len() / 2;
    let (head, tail) = document.split_at(middle);
    let other = if tail.starts_with('A') { 'B' } else { 'A' };
    format!("{head}{other}{}", &tail[1..])
}
