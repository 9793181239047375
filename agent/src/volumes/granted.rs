//! Which of the host's files become which volume of a container: by sealed mount path and grant.

use std::collections::BTreeMap;

use protocols::refusal::{Code, Refusal};
use sealed_spec::SealedSpec;
use sealed_spec::grants::{SERVICE_ACCOUNT_MOUNT, VolumeGrant};
use sealed_spec::podspec::{Container, DownwardApiFile, KeyToPath, VolumeMount, VolumeSource};

use super::denied;
use super::publish::Rules;
use crate::policy::HostSpec;

/// Files of Kubernetes' volumes, if nobody says otherwise.
const DEFAULT_MODE: u32 = 0o644;
/// Token, CA bundle and namespace, twice.
const TOKEN_BYTES: u64 = 2 << 20;
/// What the agent makes itself in the place of the host's, or libcontainer as the specification says.
const OWN: [&str; 13] = [
    "/proc",
    "/dev",
    "/dev/pts",
    "/dev/mqueue",
    "/dev/shm",
    "/sys",
    "/sys/fs/cgroup",
    "/run",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/dev/termination-log",
    "/run/secrets",
];

/// A volume that the host fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Which of the container's volume mounts it is; `None` for the service account's token.
    pub index: Option<usize>,
    /// Where the container sees it.
    pub destination: String,
    /// Where the host says that it copied the files; empty if it says nothing.
    pub source: String,
    /// Whether programs in it may run.
    pub executable: bool,
    /// Of its files.
    pub rules: Rules,
}

/// The granted volumes of a container, and the destinations that the host added and nobody granted.
pub fn granted(
    spec: &SealedSpec,
    container: &Container,
    host: &HostSpec,
) -> Result<(Vec<Granted>, Vec<String>), Refusal> {
    let mut list = Vec::new();
    let gid = spec.pod.security_context.as_ref().and_then(|context| context.fs_group);
    let source_of = |path: &str| host.mounts.get(path.trim_end_matches('/')).cloned().unwrap_or_default();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let volume = spec.pod.volumes.iter().find(|volume| volume.name == mount.name);
        let Some(source) = volume.and_then(|volume| volume.source()) else { continue };
        let Some(kind) = source.host_kind() else { continue };
        let grant = spec.grants.volume(&container.name, &mount.mount_path);
        let Some(grant) = grant.filter(|grant| grant.kind == kind) else {
            return Err(denied(&mount.mount_path, "the sealed spec doesn't grant it"));
        };
        list.push(Granted {
            index: Some(index),
            destination: mount.mount_path.clone(),
            source: source_of(&mount.mount_path),
            executable: grant.executable,
            rules: rules(source, mount, grant, gid),
        });
    }
    if spec.grants.service_account_token && spec.pod.container(&container.name).is_some() {
        list.push(Granted {
            index: None,
            destination: SERVICE_ACCOUNT_MOUNT.to_owned(),
            source: source_of(SERVICE_ACCOUNT_MOUNT),
            executable: false,
            rules: Rules { default_mode: DEFAULT_MODE, gid, max_bytes: TOKEN_BYTES, ..Rules::default() },
        });
    }
    // By what is granted alone: a path that is missing here would tell the host that it is sealed.
    let granted = |path: &str| list.iter().any(|granted| granted.destination.trim_end_matches('/') == path);
    let added = host.mounts.keys().filter(|path| !OWN.contains(&path.as_str()) && !granted(path)).cloned();
    let added = added.collect();
    Ok((list, added))
}

/// Bytes that the host may copy beyond what every pod needs: the bounds of all granted volumes.
pub(crate) fn granted_bytes(spec: &SealedSpec) -> u64 {
    let volumes = spec.grants.volumes.values().flat_map(BTreeMap::values).map(|grant| grant.max_bytes);
    let tokens = if spec.grants.service_account_token { spec.pod.all_containers().count() as u64 } else { 0 };
    volumes.fold(tokens * TOKEN_BYTES, u64::saturating_add)
}

fn rules(source: VolumeSource<'_>, mount: &VolumeMount, grant: &VolumeGrant, gid: Option<u32>) -> Rules {
    let mut modes = BTreeMap::new();
    let mut keys = |items: &[KeyToPath]| {
        modes.extend(items.iter().filter_map(|item| Some((item.path.clone(), item.mode?))));
    };
    let default_mode = match source {
        VolumeSource::ConfigMap(map) => {
            keys(&map.items);
            map.default_mode
        }
        VolumeSource::Secret(secret) => {
            keys(&secret.items);
            secret.default_mode
        }
        VolumeSource::Projected(projected) => {
            for source in &projected.sources {
                for object in source.config_map.iter().chain(&source.secret) {
                    keys(&object.items);
                }
            }
            let downward = projected.sources.iter().filter_map(|source| source.downward_api.as_ref());
            downward.for_each(|downward| modes.extend(downward_modes(&downward.items)));
            projected.default_mode
        }
        VolumeSource::DownwardApi(downward) => {
            modes.extend(downward_modes(&downward.items));
            downward.default_mode
        }
        VolumeSource::EmptyDir(_) | VolumeSource::SealedFiles(_) => None,
    };
    Rules {
        default_mode: default_mode.unwrap_or(DEFAULT_MODE),
        modes,
        gid,
        max_bytes: grant.max_bytes,
        executable: grant.executable,
        single: mount.sub_path.clone().filter(|path| !path.is_empty()),
    }
}

fn downward_modes(items: &[DownwardApiFile]) -> impl Iterator<Item = (String, u32)> {
    items.iter().filter_map(|item| Some((item.path.clone(), item.mode?)))
}

/// A variable whose value the host was granted to supply, and didn't.
pub(crate) fn missing_value(name: &str) -> Refusal {
    Refusal::new(Code::Launch, format!("env {name}: the host sent no value for it"))
}
