//! Addresses of resources: `kbs:///<repository>/<type>/<tag>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::RESOURCE_PATH;
use crate::name::{self, NameError};

/// A resource's address. The host part is always empty: which broker to ask is initdata's business,
/// never the address's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceUri {
    repository: String,
    kind: String,
    tag: String,
}

/// An address that is not one.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UriError {
    /// Not `kbs://`.
    #[error("resource address must start with 'kbs:///'")]
    Scheme,
    /// Something between `kbs://` and the path.
    #[error("resource address names a host; write 'kbs:///' with three slashes")]
    Host,
    /// Not three segments.
    #[error("resource address must have the form 'kbs:///repository/type/tag'")]
    Segments,
    /// A segment breaks the alphabet.
    #[error(transparent)]
    Segment(#[from] NameError),
}

impl ResourceUri {
    /// An address of three segments, each `[A-Za-z0-9_-]+[A-Za-z0-9_.-]*`.
    pub fn new(
        repository: impl Into<String>,
        kind: impl Into<String>,
        tag: impl Into<String>,
    ) -> Result<Self, UriError> {
        let uri = Self { repository: repository.into(), kind: kind.into(), tag: tag.into() };
        for part in [&uri.repository, &uri.kind, &uri.tag] {
            name::segment(part)?;
        }
        Ok(uri)
    }

    /// `repository/type/tag`, as it stands in a request's path.
    pub fn from_path(path: &str) -> Result<Self, UriError> {
        let mut parts = path.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(repository), Some(kind), Some(tag), None) => Self::new(repository, kind, tag),
            _ => Err(UriError::Segments),
        }
    }

    /// The owner's repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The type, for example `sealed-spec`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The path of a request for it.
    pub fn http_path(&self) -> String {
        format!("{RESOURCE_PATH}/{}/{}/{}", self.repository, self.kind, self.tag)
    }
}

impl fmt::Display for ResourceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kbs:///{}/{}/{}", self.repository, self.kind, self.tag)
    }
}

impl FromStr for ResourceUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let rest = text.strip_prefix("kbs://").ok_or(UriError::Scheme)?;
        Self::from_path(rest.strip_prefix('/').ok_or(UriError::Host)?)
    }
}

impl TryFrom<String> for ResourceUri {
    type Error = UriError;

    fn try_from(text: String) -> Result<Self, UriError> {
        text.parse()
    }
}

impl From<ResourceUri> for String {
    fn from(uri: ResourceUri) -> Self {
        uri.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn round_trip() {
        let text = "kbs:///team-a/sealed-spec/web.r3.0a1b2c3d";
        let uri: ResourceUri = text.parse().unwrap();
        assert_eq!((uri.repository(), uri.kind(), uri.tag()), ("team-a", "sealed-spec", "web.r3.0a1b2c3d"));
        assert_eq!(uri.to_string(), text);
        assert_eq!(uri.http_path(), "/kbs/v0/resource/team-a/sealed-spec/web.r3.0a1b2c3d");
    }

    #[test]
    fn refuses_everything_else() {
        for (bad, why) in [
            ("http:///a/b/c", UriError::Scheme),
            ("kbs+x:///a/b/c", UriError::Scheme),
            ("kbs://host/a/b/c", UriError::Host),
            ("kbs:///a/b", UriError::Segments),
            ("kbs:///a/b/c/d", UriError::Segments),
        ] {
            assert_eq!(bad.parse::<ResourceUri>(), Err(why), "{bad}");
        }
        for bad in [
            "kbs:///a/b/",
            "kbs:///a//c",
            "kbs:///a/../c",
            "kbs:///a/%2e/c",
            "kbs:///a/b/c?x",
            "kbs:///a/b/c#",
        ] {
            assert!(matches!(bad.parse::<ResourceUri>(), Err(UriError::Segment(_))), "{bad}");
        }
    }
    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_parses_prints_as_it_was(text in "kbs:/{2,3}[a-z0-9._/%-]{0,40}") {
            if let Ok(uri) = text.parse::<ResourceUri>() {
                prop_assert_eq!(uri.to_string(), text);
                prop_assert!(!uri.http_path().contains("//") && !uri.http_path().contains("/."));
            }
        }
    }
}
