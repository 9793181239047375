//! Image references as the distribution grammar has them, in the fully expanded form that policies use:
//! `busybox` is `docker.io/library/busybox`. No tag is filled in: a name without one is a name only.

use std::fmt;

use thiserror::Error;

const DEFAULT_HOST: &str = "docker.io";
const LIMIT: usize = 512;

/// Why a text isn't a reference.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("image reference {text:?}: {reason}")]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

/// `host[:port]/repository[:tag][@digest]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// From any of the accepted spellings.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let fail = |reason| ReferenceError { text: text.chars().take(300).collect(), reason };
        if text.len() > LIMIT {
            return Err(fail("it is longer than 512 bytes"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(fail("its digest must be sha256:<64 lower-case hex digits>"));
        }
        let (host, path) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
            _ => (DEFAULT_HOST, rest),
        };
        let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
        if !is_host(host) {
            return Err(fail("its registry must be host[:port]"));
        }
        let (path, tag) = match path.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (path, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("its tag must be at most 128 letters, digits, '_', '.' and '-'"));
        }
        if path.is_empty() || !path.split('/').all(is_component) {
            return Err(fail(
                "its repository must be lower-case letters, digits and separators between slashes",
            ));
        }
        let library = if host == DEFAULT_HOST && !path.contains('/') { "library/" } else { "" };
        Ok(Self {
            name: format!("{host}/{library}{path}"),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// Host and repository: `docker.io/library/busybox`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `host[:port]`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The tag, if it has one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if it has one.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The same under another name, if that is one.
    pub(crate) fn renamed(&self, name: &str) -> Option<Self> {
        let renamed = Self::parse(name).ok().filter(|it| it.is_name_only() && it.name == name)?;
        Some(Self { name: renamed.name, tag: self.tag.clone(), digest: self.digest.clone() })
    }

    pub(crate) fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// `sha256:` and 64 lower-case hex digits.
pub(crate) fn is_digest(text: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(hex))
}

fn is_tag(text: &str) -> bool {
    let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    begins && text.len() <= 128 && text.bytes().all(plain)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators = text.split(|c: char| c.is_ascii() && alnum(c as u8));
    let good = |s: &str| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    let edges = text.bytes().next().is_some_and(alnum) && text.bytes().last().is_some_and(alnum);
    edges && separators.into_iter().all(good)
}

/// A DNS name or an address, with a port or without.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, rest)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
                (None, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or("x")) })
            }
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let label = |label: &str| {
        let alnum = |b: u8| b.is_ascii_alphanumeric();
        let edges = label.bytes().next().is_some_and(alnum) && label.bytes().last().is_some_and(alnum);
        edges && label.bytes().all(|b| alnum(b) || b == b'-')
    };
    host.is_none_or(|host| host.split('.').all(label))
        && port.is_none_or(|port| {
            !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, expanded) in [
            ("busybox", "docker.io/library/busybox".to_owned()),
            ("busybox:1", "docker.io/library/busybox:1".into()),
            ("index.docker.io/team/app:v_1", "docker.io/team/app:v_1".into()),
            ("team/app", "docker.io/team/app".into()),
            ("localhost/app:x", "localhost/app:x".into()),
            ("r.example:5000/a/b__c/d-e.f:1.2", "r.example:5000/a/b__c/d-e.f:1.2".into()),
            ("[::1]:5000/app", "[::1]:5000/app".into()),
            (&format!("app:1@{digest}"), format!("docker.io/library/app:1@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), expanded, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference() {
        let long = format!("r.example/{}", "a".repeat(600));
        for text in [
            "",
            "/",
            "r.example/",
            "r.example/App",
            "r.example/a//b",
            "r.example/a/../b",
            "r.example/a_",
            "r.example/a:",
            "r.example/a:-x",
            "r.example/a@sha256:00",
            "r.example/a@md5:00",
            "r.example:x/a",
            "r.example:/a",
            "r..example/a",
            "r.example/a...b",
            "r.example/a b",
            "r.example/a:b:c",
            "r.example/a?x",
            "r.example/a___b",
            "r.example/ä",
            &long,
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
