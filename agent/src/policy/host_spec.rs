//! What of the host's OCI specification is looked at in a sealed VM: which container it means, and where
//! the files are that the host copied for its volumes. Everything else is replaced.

use std::collections::BTreeMap;

use protocols::agent::CreateContainerRequest;

/// Annotations that hold a container's name: containerd's, then CRI-O's and the kubelet's.
const NAME_KEYS: [&str; 2] = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name"];
/// Mounts that are looked at.
const MAX_MOUNTS: usize = 512;
/// Variables that are looked at: a namespace with many services makes many.
const MAX_VARIABLES: usize = 16_384;
/// Bytes of one variable.
const MAX_VARIABLE: usize = 32 * 1024;

/// What of the host's OCI spec is looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HostSpec {
    /// Which container it means; `None` for the pause container, for other clients, and when two annotations
    /// name two.
    pub name: Option<String>,
    /// Its mounts' sources, by destination: which copied directory is meant for which volume.
    pub mounts: BTreeMap<String, String>,
    /// Its environment, by name: where a value is granted to be the host's.
    pub environment: BTreeMap<String, String>,
    /// Sections that are replaced by the sealed specification's.
    pub replaced: Vec<&'static str>,
}

impl HostSpec {
    /// Reads the request.
    pub fn read(request: &CreateContainerRequest) -> Self {
        let Some(spec) = request.OCI.as_ref() else {
            return Self::default();
        };
        let mut names = NAME_KEYS.iter().filter_map(|key| spec.Annotations.get(*key));
        let first = names.next();
        let name = first.filter(|first| names.all(|other| other == *first)).cloned();
        let process = spec.Process.as_ref();
        let has = |present: bool, section| present.then_some(section);
        let replaced = [
            has(process.is_some_and(|p| !p.Args.is_empty()), "args"),
            has(process.is_some_and(|p| !p.Env.is_empty()), "env"),
            has(process.is_some_and(|p| p.User.is_some()), "user"),
            has(process.is_some_and(|p| p.Capabilities.is_some()), "capabilities"),
            has(!spec.Mounts.is_empty(), "mounts"),
            has(spec.Hooks.is_some(), "hooks"),
            has(spec.Linux.as_ref().is_some_and(|l| !l.Sysctl.is_empty()), "sysctls"),
            has(spec.Linux.as_ref().is_some_and(|l| !l.Devices.is_empty()), "devices"),
            has(spec.Linux.as_ref().is_some_and(|l| l.Seccomp.is_some()), "seccomp"),
            has(!request.devices.is_empty(), "hot-plugged devices"),
            has(!request.storages.is_empty(), "storages"),
            has(!request.shared_mounts.is_empty(), "shared mounts"),
        ];
        let mounts = spec.Mounts.iter().take(MAX_MOUNTS);
        let mounts = mounts.map(|mount| (trimmed(&mount.destination).to_owned(), mount.source.clone()));
        let environment = process.into_iter().flat_map(|process| &process.Env).take(MAX_VARIABLES);
        let environment = environment
            .filter(|line| line.len() <= MAX_VARIABLE && !line.contains('\0'))
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            name,
            mounts: mounts.collect(),
            environment: environment.collect(),
            replaced: replaced.into_iter().flatten().collect(),
        }
    }
}

/// Without slashes at its end.
fn trimmed(path: &str) -> &str {
    path.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use protocols::oci;

    use super::*;

    #[test]
    fn the_name_comes_from_containerds_or_cri_os_annotation() {
        for key in NAME_KEYS {
            let mut spec = oci::Spec::new();
            spec.Annotations.insert(key.into(), "web".into());
            let mut request = CreateContainerRequest::new();
            request.OCI = Some(spec).into();
            assert_eq!(HostSpec::read(&request).name.as_deref(), Some("web"));
        }
        assert_eq!(HostSpec::read(&CreateContainerRequest::new()), HostSpec::default());
    }

    #[test]
    fn two_names_are_none() {
        let name = |second: &str| {
            let mut spec = oci::Spec::new();
            for (key, name) in NAME_KEYS.into_iter().zip(["web", second]) {
                spec.Annotations.insert(key.into(), name.into());
            }
            let mut request = CreateContainerRequest::new();
            request.OCI = Some(spec).into();
            HostSpec::read(&request).name
        };
        assert_eq!(name("web").as_deref(), Some("web"));
        assert_eq!(name("db"), None);
    }

    #[test]
    fn everything_that_the_host_adds_is_named() {
        let mut process = oci::Process::new();
        process.Args = vec!["sh".into()];
        process.Env = vec!["LD_PRELOAD=/evil.so".into()];
        let mut spec = oci::Spec::new();
        spec.Process = Some(process).into();
        spec.Mounts.push(oci::Mount::new());
        spec.Hooks = Some(oci::Hooks::new()).into();
        let mut request = CreateContainerRequest::new();
        request.OCI = Some(spec).into();
        request.storages.push(Default::default());
        let spec = HostSpec::read(&request);
        assert_eq!(spec.environment["LD_PRELOAD"], "/evil.so");
        assert_eq!(spec.replaced, ["args", "env", "mounts", "hooks", "storages"]);
    }
}
