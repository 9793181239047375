//! Debug containers: `kubectl debug` adds a container to a running pod. In a sealed pod it only chooses
//! a name; what runs is the owner's, sealed here.

use serde::{Deserialize, Serialize};

use crate::podspec::Container;
use crate::secret::silent_debug;
use crate::spec::ImageRef;

/// Most debug containers over the life of one VM.
const MOST: u32 = 64;

/// Leave to add debug containers. The host picks the name, nothing else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebugGrant {
    /// Which names: an exact one, or a prefix and `*` (`debugger-*`, what `kubectl debug` makes up).
    pub names: String,
    /// How many over the life of a VM, 1 to 64; an ended one still counts.
    pub count: u32,
    /// The image that runs, by digest; what the host names is not looked at.
    pub image: ImageRef,
    /// Command, environment, terminal, rights: as for other containers. Its `name` is replaced by the
    /// one that the host picked. Its output goes where `logs` says, and with `stdin: true` the host may
    /// write to it without an `attach` grant.
    pub container: Container,
}

impl DebugGrant {
    /// Whether the grant is for a container of that name.
    pub fn covers(&self, name: &str) -> bool {
        let well_formed = crate::names::dns_label(name);
        match self.names.strip_suffix('*') {
            Some(prefix) => well_formed && name.len() > prefix.len() && name.starts_with(prefix),
            None => well_formed && name == self.names,
        }
    }

    /// The container that runs under a name that the host picked; `None` if the grant doesn't cover it.
    pub fn container(&self, name: &str) -> Option<Container> {
        self.covers(name).then(|| Container { name: name.to_owned(), ..self.container.clone() })
    }

    /// Checks what the type doesn't hold. Whether a name is the pod's is checked with the pod.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let prefix = self.names.strip_suffix('*').unwrap_or(&self.names);
        let filled = if self.names.ends_with('*') { format!("{prefix}x") } else { prefix.to_owned() };
        if !crate::names::dns_label(&filled) || prefix.is_empty() {
            return Err("its names must be a DNS label, or the beginning of one and '*'");
        }
        if !(1..=MOST).contains(&self.count) {
            return Err("its count must be 1 to 64");
        }
        if self.image.digest.is_none() {
            return Err("its image must be named by digest");
        }
        self.image.check()
    }
}

silent_debug!(DebugGrant);
