//! Puts into the pod what its references lead to: variables from Secrets and ConfigMaps, volumes of
//! them, and mount paths made of variables. What stays the host's is left for the grants to allow.

mod volumes;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::objects::{Data, Missing, ObjectKind, Objects};
use super::split::{FieldError, join};
use crate::podspec::expand;

pub(super) use volumes::host_volumes;

/// What a reference is resolved with.
pub(super) struct Resolver<'a> {
    pub(super) objects: &'a Objects,
    pub(super) namespace: Option<&'a str>,
    /// Volumes that stay the host's.
    pub(super) host_volumes: &'a std::collections::BTreeSet<String>,
}

type Checked = Result<(), FieldError>;

impl Resolver<'_> {
    /// Resolves everything in a pod's JSON, which is at `path` of the manifest.
    pub(super) fn pod(&self, pod: &mut Map<String, Value>, path: &str) -> Checked {
        for list in ["initContainers", "containers"] {
            let containers = pod.get_mut(list).and_then(Value::as_array_mut);
            for (index, container) in containers.into_iter().flatten().enumerate() {
                let path = format!("{}[{index}]", join(path, list));
                if let Some(container) = container.as_object_mut() {
                    self.env(container, &path)?;
                    self.env_from(container, &path)?;
                    sub_paths(container, &path)?;
                }
            }
        }
        self.volumes(pod, path)
    }

    fn env(&self, container: &mut Map<String, Value>, path: &str) -> Checked {
        let variables = container.get_mut("env").and_then(Value::as_array_mut);
        for (index, variable) in variables.into_iter().flatten().enumerate() {
            let path = format!("{path}.env[{index}].valueFrom");
            let Some(variable) = variable.as_object_mut() else { continue };
            let Some(source) = variable.get("valueFrom").and_then(Value::as_object) else { continue };
            let references =
                [("secretKeyRef", ObjectKind::Secret), ("configMapKeyRef", ObjectKind::ConfigMap)];
            let Some((field, kind, reference)) = references
                .into_iter()
                .find_map(|(field, kind)| Some((field, kind, source.get(field)?.as_object()?)))
            else {
                continue;
            };
            if source.len() != 1 || variable.contains_key("value") {
                return Err(FieldError::new(path, "one valueFrom source, and no value, is needed"));
            }
            let path = join(&path, field);
            let reference = Reference::read(reference, &path, true)?;
            if kind == ObjectKind::Secret
                && let Some(resource) = self.objects.resource(&reference.name, &reference.key)
            {
                variable.insert("valueFrom".into(), json!({ "resource": resource.as_str() }));
                continue;
            }
            let data = self.find(kind, &reference.name, &path)?;
            let value = match data.get(&reference.key) {
                Some(bytes) => Some(literal(bytes, &path)?),
                None if reference.optional => None,
                None => {
                    let problem =
                        format!("the {} that was given has no key '{}'", kind.as_str(), reference.key);
                    return Err(FieldError::new(path, problem));
                }
            };
            variable.remove("valueFrom");
            match value {
                Some(value) => drop(variable.insert("value".into(), value.into())),
                None => drop(variable.insert(LEFT_OUT.into(), true.into())),
            }
        }
        let variables = container.get_mut("env").and_then(Value::as_array_mut);
        if let Some(variables) = variables {
            // An optional reference that leads nowhere is no variable at all, not an empty one.
            variables.retain(|variable| variable.get(LEFT_OUT).is_none());
        }
        Ok(())
    }

    /// Behind the container's own variables, which win over those of the same name and, as in
    /// Kubernetes, can't refer to them.
    fn env_from(&self, container: &mut Map<String, Value>, path: &str) -> Checked {
        let Some(sources) = container.remove("envFrom") else { return Ok(()) };
        let mut variables = BTreeMap::new();
        for (index, source) in sources.as_array().into_iter().flatten().enumerate() {
            let path = format!("{path}.envFrom[{index}]");
            let prefix = source.get("prefix").and_then(Value::as_str).unwrap_or_default();
            let references = [("secretRef", ObjectKind::Secret), ("configMapRef", ObjectKind::ConfigMap)];
            let mut found =
                references.into_iter().filter_map(|(field, kind)| Some((field, kind, source.get(field)?)));
            let (Some((field, kind, reference)), None) = (found.next(), found.next()) else {
                return Err(FieldError::new(path, "exactly one of secretRef and configMapRef is needed"));
            };
            let path = join(&path, field);
            let reference = reference.as_object();
            let reference = reference.ok_or_else(|| FieldError::new(&*path, "a mapping is needed"))?;
            let reference = Reference::read(reference, &path, false)?;
            for (key, bytes) in self.find(kind, &reference.name, &path)? {
                let name = format!("{prefix}{key}");
                if name.starts_with(|first: char| first.is_ascii_digit()) {
                    return Err(FieldError::new(
                        path,
                        format!("key '{key}' makes no variable name; use env"),
                    ));
                }
                variables.insert(name, literal(bytes, &path)?);
            }
        }
        let own = container.entry("env").or_insert_with(|| json!([]));
        let own = own.as_array_mut().ok_or_else(|| FieldError::new(join(path, "env"), "a list is needed"))?;
        for variable in own.iter() {
            variables.remove(variable.get("name").and_then(Value::as_str).unwrap_or_default());
        }
        own.extend(variables.into_iter().map(|(name, value)| json!({ "name": name, "value": value })));
        Ok(())
    }

    /// An object's data; the error says what to do.
    fn find(&self, kind: ObjectKind, name: &str, path: &str) -> Result<&Data, FieldError> {
        self.objects.find(kind, name, self.namespace).map_err(|missing| {
            let kind = kind.as_str();
            let problem = match missing {
                Missing::Object => format!(
                    "in the cluster the {kind} '{name}' is the host's to read and write; give its manifest with --with FILE and it will be sealed{}",
                    if kind == "Secret" { ", or fetch it from the broker: --from-broker NAME/KEY=kbs:///…" } else { "" }
                ),
                Missing::Twice => format!("the {kind} '{name}' was given twice; leave one of them out"),
            };
            FieldError::new(path, problem)
        })
    }
}

/// Marks a variable that is left out; no field of that name can come from a manifest.
const LEFT_OUT: &str = "";

/// `{name, key, optional}`
struct Reference {
    name: String,
    key: String,
    optional: bool,
}

impl Reference {
    fn read(reference: &Map<String, Value>, path: &str, with_key: bool) -> Result<Self, FieldError> {
        for field in reference.keys() {
            if !(matches!(field.as_str(), "name" | "optional") || with_key && field == "key") {
                return Err(FieldError::new(join(path, field), "Sealpod doesn't know this field"));
            }
        }
        let text = |field: &str| {
            let text = reference.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or_else(|| FieldError::new(join(path, field), "text is needed"))
        };
        let optional = match reference.get("optional") {
            None => false,
            Some(optional) => optional
                .as_bool()
                .ok_or_else(|| FieldError::new(join(path, "optional"), "true or false is needed"))?,
        };
        Ok(Self { name: text("name")?, key: if with_key { text("key")? } else { String::new() }, optional })
    }
}

/// Bytes as a value that `$(NAME)` expansion leaves alone, as Kubernetes does with referenced values.
fn literal(bytes: &[u8], path: &str) -> Result<String, FieldError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| FieldError::new(path, "the value is not UTF-8 text; mount it as a volume instead"))?;
    Ok(text.replace('$', "$$"))
}

/// `subPathExpr` becomes the `subPath` that it means with the container's own, sealed variables.
fn sub_paths(container: &mut Map<String, Value>, path: &str) -> Checked {
    let mut known: Vec<(String, Option<String>)> = Vec::new();
    for variable in container.get("env").and_then(Value::as_array).into_iter().flatten() {
        let Some(name) = variable.get("name").and_then(Value::as_str) else { continue };
        // What the host or the broker supplies isn't known at sealing.
        let value = (variable.get("valueFrom").is_none()).then(|| {
            let text = variable.get("value").and_then(Value::as_str).unwrap_or_default();
            expand(text, |name| value_of(&known, name))
        });
        known.push((name.to_owned(), value));
    }
    let mounts = container.get_mut("volumeMounts").and_then(Value::as_array_mut);
    for (index, mount) in mounts.into_iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}].subPathExpr");
        let Some(mount) = mount.as_object_mut() else { continue };
        let Some(expression) = mount.remove("subPathExpr") else { continue };
        let expression = expression.as_str().ok_or_else(|| FieldError::new(&*path, "text is needed"))?;
        if mount.contains_key("subPath") {
            return Err(FieldError::new(path, "subPath and subPathExpr exclude each other"));
        }
        let unknown = std::cell::Cell::new(false);
        let sub_path = expand(expression, |name| {
            let value = value_of(&known, name);
            unknown.set(unknown.get() || value.is_none());
            value
        });
        if unknown.get() {
            return Err(FieldError::new(
                path,
                "each $(NAME) in it must be a variable of this container with a sealed value",
            ));
        }
        mount.insert("subPath".into(), sub_path.into());
    }
    Ok(())
}

fn value_of<'v>(known: &'v [(String, Option<String>)], name: &str) -> Option<&'v str> {
    known.iter().rev().find(|(own, _)| own == name)?.1.as_deref()
}
