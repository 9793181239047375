//! Pushing (distribution-spec, "Push"): blobs that aren't there yet, mounted or uploaded, and manifests. An
//! upload that breaks goes on where the registry says that it broke. Nothing is sent to another place than the
//! registry itself, wherever it says the upload is.

use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use hyper::{Method, StatusCode};

use crate::auth::query_value;
use crate::body::{Outgoing, Pulse};
use crate::content::{self, Content};
use crate::reference::{is_repository, is_tag};
use crate::repository::{Repository, said_digest};
use crate::retry::{self, Attempts};
use crate::server::{Ask, Server};
use crate::transport::Response;
use crate::{Digest, ReferenceError, RegistryError};

/// Idle time-outs that a registry may take to answer: it may hash a blob, or move it to its storage.
const PATIENCE: u32 = 10;
/// Repositories that a blob is looked for in.
const MAX_MOUNTS: usize = 8;
/// Tries of one blob, whatever gets on.
const MAX_TRIES: u32 = 64;
/// What a request carries once a registry (or what stands before it) has refused a larger one.
const SMALL_CHUNK: u64 = 8 << 20;
/// How often progress is told.
const TELL: std::time::Duration = std::time::Duration::from_millis(100);

/// How a blob came to be at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// Another repository of the registry had it.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// An upload session at the registry.
struct Upload {
    /// Path and query, at the registry's own origin.
    target: String,
    /// Bytes that the registry has.
    offset: u64,
    /// Most bytes in one request.
    chunk: u64,
}

impl Repository {
    /// Makes a blob be at the registry. If it isn't there yet, `mount_from` are repositories of the same
    /// registry that may have it. `progress` hears how many bytes have left, counted from the blob's beginning.
    pub async fn push_blob(
        &self,
        digest: &Digest,
        size: u64,
        content: &dyn Content,
        mount_from: &[&str],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Pushed, RegistryError> {
        let places = self.places();
        let server = &places.registry;
        let own = server.repository.as_str();
        let mounts: Vec<&str> = mount_from
            .iter()
            .copied()
            .filter(|from| *from != own && is_repository(from))
            .take(MAX_MOUNTS)
            .collect();
        server.also_pull(&mounts);
        if self.has_blob(digest).await?.is_some() {
            return Ok(Pushed::Existed);
        }
        let mut upload = None;
        for from in mounts {
            match mount(server, digest, from).await? {
                Mount::Done => return Ok(Pushed::Mounted),
                // The session that it gives instead is as good as any; earlier ones expire.
                Mount::Upload(session) => upload = Some(session),
                Mount::Refused => {}
            }
        }
        let (mut attempts, mut best, mut renewed) = (Attempts::new(&places.limits), 0, false);
        for _ in 0..MAX_TRIES {
            let error = match send(server, digest, size, content, &mut upload, progress).await {
                Ok(()) => return Ok(Pushed::Uploaded),
                Err(error) => error,
            };
            // A token may run out under a long upload; asking for the offset brings a new one.
            if error.status() == Some(401) && !renewed && upload.is_some() {
                renewed = true;
            } else {
                attempts.failed(error).await?;
            }
            // The answer may have been lost, not the blob.
            if self.has_blob(digest).await?.is_some() {
                return Ok(Pushed::Uploaded);
            }
            if let Some(session) = upload.take() {
                upload = resume(server, session, size).await;
            }
            let offset = upload.as_ref().map_or(0, |upload| upload.offset);
            if offset > best {
                (best, attempts) = (offset, Attempts::new(&places.limits));
            }
        }
        Err(server.refused(format!("blob {digest}: the upload broke {MAX_TRIES} times")))
    }

    /// Puts a manifest or index under its digest, or under a tag and so under both. What it names must be there.
    pub async fn push_manifest(
        &self,
        bytes: &[u8],
        media_type: &str,
        tag: Option<&str>,
    ) -> Result<Digest, RegistryError> {
        let (places, digest) = (self.places(), Digest::of(bytes));
        let what = format!("manifest {digest}");
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            let reference = tag.chars().take(300).collect();
            let reason = "the tag must be letters, digits and . _ -, at most 128";
            return Err(ReferenceError { reference, reason }.into());
        }
        let content_type = HeaderValue::from_str(media_type).map_err(|_| RegistryError::Content {
            what: what.clone(),
            reason: "its media type can't be sent in a header".into(),
        })?;
        let server = &places.registry;
        let target = server.target(&format!("manifests/{}", tag.map_or(digest.to_string(), str::to_owned)));
        let body = bytes::Bytes::copy_from_slice(bytes);
        retry::retry(&places.limits, || async {
            let response = server
                .send(Ask {
                    method: Method::PUT,
                    target: target.clone(),
                    headers: HeaderMap::from_iter([(CONTENT_TYPE, content_type.clone())]),
                    body: Outgoing::Whole(body.clone()),
                    patience: PATIENCE,
                })
                .await?;
            accepted(server, response, &digest, &what).await
        })
        .await?;
        Ok(digest)
    }
}

enum Mount {
    Done,
    Upload(Upload),
    Refused,
}

/// Asks for a blob of another repository (distribution-spec, "Mounting a blob from another repository").
async fn mount(server: &Server, digest: &Digest, from: &str) -> Result<Mount, RegistryError> {
    let what = format!("blob {digest}");
    let target =
        format!("blobs/uploads/?mount={}&from={}", query_value(&digest.to_string()), query_value(from));
    let response = server.send(ask(Method::POST, server.target(&target))).await?;
    match response.status {
        StatusCode::CREATED => {
            accepted(server, response, digest, &what).await?;
            Ok(Mount::Done)
        }
        StatusCode::ACCEPTED => Ok(Mount::Upload(Upload::at(server, response, &what).await?)),
        // Not every registry can, and not every login may: then it is sent.
        _ => {
            response.discard().await;
            Ok(Mount::Refused)
        }
    }
}

/// Sends what the registry hasn't got yet, and closes the upload.
async fn send(
    server: &Server,
    digest: &Digest,
    size: u64,
    content: &dyn Content,
    upload: &mut Option<Upload>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), RegistryError> {
    let what = format!("blob {digest}");
    let session = match upload {
        Some(session) => session,
        None => {
            let response = server.send(ask(Method::POST, server.target("blobs/uploads/"))).await?;
            if response.status != StatusCode::ACCEPTED {
                return Err(failed(server, response, &what).await);
            }
            upload.insert(Upload::at(server, response, &what).await?)
        }
    };
    while session.offset < size {
        let end = size.min(session.offset.saturating_add(session.chunk));
        let mut headers = octets();
        if session.offset > 0 || end < size {
            let range = HeaderValue::try_from(format!("{}-{}", session.offset, end - 1));
            headers.extend(range.ok().map(|range| (CONTENT_RANGE, range)));
        }
        let target = session.target.clone();
        let response = stream(
            server,
            Method::PATCH,
            target,
            headers,
            content,
            session.offset..end,
            size,
            progress,
            &what,
        )
        .await?;
        match response.status {
            StatusCode::ACCEPTED | StatusCode::CREATED | StatusCode::NO_CONTENT => {}
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED if session.offset == 0 => {
                response.discard().await;
                return whole(server, digest, size, content, session, progress, &what).await;
            }
            StatusCode::PAYLOAD_TOO_LARGE if session.chunk > SMALL_CHUNK => {
                response.discard().await;
                session.chunk = SMALL_CHUNK;
                continue;
            }
            _ => return Err(failed(server, response, &what).await),
        }
        let stored = match received(&response) {
            // Not every registry says it; and one byte is told like none.
            None => end,
            Some(0) if end == 1 => end,
            Some(stored) if stored > session.offset && stored <= end => stored,
            Some(stored) => {
                return Err(server.refused(format!("{what}: it says to have {stored} bytes of {end} sent")));
            }
        };
        *session =
            Upload { offset: stored, chunk: session.chunk, ..Upload::at(server, response, &what).await? };
    }
    let response = server.send(ask(Method::PUT, closing(&session.target, digest))).await?;
    accepted(server, response, digest, &what).await
}

/// The blob in one request, for registries that take no pieces.
async fn whole(
    server: &Server,
    digest: &Digest,
    size: u64,
    content: &dyn Content,
    session: &Upload,
    progress: &(dyn Fn(u64) + Sync),
    what: &str,
) -> Result<(), RegistryError> {
    let target = closing(&session.target, digest);
    let response =
        stream(server, Method::PUT, target, octets(), content, 0..size, size, progress, what).await?;
    accepted(server, response, digest, what).await
}

/// One request with a part of the content.
#[expect(clippy::too_many_arguments, reason = "one request, in one place")]
async fn stream(
    server: &Server,
    method: Method,
    target: String,
    headers: HeaderMap,
    content: &dyn Content,
    range: std::ops::Range<u64>,
    size: u64,
    progress: &(dyn Fn(u64) + Sync),
    what: &str,
) -> Result<Response, RegistryError> {
    let unreadable = |reason: String| RegistryError::Content { what: what.to_owned(), reason };
    let reader = content.open(range.start).map_err(|error| unreadable(error.to_string()))?;
    let pulse = Pulse::default();
    let (body, trouble) = content::stream(reader, range.end - range.start, range.end == size, &pulse);
    let mut answer = std::pin::pin!(server.send(Ask { method, target, headers, body, patience: PATIENCE }));
    let answer = loop {
        let answer = tokio::time::timeout(TELL, &mut answer).await;
        progress(range.start + pulse.sent());
        if let Ok(answer) = answer {
            break answer;
        }
    };
    match trouble.take() {
        Some(reason) => Err(unreadable(reason)),
        None => answer,
    }
}

/// Where an upload that broke stands; `None`: begin anew.
async fn resume(server: &Server, session: Upload, size: u64) -> Option<Upload> {
    let response = server.send(ask(Method::GET, session.target.clone())).await.ok()?;
    let known = response.status == StatusCode::NO_CONTENT || response.status == StatusCode::OK;
    let offset = received(&response).filter(|offset| known && *offset <= size)?;
    let target = match response.headers.contains_key(LOCATION) {
        true => Upload::at(server, response, "upload").await.ok()?.target,
        false => session.target,
    };
    Some(Upload { target, offset, chunk: session.chunk })
}

impl Upload {
    /// Where the registry says that the upload is: at itself, or nothing is sent.
    async fn at(server: &Server, response: Response, what: &str) -> Result<Self, RegistryError> {
        let location =
            response.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refuse = |reason: &str| server.refused(format!("{what}: upload location: {reason}"));
        let (origin, target) = server.origin.redirected(location).map_err(refuse)?;
        if origin != server.origin {
            return Err(refuse(&format!("{origin} is another server, to which nothing is sent")));
        }
        response.discard().await;
        Ok(Self { target, offset: 0, chunk: u64::MAX })
    }
}

fn ask(method: Method, target: String) -> Ask {
    Ask { method, target, headers: HeaderMap::new(), body: Outgoing::Empty, patience: PATIENCE }
}

fn octets() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))])
}

fn closing(target: &str, digest: &Digest) -> String {
    let separator = if target.contains('?') { '&' } else { '?' };
    format!("{target}{separator}digest={}", query_value(&digest.to_string()))
}

/// How many bytes a registry says to have: `0-99` is 100. An empty upload is `0-0`, too.
fn received(response: &Response) -> Option<u64> {
    let range = response.headers.get(RANGE)?.to_str().ok()?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    if last == 0 { Some(0) } else { last.checked_add(1) }
}

/// Whether something was stored, and under the digest that it has.
async fn accepted(
    server: &Server,
    response: Response,
    digest: &Digest,
    what: &str,
) -> Result<(), RegistryError> {
    if !matches!(
        response.status,
        StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT
    ) {
        return Err(failed(server, response, what).await);
    }
    match said_digest(&response) {
        Some(said) if said != *digest => Err(RegistryError::DigestMismatch {
            what: format!("{what} as stored by {}", server.origin),
            expected: digest.to_string(),
            actual: said.to_string(),
        }),
        _ => {
            response.discard().await;
            Ok(())
        }
    }
}

async fn failed(server: &Server, response: Response, what: &str) -> RegistryError {
    if response.status.is_redirection() {
        return server.refused(format!("{what}: uploads follow no redirect"));
    }
    server.status(response, &server.origin, what).await
}
