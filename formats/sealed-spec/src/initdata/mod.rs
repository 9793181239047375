//! Initdata: what binds a VM to one sealed specification and one broker, or to one policy.
//!
//! Kata's TOML (version 0.1.0). The host passes it in; HOST_DATA is the digest of its bytes, so the guest
//! trusts it as far as its own attestation report repeats that digest. A sealed pod's is SHA-256; the
//! policy mode's may be one of the larger ones, cut to HOST_DATA's 32 bytes.

pub mod annotation;
mod coco;
pub mod device;
mod gzip;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use thiserror::Error;

use crate::document::{DocumentError, SealedDocument};
use crate::names::{KeyId, SpecDigest};
use crate::origin::host_port;

pub use annotation::ANNOTATION;
pub use coco::{BrokerAccess, POLICY_ENTRY, PolicyInitdata};
pub use gzip::MAX_INITDATA;

/// Entry of `[data]` that holds the [`SealpodConfig`].
pub const CONFIG_ENTRY: &str = "sealpod.toml";
/// Entry of `[data]` that may hold the sealed document itself; also its name in the ConfigMap.
pub const DOCUMENT_ENTRY: &str = "sealed-spec.jwe";
const VERSION: &str = "0.1.0";
const ALGORITHM: &str = "sha256";
/// Longest pinned certificate text.
const MAX_CA: usize = 64 * 1024;

/// SHA-256 over the document's bytes: what HOST_DATA must be.
pub fn digest(toml_bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(toml_bytes).into()
}

/// How a document's digest became HOST_DATA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256, the whole digest.
    Sha256,
    /// SHA-384, its first 32 bytes.
    Sha384,
    /// SHA-512, its first 32 bytes.
    Sha512,
}

impl Algorithm {
    /// The algorithm by which HOST_DATA is this document's digest, if there is one. Looks at nothing in the
    /// document: whether it says the same is for [`Bound::parse`].
    pub fn binding(toml_bytes: &[u8], host_data: &[u8; 32]) -> Option<Self> {
        [Self::Sha256, Self::Sha384, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.digest(toml_bytes).starts_with(host_data))
    }

    /// The name in a document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

/// What a document binds its VM to, and so which mode it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// One sealed specification: there is a `sealpod.toml`.
    Sealed(Initdata),
    /// One policy: there is a `policy.rego` and no `sealpod.toml`.
    Policy(PolicyInitdata),
}

impl Bound {
    /// Parses a document that HOST_DATA is the digest of, by that algorithm.
    pub fn parse(bytes: &[u8], algorithm: Algorithm) -> Result<Self, InitdataError> {
        let Outer { version, algorithm: named, data } = Outer::parse(bytes)?;
        if data.contains_key(CONFIG_ENTRY) || !data.contains_key(POLICY_ENTRY) {
            return match algorithm {
                Algorithm::Sha256 => Initdata::parse(bytes).map(Self::Sealed),
                other => Err(InitdataError::Algorithm(other.name().to_owned())),
            };
        }
        if version != VERSION {
            return Err(InitdataError::Version(short(&version)));
        }
        // CoCo's writers differ in case and in the dash.
        if named.to_ascii_lowercase().replace('-', "") != algorithm.name() {
            return Err(InitdataError::Binding { named: short(&named), bound: algorithm.name() });
        }
        PolicyInitdata::parse(data).map(Self::Policy)
    }
}

/// A whole initdata document of a sealed pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initdata {
    /// What the VM is for, and whom it asks for the key.
    pub config: SealpodConfig,
    /// The sealed document, when it is small enough to travel here.
    pub document: Option<SealedDocument>,
}

/// The `sealpod.toml` entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealpodConfig {
    /// The one sealed specification this VM may open.
    pub sealed_spec: SpecDigest,
    /// Its key's name at the broker.
    pub key_id: KeyId,
    /// Whom to ask for it.
    pub broker: BrokerPin,
}

/// The broker, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerPin {
    /// `https://host[:port]`; the certificate must be for that host.
    pub url: String,
    /// How to get there.
    pub via: Via,
    /// The only certificates to trust, PEM.
    pub ca: String,
}

/// How a guest reaches the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Through the host's relay (vsock); TLS still ends at the broker.
    Relay,
    /// Over the pod's network.
    Direct,
}

/// Why bytes are not the initdata of a sealed pod.
#[derive(Debug, Error)]
pub enum InitdataError {
    /// Longer than [`MAX_INITDATA`].
    #[error("initdata: longer than {MAX_INITDATA} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("initdata: not UTF-8")]
    Encoding,
    /// Not TOML of this layout.
    #[error("initdata: {0}")]
    Toml(String),
    /// Another version.
    #[error("initdata: version {0:?} is not supported, {VERSION:?} is")]
    Version(String),
    /// Another digest.
    #[error("initdata: algorithm {0:?} is not supported, {ALGORITHM:?} is")]
    Algorithm(String),
    /// An entry that a sealed pod has no use for; ignoring it would drop somebody's intent.
    #[error("initdata: entry {0:?} is not for a sealed pod; only {CONFIG_ENTRY} and {DOCUMENT_ENTRY} are")]
    Entry(String),
    /// Neither `sealpod.toml` nor `policy.rego`.
    #[error("initdata: no entry {CONFIG_ENTRY}: this is not a sealed pod's initdata")]
    NoConfig,
    /// The document names another digest than HOST_DATA was made with.
    #[error("initdata: algorithm {named:?} is not the one that HOST_DATA was made with, {bound}")]
    Binding {
        /// What the document says.
        named: String,
        /// What it is.
        bound: &'static str,
    },
    /// An entry of the policy mode is malformed, or asks for what this guest doesn't do.
    #[error("initdata: {entry}: {rule}")]
    Coco {
        /// Which entry.
        entry: String,
        /// What is wrong with it.
        rule: String,
    },
    /// `sealpod.toml` is malformed.
    #[error("initdata: {CONFIG_ENTRY}: {0}")]
    Config(String),
    /// The inline document is malformed.
    #[error("initdata: {DOCUMENT_ENTRY}: {0}")]
    Document(#[from] DocumentError),
    /// The inline document is not the one that the configuration names.
    #[error("initdata: {DOCUMENT_ENTRY}: {0} of the document contradicts {CONFIG_ENTRY}")]
    Mismatch(&'static str),
    /// Not a framed initdata device.
    #[error("initdata device: {0}")]
    Device(&'static str),
    /// Not an initdata annotation.
    #[error("initdata annotation: {0}")]
    Annotation(&'static str),
    /// The compressed part is damaged or too large.
    #[error("initdata: compressed data: {0}")]
    Gzip(&'static str),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer {
    version: String,
    algorithm: String,
    data: BTreeMap<String, String>,
}

impl Outer {
    fn parse(bytes: &[u8]) -> Result<Self, InitdataError> {
        if bytes.len() > MAX_INITDATA {
            return Err(InitdataError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| InitdataError::Encoding)?;
        toml::from_str(text).map_err(|error| InitdataError::Toml(toml_message(text, &error)))
    }
}

impl Initdata {
    /// Accepts exactly a sealed pod's initdata, at most [`MAX_INITDATA`] bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, InitdataError> {
        let Outer { version, algorithm, mut data } = Outer::parse(bytes)?;
        if version != VERSION {
            return Err(InitdataError::Version(short(&version)));
        }
        if algorithm != ALGORITHM {
            return Err(InitdataError::Algorithm(short(&algorithm)));
        }
        let config = data.remove(CONFIG_ENTRY).ok_or(InitdataError::NoConfig)?;
        let document = data.remove(DOCUMENT_ENTRY);
        if let Some((name, _)) = data.pop_first() {
            return Err(InitdataError::Entry(short(&name)));
        }
        let config = SealpodConfig::parse(&config)?;
        let document = document.map(|text| SealedDocument::parse(&text)).transpose()?;
        let initdata = Self { config, document };
        initdata.check()?;
        Ok(initdata)
    }

    /// The document's text. Its bytes, unchanged, are what HOST_DATA is the digest of.
    pub fn to_toml(&self) -> Result<String, InitdataError> {
        self.check()?;
        let mut data = BTreeMap::from([(CONFIG_ENTRY.to_owned(), self.config.to_toml()?)]);
        if let Some(document) = &self.document {
            data.insert(DOCUMENT_ENTRY.to_owned(), document.as_str().to_owned());
        }
        let outer = Outer { version: VERSION.into(), algorithm: ALGORITHM.into(), data };
        let text = toml::to_string_pretty(&outer).map_err(|error| InitdataError::Toml(error.to_string()))?;
        if text.len() > MAX_INITDATA {
            return Err(InitdataError::TooLong);
        }
        Ok(text)
    }

    fn check(&self) -> Result<(), InitdataError> {
        self.config.check()?;
        if let Some(document) = &self.document {
            if document.digest() != self.config.sealed_spec {
                return Err(InitdataError::Mismatch("the digest"));
            }
            if document.header().key_id() != &self.config.key_id {
                return Err(InitdataError::Mismatch("the key id"));
            }
        }
        Ok(())
    }
}

impl SealpodConfig {
    /// From the text of the `sealpod.toml` entry.
    pub fn parse(text: &str) -> Result<Self, InitdataError> {
        let config: Self =
            toml::from_str(text).map_err(|error| InitdataError::Config(toml_message(text, &error)))?;
        config.check()?;
        Ok(config)
    }

    fn to_toml(&self) -> Result<String, InitdataError> {
        toml::to_string_pretty(self).map_err(|error| InitdataError::Config(error.to_string()))
    }

    fn check(&self) -> Result<(), InitdataError> {
        self.broker.check()
    }
}

impl BrokerPin {
    /// Checks URL and certificates.
    pub fn check(&self) -> Result<(), InitdataError> {
        let refuse = |rule: &str| Err(InitdataError::Config(rule.to_owned()));
        if !self.url.strip_prefix("https://").is_some_and(host_port) {
            return refuse("broker.url must be https://host[:port] without path, user or query");
        }
        if self.ca.len() > MAX_CA {
            return refuse("broker.ca is longer than 64 KiB");
        }
        if !(self.ca.contains("-----BEGIN CERTIFICATE-----") && self.ca.contains("-----END CERTIFICATE-----"))
        {
            return refuse("broker.ca must hold PEM certificates: without a pin anyone could be the broker");
        }
        Ok(())
    }
}

/// A TOML error in one line, with the place.
fn toml_message(text: &str, error: &toml::de::Error) -> String {
    let message: String =
        error.message().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
            format!("line {line} column {column}: {message}")
        }
        None => message,
    }
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
#[path = "../initdata_tests.rs"]
mod tests;
