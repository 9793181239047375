//! A registry as the guest sees it: documents and blobs of one repository by digest (distribution-spec,
//! "Pull"), with tokens, redirects and retries, all bounded. Nothing read here is verified yet.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::Uri;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, HeaderMap, HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE,
};
use rustls::ClientConfig;

use crate::auth::{self, Challenge};
use crate::reference::{Endpoint, Origin};
use crate::transport::{Response, Transport};
use crate::{Digest, ImageError, Limits, tls};

/// A registry, its storage and a mirror in between.
const MAX_REDIRECTS: usize = 5;
const MAX_TOKEN: u64 = 64 << 10;

/// One repository at one registry.
pub(crate) struct Registry {
    endpoint: Endpoint,
    transport: Transport,
    limits: Limits,
    /// For the registry itself: the sealed certificate or the bundle.
    tls: Option<Arc<ClientConfig>>,
    /// For hosts that the registry redirects to.
    other_tls: Option<Arc<ClientConfig>>,
    authorization: Mutex<Option<HeaderValue>>,
}

/// The body of a blob, not verified.
pub(crate) struct Blob {
    response: Response,
    what: String,
    origin: Origin,
    /// Bytes that the reader has already.
    skip: u64,
}

/// What a request asks for beside its target.
#[derive(Clone, Copy)]
enum Ask {
    /// A document of these media types.
    Document(&'static str),
    /// The rest of a blob.
    Blob { from: u64 },
}

impl Ask {
    fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            Self::Document(accept) => {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            Self::Blob { from: 0 } => {}
            Self::Blob { from } => {
                if let Ok(range) = HeaderValue::try_from(format!("bytes={from}-")) {
                    headers.insert(RANGE, range);
                }
            }
        }
        headers
    }
}

impl Registry {
    pub(crate) fn new(
        endpoint: Endpoint,
        transport: Transport,
        limits: Limits,
        bundle: Option<&Path>,
    ) -> Result<Self, ImageError> {
        let pinned = endpoint.source.as_ref().and_then(|source| source.ca.as_deref());
        let (tls, other_tls) = if endpoint.origin.tls {
            let made = match pinned {
                Some(pem) => tls::trusting(pem),
                None => tls::from_bundle(bundle),
            };
            let own = made
                .map_err(|reason| ImageError::Registry { registry: endpoint.origin.to_string(), reason })?;
            // A registry with a private CA may still redirect to public storage.
            let other = if pinned.is_some() { tls::from_bundle(bundle).ok() } else { Some(own.clone()) };
            (Some(own), other)
        } else {
            (None, tls::from_bundle(bundle).ok())
        };
        Ok(Self { endpoint, transport, limits, tls, other_tls, authorization: Mutex::new(None) })
    }

    /// A manifest or index, whole.
    pub(crate) async fn manifest(
        &self,
        digest: &Digest,
        accept: &'static str,
    ) -> Result<Vec<u8>, ImageError> {
        let target = format!("/v2/{}/manifests/{digest}", self.endpoint.repository);
        self.document(&target, Ask::Document(accept), "manifest").await
    }

    /// Whatever a tag points to now, whole.
    pub(crate) async fn tagged(&self, tag: &str, accept: &'static str) -> Result<Vec<u8>, ImageError> {
        let target = format!("/v2/{}/manifests/{tag}", self.endpoint.repository);
        self.document(&target, Ask::Document(accept), "manifest").await
    }

    /// A small blob, whole.
    pub(crate) async fn small_blob(&self, digest: &Digest, what: &str) -> Result<Vec<u8>, ImageError> {
        let target = format!("/v2/{}/blobs/{digest}", self.endpoint.repository);
        self.document(&target, Ask::Blob { from: 0 }, what).await
    }

    /// Opens a blob for streaming from byte `from`: one attempt, so that the reader decides what to do
    /// with half a blob. A registry that knows no ranges sends the whole blob, whose beginning is skipped.
    pub(crate) async fn blob(&self, digest: &Digest, from: u64) -> Result<Blob, ImageError> {
        let target = format!("/v2/{}/blobs/{digest}", self.endpoint.repository);
        let what = format!("layer {digest}");
        let (response, origin) = self.get(&target, Ask::Blob { from }, &what).await?;
        let skip = match response.status.as_u16() {
            206 if begins_at(&response.headers, from) => 0,
            206 => {
                return Err(ImageError::Registry {
                    registry: origin.to_string(),
                    reason: format!("{what}: the answer is another range than byte {from} to the end"),
                });
            }
            _ => from,
        };
        Ok(Blob { response, what, origin, skip })
    }

    async fn document(&self, target: &str, ask: Ask, what: &str) -> Result<Vec<u8>, ImageError> {
        retry(&self.limits, || async {
            let (response, origin) = self.get(target, ask, what).await?;
            read(response, self.limits.document_bytes, what, &origin).await
        })
        .await
    }

    /// One request with its redirects and, once, its authentication.
    async fn get(&self, target: &str, ask: Ask, what: &str) -> Result<(Response, Origin), ImageError> {
        let mut authenticated = false;
        loop {
            let (response, origin) = self.follow(target, ask, what).await?;
            if response.status.is_success() {
                return Ok((response, origin));
            }
            let own = origin == self.endpoint.origin;
            if response.status.as_u16() == 401 && own && !authenticated {
                authenticated = true;
                if let Some(value) = self.authorize(&response).await? {
                    *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
                    continue;
                }
            }
            return Err(ImageError::Status {
                registry: origin.to_string(),
                what: what.to_owned(),
                status: response.status.as_u16(),
            });
        }
    }

    async fn follow(&self, target: &str, ask: Ask, what: &str) -> Result<(Response, Origin), ImageError> {
        let mut origin = self.endpoint.origin.clone();
        let mut target = target.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = ask.headers();
            // The credentials are the registry's: they never follow a redirect to another host.
            if origin == self.endpoint.origin {
                let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(value) = known {
                    headers.insert(AUTHORIZATION, value);
                }
            }
            let response = self.request(&origin, &target, headers).await?;
            if !matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((response, origin));
            }
            let location = response.headers.get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
            (origin, target) = redirected(&origin, location).map_err(|reason| ImageError::Registry {
                registry: origin.to_string(),
                reason: format!("{what}: {reason}"),
            })?;
        }
        Err(ImageError::Registry {
            registry: origin.to_string(),
            reason: format!("{what}: more than {MAX_REDIRECTS} redirects"),
        })
    }

    async fn request(
        &self,
        origin: &Origin,
        target: &str,
        headers: HeaderMap,
    ) -> Result<Response, ImageError> {
        let tls = if *origin == self.endpoint.origin { &self.tls } else { &self.other_tls };
        self.transport
            .get(origin, tls.clone(), target, headers)
            .await
            .map_err(|reason| ImageError::Unreachable { registry: origin.to_string(), attempts: 1, reason })
    }

    /// The answer to a challenge; `None` if there is nothing to answer with.
    async fn authorize(&self, response: &Response) -> Result<Option<HeaderValue>, ImageError> {
        let challenge = response
            .headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .take(8)
            .filter_map(|value| Challenge::parse(value.to_str().ok()?))
            .next();
        let credentials = self.credentials()?;
        let (realm, service, scope) = match challenge {
            None => return Ok(None),
            Some(Challenge::Basic) => return Ok(credentials),
            Some(Challenge::Bearer { realm, service, scope }) => (realm, service, scope),
        };
        let refuse = |reason: &str| ImageError::Registry {
            registry: self.endpoint.origin.to_string(),
            reason: format!("token service {realm:?}: {reason}"),
        };
        let uri: Uri = realm.parse().map_err(|_| refuse("not a URL"))?;
        let origin = Origin::of(&uri).ok_or_else(|| refuse("not an http or https URL"))?;
        if self.endpoint.origin.tls && !origin.tls {
            return Err(refuse("the registry uses TLS, its token service must too"));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.endpoint.repository));
        let mut target = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str(&format!("scope={}", auth::query_value(&scope)));
        if let Some(service) = service {
            target.push_str(&format!("&service={}", auth::query_value(&service)));
        }
        let mut headers = HeaderMap::new();
        if let Some(value) = credentials {
            headers.insert(AUTHORIZATION, value);
        }
        let answer = self.request(&origin, &target, headers).await?;
        if !answer.status.is_success() {
            return Err(ImageError::Status {
                registry: origin.to_string(),
                what: "registry token".into(),
                status: answer.status.as_u16(),
            });
        }
        let body = read(answer, MAX_TOKEN, "registry token", &origin).await?;
        auth::bearer(&body).map(Some).ok_or_else(|| refuse("the answer holds no usable token"))
    }

    fn credentials(&self) -> Result<Option<HeaderValue>, ImageError> {
        let Some(source) = &self.endpoint.source else { return Ok(None) };
        let (Some(username), Some(password)) = (&source.username, &source.password) else { return Ok(None) };
        auth::basic(username, password.expose()).map(Some).ok_or_else(|| ImageError::Registry {
            registry: self.endpoint.origin.to_string(),
            reason: "the sealed user name or password can't be sent in a header".into(),
        })
    }
}

impl Blob {
    /// The next bytes, or `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, ImageError> {
        loop {
            let chunk = self.response.chunk().await.map_err(|reason| ImageError::Unreachable {
                registry: self.origin.to_string(),
                attempts: 1,
                reason: format!("{}: {reason}", self.what),
            })?;
            let Some(mut chunk) = chunk else { return Ok(None) };
            let known = usize::try_from(self.skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
            self.skip -= known as u64;
            let rest = chunk.split_off(known);
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
    }
}

async fn read(
    mut response: Response,
    limit: u64,
    what: &str,
    origin: &Origin,
) -> Result<Vec<u8>, ImageError> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|reason| ImageError::Unreachable {
            registry: origin.to_string(),
            attempts: 1,
            reason: format!("{what}: {reason}"),
        })?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() as u64 + chunk.len() as u64 > limit {
            return Err(ImageError::TooLarge { what: what.to_owned(), limit });
        }
        body.extend_from_slice(&chunk);
    }
}

/// Whether a partial answer begins where it was asked to (`bytes 40-99/100`).
fn begins_at(headers: &HeaderMap, from: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first =
        range.and_then(|range| range.strip_prefix("bytes ")).and_then(|range| range.split('-').next());
    first.is_some_and(|first| first.parse() == Ok(from))
}

/// Where a redirect leads: same scheme or up to TLS, never down.
fn redirected(from: &Origin, location: &str) -> Result<(Origin, String), &'static str> {
    if location.starts_with('/') && !location.starts_with("//") {
        let uri: Uri = location.parse().map_err(|_| "redirect to a malformed location")?;
        let target = uri.path_and_query().ok_or("redirect to a malformed location")?;
        return Ok((from.clone(), target.to_string()));
    }
    let uri: Uri = location.parse().map_err(|_| "redirect to a malformed location")?;
    let origin = Origin::of(&uri).ok_or("redirect to something that isn't an http or https URL")?;
    if from.tls && !origin.tls {
        return Err("redirect from https to http");
    }
    Ok((origin, uri.path_and_query().map_or("/", |p| p.as_str()).to_owned()))
}

/// Runs `operation` until it succeeds, fails for good, or has had its attempts.
async fn retry<T, F>(limits: &Limits, mut operation: impl FnMut() -> F) -> Result<T, ImageError>
where
    F: Future<Output = Result<T, ImageError>>,
{
    let mut pause = limits.backoff;
    let mut attempt = 1;
    loop {
        match operation().await {
            Err(error) if error.is_transient() && attempt < limits.attempts => {
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            }
            Err(error) => return Err(error.after(attempt)),
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn redirects_never_lose_tls() {
        let registry = origin("https://registry.example");
        let (to, target) = redirected(&registry, "https://cdn.example:444/x?sig=1").unwrap();
        assert_eq!((to.to_string().as_str(), target.as_str()), ("https://cdn.example:444", "/x?sig=1"));
        let (to, target) = redirected(&registry, "/other").unwrap();
        assert_eq!((to, target.as_str()), (registry.clone(), "/other"));
        for bad in
            ["http://cdn.example/x", "//cdn.example/x", "", "ftp://x/", "file:///etc/passwd", "https://a@b/"]
        {
            assert!(redirected(&registry, bad).is_err(), "{bad}");
        }
        assert!(redirected(&origin("http://r.example"), "https://cdn.example/").is_ok());
    }
}
