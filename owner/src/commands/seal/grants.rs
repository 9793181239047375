//! What the owner grants: as flags, in a file (`--grants`), or in the manifest's `sealpod.dev/grants`
//! annotation, all of the same content and put together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sealed_spec::fields::{Objects, Sources};
use sealed_spec::grants::{DebugGrant, ResourceCeiling, VolumeGrant};
use sealed_spec::podspec::{Container, PodSpec, Quantity};
use sealed_spec::{Grants, ImageRef, KbsUri, Logs, Repository};
use serde::Deserialize;
use serde_json::Value;

use super::options::{self, ContainerAnd, DebugOption, VolumeOption};
use crate::cli::{LogsOption, SealArgs};
use crate::identity::IdentityDir;
use crate::{files, manifest};

/// The annotation that holds grants. It is taken out at sealing.
const ANNOTATION: &str = "sealpod.dev/grants";
const LIMIT: usize = 256 * 1024;
const NO_CONTAINER: &str = "which the manifest doesn't have";

/// Grants as their owner writes them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Wanted {
    logs: Option<LogsOption>,
    attach: BTreeSet<String>,
    exec: BTreeMap<String, Vec<Command>>,
    update: BTreeMap<String, ResourceCeiling>,
    volumes: BTreeMap<String, BTreeMap<String, Option<VolumeWanted>>>,
    service_account_token: bool,
    downward: BTreeSet<String>,
    service_links: bool,
    debug: Option<DebugWanted>,
    resources: BTreeMap<String, Vec<KbsUri>>,
    from_broker: BTreeMap<String, KbsUri>,
}

/// A command: one text that is split as a shell does, or its arguments.
#[derive(Deserialize)]
#[serde(untagged)]
enum Command {
    Text(String),
    Arguments(Vec<String>),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct VolumeWanted {
    executable: bool,
    max: Option<Quantity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DebugWanted {
    #[serde(default = "debug_names")]
    names: String,
    #[serde(default = "one")]
    count: u32,
    /// As in a pod, without its name.
    container: Value,
}

fn debug_names() -> String {
    "debugger-*".into()
}

fn one() -> u32 {
    1
}

impl Wanted {
    /// From everywhere.
    pub(super) fn collect(args: &SealArgs, workload: &Value) -> Result<Self> {
        let mut wanted = Self::default();
        if let Some(path) = &args.grants {
            let text = files::read_text(path, LIMIT)?;
            let from_file =
                manifest::parse_as(&text).map_err(|error| anyhow!("{}:{error}", path.display()))?;
            wanted.add(from_file).context("--grants")?;
        }
        if let Some(text) = annotation(workload)? {
            let text =
                manifest::parse_as(text).map_err(|error| anyhow!("annotation {ANNOTATION}: line {error}"))?;
            wanted.add(text).with_context(|| format!("annotation {ANNOTATION}"))?;
        }
        wanted.add(flags(args))?;
        Ok(wanted)
    }

    fn add(&mut self, other: Self) -> Result<()> {
        ensure!(
            self.logs.is_none() || other.logs.is_none() || self.logs == other.logs,
            "logs are granted twice and differently; say it once"
        );
        ensure!(self.debug.is_none() || other.debug.is_none(), "debug is granted twice; say it once");
        self.logs = self.logs.or(other.logs);
        self.debug = self.debug.take().or(other.debug);
        self.attach.extend(other.attach);
        self.downward.extend(other.downward);
        self.service_account_token |= other.service_account_token;
        self.service_links |= other.service_links;
        for (container, commands) in other.exec {
            self.exec.entry(container).or_default().extend(commands);
        }
        for (container, uris) in other.resources {
            self.resources.entry(container).or_default().extend(uris);
        }
        for (container, ceiling) in other.update {
            let again = self.update.insert(container.clone(), ceiling).is_some();
            ensure!(!again, "updates of container '{container}' are granted twice; say it once");
        }
        for (container, mounts) in other.volumes {
            for (path, volume) in mounts {
                let path = path.trim_end_matches('/').to_owned();
                let again = self.volumes.entry(container.clone()).or_default().insert(path.clone(), volume);
                ensure!(again.is_none(), "volume {container}:{path} is granted twice; say it once");
            }
        }
        for (key, uri) in other.from_broker {
            let again = self.from_broker.insert(key.clone(), uri).is_some();
            ensure!(!again, "secret {key} is fetched from the broker twice; say it once");
        }
        Ok(())
    }

    /// What the split has to know.
    pub(super) fn sources(&self, with: &[impl AsRef<Path>]) -> Result<Sources> {
        let mut objects = Objects::default();
        for path in with {
            let path = path.as_ref();
            let mut found = false;
            for object in manifest::read_all(path)? {
                let added = objects.add(&object);
                found |= added.map_err(|error| anyhow!("{}: {error}", path.display()))?;
            }
            ensure!(found, "{}: no Secret or ConfigMap in it", path.display());
        }
        for (key, uri) in &self.from_broker {
            let (secret, key) = key
                .split_once('/')
                .filter(|(secret, key)| !secret.is_empty() && !key.is_empty())
                .with_context(|| format!("secret '{key}': NAME/KEY of a Secret is needed"))?;
            objects.from_broker(secret, key, uri.clone());
        }
        let mounts = |(container, mounts): (&String, &BTreeMap<String, _>)| {
            mounts.keys().map(|path| (container.clone(), path.clone())).collect::<Vec<_>>()
        };
        Ok(Sources {
            objects,
            host_mounts: self.volumes.iter().flat_map(mounts).collect(),
            service_account_token: self.service_account_token,
            service_links: self.service_links,
        })
    }

    /// The debug container, if one is granted.
    pub(super) fn debug_container(&self) -> Result<Option<Container>> {
        let Some(debug) = &self.debug else { return Ok(None) };
        let mut container = debug.container.clone();
        let object = container.as_object_mut().context("grant of debug: container must be a mapping")?;
        ensure!(
            !object.contains_key("name"),
            "grant of debug: its container has no name of its own; 'names' says which the host may pick"
        );
        object.insert("name".into(), "debug".into());
        let container = serde_json::from_value(container).context("grant of debug: container")?;
        Ok(Some(container))
    }

    /// The grants for a pod. What doesn't fit it is left for the specification's own checks.
    pub(super) fn grants(
        &self,
        pod: &PodSpec,
        directory: &IdentityDir,
        debug: Option<(Container, ImageRef)>,
    ) -> Result<Grants> {
        let mut grants = Grants {
            logs: match self.logs.unwrap_or(LogsOption::Off) {
                LogsOption::Off => Logs::Off,
                LogsOption::Sealed => Logs::Sealed { recipient: directory.log_key_or_new()?.recipient() },
                LogsOption::Clear => Logs::Clear,
            },
            attach: self.attach.clone(),
            update_resources: self.update.clone(),
            service_account_token: self.service_account_token,
            downward: self.downward.clone(),
            service_links: self.service_links,
            ..Grants::default()
        };
        for (container, commands) in &self.exec {
            known(pod, "exec", container)?;
            let argv = |command: &Command| match command {
                Command::Text(text) => {
                    options::words(text).map_err(|error| anyhow!("exec for container '{container}': {error}"))
                }
                Command::Arguments(argv) => Ok(argv.clone()),
            };
            let commands = commands.iter().map(argv).collect::<Result<_>>()?;
            grants.exec.insert(container.clone(), commands);
        }
        for (container, mounts) in &self.volumes {
            known(pod, "volume", container)?;
            for (path, wanted) in mounts {
                let grant = volume(pod, container, path, wanted.as_ref())?;
                grants.volumes.entry(container.clone()).or_default().insert(path.clone(), grant);
            }
        }
        grants.debug = self.debug.as_ref().zip(debug).map(|(wanted, (container, image))| DebugGrant {
            names: wanted.names.clone(),
            count: wanted.count,
            image,
            container,
        });
        Ok(grants)
    }

    /// What each container may ask the broker for.
    pub(super) fn resources(&self, own: &Repository) -> Result<BTreeMap<String, Vec<KbsUri>>> {
        for uri in self.resources.values().flatten().chain(self.from_broker.values()) {
            ensure!(
                uri.segments().0 == own.as_str(),
                "resource {uri} is not in your repository '{own}'; the broker gives guests only their owner's"
            );
        }
        Ok(self.resources.clone())
    }
}

fn known(pod: &PodSpec, grant: &str, container: &str) -> Result<()> {
    ensure!(
        pod.container(container).is_some(),
        "grant of {grant} names container '{container}', {NO_CONTAINER}"
    );
    Ok(())
}

fn volume(pod: &PodSpec, container: &str, path: &str, wanted: Option<&VolumeWanted>) -> Result<VolumeGrant> {
    let mounts = pod.container(container).map(|container| &container.volume_mounts[..]).unwrap_or_default();
    let mount = mounts.iter().find(|mount| mount.mount_path.trim_end_matches('/') == path);
    let volume = mount.and_then(|mount| pod.volumes.iter().find(|volume| volume.name == mount.name));
    let source =
        volume.with_context(|| format!("grant of volume {container}:{path}: nothing is mounted there"))?;
    let kind = source.source().and_then(|source| source.host_kind()).with_context(|| {
        format!("grant of volume {container}:{path}: the guest makes that volume itself; leave the grant out")
    })?;
    let max = wanted.and_then(|wanted| wanted.max.as_ref());
    Ok(VolumeGrant {
        kind,
        executable: wanted.is_some_and(|wanted| wanted.executable),
        max_bytes: max.map_or(VolumeGrant::DEFAULT_BYTES, Quantity::units),
    })
}

/// The annotation's text, of the workload or of its pods.
fn annotation(workload: &Value) -> Result<Option<&str>> {
    const PLACES: [&str; 4] = [
        "/metadata/annotations",
        "/spec/template/metadata/annotations",
        "/spec/jobTemplate/metadata/annotations",
        "/spec/jobTemplate/spec/template/metadata/annotations",
    ];
    let at = |place: &&str| workload.pointer(place)?.get(ANNOTATION);
    let mut found = PLACES.iter().filter_map(at);
    let Some(text) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        bail!("annotation {ANNOTATION} is there twice; keep one");
    }
    text.as_str().map(Some).with_context(|| format!("annotation {ANNOTATION}: text is needed"))
}

fn flags(args: &SealArgs) -> Wanted {
    let mut wanted = Wanted {
        logs: args.grant_logs,
        attach: args.grant_attach.iter().cloned().collect(),
        service_account_token: args.grant_service_account_token,
        downward: args.grant_downward.iter().cloned().collect(),
        service_links: args.grant_service_links,
        ..Wanted::default()
    };
    for grant in &args.grant_exec {
        let commands = wanted.exec.entry(grant.container.clone()).or_default();
        commands.push(Command::Arguments(grant.argv.clone()));
    }
    for ContainerAnd { container, what } in &args.grant_update {
        wanted.update.insert(container.clone(), what.0.clone());
    }
    for VolumeOption { container, path, executable, max } in &args.grant_volume {
        let volume = VolumeWanted { executable: *executable, max: max.clone() };
        wanted.volumes.entry(container.clone()).or_default().insert(path.clone(), Some(volume));
    }
    for ContainerAnd { container, what } in &args.resource {
        wanted.resources.entry(container.clone()).or_default().push(what.clone());
    }
    for ContainerAnd { container, what } in &args.from_broker {
        wanted.from_broker.insert(container.clone(), what.clone());
    }
    if let Some(DebugOption { names, image, count }) = &args.grant_debug {
        let container = serde_json::json!({ "image": image, "stdin": true, "tty": true });
        wanted.debug = Some(DebugWanted { names: names.clone(), count: *count, container });
    }
    wanted
}
