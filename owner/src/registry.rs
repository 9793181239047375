//! Turns a tag into a digest at the registry (OCI distribution spec, "Pulling manifests"). The digest is
//! of the bytes that came back, not what a header says.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use sealed_spec::RegistrySource;
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::http::{Answer, Ask, HttpError, Server};
use crate::reference::Reference;
use crate::tls::{self, TlsError};

const MANIFEST_LIMIT: usize = 4 * 1024 * 1024;
const TOKEN_LIMIT: usize = 256 * 1024;
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Why an image can't be pinned.
#[derive(Debug, Error)]
pub(crate) enum RegistryError {
    #[error(
        "image {image}: registry {source}; is the registry up? Plain http must be said: --registry {host}=http://…"
    )]
    Unreachable { image: String, host: String, source: HttpError },
    #[error(
        "image {image}: registry {name} wants a login; give --registry {host}=URL,user=NAME,password-file=FILE"
    )]
    Login { image: String, name: String, host: String },
    #[error("image {image}: registry {name} has no such image or tag")]
    Missing { image: String, name: String },
    #[error("image {image}: registry {name} answered {status}")]
    Status { image: String, name: String, status: StatusCode },
    #[error("image {image}: registry {name} sent bytes with digest {found} for {asked}")]
    Digest { image: String, name: String, asked: String, found: String },
    #[error("image {image}: what registry {name} sent is not an image manifest: {problem}")]
    Manifest { image: String, name: String, problem: String },
    #[error("image {image}: registry {name}: {source}")]
    Tls { image: String, name: String, source: TlsError },
    #[error("image {image}: registry {name} asks for a login that can't be followed: {problem}")]
    Challenge { image: String, name: String, problem: &'static str },
}

enum SetUp {
    Http(HttpError),
    Tls(TlsError),
}

impl From<HttpError> for SetUp {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

/// The digest that `reference` has now, at `source`.
pub(crate) async fn resolve(reference: &Reference, source: &RegistrySource) -> Result<String, RegistryError> {
    let image = reference.to_string();
    let server = connect(&image, source)?;
    let name = server.name();
    let wanted = reference.digest.as_deref().or(reference.tag.as_deref()).unwrap_or("latest");
    let path = format!("/v2/{}/manifests/{wanted}", reference.repository);
    let unreachable = |error| RegistryError::Unreachable {
        image: image.clone(),
        host: reference.host.clone(),
        source: error,
    };

    let mut answer = get(&server, &path, None).await.map_err(unreachable)?;
    if answer.status == StatusCode::UNAUTHORIZED {
        let authorization = authorize(&answer.headers, &image, reference, source, &name).await?;
        answer = get(&server, &path, Some(authorization)).await.map_err(unreachable)?;
    }
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(RegistryError::Login { image, name, host: reference.host.clone() });
        }
        StatusCode::NOT_FOUND => return Err(RegistryError::Missing { image, name }),
        status => return Err(RegistryError::Status { image, name, status }),
    }
    let found = protocols::name::sha256(&answer.body);
    let header = answer.headers.get("docker-content-digest").and_then(|value| value.to_str().ok());
    let header = header.filter(|digest| digest.starts_with("sha256:"));
    for asked in [reference.digest.as_deref(), header].into_iter().flatten() {
        if asked != found {
            return Err(RegistryError::Digest { image, name, asked: asked.to_owned(), found });
        }
    }
    check_manifest(&answer.body).map_err(|problem| RegistryError::Manifest { image, name, problem })?;
    Ok(found)
}

fn connect(image: &str, source: &RegistrySource) -> Result<Server, RegistryError> {
    let configuration = || source.ca.as_deref().map_or_else(tls::system, tls::pinned).map_err(SetUp::Tls);
    Server::new(&source.location, configuration).map_err(|error| match error {
        SetUp::Http(error) => {
            RegistryError::Unreachable { image: image.into(), host: source.host.clone(), source: error }
        }
        SetUp::Tls(error) => {
            RegistryError::Tls { image: image.into(), name: source.location.clone(), source: error }
        }
    })
}

async fn get(server: &Server, path: &str, authorization: Option<HeaderValue>) -> Result<Answer, HttpError> {
    let mut headers = vec![(ACCEPT, HeaderValue::from_static(ACCEPTED))];
    headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
    server.ask(&Ask { method: Method::GET, path, headers, body: Bytes::new(), limit: MANIFEST_LIMIT }).await
}

/// Answers a `Basic` or `Bearer` challenge (RFC 6750; distribution "Token authentication").
async fn authorize(
    headers: &HeaderMap,
    image: &str,
    reference: &Reference,
    source: &RegistrySource,
    name: &str,
) -> Result<HeaderValue, RegistryError> {
    let refuse = |problem| RegistryError::Challenge { image: image.into(), name: name.into(), problem };
    let challenge = headers
        .get(WWW_AUTHENTICATE)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| refuse("no challenge"))?;
    let basic = basic_login(source);
    if basic.is_some() && source.plain_http() {
        return Err(refuse("a login over plain http would be read by whoever is on the way; use https://"));
    }
    let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return basic.ok_or_else(|| RegistryError::Login {
            image: image.into(),
            name: name.into(),
            host: reference.host.clone(),
        });
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refuse("neither Basic nor Bearer"));
    }
    let realm = parameter(rest, "realm").ok_or_else(|| refuse("no realm"))?;
    let uri: hyper::Uri = realm.parse().map_err(|_| refuse("its realm is not a URL"))?;
    let (scheme, authority) = (
        uri.scheme_str().unwrap_or_default(),
        uri.authority().ok_or_else(|| refuse("its realm has no host"))?,
    );
    // A login must not leave over a weaker channel than the registry's own.
    if scheme != "https" && !source.plain_http() {
        return Err(refuse("its realm is not https"));
    }
    let token_source = RegistrySource { location: format!("{scheme}://{authority}"), ..source.clone() };
    // The CA pins the registry; a token server elsewhere is the public's business unless it is the same host.
    let same_host = source.location.ends_with(authority.as_str());
    let token_source = if same_host { token_source } else { RegistrySource { ca: None, ..token_source } };
    let server = connect(image, &token_source)?;
    let scope = format!("repository:{}:pull", reference.repository);
    let mut path = format!("{}?scope={}", uri.path(), percent(&scope));
    if let Some(service) = parameter(rest, "service") {
        let _ = write!(path, "&service={}", percent(&service));
    }
    let headers = basic.map(|value| (AUTHORIZATION, value)).into_iter().collect();
    let ask = Ask { method: Method::GET, path: &path, headers, body: Bytes::new(), limit: TOKEN_LIMIT };
    let answer = server.ask(&ask).await.map_err(|error| RegistryError::Unreachable {
        image: image.into(),
        host: reference.host.clone(),
        source: error,
    })?;
    if answer.status != StatusCode::OK {
        return Err(RegistryError::Login {
            image: image.into(),
            name: server.name(),
            host: reference.host.clone(),
        });
    }
    #[derive(Deserialize)]
    struct Token {
        token: Option<String>,
        access_token: Option<String>,
    }
    let token: Token = serde_json::from_slice(&answer.body).map_err(|_| refuse("its token can't be read"))?;
    let token = token
        .token
        .or(token.access_token)
        .map(Zeroizing::new)
        .ok_or_else(|| refuse("no token in the answer"))?;
    secret_header(&format!("Bearer {}", *token)).ok_or_else(|| refuse("its token is not a header value"))
}

fn basic_login(source: &RegistrySource) -> Option<HeaderValue> {
    let (user, password) = (source.username.as_ref()?, source.password.as_ref()?);
    let login = Zeroizing::new(format!("{user}:{}", password.expose()));
    secret_header(&format!("Basic {}", STANDARD.encode(login.as_bytes())))
}

fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `name="value"` in a challenge.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let mut rest = challenge;
    while let Some((key, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim_matches([' ', ',']).eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = next;
    }
    None
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~') {
            out.push(b.into());
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

/// Is it an image for these guests? An index must offer linux/amd64.
fn check_manifest(body: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Platform {
        os: String,
        architecture: String,
    }
    #[derive(Deserialize)]
    struct Entry {
        platform: Option<Platform>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        schema_version: u32,
        media_type: Option<String>,
        manifests: Option<Vec<Entry>>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let manifest: Manifest = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if manifest.schema_version != 2 {
        return Err(format!("schema version {}, 2 is needed", manifest.schema_version));
    }
    let index = matches!(manifest.media_type.as_deref(), Some(OCI_INDEX | DOCKER_INDEX));
    match (manifest.manifests, manifest.layers) {
        (Some(entries), None) => {
            let fits = |entry: &Entry| {
                entry.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == "amd64")
            };
            if entries.iter().any(fits) { Ok(()) } else { Err("the index has no linux/amd64 image".into()) }
        }
        (None, Some(_)) if !index => Ok(()),
        _ => Err("neither an index nor an image manifest".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let text =
            r#"realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull""#;
        assert_eq!(parameter(text, "realm").unwrap(), "https://auth.example/token");
        assert_eq!(parameter(text, "service").unwrap(), "registry.example");
        assert_eq!(parameter(text, "scope").unwrap(), "repository:a/b:pull");
        assert_eq!(parameter(text, "error"), None);
        assert_eq!(parameter("realm=x, service=y", "service").unwrap(), "y");
        assert_eq!(parameter("realm=\"x", "service"), None);
        assert_eq!(percent("repository:a/b:pull"), "repository%3Aa%2Fb%3Apull");
    }

    #[test]
    fn manifests() {
        let index = |os, arch| {
            serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{ "platform": { "os": os, "architecture": arch } }] })
                .to_string()
        };
        check_manifest(index("linux", "amd64").as_bytes()).unwrap();
        assert!(check_manifest(index("linux", "arm64").as_bytes()).unwrap_err().contains("no linux/amd64"));
        check_manifest(br#"{"schemaVersion":2,"layers":[]}"#).unwrap();
        assert!(
            check_manifest(br#"{"schemaVersion":1,"layers":[]}"#).unwrap_err().contains("schema version 1")
        );
        assert!(check_manifest(br#"{"schemaVersion":2}"#).is_err());
        assert!(check_manifest(br#"{"schemaVersion":2,"layers":[],"manifests":[]}"#).is_err());
        assert!(check_manifest(b"<html>").is_err());
    }
}
