//! Volumes of a pod: core/v1 `Volume`, and what fills it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::env::{FieldRef, ResourceFieldRef};
use super::quantity::Quantity;
use crate::secret::{Secret, silent_debug};

/// A volume: exactly one of its sources is set.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// What mounts call it.
    pub name: String,
    /// Made by the guest in guest memory or guest-encrypted scratch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDir>,
    /// Files that are in the sealed spec itself. Sealpod's own: a ConfigMap or Secret volume becomes
    /// one when its object is given at sealing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_files: Option<SealedFiles>,
    /// From a ConfigMap of the cluster, which the host can change; needs a grant for each mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapVolume>,
    /// From a Secret of the cluster, which the host can read and change; needs a grant for each mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretVolume>,
    /// From several of them; needs a grant for each mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub projected: Option<ProjectedVolume>,
    /// From the pod's own fields as the host tells them; needs a grant for each mount.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "downwardAPI")]
    pub downward_api: Option<DownwardApiVolume>,
}

impl Volume {
    /// What fills the volume; `None` unless exactly one source is set, which a valid pod guarantees.
    pub fn source(&self) -> Option<VolumeSource<'_>> {
        let sources = [
            self.empty_dir.as_ref().map(VolumeSource::EmptyDir),
            self.sealed_files.as_ref().map(VolumeSource::SealedFiles),
            self.config_map.as_ref().map(VolumeSource::ConfigMap),
            self.secret.as_ref().map(VolumeSource::Secret),
            self.projected.as_ref().map(VolumeSource::Projected),
            self.downward_api.as_ref().map(VolumeSource::DownwardApi),
        ];
        let mut set = sources.into_iter().flatten();
        let first = set.next()?;
        set.next().is_none().then_some(first)
    }
}

/// What fills a volume.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum VolumeSource<'a> {
    /// Nothing: the guest makes it empty.
    EmptyDir(&'a EmptyDir),
    /// The sealed spec.
    SealedFiles(&'a SealedFiles),
    /// The host, from a ConfigMap.
    ConfigMap(&'a ConfigMapVolume),
    /// The host, from a Secret.
    Secret(&'a SecretVolume),
    /// The host, from several sources.
    Projected(&'a ProjectedVolume),
    /// The host, from the pod's fields.
    DownwardApi(&'a DownwardApiVolume),
}

impl VolumeSource<'_> {
    /// The kind that a grant names, if the host fills the volume.
    pub fn host_kind(self) -> Option<VolumeKind> {
        match self {
            Self::EmptyDir(_) | Self::SealedFiles(_) => None,
            Self::ConfigMap(_) => Some(VolumeKind::ConfigMap),
            Self::Secret(_) => Some(VolumeKind::Secret),
            Self::Projected(_) => Some(VolumeKind::Projected),
            Self::DownwardApi(_) => Some(VolumeKind::DownwardApi),
        }
    }
}

/// Kinds of volumes that the host fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeKind {
    /// `configMap`
    ConfigMap,
    /// `secret`
    Secret,
    /// `projected`
    Projected,
    /// `downwardAPI`
    #[serde(rename = "downwardAPI")]
    DownwardApi,
}

/// A directory that lives as long as the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmptyDir {
    /// Default or Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<EmptyDirMedium>,
    /// Bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<Quantity>,
}

/// Where an `emptyDir` lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EmptyDirMedium {
    /// The guest's choice.
    #[default]
    #[serde(rename = "")]
    Default,
    /// tmpfs.
    Memory,
}

/// Files that are in the sealed spec: a read-only volume that nobody changes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SealedFiles {
    /// By path below the volume's root: relative, `/` between names, no `.` or `..`.
    pub files: BTreeMap<String, SealedFile>,
}

/// One file of a sealed volume.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SealedFile {
    /// Its bytes, base64 (standard alphabet, padded).
    pub data: Secret,
    /// Its permission bits, at most 0o777.
    pub mode: u32,
}

impl SealedFile {
    /// A file with these bytes.
    pub fn new(bytes: &[u8], mode: u32) -> Self {
        use base64::Engine as _;
        Self { data: Secret::new(base64::engine::general_purpose::STANDARD.encode(bytes)), mode }
    }

    /// Its bytes, wiped on drop; `None` if they are not base64, which a valid pod excludes.
    pub fn bytes(&self) -> Option<zeroize::Zeroizing<Vec<u8>>> {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(self.data.expose()).ok().map(Into::into)
    }
}

/// A ConfigMap as files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapVolume {
    /// Which ConfigMap.
    pub name: String,
    /// Only these keys; none = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<KeyToPath>,
    /// Permission bits of files; default 0o644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mode: Option<u32>,
    /// Whether it may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// A Secret as files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretVolume {
    /// Which Secret.
    pub secret_name: String,
    /// Only these keys; none = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<KeyToPath>,
    /// Permission bits of files; default 0o644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mode: Option<u32>,
    /// Whether it may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// Several sources in one directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProjectedVolume {
    /// What is put together.
    #[serde(default)]
    pub sources: Vec<ProjectedSource>,
    /// Permission bits of files; default 0o644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mode: Option<u32>,
}

/// One source of a projected volume; exactly one of the four is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProjectedSource {
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ObjectProjection>,
    /// A Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectProjection>,
    /// The pod's fields.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "downwardAPI")]
    pub downward_api: Option<DownwardApiProjection>,
    /// A token of the pod's service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<TokenProjection>,
}

/// A ConfigMap or Secret in a projected volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectProjection {
    /// Its name.
    pub name: String,
    /// Only these keys; none = all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<KeyToPath>,
    /// Whether it may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// The pod's fields in a projected volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DownwardApiProjection {
    /// The files.
    #[serde(default)]
    pub items: Vec<DownwardApiFile>,
}

/// A service account's token in a projected volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenProjection {
    /// File name.
    pub path: String,
    /// For whom the token is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// How long it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_seconds: Option<u64>,
}

/// The pod's fields as files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DownwardApiVolume {
    /// The files.
    #[serde(default)]
    pub items: Vec<DownwardApiFile>,
    /// Permission bits of files; default 0o644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_mode: Option<u32>,
}

/// One field as a file; exactly one of the two references is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DownwardApiFile {
    /// Where, below the volume's root.
    pub path: String,
    /// A field of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_ref: Option<FieldRef>,
    /// A resource of a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_field_ref: Option<ResourceFieldRef>,
    /// Its permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Which key becomes which file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyToPath {
    /// The key.
    pub key: String,
    /// The file, below the volume's root.
    pub path: String,
    /// Its permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

silent_debug!(Volume, SealedFiles, SealedFile);
