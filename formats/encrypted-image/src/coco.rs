//! The annotation of Confidential Containers' key provider: the private options under AES-256 with a key of a broker, named
//! by a `kbs:///` URI. Version 1 has four members; version 2 says besides which kind of broker holds the key.

use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::annotation::{Scheme, WrappedKey};
use crate::cipher::Keystream;
use crate::encoding::{self, shown};
use crate::options::PrivateOptions;
use crate::wrap::{Unwrap, UnwrapError, Wrap, WrapError};

/// The provider whose name guests of Confidential Containers look for.
pub const ATTESTATION_AGENT: &str = "attestation-agent";
/// The provider under which this project wraps.
pub const SEALPOD: &str = "sealpod";
/// The longest annotation that is read, in bytes.
pub const MAX_PACKET: usize = 16 * 1024;
/// The longest URI of a resource, in bytes.
pub const MAX_URI: usize = 512;
const VERSION: &str = "0.1.0";
const KBS: &str = "kbs";

/// An annotation, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The key's URI, as the annotation has it.
    pub kid: String,
    /// What the cipher made of the private options; for [`WrapType::A256Gcm`] with the tag at its end.
    pub wrapped_data: Vec<u8>,
    /// Nonce or first counter block: 12 or 16 bytes.
    pub iv: Vec<u8>,
    /// The cipher.
    pub wrap_type: WrapType,
}

/// The cipher under the key of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrapType {
    /// `A256GCM`: AES-256-GCM, no additional data.
    A256Gcm,
    /// `A256CTR`: AES-256-CTR, which authenticates nothing. Never written, and read only by [`BrokerKey::reading_ctr`]:
    /// whoever may change the annotation and watch what is refused can learn the layer's key from it. An
    /// [`WrapType::A256Gcm`] without its tag is one of these, so a key that reads both has the strength of this one.
    A256Ctr,
}

/// Why an annotation is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PacketError {
    /// Too long.
    #[error("{0} bytes: at most {MAX_PACKET} are read")]
    TooLong(usize),
    /// Not the expected JSON.
    #[error("not the expected JSON (line {0}, column {1})")]
    Json(usize, usize),
    /// Another version than 0.1.0.
    #[error("version {0:?}: only {VERSION} is read")]
    Version(String),
    /// A key management service other than a key broker.
    #[error("provider {0:?}: only keys of a broker ({KBS}) are opened")]
    Provider(String),
    /// A member that is missing, or not base64.
    #[error("{0} is missing, empty or not standard base64")]
    Member(&'static str),
    /// A cipher that is not known.
    #[error("wrap_type {0:?}: A256GCM and A256CTR are read")]
    WrapType(String),
    /// An IV of the wrong length for the cipher.
    #[error("iv of {0} bytes")]
    IvLength(usize),
    /// Not a URI of a broker's resource.
    #[error("kid {0:?} is not kbs:///<repository>/<type>/<tag>")]
    Kid(String),
}

/// A key of a broker: 32 bytes, and the URI of the resource that holds them.
pub struct BrokerKey {
    uri: String,
    key: Zeroizing<[u8; 32]>,
    provider: Scheme,
    reads_ctr: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    kid: String,
    wrapped_data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrap_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_settings: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Map<String, Value>>,
}

impl Packet {
    /// Reads an annotation of either version.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn from_json(json: &[u8]) -> Result<Self, PacketError> {
        if json.len() > MAX_PACKET {
            return Err(PacketError::TooLong(json.len()));
        }
        let raw: Raw =
            serde_json::from_slice(json).map_err(|error| PacketError::Json(error.line(), error.column()))?;
        if let Some(version) = raw.version.filter(|version| version != VERSION) {
            return Err(PacketError::Version(shown(&version)));
        }
        if let Some(provider) = raw.provider.filter(|provider| provider != KBS) {
            return Err(PacketError::Provider(shown(&provider)));
        }
        let wrap_type = match raw.wrap_type.as_deref() {
            Some("A256GCM") => WrapType::A256Gcm,
            Some("A256CTR") => WrapType::A256Ctr,
            Some(other) => return Err(PacketError::WrapType(shown(other))),
            None => return Err(PacketError::Member("wrap_type")),
        };
        let member = |name, text: &str| {
            let bytes = encoding::decode(text).filter(|bytes| !bytes.is_empty());
            Ok(bytes.ok_or(PacketError::Member(name))?.to_vec())
        };
        let iv = member("iv", raw.iv.as_deref().unwrap_or_default())?;
        if iv.len() != wrap_type.iv_len() {
            return Err(PacketError::IvLength(iv.len()));
        }
        let wrapped_data = member("wrapped_data", &raw.wrapped_data)?;
        resource(&raw.kid).ok_or_else(|| PacketError::Kid(shown(&raw.kid)))?;
        Ok(Self { kid: raw.kid, wrapped_data, iv, wrap_type })
    }

    /// An annotation of version 2.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let raw = Raw {
            version: Some(VERSION.to_owned()),
            kid: self.kid.clone(),
            wrapped_data: encoding::encode(&self.wrapped_data),
            provider: Some(KBS.to_owned()),
            iv: Some(encoding::encode(&self.iv)),
            wrap_type: Some(self.wrap_type.name().to_owned()),
            provider_settings: Some(Map::new()),
            annotations: Some(Map::new()),
        };
        serde_json::to_vec(&raw).unwrap_or_default() // Strings always serialize.
    }

    /// The key's resource as `kbs:///<repository>/<type>/<tag>`: which broker is asked is never the annotation's choice.
    #[must_use]
    pub fn resource(&self) -> String {
        resource(&self.kid).unwrap_or_default()
    }

    /// Whether a provider's annotation holds packets of this kind.
    #[must_use]
    pub fn scheme_fits(scheme: &Scheme) -> bool {
        matches!(scheme, Scheme::Provider(name) if name == ATTESTATION_AGENT || name == SEALPOD)
    }

    fn open(&self, key: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, UnwrapError> {
        match self.wrap_type {
            WrapType::A256Gcm => self.open_gcm(key),
            WrapType::A256Ctr => {
                let counter = self.iv.as_slice().try_into();
                let counter =
                    counter.map_err(|_| UnwrapError::Malformed(format!("iv of {} bytes", self.iv.len())))?;
                let mut bytes = Zeroizing::new(self.wrapped_data.clone());
                Keystream::new(key, counter).apply(&mut bytes);
                Ok(bytes)
            }
        }
    }

    fn open_gcm(&self, key: &[u8; 32]) -> Result<Zeroizing<Vec<u8>>, UnwrapError> {
        let short = || UnwrapError::Malformed("wrapped_data is shorter than its tag".to_owned());
        let at = self.wrapped_data.len().checked_sub(16).ok_or_else(short)?;
        let (text, tag) = self.wrapped_data.split_at(at);
        let tag = Tag::<Aes256Gcm>::try_from(tag).map_err(|_| short())?;
        let nonce = Nonce::<Aes256Gcm>::try_from(self.iv.as_slice())
            .map_err(|_| UnwrapError::Malformed(format!("iv of {} bytes", self.iv.len())))?;
        let mut bytes = Zeroizing::new(text.to_vec());
        Aes256Gcm::new(key.into())
            .decrypt_inout_detached(&nonce, &[], bytes.as_mut_slice().into(), &tag)
            .map_err(|_| UnwrapError::NotRecipient)?;
        Ok(bytes)
    }
}

impl WrapType {
    const fn name(self) -> &'static str {
        match self {
            Self::A256Gcm => "A256GCM",
            Self::A256Ctr => "A256CTR",
        }
    }

    const fn iv_len(self) -> usize {
        match self {
            Self::A256Gcm => 12,
            Self::A256Ctr => 16,
        }
    }
}

impl BrokerKey {
    /// The key behind the resource `uri`, or `None` when that isn't a broker's.
    #[must_use]
    pub fn new(uri: &str, key: Zeroizing<[u8; 32]>) -> Option<Self> {
        let provider = Scheme::Provider(SEALPOD.to_owned());
        Some(Self { uri: resource(uri)?, key, provider, reads_ctr: false })
    }

    /// Opens [`WrapType::A256Ctr`] too. Only for annotations from a manifest whose digest was sealed or signed: with any
    /// others, each answer tells whoever made them something about the layer's key.
    #[must_use]
    pub fn reading_ctr(self) -> Self {
        Self { reads_ctr: true, ..self }
    }

    /// Wraps under [`ATTESTATION_AGENT`], so that guests of Confidential Containers open it too.
    #[must_use]
    pub fn for_attestation_agent(self) -> Self {
        Self { provider: Scheme::Provider(ATTESTATION_AGENT.to_owned()), ..self }
    }
}

impl Wrap for BrokerKey {
    fn scheme(&self) -> Scheme {
        self.provider.clone()
    }

    fn wrap(&self, private: &PrivateOptions) -> Result<Vec<u8>, WrapError> {
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).map_err(|error| WrapError::Random(error.to_string()))?;
        let mut bytes = private.to_json();
        let tag = Aes256Gcm::new((&*self.key).into())
            .encrypt_inout_detached(&Nonce::<Aes256Gcm>::from(nonce), &[], bytes.as_mut_slice().into())
            .map_err(|_| WrapError::Failed {
                by: self.uri.clone(),
                reason: "AES-GCM refused the length".to_owned(),
            })?;
        let mut wrapped_data = bytes.to_vec();
        wrapped_data.extend_from_slice(&tag);
        let packet =
            Packet { kid: self.uri.clone(), wrapped_data, iv: nonce.to_vec(), wrap_type: WrapType::A256Gcm };
        Ok(packet.to_json())
    }
}

impl Unwrap for BrokerKey {
    fn opens(&self, scheme: &Scheme) -> bool {
        Packet::scheme_fits(scheme)
    }

    fn name(&self) -> String {
        self.uri.clone()
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<PrivateOptions, UnwrapError> {
        let packet =
            Packet::from_json(&wrapped.blob).map_err(|error| UnwrapError::Malformed(error.to_string()))?;
        if packet.resource() != self.uri {
            return Err(UnwrapError::NotRecipient);
        }
        if packet.wrap_type == WrapType::A256Ctr && !self.reads_ctr {
            let what =
                "wrap_type A256CTR, which authenticates nothing (wrap the layer's key again, with A256GCM),";
            return Err(UnwrapError::Unsupported(what.to_owned()));
        }
        match (PrivateOptions::from_json(&packet.open(&self.key)?), packet.wrap_type) {
            // What exactly is wrong with bytes that nothing authenticated would say what a changed one decrypts to.
            (Err(_), WrapType::A256Ctr) => Err(UnwrapError::NotRecipient),
            (options, _) => Ok(options?),
        }
    }
}

impl fmt::Debug for BrokerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BrokerKey({})", self.uri)
    }
}

/// `kbs://[host]/<repository>/<type>/<tag>` without its host; what a sealed spec takes as a resource's name.
fn resource(kid: &str) -> Option<String> {
    let (_host, path) = kid.strip_prefix("kbs://")?.split_once('/')?;
    let part = |part: &str| {
        let inside = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        inside && !part.is_empty() && !part.starts_with('.')
    };
    let fits = path.split('/').count() == 3 && path.split('/').all(part);
    let uri = format!("kbs:///{path}");
    (fits && uri.len() <= MAX_URI).then_some(uri)
}

#[cfg(test)]
#[path = "coco_tests.rs"]
mod tests;
