//! What all registries share: trust, names, time-outs, idle connections.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;

use crate::proxy::Proxies;
use crate::repository::{Place, Repository};
use crate::resolver::Resolver;
use crate::server::Server;
use crate::signatures::Lookaside;
use crate::source::{self, Login, Source};
use crate::transport::Transport;
use crate::{AuthFile, AuthFileError, Limits, Reference, RegistryError, tls};

/// What a repository is opened for: which token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// What a client is made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// By host, the first that fits. A host without one is asked over https, without a login.
    pub sources: Vec<Source>,
    /// Logins for servers whose source has none, the first file that has one first. Never used over http.
    pub logins: Vec<AuthFile>,
    /// PEM certificates for servers whose source pins none; read when one of them is asked.
    pub ca_bundle: Option<PathBuf>,
    /// Proxies for servers whose source names none.
    pub proxies: Proxies,
    /// Bounds.
    pub limits: Limits,
    /// What the client calls itself.
    pub agent: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            logins: Vec::new(),
            ca_bundle: None,
            proxies: Proxies::default(),
            limits: Limits::default(),
            agent: "sealpod",
        }
    }
}

/// A client for any number of registries. Clones share everything. Its methods need a Tokio runtime.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    sources: Vec<Source>,
    logins: Vec<AuthFile>,
    ca_bundle: Option<PathBuf>,
    proxies: Arc<Proxies>,
    limits: Arc<Limits>,
    transport: Transport,
    /// By pinned PEM text, and the bundle's: made once, so that connections and sessions are found again.
    tls: Mutex<HashMap<Option<String>, Arc<ClientConfig>>>,
}

impl Client {
    /// A client. Nothing is read or asked yet.
    pub fn new(settings: Settings) -> Self {
        let Settings { sources, logins, ca_bundle, proxies, limits, agent } = settings;
        let (limits, proxies) = (Arc::new(limits), Arc::new(proxies));
        let transport = Transport::new(Resolver::default(), limits.clone(), agent);
        let tls = Mutex::default();
        Self { inner: Arc::new(Inner { sources, logins, ca_bundle, proxies, limits, transport, tls }) }
    }

    /// The repository that a reference names, at its registry and the registry's mirrors. Settings that can't
    /// be used are refused here; nothing is asked yet.
    pub fn repository(&self, reference: &Reference, access: Access) -> Result<Repository, RegistryError> {
        let inner = &self.inner;
        let found = inner.sources.iter().find(|source| source.host == reference.host);
        let source = match found {
            Some(source) => source.clone(),
            None => Source::new(&reference.host, &reference.default_location()),
        };
        let mut mirrors = Vec::with_capacity(source.mirrors.len());
        for mirror in &source.mirrors {
            let (origin, prefix) = source::location(&mirror.location, true)?;
            let own = inner.sources.iter().find(|source| source.host == origin.authority());
            let own = own.cloned().unwrap_or_else(|| Source::new(&origin.authority(), &mirror.location));
            let repository = match prefix.as_str() {
                "" => reference.repository.clone(),
                prefix => format!("{prefix}/{}", reference.repository),
            };
            // Where the mirror is, its line says; how to reach it, its source.
            let own = Source { location: origin.to_string(), ..own };
            let server = self.server(own, repository, Access::Pull)?;
            mirrors.push(Place {
                server,
                tags: mirror.tags,
                suspect: AtomicBool::new(false),
                distrusted: AtomicBool::new(false),
            });
        }
        let lookaside = source.lookaside.as_deref().map(|base| self.lookaside(base, &source, reference));
        let registry = self.server(source, reference.repository.clone(), access)?;
        Ok(Repository::new(registry, mirrors, lookaside, inner.limits.clone()))
    }

    /// Only who asks for signatures has to hear that they can't be asked for.
    fn lookaside(
        &self,
        base: &str,
        registry: &Source,
        reference: &Reference,
    ) -> Result<Lookaside, RegistryError> {
        let (origin, path) = source::base(base)?;
        let known = self.inner.sources.iter().find(|source| source.host == origin.authority());
        let mut own = Source::new(&origin.authority(), &origin.to_string());
        let same_host =
            source::location(&registry.location, false).is_ok_and(|(other, _)| other.host == origin.host);
        own.ca = match known {
            Some(known) => known.ca.clone(),
            None if same_host => registry.ca.clone(),
            None => None,
        };
        own.proxy = known.unwrap_or(registry).proxy.clone();
        let server = self.server(own, reference.repository.clone(), Access::Pull)?;
        Ok(Lookaside { server, base: format!("{path}/{}", reference.repository) })
    }

    fn server(&self, source: Source, repository: String, access: Access) -> Result<Server, RegistryError> {
        let inner = &self.inner;
        let (origin, _) = source::location(&source.location, false)?;
        let fail = |reason: String| RegistryError::Configuration { registry: origin.to_string(), reason };
        if !origin.tls && source.login.is_some() {
            return Err(fail(
                "a login over plain http would be read by whoever is on the way; use https://".into(),
            ));
        }
        let (login, no_login) = match (source.login, origin.tls) {
            // A login is for the host that it was given for, not for whoever stands in for it.
            (None, true) => self.known_login(&origin.authority(), &repository)?,
            (None, false) => (None, Some("logins are not sent over plain http".to_owned())),
            (given, _) => (given, None),
        };
        let bundle = || self.configuration(None);
        let (tls, other_tls) = match (&source.ca, origin.tls) {
            (Some(pem), true) => {
                let own = self.configuration(Some(pem)).map_err(fail)?;
                // A registry with a private CA may still redirect to public storage.
                (Some(own), bundle().ok())
            }
            (None, true) => {
                let own = bundle().map_err(fail)?;
                (Some(own.clone()), Some(own))
            }
            (_, false) => (None, bundle().ok()),
        };
        Ok(Server {
            origin,
            repository,
            access,
            login,
            no_login,
            proxy: source.proxy,
            proxies: inner.proxies.clone(),
            tls,
            other_tls,
            transport: inner.transport.clone(),
            authorization: Mutex::default(),
            also_pulls: Mutex::default(),
        })
    }

    /// From the files; or why there is one, but not here: that is told only if the registry wants one.
    fn known_login(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<(Option<Login>, Option<String>), RegistryError> {
        let mut elsewhere = None;
        for file in &self.inner.logins {
            match file.login(host, repository) {
                Ok(Some(login)) => return Ok((Some(login), None)),
                Ok(None) => {}
                Err(helper @ AuthFileError::Helper { .. }) => elsewhere = Some(helper.to_string()),
                Err(error) => {
                    let (registry, reason) = (host.to_owned(), error.to_string());
                    return Err(RegistryError::Configuration { registry, reason });
                }
            }
        }
        Ok((None, elsewhere))
    }

    fn configuration(&self, pem: Option<&str>) -> Result<Arc<ClientConfig>, String> {
        let mut known = self.inner.tls.lock().unwrap_or_else(PoisonError::into_inner);
        let key = pem.map(str::to_owned);
        if let Some(configuration) = known.get(&key) {
            return Ok(configuration.clone());
        }
        let made = match pem {
            Some(pem) => tls::trusting(pem),
            None => tls::from_bundle(self.inner.ca_bundle.as_deref()),
        }?;
        known.insert(key, made.clone());
        Ok(made)
    }
}
