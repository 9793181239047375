//! One server that has a repository (the registry or a mirror of it): requests with tokens and redirects,
//! all bounded. Nothing read here is verified yet.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Method, Uri};
use rustls::ClientConfig;

use crate::auth::{self, Challenge, TokenRequest};
use crate::body::Outgoing;
use crate::client::Access;
use crate::origin::Origin;
use crate::proxy::{Proxies, Proxy};
use crate::source::{Kind, Login};
use crate::transport::{Call, Response, Route, Transport};
use crate::{RegistryError, retry};

/// A registry, its storage and a mirror in between.
const MAX_REDIRECTS: usize = 5;
const MAX_TOKEN: u64 = 64 << 10;
const MAX_ALSO_PULLS: usize = 16;

/// One repository at one server.
pub(crate) struct Server {
    pub(crate) origin: Origin,
    pub(crate) repository: String,
    pub(crate) access: Access,
    pub(crate) login: Option<Login>,
    /// Why there is none, for whoever hears that one is wanted.
    pub(crate) no_login: Option<String>,
    /// For everything that this server leads to.
    pub(crate) proxy: Option<Proxy>,
    pub(crate) proxies: Arc<Proxies>,
    /// For the server itself: its pinned certificate or the bundle.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// For hosts that it redirects to.
    pub(crate) other_tls: Option<Arc<ClientConfig>>,
    pub(crate) transport: Transport,
    pub(crate) authorization: Mutex<Option<HeaderValue>>,
    /// Repositories beside its own that a token is asked for, to mount blobs from.
    pub(crate) also_pulls: Mutex<Vec<String>>,
}

/// What is asked of the server itself.
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Outgoing,
    pub(crate) patience: u32,
}

impl Server {
    /// `/v2/<repository>/<rest>`
    pub(crate) fn target(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.repository)
    }

    /// One GET or HEAD with its redirects and, once, its authentication. Any answer but success is an error.
    pub(crate) async fn get(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<(Response, Origin), RegistryError> {
        let mut authenticated = false;
        loop {
            let (response, origin) = self.follow(method, target, headers, what).await?;
            if response.status.is_success() {
                return Ok((response, origin));
            }
            let own = origin == self.origin;
            if response.status.as_u16() == 401 && own && !authenticated {
                authenticated = true;
                if self.authenticate(&response).await? {
                    response.discard().await;
                    continue;
                }
            }
            return Err(self.status(response, &origin, what).await);
        }
    }

    /// One request to the server itself, authenticated once if it wants that and the body can be sent again.
    /// Any status is an answer; redirects are not followed.
    pub(crate) async fn send(&self, mut ask: Ask) -> Result<Response, RegistryError> {
        let mut authenticated = false;
        loop {
            let spare = ask.body.again();
            let call = Call {
                method: ask.method.clone(),
                target: ask.target.clone(),
                headers: self.authorized(ask.headers.clone()),
                body: ask.body,
                patience: ask.patience,
            };
            let response = self.exchange(&self.origin, call).await?;
            if response.status.as_u16() == 401
                && !authenticated
                && self.authenticate(&response).await?
                && let Some(body) = spare
            {
                authenticated = true;
                response.discard().await;
                ask.body = body;
                continue;
            }
            return Ok(response);
        }
    }

    /// The error that a status is.
    pub(crate) async fn status(&self, response: Response, origin: &Origin, what: &str) -> RegistryError {
        RegistryError::Status {
            registry: origin.to_string(),
            what: what.to_owned(),
            status: response.status.as_u16(),
            retry_after: retry::retry_after(&response.headers),
            note: self.no_login.clone().filter(|_| matches!(response.status.as_u16(), 401 | 403)),
            code: code(&response.remains().await),
        }
    }

    /// Lets further tokens be good for reading other repositories, too.
    pub(crate) fn also_pull(&self, repositories: &[&str]) {
        let mut known = self.also_pulls.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        for other in repositories {
            if known.len() < MAX_ALSO_PULLS && !known.iter().any(|known| known == other) {
                known.push((*other).to_owned());
            }
        }
        if known.len() > before {
            // With an old token the registry wouldn't ask, but quietly do without.
            *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    pub(crate) fn refused(&self, reason: String) -> RegistryError {
        RegistryError::Refused { registry: self.origin.to_string(), reason }
    }

    async fn follow(
        &self,
        method: &Method,
        target: &str,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<(Response, Origin), RegistryError> {
        let mut origin = self.origin.clone();
        let mut target = target.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            // The login is the registry's: it never follows a redirect to another host.
            let headers =
                if origin == self.origin { self.authorized(headers.clone()) } else { headers.clone() };
            let call = Call { method: method.clone(), target, headers, body: Outgoing::Empty, patience: 1 };
            let response = self.exchange(&origin, call).await?;
            if !matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((response, origin));
            }
            let location = response.headers.get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let next = origin.redirected(location).map_err(|reason| RegistryError::Refused {
                registry: origin.to_string(),
                reason: format!("{what}: {reason}"),
            })?;
            response.discard().await;
            (origin, target) = next;
        }
        Err(RegistryError::Refused {
            registry: origin.to_string(),
            reason: format!("{what}: more than {MAX_REDIRECTS} redirects"),
        })
    }

    fn authorized(&self, mut headers: HeaderMap) -> HeaderMap {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(value) = known {
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }

    async fn exchange(&self, origin: &Origin, call: Call) -> Result<Response, RegistryError> {
        let tls = if *origin == self.origin { &self.tls } else { &self.other_tls };
        let proxy = self.proxy.as_ref().or_else(|| self.proxies.of(origin));
        let route = Route { origin, tls: tls.as_ref(), proxy };
        self.transport.exchange(route, call).await.map_err(|reason| RegistryError::Unreachable {
            registry: origin.to_string(),
            attempts: 1,
            reason,
        })
    }

    /// Answers a challenge; `false` if there is nothing to answer with.
    async fn authenticate(&self, response: &Response) -> Result<bool, RegistryError> {
        let challenge = response
            .headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .take(8)
            .filter_map(|value| Challenge::parse(value.to_str().ok()?))
            .next();
        let value = match (challenge, self.login.as_ref().map(|login| &login.0)) {
            (None, _) => None,
            (Some(_), Some(Kind::Registry(token))) => auth::bearer_header(token),
            (Some(Challenge::Basic), _) => self.basic()?,
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                Some(self.token(&realm, service, scope.as_deref()).await?)
            }
        };
        let Some(value) = value else { return Ok(false) };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(true)
    }

    fn basic(&self) -> Result<Option<HeaderValue>, RegistryError> {
        let Some(login) = &self.login else { return Ok(None) };
        login.basic().map_err(|reason| RegistryError::Configuration {
            registry: self.origin.to_string(),
            reason: reason.to_owned(),
        })
    }

    /// A token of the token service (distribution "Token authentication").
    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
        asked: Option<&str>,
    ) -> Result<HeaderValue, RegistryError> {
        let refuse = |reason: &str| {
            self.refused(format!("token service {:?}: {reason}", realm.chars().take(300).collect::<String>()))
        };
        let uri: Uri = realm.parse().map_err(|_| refuse("not a URL"))?;
        let origin = Origin::of(&uri).ok_or_else(|| refuse("not an http or https URL"))?;
        if self.origin.tls && !origin.tls {
            return Err(refuse("the registry uses TLS, its token service must too"));
        }
        let mut request = TokenRequest::new(&uri, self.scopes(asked), service);
        let mut headers = HeaderMap::new();
        match self.login.as_ref().map(|login| &login.0) {
            Some(Kind::Identity(token)) => {
                request.refresh(token);
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(CONTENT_TYPE, form);
            }
            _ => {
                if let Some(value) = self.basic()? {
                    headers.insert(AUTHORIZATION, value);
                }
            }
        }
        let TokenRequest { method, target, body } = request;
        let call = Call { method, target, headers, body, patience: 1 };
        let answer = self.exchange(&origin, call).await?;
        if !answer.status.is_success() {
            return Err(self.status(answer, &origin, "registry token").await);
        }
        let body = read(answer, MAX_TOKEN, "registry token", &origin).await?;
        auth::bearer(&body).ok_or_else(|| refuse("the answer holds no usable token"))
    }

    /// What a token is asked for: never more than this client does, whatever the registry names.
    fn scopes(&self, asked: Option<&str>) -> Vec<String> {
        // Some registries have one word for everything, such as `aws`.
        if let Some(asked) = asked
            && !asked.contains([':', ' '])
        {
            return vec![asked.to_owned()];
        }
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let mut scopes = vec![format!("repository:{}:{actions}", self.repository)];
        let others = self.also_pulls.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.extend(others.iter().map(|other| format!("repository:{other}:pull")));
        scopes
    }
}

/// The registry's own word for an error (distribution-spec, "Error Codes"), and nothing else of what it says.
fn code(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(serde::Deserialize)]
    struct Error {
        code: String,
    }
    let code = serde_json::from_slice::<Errors>(body).ok()?.errors.into_iter().next()?.code;
    let plain = code.len() <= 40 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    plain.then_some(code)
}

/// A body, whole and bounded.
pub(crate) async fn read(
    mut response: Response,
    limit: u64,
    what: &str,
    origin: &Origin,
) -> Result<Vec<u8>, RegistryError> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|reason| RegistryError::Unreachable {
            registry: origin.to_string(),
            attempts: 1,
            reason: format!("{what}: {reason}"),
        })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() as u64 + chunk.len() as u64 > limit {
            return Err(RegistryError::TooLarge { what: what.to_owned(), limit });
        }
        body.extend_from_slice(&chunk);
    }
}
