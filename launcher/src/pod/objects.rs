//! From Kubernetes objects to the pod that a node sees: one workload and the ConfigMaps that it mounts. It reads
//! what a sealed workload has and refuses the rest by path; it never interprets anything sealed.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;

use super::{Container, Pod, PodError, Volume, VolumeMount, new_id};

/// Why objects can't be run.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct ObjectError {
    /// Where, as `Deployment/web spec.template.spec.volumes[0]`.
    pub path: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// What a node knows of a workload's pod.
#[derive(Clone, Debug)]
pub struct HostView {
    /// The pod.
    pub pod: Pod,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
}

fn error(path: impl Into<String>, problem: impl Into<String>) -> ObjectError {
    ObjectError { path: path.into(), problem: problem.into() }
}

impl HostView {
    /// Takes one workload and any number of ConfigMaps.
    ///
    /// # Errors
    /// [`ObjectError`] for what is missing, unknown or not runnable without a cluster.
    pub fn from_objects(objects: &[Value]) -> Result<HostView, ObjectError> {
        let mut workloads = Vec::new();
        let mut maps = BTreeMap::new();
        for object in objects.iter().filter(|object| !object.is_null()) {
            match (text(object, "/kind"), text(object, "/metadata/name")) {
                ("", _) => return Err(error("object", "kind is missing; is this a Kubernetes manifest?")),
                (kind, "") => return Err(error(kind, "metadata.name is missing")),
                ("ConfigMap", name) => drop(maps.insert(name.to_owned(), config_map(name, object)?)),
                _ => workloads.push(object),
            }
        }
        match workloads.as_slice() {
            [workload] => from_workload(workload, &maps),
            [] => Err(error("manifest", "it has no workload; give the file that 'sealpod seal' wrote")),
            more => {
                Err(error("manifest", format!("it has {} workloads; run them one at a time", more.len())))
            }
        }
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn config_map(name: &str, object: &Value) -> Result<BTreeMap<String, Vec<u8>>, ObjectError> {
    let mut files = BTreeMap::new();
    for (field, binary) in [("data", false), ("binaryData", true)] {
        for (key, value) in object.get(field).and_then(Value::as_object).into_iter().flatten() {
            let at = || format!("ConfigMap/{name} {field}.{key}");
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if !key.chars().all(plain) || key.starts_with("..") || key == "." {
                return Err(error(at(), "this is not a file name"));
            }
            let value = value.as_str().ok_or_else(|| error(at(), "it must be text"))?;
            let data = if binary {
                let decoded = base64::engine::general_purpose::STANDARD.decode(value);
                decoded.map_err(|_| error(at(), "it is not base64"))?
            } else {
                value.as_bytes().to_vec()
            };
            files.insert(key.clone(), data);
        }
    }
    Ok(files)
}

fn from_workload(
    workload: &Value,
    maps: &BTreeMap<String, BTreeMap<String, Vec<u8>>>,
) -> Result<HostView, ObjectError> {
    let (kind, name) = (text(workload, "/kind"), text(workload, "/metadata/name"));
    let id = format!("{kind}/{name}");
    let random = new_id().map_err(|source: PodError| error(id.as_str(), source.to_string()))?;
    let generated = &random[..5];
    // Names as the controllers of each kind make them.
    let (template, pod_name) = match kind {
        "Pod" => ("", name.to_owned()),
        "Deployment" => ("/spec/template", format!("{name}-{}-{generated}", &random[8..17])),
        "StatefulSet" => ("/spec/template", format!("{name}-0")),
        "DaemonSet" | "ReplicaSet" | "Job" => ("/spec/template", format!("{name}-{generated}")),
        "CronJob" => ("/spec/jobTemplate/spec/template", format!("{name}-28000000-{generated}")),
        other => {
            return Err(error(
                id,
                format!("kind {other} can't be run; sealed workloads are Pods or make them"),
            ));
        }
    };
    let template = workload.pointer(template).ok_or_else(|| error(id.as_str(), "it has no pod template"))?;
    let spec = template.get("spec").ok_or_else(|| error(id.as_str(), "its pod has no spec"))?;
    let mut pod = Pod {
        name: pod_name,
        namespace: match text(workload, "/metadata/namespace") {
            "" => "default".to_owned(),
            namespace => namespace.to_owned(),
        },
        uid: uid(&random[32..]),
        hostname: text(spec, "/hostname").to_owned(),
        ..Default::default()
    };
    for (at, volume) in list(spec, "volumes").iter().enumerate() {
        let path = format!("{id} volumes[{at}]");
        let (name, volume) = self::volume(&path, volume, maps)?;
        pod.volumes.insert(name, volume);
    }
    pod.init_containers = containers(&id, spec, "initContainers")?;
    pod.containers = containers(&id, spec, "containers")?;
    if pod.containers.is_empty() {
        return Err(error(id, "its pod has no containers"));
    }
    let annotations = template.pointer("/metadata/annotations").and_then(Value::as_object);
    let annotations = annotations
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    Ok(HostView { pod, annotations })
}

fn uid(hex: &str) -> String {
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}

fn volume(
    path: &str,
    value: &Value,
    maps: &BTreeMap<String, BTreeMap<String, Vec<u8>>>,
) -> Result<(String, Volume), ObjectError> {
    let name = text(value, "/name");
    if name.is_empty() {
        return Err(error(path, "name is missing"));
    }
    if let Some(empty) = value.get("emptyDir") {
        return Ok((name.to_owned(), Volume::Empty(text(empty, "/medium") == "Memory")));
    }
    let Some(source) = value.get("configMap") else {
        return Err(error(path, "only configMap and emptyDir volumes can be run without a cluster"));
    };
    let map = text(source, "/name");
    let files = maps.get(map).ok_or_else(|| {
        error(
            path,
            format!("ConfigMap {map:?} is not in the manifest; 'sealpod seal' writes it into the same file"),
        )
    })?;
    if !list(source, "items").is_empty() {
        return Err(error(path, "configMap.items can't be run without a cluster"));
    }
    Ok((name.to_owned(), Volume::Files(files.clone())))
}

fn containers(id: &str, spec: &Value, field: &str) -> Result<Vec<Container>, ObjectError> {
    let containers = list(spec, field).iter().enumerate();
    containers.map(|(at, value)| container(&format!("{id} {field}[{at}]"), value)).collect()
}

fn container(path: &str, value: &Value) -> Result<Container, ObjectError> {
    let words = |field: &str| -> Result<Vec<String>, ObjectError> {
        let words = list(value, field).iter().map(|word| word.as_str().map(str::to_owned));
        words
            .collect::<Option<_>>()
            .ok_or_else(|| error(format!("{path}.{field}"), "it must be a list of text"))
    };
    let mut env = Vec::new();
    for (at, variable) in list(value, "env").iter().enumerate() {
        if variable.get("valueFrom").is_some() {
            return Err(error(format!("{path}.env[{at}].valueFrom"), "it can't be run without a cluster"));
        }
        env.push(format!("{}={}", text(variable, "/name"), text(variable, "/value")));
    }
    let mount = |mount: &Value| VolumeMount {
        volume: text(mount, "/name").to_owned(),
        path: text(mount, "/mountPath").to_owned(),
        sub_path: text(mount, "/subPath").to_owned(),
        read_only: mount.get("readOnly").and_then(Value::as_bool).unwrap_or_default(),
    };
    let container = Container {
        name: text(value, "/name").to_owned(),
        image: text(value, "/image").to_owned(),
        command: words("command")?,
        args: words("args")?,
        env,
        working_dir: text(value, "/workingDir").to_owned(),
        mounts: list(value, "volumeMounts").iter().map(mount).collect(),
        terminal: value.get("tty").and_then(Value::as_bool).unwrap_or_default(),
        termination_log: text(value, "/terminationMessagePath").to_owned(),
    };
    if container.name.is_empty() {
        return Err(error(path, "name is missing"));
    }
    Ok(container)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod_spec() -> Value {
        json!({
            "volumes": [{"name": "sealpod-spec", "configMap": {"name": "web-sealed"}}],
            "initContainers": [{"name": "setup", "image": "sealpod.invalid/placeholder:1"}],
            "containers": [{
                "name": "nginx", "image": "sealpod.invalid/placeholder:1",
                "volumeMounts": [{"name": "sealpod-spec", "mountPath": "/sealpod/spec", "readOnly": true}],
            }],
        })
    }

    fn workload(kind: &str) -> Value {
        let template = json!({"metadata": {"annotations": {"a": "b"}}, "spec": pod_spec()});
        match kind {
            "Pod" => {
                json!({"kind": kind, "metadata": {"name": "web", "annotations": {"a": "b"}}, "spec": pod_spec()})
            }
            "CronJob" => {
                json!({"kind": kind, "metadata": {"name": "web"}, "spec": {"jobTemplate": {"spec": {"template": template}}}})
            }
            _ => json!({"kind": kind, "metadata": {"name": "web"}, "spec": {"template": template}}),
        }
    }

    fn map() -> Value {
        json!({"kind": "ConfigMap", "metadata": {"name": "web-sealed"}, "data": {"sealed-spec.jwe": "a..b.c.d"}})
    }

    #[test]
    fn each_kind_yields_its_pod() {
        for kind in ["Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"] {
            let view = HostView::from_objects(&[map(), workload(kind), Value::Null]).unwrap();
            assert!(view.pod.name.starts_with("web"), "{kind}");
            assert_eq!(view.annotations["a"], "b", "{kind}");
            assert_eq!(view.pod.containers[0].mounts[0].path, "/sealpod/spec");
            let Volume::Files(files) = &view.pod.volumes["sealpod-spec"] else { panic!() };
            assert_eq!(files["sealed-spec.jwe"], b"a..b.c.d");
        }
        assert_eq!(HostView::from_objects(&[map(), workload("Pod")]).unwrap().pod.name, "web");
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        let mut host_path = workload("Pod");
        host_path["spec"]["volumes"][0] = json!({"name": "v", "hostPath": {"path": "/"}});
        let mut value_from = workload("Pod");
        value_from["spec"]["containers"][0]["env"] = json!([{"name": "A", "valueFrom": {}}]);
        let mut escape = map();
        escape["data"] = json!({"../x": "y"});
        let cases = [
            (vec![map()], "no workload"),
            (vec![workload("Pod"), workload("Job"), map()], "2 workloads"),
            (vec![workload("Pod")], "ConfigMap \"web-sealed\" is not in the manifest"),
            (vec![workload("Service"), map()], "kind Service can't be run"),
            (vec![host_path, map()], "Pod/web volumes[0]"),
            (vec![value_from, map()], "containers[0].env[0].valueFrom"),
            (vec![workload("Pod"), escape], "not a file name"),
            (vec![json!({"a": 1})], "kind is missing"),
        ];
        for (objects, named) in cases {
            let error = HostView::from_objects(&objects).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
