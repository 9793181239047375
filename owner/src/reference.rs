//! Image references: `[host[:port]/]repository[:tag][@digest]`, made complete as Kubernetes nodes do.
//! Distribution reference grammar, `reference/regexp.go` of distribution/reference.

use std::fmt;

use thiserror::Error;

const DEFAULT_HOST: &str = "docker.io";

/// A complete reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// `registry.example:5000`
    pub(crate) host: String,
    /// `team/app`
    pub(crate) repository: String,
    /// As written; `latest` if there is neither tag nor digest.
    pub(crate) tag: Option<String>,
    /// `sha256:…`
    pub(crate) digest: Option<String>,
}

/// Why a text isn't one.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("image reference {0:?}: {1}")]
pub(crate) struct ReferenceError(String, &'static str);

impl Reference {
    pub(crate) fn parse(text: &str) -> Result<Self, ReferenceError> {
        let refuse = |rule| ReferenceError(text.chars().take(200).collect(), rule);
        if text.len() > 512 {
            return Err(refuse("longer than 512 bytes"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| protocols::name::digest(digest).is_err()) {
            return Err(refuse("its digest must be sha256:<64 lower-case hex digits>"));
        }
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
            return Err(refuse("its registry must be host[:port]"));
        }
        if path.is_empty() || !path.split('/').all(component) {
            return Err(refuse(
                "its repository must be lower-case letters, digits and inner . _ - between slashes",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refuse("its tag must be letters, digits, '_', '.', '-', at most 128"));
        }
        let mut repository = path.to_owned();
        if host == DEFAULT_HOST && !path.contains('/') {
            repository.insert_str(0, "library/");
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host: host.to_owned(), repository, tag, digest: digest.map(str::to_owned) })
    }

    /// The registry's own server, where no other way is given.
    pub(crate) fn default_location(&self) -> String {
        match self.host.as_str() {
            DEFAULT_HOST => "https://registry-1.docker.io".to_owned(),
            host => format!("https://{host}"),
        }
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

fn component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    part.bytes().all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
        && part.bytes().next().is_some_and(alphanumeric)
        && part.bytes().last().is_some_and(alphanumeric)
}

fn is_tag(tag: &str) -> bool {
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
        let digest = format!("r.example/a@sha256:{}", "0a".repeat(32));
        assert_eq!(Reference::parse(&digest).unwrap().to_string(), digest);
        assert_eq!(Reference::parse("busybox").unwrap().default_location(), "https://registry-1.docker.io");
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
            "r.example/a@sha256:00",
            "r.example/a@md5:00",
            "user@r.example/a",
            "r.example/a:-x",
            "http://r.example/a",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
