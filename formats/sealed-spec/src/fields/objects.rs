//! Secrets and ConfigMaps that their owner gives at sealing, so that what refers to them is sealed too.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::split::{FieldError, join};
use crate::names::{KbsUri, dns_label, dns_subdomain};
use crate::podspec::data_key;

/// The two kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// v1 `Secret`
    Secret,
    /// v1 `ConfigMap`
    ConfigMap,
}

impl ObjectKind {
    /// As in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

pub(super) type Data = BTreeMap<String, Zeroizing<Vec<u8>>>;

struct Object {
    kind: ObjectKind,
    name: String,
    namespace: Option<String>,
    data: Data,
}

/// What references in a manifest can lead to.
#[derive(Default)]
pub struct Objects {
    objects: Vec<Object>,
    broker: BTreeMap<(String, String), KbsUri>,
}

/// Why a reference leads nowhere.
pub(super) enum Missing {
    Object,
    Twice,
}

impl Objects {
    /// Takes a Secret or ConfigMap; `Ok(false)` for objects of other kinds, which have nothing to seal.
    pub fn add(&mut self, object: &Value) -> Result<bool, FieldError> {
        let kind = match object.get("kind").and_then(Value::as_str) {
            Some("Secret") => ObjectKind::Secret,
            Some("ConfigMap") => ObjectKind::ConfigMap,
            _ => return Ok(false),
        };
        let metadata = |key: &str| object.get("metadata").and_then(|metadata| metadata.get(key));
        let name = metadata("name").and_then(Value::as_str).filter(|name| dns_subdomain(name));
        let name = name.ok_or_else(|| FieldError::new("metadata.name", "a lower-case DNS name is needed"))?;
        let namespace = match metadata("namespace") {
            None | Some(Value::Null) => None,
            Some(namespace) => {
                let namespace = namespace.as_str().filter(|name| dns_label(name));
                Some(
                    namespace
                        .ok_or_else(|| FieldError::new("metadata.namespace", "a DNS label is needed"))?,
                )
            }
        };
        // In Kubernetes' order: text wins over bytes of the same key.
        let mut data = Data::new();
        match kind {
            ObjectKind::Secret => {
                read(object, "data", true, &mut data)?;
                read(object, "stringData", false, &mut data)?;
            }
            ObjectKind::ConfigMap => {
                read(object, "binaryData", true, &mut data)?;
                read(object, "data", false, &mut data)?;
            }
        }
        self.objects.push(Object {
            kind,
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            data,
        });
        Ok(true)
    }

    /// A Secret's key whose value the guest fetches from the broker instead.
    pub fn from_broker(&mut self, secret: &str, key: &str, resource: KbsUri) {
        self.broker.insert((secret.to_owned(), key.to_owned()), resource);
    }

    pub(super) fn resource(&self, secret: &str, key: &str) -> Option<&KbsUri> {
        self.broker.get(&(secret.to_owned(), key.to_owned()))
    }

    /// The data of an object in the workload's namespace.
    pub(super) fn find(
        &self,
        kind: ObjectKind,
        name: &str,
        namespace: Option<&str>,
    ) -> Result<&Data, Missing> {
        let fits = |object: &&Object| {
            object.kind == kind
                && object.name == name
                && (object.namespace.is_none()
                    || namespace.is_none()
                    || object.namespace.as_deref() == namespace)
        };
        let mut found = self.objects.iter().filter(fits);
        let object = found.next().ok_or(Missing::Object)?;
        if found.next().is_some() { Err(Missing::Twice) } else { Ok(&object.data) }
    }
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("count", &self.objects.len()).finish_non_exhaustive()
    }
}

fn read(object: &Value, field: &str, base64: bool, data: &mut Data) -> Result<(), FieldError> {
    let empty = Map::new();
    let entries = match object.get(field) {
        None | Some(Value::Null) => &empty,
        Some(entries) => entries.as_object().ok_or_else(|| FieldError::new(field, "a mapping is needed"))?,
    };
    for (key, value) in entries {
        let place = join(field, key);
        if !data_key(key) {
            return Err(FieldError::new(place, "letters, digits, '-', '_' and '.' are allowed in a key"));
        }
        let text = match value {
            Value::Null => "",
            value => value
                .as_str()
                .ok_or_else(|| FieldError::new(&*place, "text is needed; put it into quotes"))?,
        };
        let bytes = if base64 {
            let compact: Zeroizing<String> =
                Zeroizing::new(text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect());
            STANDARD.decode(compact.as_bytes()).map_err(|_| FieldError::new(&*place, "base64 is needed"))?
        } else {
            text.as_bytes().to_vec()
        };
        data.insert(key.clone(), Zeroizing::new(bytes));
    }
    Ok(())
}
