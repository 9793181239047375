//! The objects that go to the cluster: the workload of placeholders with its initdata annotation,
//! and the ConfigMap that carries the sealed document.

use serde_json::{Map, Value, json};

use super::split::{Split, template_path};
use crate::document::SealedDocument;
use crate::initdata::{ANNOTATION, DOCUMENT_ENTRY};

/// Name of the volume that carries the sealed document to the guest.
pub const SPEC_VOLUME: &str = "sealpod-spec";
/// Where placeholder containers mount it. The guest takes the document and drops the mount.
pub const SPEC_MOUNT: &str = "/sealpod/spec";

/// What turns a [`Split`] into a manifest for the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// Value of the initdata annotation.
    pub annotation: &'a str,
    /// ConfigMap with the sealed document, unless that is in the initdata.
    pub config_map: Option<&'a str>,
    /// Runtime class to set where the owner's manifest names none.
    pub runtime_class: Option<&'a str>,
    /// Another placeholder image, for clusters whose nodes pull it.
    pub placeholder_image: Option<&'a str>,
}

impl Split {
    /// The workload as it goes to the cluster.
    pub fn publish(&self, publication: &Publication<'_>) -> Value {
        let mut workload = self.public.clone();
        let mut template = &mut workload;
        for step in template_path(self.workload.kind) {
            template = &mut template[*step];
        }
        template["metadata"]["annotations"][ANNOTATION] = publication.annotation.into();
        let spec = &mut template["spec"];
        if let Some(class) = publication.runtime_class
            && spec.get("runtimeClassName").is_none()
        {
            spec["runtimeClassName"] = class.into();
        }
        if let Some(name) = publication.config_map {
            append(spec, "volumes", json!({ "name": SPEC_VOLUME, "configMap": { "name": name } }));
        }
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(image) = publication.placeholder_image {
                    container["image"] = image.into();
                }
                if publication.config_map.is_some() {
                    let mount = json!({ "name": SPEC_VOLUME, "mountPath": SPEC_MOUNT, "readOnly": true });
                    append(container, "volumeMounts", mount);
                }
            }
        }
        workload
    }
}

/// Adds to a list that has only what is granted to the host, or nothing.
fn append(object: &mut Value, list: &str, item: Value) {
    match object.get_mut(list).and_then(Value::as_array_mut) {
        Some(items) => items.push(item),
        None => object[list] = json!([item]),
    }
}

/// The ConfigMap with the sealed document. Immutable: another revision is another ConfigMap.
pub fn config_map(name: &str, namespace: Option<&str>, document: &SealedDocument) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".into(), name.into());
    if let Some(namespace) = namespace {
        metadata.insert("namespace".into(), namespace.into());
    }
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": true,
        "data": { DOCUMENT_ENTRY: document.as_str() },
    })
}
