//! Image references and where they are fetched from.
//!
//! `host[:port]/repository[:tag][@digest]` as the distribution reference grammar has it. The tag and the
//! digest in the reference are only for people: the sealed digest decides. A [`RegistrySource`] for the
//! host gives another location: `http[s]://host[:port]`.

use hyper::Uri;
use hyper::http::uri::Scheme;
use sealed_spec::RegistrySource;

use crate::ImageError;

/// Host that a reference without one means, and the host that serves it.
const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_HOST_SERVER: &str = "registry-1.docker.io";

/// A parsed reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Registry host, with its port if it has one.
    pub(crate) host: String,
    /// Repository path, no slash at either end.
    pub(crate) repository: String,
}

impl Reference {
    pub(crate) fn parse(text: &str) -> Result<Self, ImageError> {
        let fail = |reason| ImageError::Reference { reference: text.chars().take(300).collect(), reason };
        if text.len() > 1024 {
            return Err(fail("longer than 1024 bytes"));
        }
        let name = text.split_once('@').map_or(text, |(name, _)| name);
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => (DEFAULT_HOST, name),
        };
        let path = match path.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => path,
            _ => path,
        };
        let authority = host.parse::<hyper::http::uri::Authority>();
        if !authority.is_ok_and(|a| !a.as_str().contains('@') && !a.host().is_empty()) {
            return Err(fail("the registry host is malformed"));
        }
        if path.is_empty() || !path.split('/').all(is_path_component) {
            return Err(fail("the repository must be lower-case letters, digits and . _ - between slashes"));
        }
        let mut repository = path.to_owned();
        if host == DEFAULT_HOST && !path.contains('/') {
            repository.insert_str(0, "library/");
        }
        Ok(Self { host: host.to_owned(), repository })
    }
}

/// What of an image a reference names: the digest after `@`, else the tag, else `latest`. For places where
/// no sealed digest decides.
pub(crate) fn wanted(text: &str) -> Result<&str, ImageError> {
    let fail = |reason| ImageError::Reference { reference: text.chars().take(300).collect(), reason };
    if let Some((_, digest)) = text.split_once('@') {
        return Ok(digest);
    }
    let last = text.rsplit('/').next().unwrap_or_default();
    // `host:5000` alone is no repository, and has no tag.
    let tag = last.split_once(':').map_or("latest", |(_, tag)| tag);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let begins = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !begins || tag.len() > 128 || !tag.bytes().all(plain) {
        return Err(fail("the tag must be letters, digits and . _ -"));
    }
    Ok(tag)
}

/// Distribution grammar: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, read a little wider but never `.` or `..`.
fn is_path_component(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    part.bytes().all(|b| alnum(b) || matches!(b, b'.' | b'_' | b'-'))
        && part.bytes().next().is_some_and(alnum)
        && part.bytes().last().is_some_and(alnum)
}

/// Where requests for one image go.
pub(crate) struct Endpoint {
    /// `scheme://host[:port]`.
    pub(crate) origin: Origin,
    /// Repository at that location.
    pub(crate) repository: String,
    /// The source that the sealed spec gives for this host.
    pub(crate) source: Option<RegistrySource>,
}

/// Scheme, host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    /// TLS or plain.
    pub(crate) tls: bool,
    /// Host name or address, without brackets.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
}

impl Origin {
    /// From an absolute `http` or `https` URI.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { tls, host, port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let default_port = if self.tls { 443 } else { 80 };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}", self.host)?;
        if self.port == default_port { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl Endpoint {
    /// The place to fetch this reference from. Plain HTTP only where a sealed source says `http://`, and
    /// never with credentials.
    pub(crate) fn resolve(reference: &Reference, sources: &[RegistrySource]) -> Result<Self, ImageError> {
        let source = sources.iter().find(|source| source.host == reference.host).cloned();
        let location = match &source {
            Some(source) => source.location.clone(),
            None if reference.host == DEFAULT_HOST => format!("https://{DEFAULT_HOST_SERVER}"),
            None => format!("https://{}", reference.host),
        };
        let fail = |reason: &str| ImageError::Registry { registry: location.clone(), reason: reason.into() };
        let uri: Uri = location.parse().map_err(|_| fail("the location is not a URL"))?;
        let origin =
            Origin::of(&uri).ok_or_else(|| fail("the location must be http://host or https://host"))?;
        let has_credentials = source.as_ref().is_some_and(|s| s.username.is_some() || s.password.is_some());
        if !origin.tls && has_credentials {
            return Err(fail("credentials would cross the network in clear; use an https:// location"));
        }
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
            return Err(fail("the location must be scheme://host[:port] without path or query"));
        }
        let repository = reference.repository.clone();
        Ok(Self { origin, repository, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_a_digest_a_tag_or_the_latest() {
        for (text, want) in [
            ("busybox", "latest"),
            ("busybox:1.36", "1.36"),
            ("registry.example:5000/team/app", "latest"),
            ("registry.example:5000/team/app:v1_2-3", "v1_2-3"),
            ("app:tag@sha256:00", "sha256:00"),
        ] {
            assert_eq!(wanted(text).unwrap(), want, "{text}");
        }
        for bad in ["app:", "app:.x", "app:a b", "app:a?x=1", &format!("app:{}", "x".repeat(129))] {
            wanted(bad).unwrap_err();
        }
    }
}
