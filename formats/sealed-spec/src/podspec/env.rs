//! Environment variables: core/v1 `EnvVar`, and where values come from that the manifest doesn't have.

use serde::{Deserialize, Serialize};

use super::quantity::Quantity;
use crate::names::KbsUri;
use crate::secret::{Secret, silent_debug};

/// One environment variable.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value; empty when left out.
    #[serde(default)]
    pub value: Secret,
    /// Where its value comes from instead. Kubernetes' references to Secrets and ConfigMaps are not
    /// here: sealing puts their values in, or a `resource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvSource>,
}

/// Where a variable's value comes from; exactly one is set.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvSource {
    /// The pinned broker: the guest fetches it before the container starts. Sealpod's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<KbsUri>,
    /// A field of the pod as the host tells it: untrusted, needs a `downward` grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
    /// A container's resource as the host tells it: untrusted, needs a `downward` grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_field_ref: Option<ResourceFieldRef>,
}

impl EnvSource {
    /// What a `downward` grant has to list, if the host supplies the value: `status.podIP`, `limits.cpu`.
    pub fn downward_field(&self) -> Option<String> {
        let field = self.field_ref.as_ref().map(|field| &field.field_path);
        field.or_else(|| self.resource_field_ref.as_ref().map(|field| &field.resource)).cloned()
    }
}

/// A field of the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldRef {
    /// Version of the path's schema; default v1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// `metadata.name`, `status.podIP`, …
    pub field_path: String,
}

/// A container's resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceFieldRef {
    /// Whose; in volumes only, variables mean their own container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// `limits.cpu`, `requests.memory`, …
    pub resource: String,
    /// In what units; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divisor: Option<Quantity>,
}

/// Whether an environment variable can have that field or resource (kubelet's list).
pub fn is_downward_field(field: &str) -> bool {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    FIELDS.contains(&field) || is_downward_resource(field) || is_downward_key(field)
}

pub(super) fn is_downward_resource(field: &str) -> bool {
    matches!(
        field,
        "limits.cpu"
            | "limits.memory"
            | "limits.ephemeral-storage"
            | "requests.cpu"
            | "requests.memory"
            | "requests.ephemeral-storage"
    )
}

/// `metadata.labels['app']`
fn is_downward_key(field: &str) -> bool {
    ["metadata.labels['", "metadata.annotations['"].iter().any(|prefix| {
        let key = field.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']"));
        key.is_some_and(|key| {
            !key.is_empty()
                && key.len() <= 317
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
        })
    })
}

silent_debug!(EnvVar, EnvSource);
