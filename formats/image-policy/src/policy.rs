//! A whole policy, and which of its lists is for an image: the most specific scope wins, and only that one
//! counts.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::json::{self, Object};
use crate::reference::Reference;
use crate::requirement::Requirement;
use crate::{MAX_POLICY, PolicyError};

/// Transports of other image sources: nothing is pulled through them here, so they can't apply.
const OTHER_TRANSPORTS: &[&str] = &[
    "atomic",
    "containers-storage",
    "dir",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "openshift",
    "ostree",
    "sif",
    "tarball",
];
/// The transport that applies.
pub(crate) const DOCKER: &str = "docker";

/// containers-policy.json(5), as far as it applies to images from registries.
#[derive(Clone, Debug)]
pub struct Policy {
    default: Vec<Requirement>,
    docker: BTreeMap<String, Vec<Requirement>>,
}

/// The requirements for one image. All of them have to hold.
#[derive(Clone, Debug)]
pub struct Requirements<'a> {
    scope: String,
    list: &'a [Requirement],
}

impl Policy {
    /// From the text of a policy file. Everything in it has to be understood, keys included.
    ///
    /// # Errors
    /// When it isn't a policy, or says something that isn't supported; the error names it.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY {
            return Err(PolicyError::TooLarge);
        }
        Self::from_value(json::parse(text).map_err(PolicyError::Json)?)
    }

    /// From JSON that was read before, such as a member of a sealed specification.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn from_value(value: Value) -> Result<Self, PolicyError> {
        let mut object = Object::new("the file".into(), value)?;
        let missing = PolicyError::Missing { at: object.at.clone(), key: "default" };
        let default = Requirement::list("default", object.take("default").ok_or(missing)?)?;
        let mut docker = BTreeMap::new();
        if let Some(transports) = object.take("transports") {
            for (transport, scopes) in Object::new("transports".into(), transports)?.rest() {
                let applies = transport == DOCKER;
                if !applies && !OTHER_TRANSPORTS.contains(&transport.as_str()) {
                    return Err(PolicyError::UnknownKey { at: "transports".into(), key: transport });
                }
                for (scope, list) in Object::new(format!("transports.{transport}"), scopes)?.rest() {
                    let at = format!("transports.{transport}[{scope:?}]");
                    if applies {
                        check_scope(&at, &scope)?;
                        docker.insert(scope, Requirement::list(&at, list)?);
                    }
                }
            }
        }
        object.finish()?;
        Ok(Self { default, docker })
    }

    /// What an image has to fulfil.
    #[must_use]
    pub fn requirements_for(&self, reference: &Reference) -> Requirements<'_> {
        for scope in scopes_of(reference) {
            if let Some(list) = self.docker.get(&scope) {
                return Requirements { scope: format!("transports.{DOCKER}[{scope:?}]"), list };
            }
        }
        Requirements { scope: "default".into(), list: &self.default }
    }

    /// Key files that it names instead of holding them.
    #[must_use]
    pub fn key_files(&self) -> Vec<&str> {
        let lists = self.docker.values().chain([&self.default]);
        lists.flatten().flat_map(Requirement::files).map(String::as_str).collect()
    }
}

impl Requirements<'_> {
    /// Whether an image without signature is refused because it has none. A name that can be moved may only
    /// be used if this holds.
    #[must_use]
    pub fn asks_for_signatures(&self) -> bool {
        self.asks_for_simple() || self.asks_for_cosign()
    }

    /// Whether one of those is simple signing's.
    #[must_use]
    pub fn asks_for_simple(&self) -> bool {
        self.list.iter().any(|requirement| matches!(requirement, Requirement::SignedBy { .. }))
    }

    /// Whether one of those is cosign's.
    #[must_use]
    pub fn asks_for_cosign(&self) -> bool {
        self.list.iter().any(|requirement| matches!(requirement, Requirement::SigstoreSigned { .. }))
    }

    /// Whether every image is refused.
    #[must_use]
    pub fn rejects(&self) -> bool {
        self.list.iter().any(|requirement| matches!(requirement, Requirement::Reject))
    }

    /// Where in the policy they are.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope
    }

    pub(crate) fn list(&self) -> &[Requirement] {
        self.list
    }
}

/// Scopes that apply to a reference, most specific first: the image, its repository, the namespaces above it,
/// the host, the domains above that, and the transport's default.
fn scopes_of(reference: &Reference) -> Vec<String> {
    let name = reference.name();
    let mut scopes = Vec::new();
    if reference.tag().is_some() && reference.digest().is_some() {
        scopes.push(reference.to_string());
    }
    scopes.extend(reference.digest().map(|digest| format!("{name}@{digest}")));
    scopes.extend(reference.tag().map(|tag| format!("{name}:{tag}")));
    let mut prefix = name;
    scopes.push(prefix.to_owned());
    while let Some((shorter, _)) = prefix.rsplit_once('/') {
        scopes.push(shorter.to_owned());
        prefix = shorter;
    }
    // Wildcards have no port: `*.example.com` is for every port of its hosts.
    let mut domain = reference.host();
    if !domain.starts_with('[') {
        domain = domain.split(':').next().unwrap_or_default();
        while let Some((_, parent)) = domain.split_once('.') {
            scopes.push(format!("*.{parent}"));
            domain = parent;
        }
    }
    scopes.push(String::new());
    scopes
}

/// A scope that can't match anything is a mistake that would leave an image to a wider rule.
fn check_scope(at: &str, scope: &str) -> Result<(), PolicyError> {
    let host = |text: &str| {
        let probe = format!("{text}/x");
        Reference::parse(&probe).is_ok_and(|it| it.is_name_only() && it.name() == probe)
    };
    let good = match scope.strip_prefix("*.") {
        _ if scope.is_empty() => true,
        Some(domain) => !domain.contains(['/', ':']) && host(&format!("x.{domain}")),
        None => host(scope) || Reference::parse(scope).is_ok_and(|it| it.to_string() == scope),
    };
    if good {
        return Ok(());
    }
    let problem = "no image has this scope; it must be *.domain, or host[:port][/namespace][/repository][:tag|@digest] \
                   in expanded form (docker.io/library/busybox, not busybox)";
    Err(PolicyError::Value { at: at.to_owned(), problem: problem.into() })
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
