//! Each grant against the pod, and the pod against its grants.

use thiserror::Error;

use super::{Grants, SERVICE_ACCOUNT_MOUNT, VolumeGrant};
use crate::names::KbsUri;
use crate::podspec::{Container, PodSpec, Quantity, VolumeSource, is_downward_field};

/// Most fields, or commands of one container.
const MOST_ENTRIES: usize = 256;
/// Most resources that one container may ask for.
const MOST_RESOURCES: usize = 64;

/// A grant that doesn't fit the pod, or one that the pod needs and doesn't have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("grants: {grant} for {of:?}: {rule}")]
pub struct GrantError {
    /// Which grant: `exec`, `volumes`, …
    pub grant: &'static str,
    /// Of what: a container, a mount, a field.
    pub of: String,
    /// What is needed.
    pub rule: &'static str,
}

type Checked = Result<(), GrantError>;

fn need(holds: bool, grant: &'static str, of: &str, rule: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(GrantError { grant, of: of.to_owned(), rule }) }
}

const NO_CONTAINER: &str = "no such container in the pod";

impl Grants {
    /// Checks the grants against the pod that they are for.
    pub(crate) fn check(&self, pod: &PodSpec) -> Checked {
        self.check_exec(pod)?;
        for name in &self.attach {
            let container = pod.container(name);
            need(container.is_some(), "attach", name, NO_CONTAINER)?;
            need(
                container.is_some_and(|container| container.stdin == Some(true)),
                "attach",
                name,
                "the container has no stdin: true to write to",
            )?;
        }
        self.check_updates(pod)?;
        self.check_volumes(pod)?;
        self.check_downward(pod)?;
        need(
            self.service_account_token == (pod.automount_service_account_token == Some(true)),
            "service_account_token",
            "automountServiceAccountToken",
            "the grant and the pod's field go together: the token's files are the host's to write; seal with --grant-service-account-token or set the field to false",
        )?;
        need(
            self.service_links == (pod.enable_service_links == Some(true)),
            "service_links",
            "enableServiceLinks",
            "the grant and the pod's field go together: the variables are the host's to write; seal with --grant-service-links or set the field to false",
        )?;
        // A specification must not promise what nothing holds.
        need(
            self.ports.is_none(),
            "ports",
            "the pod",
            "the guest doesn't filter ports yet; leave it out, and listen on 127.0.0.1 for what must not be reached",
        )?;
        self.check_debug(pod)
    }

    fn check_exec(&self, pod: &PodSpec) -> Checked {
        for (name, commands) in &self.exec {
            let need = |holds, rule| need(holds, "exec", name, rule);
            need(pod.container(name).is_some(), NO_CONTAINER)?;
            let empty = |argv: &Vec<String>| argv.first().is_none_or(String::is_empty);
            need(!commands.is_empty() && !commands.iter().any(empty), "an empty command")?;
            need(commands.len() <= MOST_ENTRIES, "at most 256 commands are allowed")?;
            let nul = commands.iter().flatten().any(|argument| argument.contains('\0'));
            need(!nul, "an argument with a NUL byte")?;
        }
        Ok(())
    }

    fn check_updates(&self, pod: &PodSpec) -> Checked {
        for (name, ceiling) in &self.update_resources {
            let need = |holds, rule| need(holds, "update_resources", name, rule);
            let container = pod.container(name);
            need(container.is_some(), NO_CONTAINER)?;
            need(ceiling.cpu.is_some() || ceiling.memory.is_some(), "cpu, memory or both are needed")?;
            let limits = container.and_then(|container| container.resources.as_ref());
            let limit = |resource| limits.and_then(|resources| resources.limits.get(resource));
            let above = |ceiling: &Option<Quantity>, resource| match (ceiling, limit(resource)) {
                (Some(ceiling), Some(limit)) => ceiling.millis() >= limit.millis(),
                (Some(ceiling), None) => ceiling.millis() > 0,
                (None, _) => true,
            };
            need(
                above(&ceiling.cpu, "cpu") && above(&ceiling.memory, "memory"),
                "what it may be raised to must not be below its limit in the pod",
            )?;
        }
        Ok(())
    }

    fn check_volumes(&self, pod: &PodSpec) -> Checked {
        let mut total = 0u64;
        for (name, mounts) in &self.volumes {
            let Some(container) = pod.container(name) else {
                return need(false, "volumes", name, NO_CONTAINER);
            };
            for (path, grant) in mounts {
                let of = format!("{name}:{path}");
                let need = |holds, rule| need(holds, "volumes", &of, rule);
                need(path.trim_end_matches('/') == path, "the path must not end with a slash")?;
                let source = source_at(pod, container, path);
                need(source.is_some(), "the container has no volumeMount with that mountPath")?;
                let kind = source.and_then(|source| source.host_kind());
                need(kind.is_some(), "that volume is the guest's own and needs no grant")?;
                need(kind == Some(grant.kind), "the pod's volume at that path is of another kind")?;
                need(
                    (1..=VolumeGrant::MOST_BYTES).contains(&grant.max_bytes),
                    "its bound must be 1 byte to 64 MiB",
                )?;
                total = total.saturating_add(grant.max_bytes);
                need(total <= 4 * VolumeGrant::MOST_BYTES, "all bounds together must not exceed 256 MiB")?;
            }
        }
        for container in pod.all_containers() {
            for mount in &container.volume_mounts {
                let of = format!("{}:{}", container.name, mount.mount_path);
                let kind = source_at(pod, container, &mount.mount_path).and_then(|source| source.host_kind());
                need(
                    kind.is_none() || self.volume(&container.name, &mount.mount_path).is_some(),
                    "volumes",
                    &of,
                    "this volume's contents would be the host's; give the Secret or ConfigMap with --with FILE so that it is sealed, or seal with --grant-volume CONTAINER:PATH",
                )?;
                need(
                    mount.mount_path.trim_end_matches('/') != SERVICE_ACCOUNT_MOUNT
                        || !self.service_account_token,
                    "service_account_token",
                    &of,
                    "the API server mounts the token there; mount the volume somewhere else",
                )?;
            }
        }
        Ok(())
    }

    fn check_downward(&self, pod: &PodSpec) -> Checked {
        let number = self.downward.len().to_string();
        need(self.downward.len() <= MOST_ENTRIES, "downward", &number, "at most 256 fields are allowed")?;
        for field in &self.downward {
            need(
                is_downward_field(field),
                "downward",
                field,
                "it is not a field or resource that environment variables can have",
            )?;
        }
        let templates = self.debug.iter().map(|debug| &debug.container);
        for container in pod.all_containers().chain(templates) {
            let fields = container.env.iter().filter_map(|variable| variable.value_from.as_ref());
            for field in fields.filter_map(|source| source.downward_field()) {
                need(
                    self.downward.contains(&field),
                    "downward",
                    &field,
                    "its value would be the host's; write the value into the manifest, or seal with --grant-downward FIELD",
                )?;
            }
        }
        Ok(())
    }

    fn check_debug(&self, pod: &PodSpec) -> Checked {
        let Some(debug) = &self.debug else { return Ok(()) };
        let need = |holds, rule| need(holds, "debug", &debug.names, rule);
        debug.check().map_err(|rule| GrantError { grant: "debug", of: debug.names.clone(), rule })?;
        let taken = pod.all_containers().any(|container| debug.covers(&container.name));
        need(!taken, "a container of the pod has such a name")?;
        let template = &debug.container;
        need(
            template.volume_mounts.is_empty()
                && template.ports.is_empty()
                && template.resources.is_none()
                && template.lifecycle.is_none()
                && template.restart_policy.is_none(),
            "a debug container has no volumeMounts, ports, resources, lifecycle or restartPolicy",
        )?;
        need(
            pod.check_debug_container(template).is_ok(),
            "its container breaks a rule that holds for all containers (name, image, command, env, capabilities)",
        )
    }
}

/// What a container's mount at `path` shows.
fn source_at<'a>(pod: &'a PodSpec, container: &Container, path: &str) -> Option<VolumeSource<'a>> {
    let wanted = path.trim_end_matches('/');
    let mount =
        container.volume_mounts.iter().find(|mount| mount.mount_path.trim_end_matches('/') == wanted)?;
    pod.volumes.iter().find(|volume| volume.name == mount.name)?.source()
}

/// What containers may ask the broker for, against the pod.
pub(crate) fn check_resources<'a>(
    pod: &PodSpec,
    resources: impl Iterator<Item = (&'a String, &'a Vec<KbsUri>)>,
) -> Checked {
    for (name, uris) in resources {
        let need = |holds, rule| need(holds, "resources", name, rule);
        need(pod.container(name).is_some(), NO_CONTAINER)?;
        need(!uris.is_empty(), "an empty list: leave it out")?;
        need(uris.len() <= MOST_RESOURCES, "at most 64 resources are allowed")?;
        let spec_key = |uri: &KbsUri| uri.segments().1 == crate::names::KeyId::TYPE;
        need(!uris.iter().any(spec_key), "the keys of sealed specs are for the agent alone")?;
        let twice = |(index, uri)| uris[..index].contains(uri);
        need(!uris.iter().enumerate().any(twice), "a resource is listed twice")?;
    }
    Ok(())
}
