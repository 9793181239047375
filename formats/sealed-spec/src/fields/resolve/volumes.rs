//! Volumes of Secrets and ConfigMaps: sealed files, unless a grant leaves them to the host.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Checked, Data, ObjectKind, Resolver};
use crate::fields::split::{FieldError, join};
use crate::podspec::{
    ConfigMapVolume, KeyToPath, ObjectProjection, ProjectedVolume, SealedFile, SealedFiles, SecretVolume,
};

const DEFAULT_MODE: u32 = 0o644;
const HOST_KINDS: [&str; 4] = ["configMap", "secret", "projected", "downwardAPI"];

/// The pod's volumes that a grant leaves to the host: of a kind that the host fills, and mounted at a
/// granted path in some container.
pub(in crate::fields) fn host_volumes(pod: &Value, granted: &BTreeSet<(String, String)>) -> BTreeSet<String> {
    let list =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut mounted = BTreeSet::new();
    for container in ["initContainers", "containers"].iter().flat_map(|field| list(pod, field)) {
        for mount in list(&container, "volumeMounts") {
            let path = text(&mount, "mountPath").trim_end_matches('/').to_owned();
            if granted.contains(&(text(&container, "name"), path)) {
                mounted.insert(text(&mount, "name"));
            }
        }
    }
    let host = |volume: &Value| HOST_KINDS.iter().any(|kind| volume.get(kind).is_some());
    let names = list(pod, "volumes").into_iter().filter(host).map(|volume| text(&volume, "name"));
    names.filter(|name| mounted.contains(name)).collect()
}

impl Resolver<'_> {
    pub(super) fn volumes(&self, pod: &mut Map<String, Value>, path: &str) -> Checked {
        let volumes = pod.get_mut("volumes").and_then(Value::as_array_mut);
        for (index, volume) in volumes.into_iter().flatten().enumerate() {
            let path = format!("{}[{index}]", join(path, "volumes"));
            let Some(volume) = volume.as_object_mut() else { continue };
            let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
            if self.host_volumes.contains(name) {
                continue;
            }
            let Some(kind) = HOST_KINDS.into_iter().find(|kind| volume.contains_key(*kind)) else {
                continue;
            };
            let path = join(&path, kind);
            let source = volume.get(kind).cloned().unwrap_or_default();
            let files = match kind {
                "configMap" => {
                    let source: ConfigMapVolume = typed(source, &path)?;
                    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
                    let data = self.find(ObjectKind::ConfigMap, &source.name, &path)?;
                    files(data, &source.items, source.optional == Some(true), mode, &path)?
                }
                "secret" => {
                    let source: SecretVolume = typed(source, &path)?;
                    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
                    let data = self.find(ObjectKind::Secret, &source.secret_name, &path)?;
                    files(data, &source.items, source.optional == Some(true), mode, &path)?
                }
                "projected" => self.projected(&typed(source, &path)?, &path)?,
                _ => return Err(FieldError::new(path, ONLY_HOST)),
            };
            volume.remove(kind);
            let files = serde_json::to_value(SealedFiles { files });
            let files = files.map_err(|_| FieldError::new(&*path, "its files can't be written as JSON"))?;
            volume.insert("sealedFiles".into(), files);
        }
        Ok(())
    }

    fn projected(&self, volume: &ProjectedVolume, path: &str) -> Result<Files, FieldError> {
        let mode = volume.default_mode.unwrap_or(DEFAULT_MODE);
        let mut all = Files::new();
        for (index, source) in volume.sources.iter().enumerate() {
            let path = format!("{path}.sources[{index}]");
            if source.downward_api.is_some() || source.service_account_token.is_some() {
                return Err(FieldError::new(path, ONLY_HOST));
            }
            let objects = [
                ("configMap", ObjectKind::ConfigMap, &source.config_map),
                ("secret", ObjectKind::Secret, &source.secret),
            ];
            for (field, kind, projection) in objects {
                let Some(ObjectProjection { name, items, optional }) = projection else { continue };
                let path = join(&path, field);
                let data = self.find(kind, name, &path)?;
                for (name, file) in files(data, items, *optional == Some(true), mode, &path)? {
                    if all.contains_key(&name) {
                        let problem = format!("an earlier source has a file '{name}' too");
                        return Err(FieldError::new(path, problem));
                    }
                    all.insert(name, file);
                }
            }
        }
        Ok(all)
    }
}

const ONLY_HOST: &str = "only the host can fill this volume; seal with --grant-volume CONTAINER:PATH if the pod may trust what the host writes there";

type Files = BTreeMap<String, SealedFile>;

fn typed<T: serde::de::DeserializeOwned>(source: Value, path: &str) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(source).map_err(|error| {
        let inner = error.path().to_string();
        let place = if inner == "." { path.to_owned() } else { join(path, &inner) };
        FieldError::new(place, error.into_inner().to_string())
    })
}

fn files(
    data: &Data,
    items: &[KeyToPath],
    optional: bool,
    mode: u32,
    path: &str,
) -> Result<Files, FieldError> {
    if items.is_empty() {
        return Ok(data.iter().map(|(key, bytes)| (key.clone(), SealedFile::new(bytes, mode))).collect());
    }
    let mut files = Files::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}.items[{index}]");
        let Some(bytes) = data.get(&item.key) else {
            if optional {
                continue;
            }
            return Err(FieldError::new(
                path,
                format!("the object that was given has no key '{}'", item.key),
            ));
        };
        if files.insert(item.path.clone(), SealedFile::new(bytes, item.mode.unwrap_or(mode))).is_some() {
            return Err(FieldError::new(path, "another item has the same path"));
        }
    }
    Ok(files)
}
