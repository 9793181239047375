//! What points from one document to another, or to a blob.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Annotations, Digest};

/// A descriptor: media type, digest and size of something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// What it hashes to.
    pub digest: Digest,
    /// How many bytes it has.
    pub size: u64,
    /// Notes of any kind; layer encryption keeps its own here.
    #[serde(default, skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
    /// What it runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Everything else, kept as it is.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

impl Descriptor {
    /// A descriptor of these bytes.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// A descriptor without notes.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: Annotations::new(),
            platform: None,
            rest: Map::new(),
        }
    }

    /// The same notes on other bytes. Contents that were embedded go: they were the old bytes'.
    #[must_use]
    pub fn pointing_at(&self, media_type: &str, digest: Digest, size: u64) -> Self {
        let mut descriptor = self.clone();
        descriptor.media_type = media_type.to_owned();
        (descriptor.digest, descriptor.size) = (digest, size);
        descriptor.rest.remove("data");
        descriptor
    }
}

/// `os/architecture[/variant]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// As Go calls it.
    pub architecture: String,
    /// As Go calls it.
    pub os: String,
    /// `v7` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Platform {
    /// Of a config.
    pub(super) fn new(os: String, architecture: String, variant: Option<String>) -> Self {
        Self { architecture, os, variant, rest: Map::new() }
    }

    /// Whether an image for `self` is one that was asked for by `wanted`. A variant that wasn't asked for
    /// doesn't matter; arm64's only one needn't be written.
    #[must_use]
    pub fn is(&self, wanted: &Self) -> bool {
        let (own, asked) = (self.variant_in_full(), wanted.variant_in_full());
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (wanted.variant.is_none() || own == asked)
    }

    fn variant_in_full(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", None | Some("")) => Some("v8"),
            (_, Some("")) => None,
            (_, variant) => variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(formatter, "/{variant}"),
        }
    }
}

impl FromStr for Platform {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let good = parts.iter().all(|part| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        });
        match parts.as_slice() {
            [os, architecture] if good => Ok(Self::new((*os).into(), (*architecture).into(), None)),
            [os, architecture, variant] if good => {
                Ok(Self::new((*os).into(), (*architecture).into(), Some((*variant).into())))
            }
            _ => Err(format!("'{text}' is not OS/ARCHITECTURE[/VARIANT], as in linux/amd64")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_match() {
        assert!(platform("linux/amd64").is(&platform("linux/amd64")));
        assert!(platform("linux/arm/v7").is(&platform("linux/arm")));
        assert!(platform("linux/arm64").is(&platform("linux/arm64/v8")));
        assert!(platform("linux/arm64/v8").is(&platform("linux/arm64")));
        assert!(!platform("linux/arm/v6").is(&platform("linux/arm/v7")));
        assert!(!platform("linux/arm").is(&platform("linux/arm/v7")));
        assert!(!platform("linux/amd64").is(&platform("windows/amd64")));
        for bad in ["linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/am d64", ""] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_members_survive() {
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"annotations":{{"a":"b"}},"artifactType":"x","digest":"{digest}","mediaType":"m","platform":{{"architecture":"amd64","os":"windows","os.version":"10.0"}},"size":0,"urls":["https://r.example"]}}"#
        );
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        let again = serde_json::to_value(&descriptor).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn embedded_contents_go_with_the_bytes() {
        let mut descriptor = Descriptor::of("m", b"old");
        descriptor.rest.insert("data".into(), "b2xk".into());
        assert!(!descriptor.pointing_at("m", Digest::of(b"new"), 3).rest.contains_key("data"));
    }
}
