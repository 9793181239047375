//! Splits a manifest by the table: the workload that the host gets, and the pod that is sealed.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thiserror::Error;

use super::objects::Objects;
use super::placeholder::{Hook, PLACEHOLDER_IMAGE, placeholder_argv};
use super::resolve::{Resolver, host_volumes};
use super::table::{Field, TABLE, Treatment};
use crate::document::{Workload, WorkloadKind};
use crate::names::{dns_label, dns_subdomain};
use crate::podspec::PodSpec;

/// A manifest, split.
#[derive(Clone)]
pub struct Split {
    /// The workload as the host gets it, without annotation and ConfigMap: see `publish`.
    pub public: Value,
    /// The pod as its owner wrote it.
    pub pod: PodSpec,
    /// Kind and name.
    pub workload: Workload,
    /// The manifest's namespace, if it names one.
    pub namespace: Option<String>,
    /// Rows of the table that the manifest has fields for, in the table's order.
    pub rows: Vec<&'static Field>,
}

/// What is wrong with a manifest, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {problem}")]
pub struct FieldError {
    /// `spec.template.spec.containers[0].envFrom`
    pub path: String,
    /// What is wrong, and the next step.
    pub problem: String,
}

impl FieldError {
    pub(super) fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

const KINDS: [(WorkloadKind, &str); 7] = [
    (WorkloadKind::Pod, "v1"),
    (WorkloadKind::Deployment, "apps/v1"),
    (WorkloadKind::StatefulSet, "apps/v1"),
    (WorkloadKind::DaemonSet, "apps/v1"),
    (WorkloadKind::ReplicaSet, "apps/v1"),
    (WorkloadKind::Job, "batch/v1"),
    (WorkloadKind::CronJob, "batch/v1"),
];

/// Where the table changes its scope: a field, the scope inside it, and whether it is a list.
pub(super) const DESCENTS: &[(&str, &str, bool)] = &[
    ("manifest.metadata", "metadata", false),
    ("Deployment.template", "template", false),
    ("ReplicaSet.template", "template", false),
    ("StatefulSet.template", "template", false),
    ("DaemonSet.template", "template", false),
    ("Job.template", "template", false),
    ("CronJob.jobTemplate", "jobTemplate", false),
    ("jobTemplate.metadata", "metadata", false),
    ("jobTemplate.spec", "Job", false),
    ("template.metadata", "metadata", false),
    ("template.spec", "pod", false),
    ("pod.containers", "container", true),
    ("pod.initContainers", "container", true),
    ("pod.securityContext", "pod.securityContext", false),
    ("pod.securityContext.seccompProfile", "pod.securityContext.seccompProfile", false),
    ("pod.volumes", "pod.volumes", true),
    ("container.env", "container.env", true),
    ("container.env.valueFrom", "container.env.valueFrom", false),
    ("container.envFrom", "container.envFrom", true),
    ("container.resources", "container.resources", false),
    ("container.volumeMounts", "container.volumeMounts", true),
    ("container.livenessProbe", "probe", false),
    ("container.readinessProbe", "probe", false),
    ("container.startupProbe", "probe", false),
    ("container.lifecycle", "container.lifecycle", false),
    ("container.lifecycle.postStart", "hook", false),
    ("container.lifecycle.preStop", "hook", false),
    ("container.securityContext", "container.securityContext", false),
    ("container.securityContext.seccompProfile", "container.securityContext.seccompProfile", false),
];

/// Path of the pod template (the object that has `metadata` and `spec` of the pods) in a workload.
pub(super) fn template_path(kind: WorkloadKind) -> &'static [&'static str] {
    match kind {
        WorkloadKind::Pod => &[],
        WorkloadKind::CronJob => &["spec", "jobTemplate", "spec", "template"],
        _ => &["spec", "template"],
    }
}

/// What sealing is given beside the manifest.
#[derive(Debug, Default)]
pub struct Sources {
    /// What references lead to.
    pub objects: Objects,
    /// Container and mount path (without a slash at its end) of volumes that stay the host's.
    pub host_mounts: BTreeSet<(String, String)>,
    /// What `automountServiceAccountToken` is where the manifest doesn't say.
    pub service_account_token: bool,
    /// What `enableServiceLinks` is where the manifest doesn't say.
    pub service_links: bool,
}

/// Splits a parsed manifest that refers to nothing outside it.
pub fn split(workload: Value) -> Result<Split, FieldError> {
    split_with(workload, &Sources::default())
}

/// Splits a parsed manifest. Every field is public, sealed, a placeholder, or refused by its path.
pub fn split_with(workload: Value, sources: &Sources) -> Result<Split, FieldError> {
    let mut manifest = workload;
    drop_nulls(&mut manifest);
    let object =
        manifest.as_object_mut().ok_or_else(|| FieldError::new(".", "a Kubernetes object is needed"))?;
    let kind = kind_of(object)?;
    let name = object.get("metadata").and_then(|metadata| metadata.get("name")).and_then(Value::as_str);
    let name = name.filter(|name| dns_subdomain(name)).ok_or_else(|| {
        FieldError::new(
            "metadata.name",
            "a lower-case DNS name is needed: the sealed document is bound to it",
        )
    })?;
    let name = name.to_owned();
    let namespace = match object.get("metadata").and_then(|metadata| metadata.get("namespace")) {
        None => None,
        Some(namespace) => {
            Some(namespace.as_str().filter(|name| dns_label(name)).map(str::to_owned).ok_or_else(|| {
                FieldError::new(
                    "metadata.namespace",
                    "a DNS label (a-z, 0-9, inner hyphens, at most 63) is needed",
                )
            })?)
        }
    };
    let mut path = String::new();
    let mut pod = Some(&mut manifest);
    for step in template_path(kind).iter().chain(&["spec"]) {
        path = join(&path, step);
        pod = pod.and_then(|object| object.get_mut(step));
    }
    let pod = pod.ok_or_else(|| FieldError::new(path.as_str(), "missing: without it there is no pod"))?;
    let object = pod.as_object_mut().ok_or_else(|| FieldError::new(path.as_str(), "a mapping is needed"))?;
    for (field, given) in [
        ("automountServiceAccountToken", sources.service_account_token),
        ("enableServiceLinks", sources.service_links),
    ] {
        if given {
            object.entry(field).or_insert(true.into());
        }
    }
    let host_volumes = host_volumes(pod, &sources.host_mounts);
    let seen = RefCell::default();
    let walk =
        Walk { kind, container: None, hook: None, shown: true, host_volumes: &host_volumes, seen: &seen };
    let object =
        manifest.as_object_mut().ok_or_else(|| FieldError::new(".", "a Kubernetes object is needed"))?;
    let mut public = walk.object("manifest", "", object)?;

    let mut pod = &mut manifest;
    for step in template_path(kind).iter().chain(&["spec"]) {
        pod = &mut pod[*step];
    }
    if let Some(object) = pod.as_object_mut() {
        let namespace = namespace.as_deref();
        let resolver = Resolver { objects: &sources.objects, namespace, host_volumes: &host_volumes };
        resolver.pod(object, &path)?;
    }
    let pod: PodSpec = serde_path_to_error::deserialize(&*pod).map_err(|error| {
        let inner = error.path().to_string();
        let place = if inner == "." { path.clone() } else { join(&path, &inner) };
        FieldError::new(place, error.into_inner().to_string())
    })?;
    pod.validate().map_err(|error| FieldError::new(join(&path, &error.path), error.rule))?;
    finish(&mut public, kind);
    let workload = Workload { kind, name };
    let rows = TABLE.iter().filter(|row| seen.borrow().contains(row.path)).collect();
    Ok(Split { public: Value::Object(public), pod, workload, namespace, rows })
}

fn kind_of(object: &Map<String, Value>) -> Result<WorkloadKind, FieldError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let kind =
        text("kind").ok_or_else(|| FieldError::new("kind", "missing: this is not a Kubernetes manifest"))?;
    let Some((kind, version)) = KINDS.into_iter().find(|(known, _)| known.as_str() == kind) else {
        let known: Vec<_> = KINDS.iter().map(|(kind, _)| kind.as_str()).collect();
        return Err(FieldError::new(
            "kind",
            format!("{kind} can't be sealed; these can: {}", known.join(", ")),
        ));
    };
    if text("apiVersion") != Some(version) {
        return Err(FieldError::new("apiVersion", format!("{version} is needed for a {kind}")));
    }
    Ok(kind)
}

/// Kubernetes reads `field: null` as if it were not there.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Where the walk is, as far as placeholders need to know.
#[derive(Clone)]
struct Walk<'a> {
    kind: WorkloadKind,
    container: Option<String>,
    hook: Option<Hook>,
    /// Whether what needs a grant is outside too: in the current volume, mount or variable.
    shown: bool,
    host_volumes: &'a BTreeSet<String>,
    seen: &'a RefCell<BTreeSet<&'static str>>,
}

impl Walk<'_> {
    fn object(
        &self,
        scope: &str,
        path: &str,
        object: &mut Map<String, Value>,
    ) -> Result<Map<String, Value>, FieldError> {
        let mut public = Map::new();
        // A refused field that is empty says no more than its absence.
        let refused = |key: &str| {
            lookup(&format!("{scope}.{key}")).is_some_and(|row| row.treatment == Treatment::Refused)
        };
        object.retain(|key, value| !(is_empty(value) && refused(key)));
        for (key, value) in object {
            let place = join(path, key);
            let field = format!("{scope}.{key}");
            let inside = if field == "manifest.spec" {
                let scope = if self.kind == WorkloadKind::Pod { "pod" } else { self.kind.as_str() };
                Some((scope, false))
            } else {
                DESCENTS.iter().find(|(known, _, _)| *known == field).map(|(_, scope, list)| (*scope, *list))
            };
            let outside = match inside {
                Some((scope, true)) => self.list(scope, &place, value)?,
                Some((scope, false)) => {
                    let object = value
                        .as_object_mut()
                        .ok_or_else(|| FieldError::new(&place, "a mapping is needed"))?;
                    let walk = Self { hook: hook_of(&field).or(self.hook), ..self.clone() };
                    let inner = walk.object(scope, &place, object)?;
                    (!inner.is_empty()).then_some(Value::Object(inner))
                }
                None => self.leaf(&field, &place, value)?,
            };
            if let Some(outside) = outside {
                public.insert(key.clone(), outside);
            }
        }
        Ok(public)
    }

    fn list(&self, scope: &str, path: &str, value: &mut Value) -> Result<Option<Value>, FieldError> {
        let items = value.as_array_mut().ok_or_else(|| FieldError::new(path, "a list is needed"))?;
        let mut public = Vec::new();
        for (index, item) in items.iter_mut().enumerate() {
            let place = format!("{path}[{index}]");
            let object =
                item.as_object_mut().ok_or_else(|| FieldError::new(&place, "a mapping is needed"))?;
            let mut walk = self.clone();
            if scope == "container" {
                walk.container = object.get("name").and_then(Value::as_str).map(str::to_owned);
            }
            walk.shown = match scope {
                "container.env" => {
                    let source = object.get("valueFrom");
                    let has = |field| source.is_some_and(|source| source.get(field).is_some());
                    has("fieldRef") || has("resourceFieldRef")
                }
                "pod.volumes" | "container.volumeMounts" => {
                    let name = object.get("name").and_then(Value::as_str);
                    name.is_some_and(|name| self.host_volumes.contains(name))
                }
                _ => true,
            };
            let inner = walk.object(scope, &place, object)?;
            if !inner.is_empty() {
                public.push(Value::Object(inner));
            }
        }
        Ok((!public.is_empty()).then_some(Value::Array(public)))
    }

    fn leaf(&self, field: &str, place: &str, value: &Value) -> Result<Option<Value>, FieldError> {
        let Some(row) = lookup(field) else {
            return Err(FieldError::new(
                place,
                "Sealpod doesn't know this field, so it can't seal it; check its spelling or leave it out",
            ));
        };
        self.seen.borrow_mut().insert(row.path);
        match row.treatment {
            Treatment::Public => {
                if matches!(field, "metadata.labels" | "metadata.annotations") {
                    return self.texts(field, place, value);
                }
                Ok(Some(value.clone()))
            }
            Treatment::Granted => Ok(self.shown.then(|| value.clone())),
            Treatment::Sealed => Ok(None),
            Treatment::Placeholder => Ok(self.placeholder(field, value)),
            Treatment::Refused => Err(refusal(place, row)),
        }
    }

    /// Labels and annotations are texts by name; a few annotations have rows of their own.
    fn texts(&self, field: &str, place: &str, value: &Value) -> Result<Option<Value>, FieldError> {
        let object = value.as_object().ok_or_else(|| FieldError::new(place, "a mapping is needed"))?;
        let mut public = Map::new();
        for (key, value) in object {
            if !value.is_string() {
                return Err(FieldError::new(join(place, key), "text is needed; put it into quotes"));
            }
            match lookup(&format!("{field}.{key}")) {
                Some(row) if row.treatment == Treatment::Refused => {
                    return Err(refusal(&join(place, key), row));
                }
                Some(row) => drop(self.seen.borrow_mut().insert(row.path)),
                None => drop(public.insert(key.clone(), value.clone())),
            }
        }
        Ok((!public.is_empty()).then_some(public.into()))
    }

    fn placeholder(&self, field: &str, value: &Value) -> Option<Value> {
        match field {
            "probe.exec" | "hook.exec" => {
                let argv = placeholder_argv(self.container.as_deref()?, self.hook?);
                Some(serde_json::json!({ "command": argv }))
            }
            "pod.dnsPolicy" if value == "None" => Some("Default".into()),
            "pod.dnsPolicy" => Some(value.clone()),
            // The others are set in every pod: see `finish`.
            _ => None,
        }
    }
}

fn hook_of(field: &str) -> Option<Hook> {
    Some(match field {
        "container.livenessProbe" => Hook::Liveness,
        "container.readinessProbe" => Hook::Readiness,
        "container.startupProbe" => Hook::Startup,
        "container.lifecycle.postStart" => Hook::PostStart,
        "container.lifecycle.preStop" => Hook::PreStop,
        _ => return None,
    })
}

fn lookup(path: &str) -> Option<&'static Field> {
    TABLE.iter().find(|row| row.path == path)
}

fn refusal(place: &str, row: &Field) -> FieldError {
    FieldError::new(place, format!("not supported: {}", row.reason))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Bool(set) => !set,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// What every public pod has, whether or not its owner wrote the field.
fn finish(public: &mut Map<String, Value>, kind: WorkloadKind) {
    let mut template = Some(public);
    for step in template_path(kind) {
        template = template.and_then(|map| map.get_mut(*step)).and_then(Value::as_object_mut);
    }
    let Some(spec) = template.and_then(|map| map.get_mut("spec")).and_then(Value::as_object_mut) else {
        return;
    };
    spec.entry("automountServiceAccountToken").or_insert(false.into());
    spec.entry("enableServiceLinks").or_insert(false.into());
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                container.insert("image".into(), PLACEHOLDER_IMAGE.into());
                container.insert("imagePullPolicy".into(), "IfNotPresent".into());
            }
        }
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
