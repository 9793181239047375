//! One repository at its registry and the registry's mirrors: documents and blobs by digest
//! (distribution-spec, "Pull").
//!
//! A mirror is asked by digest only, before the registry. One that doesn't answer is asked after the registry
//! from then on; one that sends other bytes than the digest names is never asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hyper::Method;
use hyper::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE,
};

use crate::document::{Document, MANIFEST_TYPES};
use crate::download::Download;
use crate::origin::Origin;
use crate::reference::is_tag;
use crate::server::{self, Server};
use crate::signatures::Lookaside;
use crate::transport::Response;
use crate::{Digest, Limits, ReferenceError, RegistryError, retry};

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// One repository. Clones share everything.
#[derive(Clone)]
pub struct Repository {
    places: Arc<Places>,
}

pub(crate) struct Places {
    pub(crate) registry: Server,
    mirrors: Vec<Place>,
    /// The server of simple signatures, or why it can't be asked.
    pub(crate) lookaside: Option<Result<Lookaside, RegistryError>>,
    pub(crate) limits: Arc<Limits>,
}

/// A mirror and what is thought of it.
pub(crate) struct Place {
    pub(crate) server: Server,
    pub(crate) tags: bool,
    /// It didn't answer.
    pub(crate) suspect: AtomicBool,
    /// It sent other bytes than were asked for.
    pub(crate) distrusted: AtomicBool,
}

/// The registry or one of its mirrors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Registry,
    Mirror(usize),
}

impl Places {
    pub(crate) fn server(&self, at: At) -> &Server {
        match at {
            At::Registry => &self.registry,
            At::Mirror(index) => &self.mirrors[index].server,
        }
    }

    /// In which order a digest is looked for.
    pub(crate) fn order(&self) -> Vec<At> {
        let fit = |suspect: bool| {
            self.mirrors.iter().enumerate().filter_map(move |(index, mirror)| {
                let fits = !mirror.distrusted.load(Ordering::Relaxed)
                    && mirror.suspect.load(Ordering::Relaxed) == suspect;
                fits.then_some(At::Mirror(index))
            })
        };
        fit(false).chain([At::Registry]).chain(fit(true)).collect()
    }

    /// What a mirror's failure says about it, and to whoever has to understand the whole.
    pub(crate) fn blame(&self, mirror: usize, error: &RegistryError) -> String {
        let mirror = &self.mirrors[mirror];
        match error {
            RegistryError::DigestMismatch { .. } => mirror.distrusted.store(true, Ordering::Relaxed),
            error if error.is_transient() => mirror.suspect.store(true, Ordering::Relaxed),
            _ => {}
        }
        let text = error.to_string();
        let origin = mirror.server.origin.to_string();
        if text.contains(&origin) {
            format!("as a mirror, {text}")
        } else {
            format!("mirror {origin}: {text}")
        }
    }

    /// One request for something small and whole.
    async fn fetch(&self, server: &Server, want: &Want<'_>) -> Result<Document, RegistryError> {
        let target = server.target(&want.rest);
        let headers = if want.is_manifest { accept(MANIFEST_TYPES) } else { HeaderMap::new() };
        let (response, origin) = server.get(&Method::GET, &target, &headers, want.what).await?;
        let media_type =
            response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok().map(str::to_owned));
        // What it says it sends is what it must have sent: a proxy in between may have mixed things up.
        let expected = want.digest.copied().or_else(|| said_digest(&response));
        let bytes = server::read(response, self.limits.document_bytes, want.what, &origin).await?;
        Document::check(bytes, media_type, expected.as_ref(), want.what)
    }

    /// Asks one place after the other; the registry with retries. Its own failure is what counts.
    async fn first(&self, want: &Want<'_>) -> Result<Document, RegistryError> {
        let (mut mirrors, mut registry) = (Vec::new(), None);
        for at in self.order() {
            let server = self.server(at);
            let found = match at {
                At::Registry => retry::retry(&self.limits, || self.fetch(server, want)).await,
                At::Mirror(_) => self.fetch(server, want).await,
            };
            match (found, at) {
                (Ok(found), _) => return Ok(found),
                (Err(error), At::Registry) => registry = Some(error),
                (Err(error), At::Mirror(index)) => mirrors.push(self.blame(index, &error)),
            }
        }
        let error = registry.unwrap_or_else(|| self.registry.refused("it was not asked".into()));
        Err(error.with_mirrors(&mirrors))
    }
}

/// Something small that is fetched whole.
struct Want<'a> {
    /// What follows the repository in the path.
    rest: String,
    is_manifest: bool,
    /// What its bytes must hash to.
    digest: Option<&'a Digest>,
    /// What errors call it.
    what: &'a str,
}

impl Repository {
    pub(crate) fn new(
        registry: Server,
        mirrors: Vec<Place>,
        lookaside: Option<Result<Lookaside, RegistryError>>,
        limits: Arc<Limits>,
    ) -> Self {
        Self { places: Arc::new(Places { registry, mirrors, lookaside, limits }) }
    }

    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// `scheme://host[:port]` of the registry, for people.
    pub fn registry(&self) -> String {
        self.places.registry.origin.to_string()
    }

    /// A manifest or index, whole, with this digest.
    pub async fn manifest(&self, digest: &Digest) -> Result<Document, RegistryError> {
        self.manifest_as(digest, "image manifest").await
    }

    /// As [`Repository::manifest`]; errors call it `what`.
    pub async fn manifest_as(&self, digest: &Digest, what: &str) -> Result<Document, RegistryError> {
        let rest = format!("manifests/{digest}");
        self.places.first(&Want { rest, is_manifest: true, digest: Some(digest), what }).await
    }

    /// Whatever a tag points to now, whole. A mirror is asked only if it is believed about tags, and only when
    /// the registry gives no answer.
    pub async fn tagged(&self, tag: &str) -> Result<Document, RegistryError> {
        self.tagged_as(tag, "image manifest", false).await
    }

    /// As [`Repository::tagged`]; `any_mirror` is for documents that vouch for themselves.
    pub(crate) async fn tagged_as(
        &self,
        tag: &str,
        what: &str,
        any_mirror: bool,
    ) -> Result<Document, RegistryError> {
        if !is_tag(tag) {
            return Err(RegistryError::Reference(ReferenceError {
                reference: tag.chars().take(300).collect(),
                reason: "the tag must be letters, digits and . _ -, at most 128",
            }));
        }
        let places = &self.places;
        let want = Want { rest: format!("manifests/{tag}"), is_manifest: true, digest: None, what };
        let error = match retry::retry(&places.limits, || places.fetch(&places.registry, &want)).await {
            Err(error) if error.is_transient() => error,
            done => return done,
        };
        let mut failures = Vec::new();
        for (index, mirror) in places.mirrors.iter().enumerate() {
            if !any_mirror && !mirror.tags {
                continue;
            }
            match places.fetch(&mirror.server, &want).await {
                Ok(document) => return Ok(document),
                Err(error) => failures.push(places.blame(index, &error)),
            }
        }
        Err(error.with_mirrors(&failures))
    }

    /// A small blob, whole, with this digest. Errors call it `what`.
    pub async fn small_blob(&self, digest: &Digest, what: &str) -> Result<Vec<u8>, RegistryError> {
        let rest = format!("blobs/{digest}");
        let want = Want { rest, is_manifest: false, digest: Some(digest), what };
        Ok(self.places.first(&want).await?.bytes)
    }

    /// A blob of `size` bytes, to be read as a stream. Nothing is asked before the first chunk.
    pub fn download(&self, digest: &Digest, size: u64) -> Download {
        Download::new(self.clone(), *digest, size)
    }

    /// The size of a blob that the registry itself has; `None` if it hasn't. Registries that don't say a size
    /// say 0.
    pub async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        self.head(&format!("blobs/{digest}"), &HeaderMap::new(), &format!("blob {digest}")).await
    }

    /// Whether the registry itself has a manifest.
    pub async fn has_manifest(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let what = format!("manifest {digest}");
        let found = self.head(&format!("manifests/{digest}"), &accept(MANIFEST_TYPES), &what).await?;
        Ok(found.is_some())
    }

    async fn head(&self, rest: &str, headers: &HeaderMap, what: &str) -> Result<Option<u64>, RegistryError> {
        let server = &self.places.registry;
        let target = server.target(rest);
        let ask = || async {
            let (response, _) = server.get(&Method::HEAD, &target, headers, what).await?;
            let length =
                response.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            response.discard().await;
            Ok(length.unwrap_or(0))
        };
        match retry::retry(&self.places.limits, ask).await {
            Ok(length) => Ok(Some(length)),
            Err(RegistryError::Status { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(crate) fn accept(types: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(types))])
}

/// The digest that a registry says an answer has, or that it stored something under.
pub(crate) fn said_digest(response: &Response) -> Option<Digest> {
    response.headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// The body of a blob, not verified.
pub(crate) struct Blob {
    response: Response,
    origin: Origin,
    /// Bytes that the reader has already.
    skip: u64,
}

impl Blob {
    /// Opens a blob from byte `from`: one attempt. A registry that knows no ranges sends the whole blob, whose
    /// beginning is skipped.
    pub(crate) async fn open(
        server: &Server,
        digest: &Digest,
        from: u64,
        what: &str,
    ) -> Result<Self, RegistryError> {
        let target = server.target(&format!("blobs/{digest}"));
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = HeaderValue::try_from(format!("bytes={from}-"));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let (response, origin) = server.get(&Method::GET, &target, &headers, what).await?;
        let skip = match response.status.as_u16() {
            206 if begins_at(&response.headers, from) => 0,
            206 => {
                return Err(RegistryError::Refused {
                    registry: origin.to_string(),
                    reason: format!("{what}: the answer is another range than byte {from} to the end"),
                });
            }
            _ => from,
        };
        Ok(Self { response, origin, skip })
    }

    /// The next bytes, or `None` at the end.
    pub(crate) async fn chunk(&mut self, what: &str) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let chunk = self.response.chunk().await.map_err(|reason| RegistryError::Unreachable {
                registry: self.origin.to_string(),
                attempts: 1,
                reason: format!("{what}: {reason}"),
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

/// Whether a partial answer begins where it was asked to (`bytes 40-99/100`).
fn begins_at(headers: &HeaderMap, from: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first =
        range.and_then(|range| range.strip_prefix("bytes ")).and_then(|range| range.split('-').next());
    first.is_some_and(|first| first.parse() == Ok(from))
}
