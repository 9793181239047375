//! What the requests of a recording hold.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use protobuf::MessageField;
use protocols::agent::{CreateContainerRequest, Storage};
use protocols::oci::Process;
use serde_json::Value;

use super::{Runtime, directory};
use crate::kata::spec;

/// The sandbox's id.
pub(crate) const SANDBOX: &str = "5a9db0c5a9db0c5a9db0c5a9db0c5a9db0c5a9db0c5a9db0c5a9db0c5a9db0c0";

/// What the guest is.
#[derive(Clone, Debug)]
pub enum Guest {
    /// It does what requests say: containers run from its first disk.
    Unsealed,
    /// It does what the sealed spec says; this is the sealed document, which the host copies in.
    Sealed(Vec<u8>),
}

/// The pod of the recordings, in the words of one runtime to one guest.
#[derive(Debug)]
pub struct Dialect {
    guest: Guest,
    runtime: Runtime,
    containers: BTreeMap<String, Value>,
}

impl Dialect {
    /// Reads the pod.
    ///
    /// # Errors
    /// When `pod.yaml` isn't one.
    pub fn new(guest: Guest, runtime: Runtime) -> Result<Self> {
        let text = std::fs::read_to_string(directory().join("pod.yaml")).context("pod.yaml")?;
        let pod: Value = serde_saphyr::from_str(&text).context("pod.yaml")?;
        let mut containers = BTreeMap::new();
        for list in ["/spec/initContainers", "/spec/containers"] {
            for container in
                pod.pointer(list).and_then(Value::as_array).context("pod.yaml has no containers")?
            {
                let name = container["name"].as_str().context("a container has no name")?;
                containers.insert(name.to_owned(), container.clone());
            }
        }
        Ok(Self { guest, runtime, containers })
    }

    /// The id of a container's life: `web` or `crasher.2`.
    pub(crate) fn id(label: &str) -> String {
        match label {
            "pause" => SANDBOX.to_owned(),
            label => format!("{:0<64}", label.replace('.', "-") + "-"),
        }
    }

    /// The container's name.
    pub(crate) fn name(label: &str) -> &str {
        label.split('.').next().unwrap_or(label)
    }

    /// Where the host puts what it copies for a container.
    pub(crate) fn place(label: &str, file: &str) -> String {
        format!("{}/{}-{file}", spec::SHARED, Self::id(label))
    }

    /// The sealed document, where there is one.
    pub(crate) fn document(&self) -> Option<&[u8]> {
        match &self.guest {
            Guest::Unsealed => None,
            Guest::Sealed(document) => Some(document),
        }
    }

    /// `CreateContainer`.
    pub(crate) fn create(&self, label: &str) -> Result<CreateContainerRequest> {
        let (id, name) = (Self::id(label), Self::name(label));
        let mut request = if label == "pause" {
            spec::pause(&id)
        } else {
            let container = self.containers.get(name).with_context(|| format!("no container {name}"))?;
            let words = |field: &str| -> Vec<String> {
                let list = container[field].as_array().into_iter().flatten();
                list.filter_map(Value::as_str).map(str::to_owned).collect()
            };
            let mut request = spec::container(&id, &[]);
            let oci = request.OCI.mut_or_insert_default();
            let args = match self.guest {
                Guest::Unsealed => [words("command"), words("args")].concat(),
                Guest::Sealed(_) => vec!["/sealpod".to_owned()],
            };
            oci.Process.mut_or_insert_default().Args = args;
            for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                let at = mount["mountPath"].as_str().unwrap_or_default();
                let source = match mount["name"].as_str() {
                    Some("config") => Self::place("web", "config"),
                    _ => Self::local(),
                };
                oci.Mounts.push(spec::mount(at, &source, "bind", &["rbind", "rprivate", "rw"]));
            }
            if container["volumeMounts"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["name"] == "work"))
            {
                request.storages.push(Storage {
                    driver: "local".to_owned(),
                    source: "local".to_owned(),
                    fstype: "local".to_owned(),
                    options: spec::strings(&["mode=0777"]),
                    mount_point: Self::local(),
                    ..Default::default()
                });
            }
            for (file, at) in STANDARD {
                let source = Self::place(label, file);
                let oci = request.OCI.mut_or_insert_default();
                if matches!(self.guest, Guest::Sealed(_)) || at == "/etc/hosts" {
                    oci.Mounts.push(spec::mount(at, &source, "bind", &["rbind", "rprivate", "rw"]));
                }
            }
            request
        };
        self.annotate(&mut request, label);
        if let Guest::Sealed(_) = self.guest {
            // What the runtime asks for when the guest is to pull the image itself.
            request.storages.retain(|storage| storage.driver != "blk");
            request.storages.push(Storage {
                driver: "image_guest_pull".to_owned(),
                driver_options: vec!["image_guest_pull={\"metadata\":{}}".to_owned()],
                source: "registry.example/sealed:v1".to_owned(),
                fstype: "overlay".to_owned(),
                mount_point: spec::rootfs(&id),
                ..Default::default()
            });
        }
        Ok(request)
    }

    fn local() -> String {
        format!("{}/{SANDBOX}/rootfs/local/work", spec::SHARED)
    }

    /// What tells the agent which container of which pod it is.
    fn annotate(&self, request: &mut CreateContainerRequest, label: &str) {
        let annotations = &mut request.OCI.mut_or_insert_default().Annotations;
        let (name, pause) = (Self::name(label), label == "pause");
        let kind = if pause { "sandbox" } else { "container" };
        annotations.clear();
        let mut set = |key: &str, value: &str| drop(annotations.insert(key.to_owned(), value.to_owned()));
        set("io.katacontainers.pkg.oci.container_type", if pause { "pod_sandbox" } else { "pod_container" });
        match self.runtime {
            Runtime::Containerd => {
                set("io.kubernetes.cri.container-type", kind);
                set("io.kubernetes.cri.sandbox-id", SANDBOX);
                set("io.kubernetes.cri.sandbox-name", "lifecycle");
                set("io.kubernetes.cri.sandbox-namespace", "default");
                if !pause {
                    set("io.kubernetes.cri.container-name", name);
                }
            }
            Runtime::CriO => {
                set("io.kubernetes.cri-o.ContainerType", kind);
                set("io.kubernetes.cri-o.SandboxID", SANDBOX);
                set("io.kubernetes.pod.name", "lifecycle");
                set("io.kubernetes.pod.namespace", "default");
                set("io.kubernetes.container.name", if pause { "POD" } else { name });
            }
        }
    }

    /// A probe's process.
    pub(crate) fn probe(&self, label: &str, probe: &str) -> Result<Process> {
        let name = Self::name(label);
        let args = match self.guest {
            Guest::Sealed(_) => spec::strings(&["/sealpod", "probe", &format!("{name}/{probe}")]),
            Guest::Unsealed => {
                let container = self.containers.get(name).with_context(|| format!("no container {name}"))?;
                let command = &container[format!("{probe}Probe")]["exec"]["command"];
                let command = command.as_array().with_context(|| format!("{name} has no probe {probe}"))?;
                command.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
        };
        let mut process = spec::process(&[]);
        process.Args = args;
        process.Capabilities = MessageField::none();
        Ok(process)
    }
}

/// The node's standard files, and where containers have them.
pub(crate) const STANDARD: [(&str, &str); 4] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
    ("termination-log", "/dev/termination-log"),
];
