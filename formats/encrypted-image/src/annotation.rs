//! The annotations of an encrypted layer's descriptor: `org.opencontainers.image.enc.pubopts`, and the wrapped keys under
//! `org.opencontainers.image.enc.keys.*`, base64 each, several of them joined by commas.

use std::collections::BTreeMap;
use std::fmt;

use crate::encoding::{self, shown};
use crate::options::{OptionsError, PublicOptions};

/// Begins every annotation of this format; decrypting takes all of them off.
pub const PREFIX: &str = "org.opencontainers.image.enc.";
/// The annotation of the public options.
pub const PUBLIC_OPTIONS: &str = "org.opencontainers.image.enc.pubopts";
const KEYS: &str = "org.opencontainers.image.enc.keys.";
/// The longest annotation that is read, in bytes.
pub const MAX_ANNOTATION: usize = 512 * 1024;
/// How many wrapped keys of a layer are read, over all schemes: each may cost an attempt with every key.
pub const MAX_WRAPPED: usize = 128;
/// The longest name of a key provider.
pub const MAX_PROVIDER: usize = 128;

/// Who wrapped a layer's options: the last part of an annotation's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// `keys.jwe`: JSON Web Encryption.
    Jwe,
    /// `keys.pkcs7`: Cryptographic Message Syntax.
    Pkcs7,
    /// `keys.pgp`: OpenPGP.
    Pgp,
    /// `keys.pkcs11`: RSA-OAEP by a token.
    Pkcs11,
    /// `keys.provider.NAME`: a key provider.
    Provider(String),
}

/// What the annotations of an encrypted layer say. All of it is the registry's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptedLayer {
    /// The public options.
    pub public: PublicOptions,
    /// Wrapped keys, in the order of their annotations' names, then as they stand there.
    pub wrapped: Vec<WrappedKey>,
}

/// Private options, wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// What can open it.
    pub scheme: Scheme,
    /// The wrapper's own format.
    pub blob: Vec<u8>,
}

/// Why annotations are refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FormatError {
    /// No public options: not encrypted, or stripped on the way.
    #[error("annotation {PUBLIC_OPTIONS} is missing: it was stripped, or the layer was never encrypted")]
    NoPublicOptions,
    /// No wrapped key that anybody could open.
    #[error("no annotation {KEYS}*: no key was wrapped for anybody")]
    NoKeys,
    /// An annotation that is too long.
    #[error("annotation {name} has {len} bytes: at most {MAX_ANNOTATION} are read")]
    TooLong {
        /// Name of the annotation.
        name: String,
        /// Its length.
        len: usize,
    },
    /// More than [`MAX_WRAPPED`] wrapped keys.
    #[error("more than {MAX_WRAPPED} wrapped keys")]
    TooManyKeys,
    /// A value that isn't base64.
    #[error("annotation {0} is not standard base64")]
    Base64(String),
    /// An empty value, or an empty part of one.
    #[error("annotation {0} holds an empty key")]
    Empty(String),
    /// A name below [`PREFIX`] that this format doesn't know.
    #[error("annotation {0} is unknown")]
    Unknown(String),
    /// The public options.
    #[error("annotation {PUBLIC_OPTIONS}: {0}")]
    Options(#[from] OptionsError),
}

impl EncryptedLayer {
    /// Reads the annotations of an encrypted layer's descriptor; other annotations are left out of account.
    ///
    /// # Errors
    /// See [`FormatError`].
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, FormatError> {
        let mut public = None;
        let mut wrapped = Vec::new();
        for (name, value) in below_prefix(annotations) {
            if value.len() > MAX_ANNOTATION {
                return Err(FormatError::TooLong { name: shown(name), len: value.len() });
            }
            if name == PUBLIC_OPTIONS {
                let json = encoding::decode(value).ok_or_else(|| FormatError::Base64(shown(name)))?;
                public = Some(PublicOptions::from_json(&json)?);
                continue;
            }
            let scheme = Scheme::of_annotation(name).ok_or_else(|| FormatError::Unknown(shown(name)))?;
            for part in value.split(',') {
                if part.is_empty() {
                    return Err(FormatError::Empty(shown(name)));
                }
                if wrapped.len() == MAX_WRAPPED {
                    return Err(FormatError::TooManyKeys);
                }
                let blob = encoding::decode(part).ok_or_else(|| FormatError::Base64(shown(name)))?.to_vec();
                wrapped.push(WrappedKey { scheme: scheme.clone(), blob });
            }
        }
        let public = public.ok_or(FormatError::NoPublicOptions)?;
        if wrapped.is_empty() {
            return Err(FormatError::NoKeys);
        }
        Ok(Self { public, wrapped })
    }

    /// The annotations to add to the descriptor of the encrypted layer.
    #[must_use]
    pub fn to_annotations(&self) -> BTreeMap<String, String> {
        let mut annotations =
            BTreeMap::from([(PUBLIC_OPTIONS.to_owned(), encoding::encode(&self.public.to_json()))]);
        for key in &self.wrapped {
            let value = annotations.entry(key.scheme.annotation()).or_default();
            if !value.is_empty() {
                value.push(',');
            }
            value.push_str(&encoding::encode(&key.blob));
        }
        annotations
    }

    /// Takes every annotation of this format off.
    pub fn strip(annotations: &mut BTreeMap<String, String>) {
        annotations.retain(|name, _| !name.starts_with(PREFIX));
    }

    /// Whether any annotation of this format is there.
    #[must_use]
    pub fn any(annotations: &BTreeMap<String, String>) -> bool {
        below_prefix(annotations).next().is_some()
    }
}

fn below_prefix(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    annotations.iter().filter(|(name, _)| name.starts_with(PREFIX))
}

impl Scheme {
    /// The name of the annotation that holds keys of this scheme.
    #[must_use]
    pub fn annotation(&self) -> String {
        format!("{KEYS}{self}")
    }

    /// The scheme behind an annotation's name.
    #[must_use]
    pub fn of_annotation(name: &str) -> Option<Self> {
        Some(match name.strip_prefix(KEYS)? {
            "jwe" => Self::Jwe,
            "pkcs7" => Self::Pkcs7,
            "pgp" => Self::Pgp,
            "pkcs11" => Self::Pkcs11,
            other => Self::provider(other.strip_prefix("provider.")?)?,
        })
    }

    /// The scheme of a provider, or `None` when its name can't be part of an annotation's: 1 to 128 visible ASCII
    /// characters.
    #[must_use]
    pub fn provider(name: &str) -> Option<Self> {
        let fits =
            (1..=MAX_PROVIDER).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self::Provider(name.to_owned()))
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jwe => formatter.write_str("jwe"),
            Self::Pkcs7 => formatter.write_str("pkcs7"),
            Self::Pgp => formatter.write_str("pgp"),
            Self::Pkcs11 => formatter.write_str("pkcs11"),
            Self::Provider(name) => write!(formatter, "provider.{name}"),
        }
    }
}

#[cfg(test)]
#[path = "annotation_tests.rs"]
mod tests;
