//! Registries as the sealed specification describes them: location, trust, login, mirrors, proxy. Nothing of
//! it comes from the host.

use std::path::PathBuf;

use oci_registry::{Access, Client, Login, Mirror, Proxies, Reference, Repository, Settings, Source};
use sealed_spec::{Proxy, RegistrySource};

use crate::keys::Resources;
use crate::{ImageError, Limits};

/// The way to registries.
pub(crate) struct Sources {
    sealed: Vec<RegistrySource>,
    settings: Settings,
    /// For registries whose login isn't asked for at the broker.
    client: Client,
}

impl Sources {
    pub(crate) fn new(
        sealed: Vec<RegistrySource>,
        proxy: Option<&Proxy>,
        ca_bundle: Option<PathBuf>,
        limits: &Limits,
    ) -> Result<Self, ImageError> {
        let proxies = match proxy {
            None => Proxies::default(),
            Some(proxy) => {
                let read = oci_registry::Proxy::parse(proxy.url.expose());
                let read = read.map_err(|e| ImageError::Proxy { reason: e.to_string() })?;
                Proxies::new(read, proxy.except.iter().map(String::as_str))
            }
        };
        let settings = Settings {
            sources: sealed.iter().map(source).collect(),
            logins: Vec::new(),
            ca_bundle,
            proxies,
            limits: limits.registry.clone(),
            agent: "sealpod-agent",
        };
        let client = Client::new(settings.clone());
        Ok(Self { sealed, settings, client })
    }

    /// The repository, with the login that the broker has for its registry, if the specification says so.
    pub(crate) async fn open(
        &self,
        reference: &Reference,
        resources: &dyn Resources,
    ) -> Result<Repository, ImageError> {
        let source = self.sealed.iter().position(|source| source.host == reference.host);
        let asked = source.and_then(|at| Some((at, self.sealed[at].credentials.as_ref()?)));
        let Some((at, uri)) = asked else {
            return Ok(self.client.repository(reference, Access::Pull)?);
        };
        let fail = |reason: String| ImageError::Credentials {
            registry: reference.host.clone(),
            uri: uri.to_string(),
            reason,
        };
        let bytes = resources.resource(uri).await.map_err(fail)?;
        let login = login(&bytes, reference).map_err(fail)?;
        let mut settings = self.settings.clone();
        settings.sources[at].login = Some(login);
        Ok(Client::new(settings).repository(reference, Access::Pull)?)
    }
}

/// A sealed source as the client takes it.
fn source(sealed: &RegistrySource) -> Source {
    let mut source = Source::new(&sealed.host, &sealed.location);
    source.ca.clone_from(&sealed.ca);
    if let (Some(username), Some(password)) = (&sealed.username, &sealed.password) {
        source.login = Some(Login::password(username, password.expose()));
    }
    source.mirrors = sealed.mirrors.iter().map(|mirror| Mirror::from(mirror.as_str())).collect();
    source.lookaside.clone_from(&sealed.lookaside);
    source
}

/// A docker auth configuration, or user name and password.
fn login(bytes: &[u8], reference: &Reference) -> Result<Login, String> {
    Login::from_resource(bytes, &reference.host, &reference.repository)
        .map_err(|e| e.to_string())?
        .ok_or_else(|| "it has no login for this registry".to_owned())
}
