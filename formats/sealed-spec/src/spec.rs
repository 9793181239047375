//! What a sealed document holds: the pod, its images by digest, where they are pulled from, and
//! what the host may do. The guest does nothing that is not in here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::grants::{DebugGrant, GrantError, Grants, Logs, ResourceCeiling, VolumeGrant};
pub use crate::log::LogRecipient;
use crate::names::{KbsUri, sha256_hex};
pub use crate::origin::{Proxy, RegistrySource};
use crate::podspec::{PodError, PodSpec};
use crate::secret::silent_debug;

/// Version of the plaintext's layout.
pub const VERSION: u32 = 1;

const MAX_KEYS: usize = 16;
const MAX_POLICY: usize = 128 << 10;

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
    /// `containers-policy.json` as [containers-policy.json(5)] has it, key files inlined: what images that are
    /// named by tag must be signed with. Read by crate `image-policy`; here only its size is checked.
    ///
    /// [containers-policy.json(5)]: https://github.com/containers/image/blob/main/docs/containers-policy.json.5.md
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_policy: Option<serde_json::Value>,
    /// Where the guest keeps unpacked layers.
    #[serde(default, skip_serializing_if = "LayerStore::is_default")]
    pub layer_store: LayerStore,
    /// The way out of the guest's network for pulls; none = directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// Where the guest keeps unpacked layers. What the owner chose is used or the pod doesn't start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerStore {
    /// In guest memory.
    #[default]
    Memory,
    /// On a block device that the host gives, encrypted and authenticated under a key that the guest makes and
    /// that dies with it.
    Device,
}

impl LayerStore {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An image, pinned.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// As the owner wrote it, made complete: `registry.example:5000/team/app:1.2`.
    pub reference: String,
    /// Digest of the manifest or index that the owner saw: `sha256:<64 lower hex>`. None = whatever the tag
    /// means when the pod starts, as far as the image policy's signatures vouch for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The keys at the broker that may open its layers: a 32-byte key, or a private key (PEM, JWK).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KbsUri>,
}

silent_debug!(SealedSpec, ImageRef);

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
    /// An image is named by tag and nothing says who must have signed it.
    #[error(
        "sealed spec: image of {0:?} has no digest and there is no image policy; seal with a digest or with --image-policy"
    )]
    Tag(String),
    /// The image policy isn't one.
    #[error("sealed spec: image_policy: {0}")]
    Policy(&'static str),
    /// The proxy is malformed.
    #[error("sealed spec: proxy: {0}")]
    Proxy(&'static str),
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
            image_policy: None,
            layer_store: LayerStore::default(),
            proxy: None,
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
            if image.digest.is_none() && self.image_policy.is_none() {
                return Err(SpecError::Tag(name.clone()));
            }
        }
        if let Some(policy) = &self.image_policy {
            check_policy(policy).map_err(SpecError::Policy)?;
        }
        if let Some(proxy) = &self.proxy {
            proxy.check().map_err(SpecError::Proxy)?;
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
    /// A plain image by its digest.
    pub fn pinned(reference: impl Into<String>, digest: impl Into<String>) -> Self {
        Self { reference: reference.into(), digest: Some(digest.into()), keys: Vec::new() }
    }

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
        if self.digest.as_ref().is_some_and(|digest| sha256_hex(digest).is_none()) {
            return Err("its digest must be sha256:<64 lower-case hex digits>");
        }
        if self.keys.len() > MAX_KEYS {
            return Err("it names more than 16 keys");
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

fn check_policy(policy: &serde_json::Value) -> Result<(), &'static str> {
    if !policy.is_object() {
        return Err("it must be an object as in containers-policy.json(5)");
    }
    if policy.to_string().len() > MAX_POLICY {
        return Err("it is longer than 128 KiB");
    }
    Ok(())
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
