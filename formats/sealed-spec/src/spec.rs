//! What a sealed document holds: the pod, its images by digest, where they are pulled from, and
//! what the host may do. The guest does nothing that is not in here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::grants::{DebugGrant, GrantError, Grants, Logs, ResourceCeiling, VolumeGrant};
pub use crate::log::LogRecipient;
use crate::names::{KbsUri, sha256_hex};
use crate::podspec::{PodError, PodSpec};
use crate::secret::{Secret, silent_debug};

/// Version of the plaintext's layout.
pub const VERSION: u32 = 1;

/// The plaintext of a sealed document.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedSpec {
    /// Always [`VERSION`].
    pub version: u32,
    /// The whole pod as its owner wrote it.
    pub pod: PodSpec,
    /// By container name (init containers too): one entry for each container, no others.
    pub images: BTreeMap<String, ImageRef>,
    /// Where images come from; a registry that isn't listed is asked anonymously over https.
    #[serde(default)]
    pub registries: Vec<RegistrySource>,
    /// What the host may do beyond running the pod.
    #[serde(default)]
    pub grants: Grants,
    /// By container name: what it may ask the pinned broker for, through a socket of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, Vec<KbsUri>>,
}

/// An image, pinned.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// As the owner wrote it, made complete: `registry.example:5000/team/app:1.2`.
    pub reference: String,
    /// Digest of the manifest or index that the owner saw: `sha256:<64 lower hex>`.
    pub digest: String,
    /// Where the key of an encrypted image is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KbsUri>,
}

/// How to reach one registry from inside the guest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySource {
    /// As in image references: `registry.example:5000`.
    pub host: String,
    /// `https://host[:port]`, or `http://host[:port]` if the owner says so.
    pub location: String,
    /// The only certificates to trust for it, PEM; none = the guest's public CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// User name for pulling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its password or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

silent_debug!(SealedSpec, ImageRef, RegistrySource);

/// Why a plaintext is not a valid sealed specification.
#[derive(Debug, Error)]
pub enum SpecError {
    /// Not JSON of this layout.
    #[error(
        "sealed spec: at {path}: not a version {VERSION} specification ({category} at byte {column}); seal the pod again with a matching sealpod"
    )]
    Layout {
        /// Where in the document, without values.
        path: String,
        /// JSON error class.
        category: &'static str,
        /// Column of the one-line JSON text.
        column: usize,
    },
    /// Another version.
    #[error(
        "sealed spec: version {0} is not supported, {VERSION} is; seal the pod again with a matching sealpod"
    )]
    Version(u32),
    /// The pod itself breaks a rule.
    #[error("sealed spec: {0}")]
    Pod(#[from] PodError),
    /// A container without image entry.
    #[error("sealed spec: container {0:?} has no image digest; seal the pod again")]
    ImageMissing(String),
    /// An image entry without container.
    #[error("sealed spec: images names {0:?}, which is not a container of the pod; seal the pod again")]
    ImageUnknown(String),
    /// An image's digest or reference is malformed.
    #[error("sealed spec: image of {0:?}: {1}")]
    Image(String, &'static str),
    /// A registry entry is malformed.
    #[error("sealed spec: registry {0:?}: {1}")]
    Registry(String, &'static str),
    /// A grant that doesn't fit the pod, or that the pod needs.
    #[error("sealed spec: {0}")]
    Grant(#[from] GrantError),
}

impl SealedSpec {
    /// A specification of `pod` with everything else empty or off.
    pub fn new(pod: PodSpec) -> Self {
        Self {
            version: VERSION,
            pod,
            images: BTreeMap::new(),
            registries: Vec::new(),
            grants: Grants::default(),
            resources: BTreeMap::new(),
        }
    }

    /// Checks everything that the types alone don't hold.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.version != VERSION {
            return Err(SpecError::Version(self.version));
        }
        self.pod.validate()?;
        for container in self.pod.all_containers() {
            if !self.images.contains_key(&container.name) {
                return Err(SpecError::ImageMissing(container.name.clone()));
            }
        }
        for (name, image) in &self.images {
            if self.pod.container(name).is_none() {
                return Err(SpecError::ImageUnknown(name.clone()));
            }
            image.check().map_err(|rule| SpecError::Image(name.clone(), rule))?;
        }
        for (index, registry) in self.registries.iter().enumerate() {
            let refuse = |rule| SpecError::Registry(registry.host.clone(), rule);
            registry.check().map_err(refuse)?;
            if self.registries[..index].iter().any(|earlier| earlier.host == registry.host) {
                return Err(refuse("it is listed twice"));
            }
        }
        self.grants.check(&self.pod)?;
        crate::grants::check_resources(&self.pod, self.resources.iter())?;
        Ok(())
    }

    /// Whether a container may ask the broker for a resource.
    pub fn may_ask(&self, container: &str, uri: &KbsUri) -> bool {
        self.resources.get(container).is_some_and(|uris| uris.contains(uri))
    }

    /// The image of a container.
    pub fn image(&self, container: &str) -> Option<&ImageRef> {
        self.images.get(container)
    }

    /// How to reach a registry, by the host part of an image reference.
    pub fn registry(&self, host: &str) -> Option<&RegistrySource> {
        self.registries.iter().find(|registry| registry.host == host)
    }

    /// From the opened plaintext. Errors carry paths and classes, never values.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self, SpecError> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let spec: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            layout(path, error.inner())
        })?;
        json.end().map_err(|error| layout(".".into(), &error))?;
        spec.validate()?;
        Ok(spec)
    }
}

fn layout(path: String, error: &serde_json::Error) -> SpecError {
    let category = match error.classify() {
        serde_json::error::Category::Io => "input",
        serde_json::error::Category::Syntax => "syntax",
        serde_json::error::Category::Data => "type or field",
        serde_json::error::Category::Eof => "end of input",
    };
    SpecError::Layout { path, category, column: error.column() }
}

impl ImageRef {
    /// The registry part of the reference: `registry.example:5000`.
    pub fn registry(&self) -> &str {
        self.reference.split('/').next().unwrap_or_default()
    }

    /// The repository part: `team/app`, without tag or digest.
    pub fn repository(&self) -> &str {
        let path = self.reference.split_once('/').map_or("", |(_, path)| path);
        let path = path.split('@').next().unwrap_or_default();
        path.split(':').next().unwrap_or_default()
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if sha256_hex(&self.digest).is_none() {
            return Err("its digest must be sha256:<64 lower-case hex digits>");
        }
        if self.reference.len() > 512 || !self.reference.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("its reference must be printable ASCII of at most 512 bytes");
        }
        if self.registry().is_empty() || self.repository().is_empty() {
            return Err("its reference must name registry and repository");
        }
        if self.repository().split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err("its repository has an empty or dotted path segment");
        }
        Ok(())
    }
}

impl RegistrySource {
    /// Whether the owner allows plain http to it.
    pub fn plain_http(&self) -> bool {
        self.location.starts_with("http://")
    }

    fn check(&self) -> Result<(), &'static str> {
        if !host_port(&self.host) {
            return Err("its host must be host[:port] as in image references");
        }
        let authority =
            self.location.strip_prefix("https://").or_else(|| self.location.strip_prefix("http://"));
        match authority {
            None => return Err("its location must be an https:// or http:// URL"),
            Some(authority) if !host_port(authority) => {
                return Err("its location must be scheme://host[:port] without path, user or query");
            }
            Some(_) => {}
        }
        if let Some(ca) = &self.ca {
            if self.plain_http() {
                return Err("a CA makes no sense with an http:// location");
            }
            if !ca.contains("-----BEGIN CERTIFICATE-----") || ca.len() > 64 * 1024 {
                return Err("its ca must be PEM certificates, at most 64 KiB");
            }
        }
        if self.password.is_some() != self.username.is_some() {
            return Err("user name and password go together");
        }
        if self.password.is_some() && self.plain_http() {
            return Err("a login over http:// would be read by whoever is on the way; use https://");
        }
        Ok(())
    }
}

/// `host[:port]`: a DNS name, an IPv4 address or a bracketed IPv6 address, and a port from 1.
pub(crate) fn host_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host_is_good = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        crate::names::dns_subdomain(&host.to_ascii_lowercase())
    };
    let port_is_good = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    host_is_good && port_is_good
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
