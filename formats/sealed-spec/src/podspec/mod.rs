//! The supported part of a Kubernetes PodSpec, typed and strict: a field that isn't here is refused.
//!
//! Field names and meanings are Kubernetes' (core/v1). Which of them stay public is in
//! [`crate::fields`]; rules across fields are in `validate`.

mod container;
mod env;
mod expand;
mod probe;
mod quantity;
mod security;
mod validate;
mod volume;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use container::{
    Container, ContainerPort, ContainerRestartPolicy, ExecAction, GrpcAction, HttpGetAction, HttpHeader,
    ImagePullPolicy, ResizePolicy, ResourceRequirements, SleepAction, TcpSocketAction,
    TerminationMessagePolicy, VolumeMount,
};
pub use env::{EnvSource, EnvVar, FieldRef, ResourceFieldRef, is_downward_field};
pub use expand::expand;
pub use probe::{Lifecycle, LifecycleHandler, Probe};
pub use quantity::{IntOrString, Quantity, QuantityError};
pub use security::{
    Capabilities, FsGroupChangePolicy, PodSecurityContext, ProcMount, SeccompProfile, SeccompProfileType,
    SecurityContext, SupplementalGroupsPolicy, Sysctl,
};
pub use validate::PodError;
pub(crate) use validate::volumes::data_key;
pub use volume::{
    ConfigMapVolume, DownwardApiFile, DownwardApiProjection, DownwardApiVolume, EmptyDir, EmptyDirMedium,
    KeyToPath, ObjectProjection, ProjectedSource, ProjectedVolume, SealedFile, SealedFiles, SecretVolume,
    TokenProjection, Volume, VolumeKind, VolumeSource,
};

use crate::secret::silent_debug;

/// A pod, as its owner wrote it.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSpec {
    /// The containers, at least one.
    pub containers: Vec<Container>,
    /// Run to completion before the others, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// Volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// When containers are started again; Kubernetes' default is Always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Seconds between TERM and KILL; default 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<u32>,
    /// Seconds after which kubelet ends the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<u64>,
    /// The pod's host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The pod's subdomain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    /// Use the fully qualified name as the kernel's host name.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "setHostnameAsFQDN")]
    pub set_hostname_as_fqdn: Option<bool>,
    /// Lines for /etc/hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_aliases: Vec<HostAlias>,
    /// Where name servers come from; default ClusterFirst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_policy: Option<DnsPolicy>,
    /// Name servers, search domains and options of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    /// Security settings for all containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<PodSecurityContext>,
    /// Scheduling: labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Scheduling: the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Scheduling; opaque to the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<serde_json::Value>,
    /// Scheduling; opaque to the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<serde_json::Value>,
    /// Scheduling; opaque to the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<serde_json::Value>,
    /// Scheduling; opaque to the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readiness_gates: Vec<serde_json::Value>,
    /// Scheduling; opaque to the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduling_gates: Vec<serde_json::Value>,
    /// Scheduling priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Scheduling priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Whether it may preempt others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_policy: Option<String>,
    /// Which scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// The runtime class that leads to Kata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Extra resources of the runtime class; opaque to the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overhead: Option<serde_json::Value>,
    /// Whose identity the pod has at the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// `true` needs the grant of the token; Sealpod's default is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<bool>,
    /// `true` needs the grant of service links; Sealpod's default is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_service_links: Option<bool>,
    /// Containers see each other's processes; the pause process is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_process_namespace: Option<bool>,
    /// Secrets for kubelet to pull the placeholder image with; the guest never uses them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Only Linux is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<PodOs>,
}

impl PodSpec {
    /// The container or init container of that name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.all_containers().find(|container| container.name == name)
    }

    /// Init containers in their order, then containers.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// Whether that name is an init container's.
    pub fn is_init_container(&self, name: &str) -> bool {
        self.init_containers.iter().any(|container| container.name == name)
    }

    /// Whether that name is a native sidecar's: an init container that keeps running.
    pub fn is_sidecar(&self, name: &str) -> bool {
        self.init_containers.iter().any(|container| container.name == name && container.is_sidecar())
    }

    /// With Kubernetes' default.
    pub fn effective_restart_policy(&self) -> RestartPolicy {
        self.restart_policy.unwrap_or_default()
    }
}

/// When containers are started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// After every exit.
    #[default]
    Always,
    /// After a failure.
    OnFailure,
    /// Never.
    Never,
}

/// One address and its names for /etc/hosts.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostAlias {
    /// IPv4 or IPv6 address.
    pub ip: String,
    /// Its names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
}

/// Where name servers come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnsPolicy {
    /// The cluster's, with the host network its too.
    ClusterFirstWithHostNet,
    /// The cluster's.
    #[default]
    ClusterFirst,
    /// The node's.
    Default,
    /// Only what `dnsConfig` says.
    None,
}

/// Name servers, search domains and options of the owner.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsConfig {
    /// Addresses of name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Search domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<String>,
    /// resolv.conf options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<DnsOption>,
}

/// A resolv.conf option: `name` or `name:value`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsOption {
    /// Its name.
    pub name: String,
    /// Its value, if it takes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A Kubernetes object in the pod's namespace, by name.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalObjectReference {
    /// Its name.
    pub name: String,
}

/// Operating system of the pod.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodOs {
    /// Only `linux`.
    pub name: String,
}

silent_debug!(PodSpec, HostAlias, DnsConfig, DnsOption, LocalObjectReference, PodOs);
