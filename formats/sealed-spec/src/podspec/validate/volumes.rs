//! Rules of volumes and of what fills them.

use std::collections::BTreeSet;

use super::{Checked, need};
use crate::names::{dns_label, dns_subdomain};
use crate::podspec::env::{is_downward_field, is_downward_resource};
use crate::podspec::{
    DownwardApiFile, KeyToPath, PodSpec, ProjectedSource, SealedFiles, Volume, VolumeSource,
};

/// Most files, items or sources that one volume names.
const MOST_ENTRIES: usize = 1024;
const ONE_SOURCE: &str = "exactly one of emptyDir, configMap, secret, projected and downwardAPI is needed (the kinds that are supported)";
const OBJECT_NAME: &str = "the object's name, a lower-case DNS name, is needed";

impl PodSpec {
    pub(super) fn check_volumes(&self) -> Checked {
        let mut names = BTreeSet::new();
        for (index, volume) in self.volumes.iter().enumerate() {
            let path = || format!("volumes[{index}].name");
            need(
                dns_label(&volume.name),
                path,
                "a DNS label (a-z, 0-9, inner hyphens, at most 63) is needed",
            )?;
            need(names.insert(&volume.name), path, "another volume has the same name")?;
            need(
                volume.name != crate::fields::SPEC_VOLUME,
                path,
                "the volume with the sealed document has that name; use another",
            )?;
            volume.check(&format!("volumes[{index}]"))?;
        }
        Ok(())
    }
}

impl Volume {
    fn check(&self, path: &str) -> Checked {
        let Some(source) = self.source() else {
            return need(false, || path.to_owned(), ONE_SOURCE);
        };
        match source {
            VolumeSource::EmptyDir(_) => Ok(()),
            VolumeSource::SealedFiles(files) => files.check(&format!("{path}.sealedFiles")),
            VolumeSource::ConfigMap(map) => {
                object(&map.name, || format!("{path}.configMap.name"))?;
                mode(map.default_mode, || format!("{path}.configMap.defaultMode"))?;
                items(&map.items, &format!("{path}.configMap"))
            }
            VolumeSource::Secret(secret) => {
                object(&secret.secret_name, || format!("{path}.secret.secretName"))?;
                mode(secret.default_mode, || format!("{path}.secret.defaultMode"))?;
                items(&secret.items, &format!("{path}.secret"))
            }
            VolumeSource::Projected(projected) => {
                let path = format!("{path}.projected");
                mode(projected.default_mode, || format!("{path}.defaultMode"))?;
                let number = projected.sources.len();
                need(
                    (1..=MOST_ENTRIES).contains(&number),
                    || format!("{path}.sources"),
                    "1 to 1024 sources are needed",
                )?;
                for (index, source) in projected.sources.iter().enumerate() {
                    source.check(&format!("{path}.sources[{index}]"))?;
                }
                Ok(())
            }
            VolumeSource::DownwardApi(downward) => {
                let path = format!("{path}.downwardAPI");
                mode(downward.default_mode, || format!("{path}.defaultMode"))?;
                downward_items(&downward.items, &path)
            }
        }
    }
}

impl SealedFiles {
    fn check(&self, path: &str) -> Checked {
        need(self.files.len() <= MOST_ENTRIES, || format!("{path}.files"), "at most 1024 files are allowed")?;
        for (name, file) in &self.files {
            let place = || format!("{path}.files.{name}");
            need(relative(name), place, "a relative path without '.' or '..' is needed")?;
            let blocked = name.match_indices('/').any(|(at, _)| self.files.contains_key(&name[..at]));
            need(!blocked, place, "another file of the volume has the name of its directory")?;
            need(file.mode <= 0o777, place, "permission bits of at most 0777 are needed")?;
            need(file.bytes().is_some(), place, "base64 is needed")?;
        }
        Ok(())
    }
}

impl ProjectedSource {
    fn check(&self, path: &str) -> Checked {
        let ways = [
            self.config_map.is_some(),
            self.secret.is_some(),
            self.downward_api.is_some(),
            self.service_account_token.is_some(),
        ];
        super::one_way(
            path,
            &ways,
            "exactly one of configMap, secret, downwardAPI and serviceAccountToken is needed",
        )?;
        for (field, projection) in [("configMap", &self.config_map), ("secret", &self.secret)] {
            if let Some(projection) = projection {
                object(&projection.name, || format!("{path}.{field}.name"))?;
                items(&projection.items, &format!("{path}.{field}"))?;
            }
        }
        if let Some(downward) = &self.downward_api {
            downward_items(&downward.items, &format!("{path}.downwardAPI"))?;
        }
        let Some(token) = &self.service_account_token else { return Ok(()) };
        let path = |field: &str| format!("{path}.serviceAccountToken.{field}");
        need(relative(&token.path), || path("path"), "a relative path without '.' or '..' is needed")?;
        need(
            token.expiration_seconds.is_none_or(|seconds| seconds >= 600),
            || path("expirationSeconds"),
            "at least 600 is needed",
        )
    }
}

fn object(name: &str, path: impl FnOnce() -> String) -> Checked {
    need(dns_subdomain(name), path, OBJECT_NAME)
}

fn mode(mode: Option<u32>, path: impl FnOnce() -> String) -> Checked {
    need(
        mode.is_none_or(|mode| mode <= 0o777),
        path,
        "permission bits of at most 0777 (511 in decimal) are needed",
    )
}

fn items(items: &[KeyToPath], path: &str) -> Checked {
    need(items.len() <= MOST_ENTRIES, || format!("{path}.items"), "at most 1024 items are allowed")?;
    for (index, item) in items.iter().enumerate() {
        let path = |field: &str| format!("{path}.items[{index}].{field}");
        need(data_key(&item.key), || path("key"), "letters, digits, '-', '_' and '.' are allowed")?;
        need(relative(&item.path), || path("path"), "a relative path without '.' or '..' is needed")?;
        mode(item.mode, || path("mode"))?;
    }
    Ok(())
}

fn downward_items(items: &[DownwardApiFile], path: &str) -> Checked {
    need(items.len() <= MOST_ENTRIES, || format!("{path}.items"), "at most 1024 items are allowed")?;
    for (index, item) in items.iter().enumerate() {
        let path = |field: &str| format!("{path}.items[{index}]{field}");
        let ways = [item.field_ref.is_some(), item.resource_field_ref.is_some()];
        super::one_way(&path(""), &ways, "exactly one of fieldRef and resourceFieldRef is needed")?;
        need(relative(&item.path), || path(".path"), "a relative path without '.' or '..' is needed")?;
        mode(item.mode, || path(".mode"))?;
        if let Some(field) = &item.field_ref {
            let field = field.field_path.as_str();
            let good = is_downward_field(field) && !is_downward_resource(field)
                || matches!(field, "metadata.labels" | "metadata.annotations");
            need(good, || path(".fieldRef.fieldPath"), "a field that the downward API has is needed")?;
        }
        if let Some(resource) = &item.resource_field_ref {
            let good = is_downward_resource(&resource.resource);
            need(
                good,
                || path(".resourceFieldRef.resource"),
                "a resource that the downward API has is needed",
            )?;
        }
    }
    Ok(())
}

/// Keys of ConfigMaps and Secrets.
pub(crate) fn data_key(key: &str) -> bool {
    !matches!(key, "" | "." | "..")
        && key.len() <= 253
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A path below a volume's root.
pub(crate) fn relative(path: &str) -> bool {
    path.len() <= 1024
        && !path.contains('\0')
        && path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() <= 255)
        // kubelet's own links in such volumes; a file of that name would take their place.
        && !path.starts_with("..")
}
