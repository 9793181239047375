//! Rules of a pod that its types alone don't hold: Kubernetes' own, as far as the guest relies on
//! them, and what a guest can't do yet. Errors carry paths and rules, never values of sealed fields.

pub(crate) mod volumes;

use std::collections::BTreeSet;
use std::net::IpAddr;

use thiserror::Error;

use super::env::{is_downward_field, is_downward_resource};
use super::{Container, DnsPolicy, EnvVar, LifecycleHandler, PodSpec, Probe, Quantity, ResourceRequirements};
use crate::names::{dns_label, dns_subdomain};

/// Most containers of a pod, init containers included.
const MOST_CONTAINERS: usize = 64;

/// A rule of the pod that is broken, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {rule}")]
pub struct PodError {
    /// `containers[0].volumeMounts[1].mountPath`
    pub path: String,
    /// What is needed there.
    pub rule: String,
}

type Checked = Result<(), PodError>;

fn refuse<T>(path: impl Into<String>, rule: impl Into<String>) -> Result<T, PodError> {
    Err(PodError { path: path.into(), rule: rule.into() })
}

fn need(holds: bool, path: impl FnOnce() -> String, rule: &str) -> Checked {
    if holds { Ok(()) } else { refuse(path(), rule) }
}

impl PodSpec {
    /// Checks every rule that the types alone don't hold.
    pub fn validate(&self) -> Result<(), PodError> {
        need(!self.containers.is_empty(), || "containers".into(), "at least one container is needed")?;
        need(
            self.all_containers().count() <= MOST_CONTAINERS,
            || "containers".into(),
            "at most 64 containers, init containers included, are supported",
        )?;
        self.check_volumes()?;
        let mut names = BTreeSet::new();
        let lists =
            [("initContainers", &self.init_containers, true), ("containers", &self.containers, false)];
        for (list, containers, init) in lists {
            for (index, container) in containers.iter().enumerate() {
                let path = format!("{list}[{index}]");
                container.check(&path, init, self)?;
                need(
                    names.insert(&container.name),
                    || format!("{path}.name"),
                    "another container has the same name",
                )?;
            }
        }
        self.check_names()?;
        self.check_dns()?;
        self.check_security()
    }

    /// Checks a container that is added to the running pod: the rules of a container of the pod.
    pub(crate) fn check_debug_container(&self, container: &Container) -> Result<(), PodError> {
        container.check("container", false, self)
    }

    fn check_names(&self) -> Checked {
        for (name, value) in [("hostname", &self.hostname), ("subdomain", &self.subdomain)] {
            need(
                value.as_deref().is_none_or(dns_label),
                || name.into(),
                "a DNS label (a-z, 0-9, inner hyphens, at most 63) is needed",
            )?;
        }
        for (index, alias) in self.host_aliases.iter().enumerate() {
            need(
                address(&alias.ip),
                || format!("hostAliases[{index}].ip"),
                "an IPv4 or IPv6 address is needed",
            )?;
            for (number, name) in alias.hostnames.iter().enumerate() {
                need(
                    dns_subdomain(name),
                    || format!("hostAliases[{index}].hostnames[{number}]"),
                    "a lower-case DNS name is needed",
                )?;
            }
        }
        need(
            self.os.as_ref().is_none_or(|os| os.name == "linux"),
            || "os.name".into(),
            "only linux is supported",
        )
    }

    fn check_dns(&self) -> Checked {
        let servers = self.dns_config.as_ref().map_or(&[][..], |config| &config.nameservers);
        need(
            self.dns_policy != Some(DnsPolicy::None) || !servers.is_empty(),
            || "dnsConfig.nameservers".into(),
            "dnsPolicy None needs at least one name server",
        )?;
        let Some(config) = &self.dns_config else { return Ok(()) };
        need(servers.len() <= 3, || "dnsConfig.nameservers".into(), "at most 3 name servers are allowed")?;
        for (index, server) in servers.iter().enumerate() {
            need(
                address(server),
                || format!("dnsConfig.nameservers[{index}]"),
                "an IPv4 or IPv6 address is needed",
            )?;
        }
        for (index, domain) in config.searches.iter().enumerate() {
            let good = domain == "." || dns_subdomain(domain.strip_suffix('.').unwrap_or(domain));
            need(good, || format!("dnsConfig.searches[{index}]"), "a lower-case DNS name is needed")?;
        }
        for (index, option) in config.options.iter().enumerate() {
            let good = one_word(&option.name) && option.value.as_deref().is_none_or(one_word);
            need(
                good,
                || format!("dnsConfig.options[{index}]"),
                "name and value without white space are needed",
            )?;
        }
        Ok(())
    }

    fn check_security(&self) -> Checked {
        let Some(context) = &self.security_context else { return Ok(()) };
        for (index, sysctl) in context.sysctls.iter().enumerate() {
            let good = !sysctl.name.is_empty()
                && sysctl.name.split(['.', '/']).all(|part| {
                    !part.is_empty()
                        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
                });
            need(
                good,
                || format!("securityContext.sysctls[{index}].name"),
                "a dotted kernel parameter name is needed",
            )?;
            need(
                !sysctl.value.contains(['\0', '\n']),
                || format!("securityContext.sysctls[{index}].value"),
                "one line is needed",
            )?;
        }
        Ok(())
    }
}

impl Container {
    fn check(&self, path: &str, init: bool, pod: &PodSpec) -> Checked {
        need(
            dns_label(&self.name),
            || format!("{path}.name"),
            "a DNS label (a-z, 0-9, inner hyphens, at most 63) is needed",
        )?;
        need(!self.image.is_empty(), || format!("{path}.image"), "an image reference is needed")?;
        for (field, list) in [("command", &self.command), ("args", &self.args)] {
            for (index, text) in list.iter().enumerate() {
                need(
                    !text.contains('\0'),
                    || format!("{path}.{field}[{index}]"),
                    "NUL bytes are not allowed",
                )?;
            }
        }
        for (field, value) in
            [("workingDir", &self.working_dir), ("terminationMessagePath", &self.termination_message_path)]
        {
            need(
                value.as_deref().is_none_or(|value| {
                    absolute(value) && value != "/" || field == "workingDir" && value == "/"
                }),
                || format!("{path}.{field}"),
                "an absolute path without '..' is needed",
            )?;
        }
        for (index, variable) in self.env.iter().enumerate() {
            variable.check(&format!("{path}.env[{index}]"))?;
        }
        need(
            init || self.restart_policy.is_none(),
            || format!("{path}.restartPolicy"),
            "only init containers have one: Always makes a sidecar of them; restartPolicy of the pod is for the others",
        )?;
        let once = init && !self.is_sidecar();
        for (index, policy) in self.resize_policy.iter().enumerate() {
            let good = matches!(policy.resource_name.as_str(), "cpu" | "memory")
                && matches!(policy.restart_policy.as_str(), "NotRequired" | "RestartContainer");
            need(
                good,
                || format!("{path}.resizePolicy[{index}]"),
                "cpu or memory, and NotRequired or RestartContainer, are needed",
            )?;
        }
        self.check_ports(path)?;
        self.check_mounts(path, pod)?;
        if let Some(resources) = &self.resources {
            resources.check(&format!("{path}.resources"))?;
        }
        let probes = [
            ("livenessProbe", &self.liveness_probe),
            ("readinessProbe", &self.readiness_probe),
            ("startupProbe", &self.startup_probe),
        ];
        for (field, probe) in probes {
            let Some(probe) = probe else { continue };
            let path = format!("{path}.{field}");
            need(!once, || path.clone(), "init containers have no probes, sidecars do")?;
            probe.check(&path)?;
        }
        if let Some(lifecycle) = &self.lifecycle {
            need(
                !once,
                || format!("{path}.lifecycle"),
                "init containers have no lifecycle hooks, sidecars do",
            )?;
            if let Some(signal) = &lifecycle.stop_signal {
                let path = || format!("{path}.lifecycle.stopSignal");
                need(is_signal(signal), path, "a signal's name is needed: SIGTERM, SIGUSR1, SIGRTMIN+3")?;
                need(pod.os.is_some(), path, "Kubernetes takes it only with spec.os.name: linux")?;
            }
            for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
                if let Some(hook) = hook {
                    hook.check(&format!("{path}.lifecycle.{field}"))?;
                }
            }
        }
        let capabilities = self.security_context.as_ref().and_then(|context| context.capabilities.as_ref());
        if let Some(capabilities) = capabilities {
            for (field, list) in [("add", &capabilities.add), ("drop", &capabilities.drop)] {
                for (index, name) in list.iter().enumerate() {
                    let good = !name.is_empty()
                        && !name.starts_with("CAP_")
                        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
                    need(
                        good,
                        || format!("{path}.securityContext.capabilities.{field}[{index}]"),
                        "a capability in capitals and without the CAP_ prefix is needed",
                    )?;
                }
            }
        }
        Ok(())
    }

    fn check_ports(&self, path: &str) -> Checked {
        for (index, port) in self.ports.iter().enumerate() {
            let path = |field: &str| format!("{path}.ports[{index}].{field}");
            need(port.container_port > 0, || path("containerPort"), "1 to 65535 is needed")?;
            need(port.host_port != Some(0), || path("hostPort"), "1 to 65535 is needed")?;
            let protocol = port.protocol.as_deref();
            need(
                matches!(protocol, None | Some("TCP" | "UDP" | "SCTP")),
                || path("protocol"),
                "TCP, UDP or SCTP is needed",
            )?;
            need(
                port.host_ip.as_deref().is_none_or(address),
                || path("hostIP"),
                "an IPv4 or IPv6 address is needed",
            )?;
            need(
                port.name.as_deref().is_none_or(dns_label),
                || path("name"),
                "lower-case letters, digits and inner hyphens are needed",
            )?;
        }
        Ok(())
    }

    fn check_mounts(&self, path: &str, pod: &PodSpec) -> Checked {
        let mut places = BTreeSet::new();
        for (index, mount) in self.volume_mounts.iter().enumerate() {
            let path = |field: &str| format!("{path}.volumeMounts[{index}].{field}");
            let known = pod.volumes.iter().any(|volume| volume.name == mount.name);
            need(known, || path("name"), "no volume of the pod has that name")?;
            let place = mount.mount_path.trim_end_matches('/');
            need(
                absolute(&mount.mount_path) && !place.is_empty(),
                || path("mountPath"),
                "an absolute path below / without '..' or ':' is needed",
            )?;
            need(
                !mount.mount_path.contains(':'),
                || path("mountPath"),
                "an absolute path below / without '..' or ':' is needed",
            )?;
            need(
                places.insert(place),
                || path("mountPath"),
                "another mount of this container has the same path",
            )?;
            let inside = mount.sub_path.as_deref().is_none_or(|sub| {
                !sub.is_empty()
                    && !sub.starts_with('/')
                    && !sub.contains('\0')
                    && sub.split('/').all(|part| part != "..")
            });
            need(inside, || path("subPath"), "a relative path without '..' is needed")?;
            let volume = pod.volumes.iter().find(|volume| volume.name == mount.name);
            let source = volume.and_then(|volume| volume.source());
            let host = source.is_some_and(|source| source.host_kind().is_some());
            need(
                !host || mount.sub_path.is_none(),
                || path("subPath"),
                "a volume that the host fills is mounted whole; seal its contents with --with FILE to mount a part",
            )?;
            need(
                place != crate::fields::SPEC_MOUNT,
                || path("mountPath"),
                "the sealed document is mounted there; use another path",
            )?;
        }
        Ok(())
    }
}

impl EnvVar {
    fn check(&self, path: &str) -> Checked {
        need(
            !self.name.is_empty() && !self.name.contains(['=', '\0']),
            || format!("{path}.name"),
            "a name without '=' is needed",
        )?;
        let value = self.value.expose();
        need(!value.contains('\0'), || format!("{path}.value"), "NUL bytes are not allowed")?;
        let Some(source) = &self.value_from else { return Ok(()) };
        let path = format!("{path}.valueFrom");
        need(value.is_empty(), || path.clone(), "value and valueFrom exclude each other")?;
        let ways =
            [source.resource.is_some(), source.field_ref.is_some(), source.resource_field_ref.is_some()];
        one_way(&path, &ways, "exactly one source is needed")?;
        if let Some(field) = &source.field_ref {
            let good = is_downward_field(&field.field_path) && !is_downward_resource(&field.field_path);
            need(
                good && matches!(field.api_version.as_deref(), None | Some("v1")),
                || format!("{path}.fieldRef.fieldPath"),
                "a field that variables can have is needed: metadata.name, status.podIP, …",
            )?;
        }
        let Some(resource) = &source.resource_field_ref else { return Ok(()) };
        need(
            is_downward_resource(&resource.resource),
            || format!("{path}.resourceFieldRef.resource"),
            "limits or requests of cpu, memory or ephemeral-storage are needed: limits.cpu",
        )
    }
}

impl ResourceRequirements {
    fn check(&self, path: &str) -> Checked {
        for (field, list) in [("limits", &self.limits), ("requests", &self.requests)] {
            for name in list.keys() {
                need(
                    matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage"),
                    || format!("{path}.{field}.{name}"),
                    "only cpu, memory and ephemeral-storage are supported",
                )?;
            }
        }
        let amount = |quantity: &Quantity| (quantity.units(), quantity.millis());
        for (name, request) in &self.requests {
            let fits = self.limits.get(name).is_none_or(|limit| amount(request) <= amount(limit));
            need(fits, || format!("{path}.requests.{name}"), "it must not be above the limit")?;
        }
        Ok(())
    }
}

impl Probe {
    fn check(&self, path: &str) -> Checked {
        let ways =
            [self.exec.is_some(), self.http_get.is_some(), self.tcp_socket.is_some(), self.grpc.is_some()];
        one_way(path, &ways, "exactly one of exec, httpGet, tcpSocket and grpc is needed")?;
        if let Some(exec) = &self.exec {
            command(path, &exec.command)?;
        }
        let scheme = self.http_get.as_ref().and_then(|get| get.scheme.as_deref());
        need(
            matches!(scheme, None | Some("HTTP" | "HTTPS")),
            || format!("{path}.httpGet.scheme"),
            "HTTP or HTTPS is needed",
        )
    }
}

impl LifecycleHandler {
    fn check(&self, path: &str) -> Checked {
        let ways = [self.exec.is_some(), self.http_get.is_some(), self.sleep.is_some()];
        one_way(path, &ways, "exactly one of exec, httpGet and sleep is needed")?;
        match &self.exec {
            Some(exec) => command(path, &exec.command),
            None => Ok(()),
        }
    }
}

fn one_way(path: &str, ways: &[bool], rule: &str) -> Checked {
    need(ways.iter().filter(|way| **way).count() == 1, || path.into(), rule)
}

fn command(path: &str, argv: &[String]) -> Checked {
    let good = argv.first().is_some_and(|program| !program.is_empty())
        && argv.iter().all(|text| !text.contains('\0'));
    need(good, || format!("{path}.exec.command"), "a command without NUL bytes is needed")
}

/// The names that Kubernetes takes (core/v1 `Signal`).
fn is_signal(name: &str) -> bool {
    const NAMES: [&str; 31] = [
        "SIGABRT",
        "SIGALRM",
        "SIGBUS",
        "SIGCHLD",
        "SIGCONT",
        "SIGFPE",
        "SIGHUP",
        "SIGILL",
        "SIGINT",
        "SIGIO",
        "SIGKILL",
        "SIGPIPE",
        "SIGPROF",
        "SIGPWR",
        "SIGQUIT",
        "SIGSEGV",
        "SIGSTKFLT",
        "SIGSTOP",
        "SIGSYS",
        "SIGTERM",
        "SIGTRAP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGUSR1",
        "SIGUSR2",
        "SIGVTALRM",
        "SIGWINCH",
        "SIGXCPU",
        "SIGXFSZ",
    ];
    let offset = |prefix: &str, most: u8| {
        let number = name.strip_prefix(prefix).filter(|number| !number.starts_with('0'));
        number.and_then(|number| number.parse::<u8>().ok()).is_some_and(|number| number <= most)
    };
    NAMES.contains(&name)
        || matches!(name, "SIGRTMIN" | "SIGRTMAX")
        || offset("SIGRTMIN+", 15)
        || offset("SIGRTMAX-", 14)
}

fn address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn one_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

fn absolute(text: &str) -> bool {
    text.starts_with('/') && !text.contains('\0') && text.split('/').all(|part| part != "..")
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
