//! A container's environment: the image's, then HOSTNAME, then the pod's, later ones replacing earlier
//! ones of the same name; and defaults for what programs can't do without.

use sealed_spec::podspec::{Container, expand};

use crate::input::Supplied;
use crate::user::Identity;
use crate::{ContainerInput, OciError};

/// What a CRI runtime gives a container whose image says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names and values in order; setting a name again keeps its place.
#[derive(Default)]
pub(crate) struct Environment(Vec<(String, String)>);

impl Environment {
    /// Only the pod's own variables: the ones that `$(NAME)` can mean, beside service links.
    pub(crate) fn of_pod(container: &Container, supplied: &Supplied) -> Result<Self, OciError> {
        let mut environment = Self::default();
        for variable in &container.env {
            let value = match variable.value_from {
                None => expand(variable.value.expose(), |name| {
                    environment.value(name).or_else(|| supplied.links.get(name).map(String::as_str))
                }),
                Some(_) => supplied.values.get(&variable.name).cloned().ok_or_else(|| {
                    OciError::refused(format!("env {}", variable.name), "nobody supplied its value")
                })?,
            };
            environment.set(&variable.name, value);
        }
        Ok(environment)
    }

    /// Everything that the container's process sees.
    pub(crate) fn of_process(pod: &Self, input: &ContainerInput<'_>, identity: &Identity) -> Self {
        let mut environment = Self::default();
        let image =
            input.image.config().as_ref().and_then(|config| config.env().as_deref()).unwrap_or_default();
        for entry in image {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            if !name.is_empty() && !entry.contains('\0') {
                environment.set(name, value.to_owned());
            }
        }
        environment.set("HOSTNAME", input.hostname.to_owned());
        if input.container.tty == Some(true) {
            environment.set("TERM", "xterm".to_owned());
        }
        for (name, value) in &pod.0 {
            environment.set(name, value.clone());
        }
        for (name, value) in &input.supplied.links {
            if environment.value(name).is_none() {
                environment.set(name, value.clone());
            }
        }
        if environment.value("PATH").is_none() {
            environment.set("PATH", DEFAULT_PATH.to_owned());
        }
        // Never empty: libcontainer would then ask libc for the user's home, and a static libc answers by
        // loading plug-ins from the container's own root.
        if environment.value("HOME").is_none_or(str::is_empty) {
            environment.set("HOME", identity.home.clone());
        }
        environment
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.0.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}
