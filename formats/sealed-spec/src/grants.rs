//! What the host may do beyond running the pod, and the rules that tie each grant to the pod: a grant
//! for something that isn't there is a mistake, and so is a pod that needs a grant it doesn't have.

mod check;
mod debug;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use check::GrantError;
pub(crate) use check::check_resources;
pub use debug::DebugGrant;

use crate::log::LogRecipient;
use crate::podspec::{Quantity, VolumeKind};
use crate::secret::silent_debug;

/// What the host may do beyond running the pod. The default grants nothing.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Who may read what the containers print.
    pub logs: Logs,
    /// Containers whose standard input the host may write to, and whose terminal it may resize. What
    /// they print goes where `logs` says.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub attach: BTreeSet<String>,
    /// By container name: the argument vectors that the host may run in it, exactly.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exec: BTreeMap<String, Vec<Vec<String>>>,
    /// By container name: how far the host may raise its resources while it runs. It may always lower
    /// them. A container that isn't here keeps its sealed limits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub update_resources: BTreeMap<String, ResourceCeiling>,
    /// By container name and mount path (as in `volumeMounts`, without a slash at its end): volumes
    /// whose contents are the host's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, BTreeMap<String, VolumeGrant>>,
    /// The token, CA and namespace of the pod's service account, which the API server mounts into each
    /// container at [`SERVICE_ACCOUNT_MOUNT`].
    #[serde(skip_serializing_if = "is_false")]
    pub service_account_token: bool,
    /// Fields (`status.podIP`) and resources (`limits.cpu`) that environment variables may take from
    /// the host. Their values are untrusted.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub downward: BTreeSet<String>,
    /// The environment variables that kubelet makes for services: see [`is_service_link`]. Their values
    /// are untrusted, and never replace a sealed variable.
    #[serde(skip_serializing_if = "is_false")]
    pub service_links: bool,
    /// The only ports on which the pod may be reached from outside. Reserved: refused until the guest
    /// filters them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<BTreeSet<u16>>,
    /// Debug containers that may be added to the running pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<DebugGrant>,
}

/// Who may read what the containers print.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Logs {
    /// Nobody: output is drained inside the guest.
    #[default]
    Off,
    /// The owner: the host gets lines that only the recipient's private key opens.
    Sealed {
        /// The owner's log key, public half.
        recipient: LogRecipient,
    },
    /// The host, in clear.
    Clear,
}

/// How far a container's resources may be raised while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceCeiling {
    /// CPUs at most; `None`: the sealed limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes of memory at most; `None`: the sealed limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// A volume of the host's in one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeGrant {
    /// What fills it; the same as the pod's volume of that mount.
    pub kind: VolumeKind,
    /// Whether programs in it may run. Otherwise it is mounted noexec.
    #[serde(default, skip_serializing_if = "is_false")]
    pub executable: bool,
    /// Bytes at most, of all its files and versions that exist at one time; 1 to [`VolumeGrant::MOST_BYTES`].
    pub max_bytes: u64,
}

impl VolumeGrant {
    /// What is granted where the owner names no bound: two versions of the largest ConfigMap or Secret.
    pub const DEFAULT_BYTES: u64 = 2 << 20;
    /// Largest bound of one volume.
    pub const MOST_BYTES: u64 = 64 << 20;
}

/// Where the API server mounts the service account's token.
pub const SERVICE_ACCOUNT_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl Grants {
    /// The grant for a volume mount of a container; a slash at the end of `mount_path` doesn't matter.
    pub fn volume(&self, container: &str, mount_path: &str) -> Option<&VolumeGrant> {
        self.volumes.get(container)?.get(mount_path.trim_end_matches('/'))
    }
}

/// Whether kubelet makes a variable of that name for a service: `REDIS_SERVICE_HOST`,
/// `REDIS_SERVICE_PORT`, `REDIS_SERVICE_PORT_HTTP`, `REDIS_PORT`, `REDIS_PORT_6379_TCP`,
/// `REDIS_PORT_6379_TCP_PROTO`, `…_PORT`, `…_ADDR`.
pub fn is_service_link(name: &str) -> bool {
    let upper = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    };
    if !upper(name) || name.starts_with(|first: char| first.is_ascii_digit()) {
        return false;
    }
    // A service's name may itself contain these words: any place where the rest fits will do.
    let ends_with = |suffix: &str| name.strip_suffix(suffix).is_some_and(upper);
    if ends_with("_SERVICE_HOST") || ends_with("_SERVICE_PORT") || ends_with("_PORT") {
        return true;
    }
    let parts = |word: &'static str| {
        name.match_indices(word).map(move |(at, _)| (&name[..at], &name[at + word.len()..]))
    };
    parts("_SERVICE_PORT_").any(|(service, port)| upper(service) && upper(port))
        || parts("_PORT_").any(|(service, rest)| upper(service) && is_port_link(rest))
}

/// `6379_TCP` and `6379_TCP_{PROTO,PORT,ADDR}`.
fn is_port_link(rest: &str) -> bool {
    let mut words = rest.split('_');
    let number = words.next().unwrap_or_default();
    number.bytes().all(|b| b.is_ascii_digit())
        && number.parse::<u16>().is_ok_and(|port| port > 0)
        && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
        && matches!(words.next(), None | Some("PROTO" | "PORT" | "ADDR"))
        && words.next().is_none()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

silent_debug!(Grants);

#[cfg(test)]
#[path = "grants_tests.rs"]
mod tests;
