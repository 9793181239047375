//! Image references: `[host[:port]/]repository[:tag][@digest]`, made complete as Kubernetes nodes do.
//! Distribution reference grammar, `reference/regexp.go` of distribution/reference.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// Host that a reference without one means, and the server that stands for it.
const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_SERVER: &str = "https://registry-1.docker.io";
const MAX_REFERENCE: usize = 1024;

/// A complete reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `registry.example:5000`
    pub host: String,
    /// `team/app`: no slash at either end.
    pub repository: String,
    /// As written; `latest` if there is neither tag nor digest.
    pub tag: Option<String>,
    /// What the reference pins.
    pub digest: Option<Digest>,
}

/// Why a text isn't one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "image reference {reference:?}: {reason}; write it as host/repository:tag or host/repository@sha256:…"
)]
pub struct ReferenceError {
    /// The text, or its beginning.
    pub reference: String,
    /// The rule that it breaks.
    pub reason: &'static str,
}

impl Reference {
    /// Reads a reference.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let refuse = |reason| ReferenceError { reference: text.chars().take(300).collect(), reason };
        if text.len() > MAX_REFERENCE {
            return Err(refuse("longer than 1024 bytes"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let digest = digest
            .map(|digest| {
                digest.parse().map_err(|_| refuse("its digest must be sha256: and 64 lower-case hex digits"))
            })
            .transpose()?;
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => (DEFAULT_HOST, name),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        let authority = host.parse::<hyper::http::uri::Authority>();
        if !authority.is_ok_and(|authority| !authority.host().is_empty() && !host.contains('@')) {
            return Err(refuse("the registry host must be host[:port]"));
        }
        if !is_repository(path) {
            return Err(refuse(
                "the repository must be lower-case letters, digits and inner . _ - between slashes",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse("the tag must be letters, digits and . _ -, at most 128"));
        }
        let mut repository = path.to_owned();
        if host == DEFAULT_HOST && !path.contains('/') {
            repository.insert_str(0, "library/");
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host: host.to_owned(), repository, tag, digest })
    }

    /// `host/repository`, as signature policies scope it.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// The registry's own server, where no other way is given.
    pub fn default_location(&self) -> String {
        match self.host.as_str() {
            DEFAULT_HOST => DEFAULT_SERVER.to_owned(),
            host => format!("https://{host}"),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Distribution grammar: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` between slashes, read a little wider but never
/// `.` or `..`.
pub(crate) fn is_repository(path: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let component = |part: &str| {
        part.bytes().all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
            && part.bytes().next().is_some_and(alphanumeric)
            && part.bytes().last().is_some_and(alphanumeric)
    };
    !path.is_empty() && path.split('/').all(component)
}

/// Distribution grammar: `[\w][\w.-]{0,127}`.
pub(crate) fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_complete() {
        for (text, complete) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("team/app:1", "docker.io/team/app:1"),
            ("localhost/app", "localhost/app:latest"),
            ("registry.example:5000/busybox", "registry.example:5000/busybox:latest"),
            ("registry.example/a/b/c:v1.2_x-y", "registry.example/a/b/c:v1.2_x-y"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), complete);
            assert_eq!(Reference::parse(complete).unwrap().to_string(), complete);
        }
        for text in ["r.example/a@", "r.example/a:v1@"] {
            let text = format!("{text}{}", Digest::of(b""));
            assert_eq!(Reference::parse(&text).unwrap().to_string(), text);
        }
        assert_eq!(Reference::parse("busybox").unwrap().default_location(), DEFAULT_SERVER);
        assert_eq!(Reference::parse("r.example:1/a/b:2").unwrap().name(), "r.example:1/a/b");
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "/",
            "a/",
            "A",
            "registry.example/App",
            "registry.example/../x",
            "registry.example/a:",
            "a:b:c",
            "a b",
            "app:a?x=1",
            "r.example/a@sha256:00",
            "r.example/a@md5:00",
            "user@r.example/a",
            "r.example/a:-x",
            "http://r.example/a",
            &format!("app:{}", "x".repeat(129)),
            &"a".repeat(1025),
        ] {
            Reference::parse(bad).unwrap_err();
        }
    }
}
