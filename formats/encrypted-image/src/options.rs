//! The two halves of a layer's cipher options: the public ones, which the registry holds in clear and can change, and
//! the private ones, which every wrapper wraps: key, nonce and the digest of the plain blob.
//!
//! Whatever decides how a layer is decrypted is taken from the private half alone.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use zeroize::Zeroizing;

use crate::encoding::{self, Base64, shown};

/// The only cipher there is.
pub const CIPHER: &str = "AES_256_CTR_HMAC_SHA256";
/// The longest JSON of either half that is read. The private options take 193 bytes.
pub const MAX_JSON: usize = 4096;

/// Why options are refused. None of the texts holds a key, a nonce or an HMAC.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionsError {
    /// More than [`MAX_JSON`] bytes.
    #[error("{0} options of {1} bytes: at most {MAX_JSON} are read")]
    TooLong(Half, usize),
    /// Not an object with the known members. Says where, but not what: the text may be secret.
    #[error("{half} options are not the expected JSON (line {line}, column {column})")]
    Json {
        /// Which half.
        half: Half,
        /// Line of the first byte that doesn't fit.
        line: usize,
        /// Its column.
        column: usize,
    },
    /// A cipher that isn't [`CIPHER`]: nothing else is opened, whatever the registry says.
    #[error("cipher {0:?} is not supported: layers are {CIPHER}")]
    Cipher(String),
    /// No HMAC, so nothing would tell a changed layer.
    #[error("public options hold no hmac: the layer could be changed unnoticed")]
    NoHmac,
    /// An HMAC of another length than 32 bytes.
    #[error("hmac of {0} bytes: HMAC-SHA256 has 32")]
    HmacLength(usize),
    /// A member of `cipheroptions` that nobody knows.
    #[error("{0} cipher option {1:?} is unknown")]
    UnknownCipherOption(Half, String),
    /// No key.
    #[error("private options hold no symkey")]
    NoKey,
    /// A key of another length than 32 bytes.
    #[error("symkey of {0} bytes: AES-256 has 32")]
    KeyLength(usize),
    /// No nonce among the private options: a random or public one would give garbage.
    #[error("private options hold no nonce")]
    NoNonce,
    /// A nonce of another length than 16 bytes.
    #[error("nonce of {0} bytes: the counter of AES-256-CTR has 16")]
    NonceLength(usize),
    /// No digest of the plain layer.
    #[error("private options hold no digest of the plain layer")]
    NoDigest,
    /// A digest that isn't SHA-256, or not spelled as descriptors spell it.
    #[error("private digest is not sha256:<64 lower-case hex digits>")]
    Digest,
    /// The system gave no random bytes.
    #[error("no random bytes for a layer key: {0}")]
    Random(String),
}

/// Which half of the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// In clear, in the registry.
    Public,
    /// Wrapped for the recipients.
    Private,
}

/// What was left out of account, for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The public options hold a nonce. Whoever can write to the registry can set it, so it isn't used.
    PublicNonce,
}

/// The public half: the HMAC over the encrypted blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicOptions {
    /// HMAC-SHA256 over the encrypted blob, as the registry has it.
    pub hmac: [u8; 32],
    /// What was ignored while reading.
    pub warnings: Vec<Warning>,
}

/// The private half. The key is wiped on drop, and nothing prints.
#[derive(Clone)]
pub struct PrivateOptions {
    key: Zeroizing<[u8; 32]>,
    nonce: [u8; 16],
    digest: [u8; 32],
}

impl PublicOptions {
    /// Options of a layer that was just encrypted.
    #[must_use]
    pub const fn new(hmac: [u8; 32]) -> Self {
        Self { hmac, warnings: Vec::new() }
    }

    /// Reads the JSON inside of `org.opencontainers.image.enc.pubopts`.
    ///
    /// # Errors
    /// Another cipher, no HMAC or one of another length, unknown members.
    pub fn from_json(json: &[u8]) -> Result<Self, OptionsError> {
        let raw: RawPublic = parse(Half::Public, json)?;
        match raw.cipher.as_deref() {
            Some(CIPHER) => {}
            other => return Err(OptionsError::Cipher(shown(other.unwrap_or_default()))),
        }
        let hmac = raw.hmac.ok_or(OptionsError::NoHmac)?.0;
        if hmac.is_empty() {
            return Err(OptionsError::NoHmac);
        }
        let hmac = hmac.as_slice().try_into().map_err(|_| OptionsError::HmacLength(hmac.len()))?;
        let options = raw.cipheroptions.unwrap_or_default();
        options.only_known(Half::Public)?;
        let warnings = options.nonce.map(|_| Warning::PublicNonce).into_iter().collect();
        Ok(Self { hmac, warnings })
    }

    /// The JSON as ocicrypt writes it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        format!(r#"{{"cipher":"{CIPHER}","hmac":"{}","cipheroptions":{{}}}}"#, encoding::encode(&self.hmac))
            .into_bytes()
    }
}

impl PrivateOptions {
    /// A new key and nonce for a layer whose plain blob has the SHA-256 `digest`. Each layer has its own.
    ///
    /// # Errors
    /// No random bytes.
    pub fn generate(digest: [u8; 32]) -> Result<Self, OptionsError> {
        let mut key = Zeroizing::new([0; 32]);
        let mut nonce = [0; 16];
        for bytes in [key.as_mut_slice(), nonce.as_mut_slice()] {
            getrandom::fill(bytes).map_err(|error| OptionsError::Random(error.to_string()))?;
        }
        Ok(Self { key, nonce, digest })
    }

    /// Options of known parts.
    #[must_use]
    pub const fn from_parts(key: Zeroizing<[u8; 32]>, nonce: [u8; 16], digest: [u8; 32]) -> Self {
        Self { key, nonce, digest }
    }

    /// The same key and nonce with another digest: for a layer whose digest is known only after it was encrypted.
    #[must_use]
    pub fn with_digest(self, digest: [u8; 32]) -> Self {
        Self { digest, ..self }
    }

    /// Reads what a wrapper gave back.
    ///
    /// # Errors
    /// Anything missing, unknown, of another length, or twice; bytes after the JSON.
    pub fn from_json(json: &[u8]) -> Result<Self, OptionsError> {
        let raw: RawPrivate = parse(Half::Private, json)?;
        let key = raw.symkey.ok_or(OptionsError::NoKey)?.0;
        let key = Zeroizing::new(key.as_slice().try_into().map_err(|_| OptionsError::KeyLength(key.len()))?);
        let options = raw.cipheroptions.ok_or(OptionsError::NoNonce)?;
        options.only_known(Half::Private)?;
        let nonce = options.nonce.ok_or(OptionsError::NoNonce)?.0;
        let nonce = nonce.as_slice().try_into().map_err(|_| OptionsError::NonceLength(nonce.len()))?;
        let digest = raw.digest.ok_or(OptionsError::NoDigest)?;
        let digest = encoding::sha256(&digest).ok_or(OptionsError::Digest)?;
        Ok(Self { key, nonce, digest })
    }

    /// The JSON as ocicrypt writes it: 193 bytes.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let key = Zeroizing::new(encoding::encode(self.key.as_slice()));
        let mut json = Zeroizing::new(Vec::with_capacity(256)); // Never grows, so no copy stays behind.
        for part in [
            r#"{"symkey":""#,
            &key,
            r#"","digest":""#,
            &encoding::sha256_text(&self.digest),
            r#"","cipheroptions":{"nonce":""#,
            &encoding::encode(&self.nonce),
            r#""}}"#,
        ] {
            json.extend_from_slice(part.as_bytes());
        }
        json
    }

    /// The layer's key, for cipher and HMAC.
    #[must_use]
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The first counter block.
    #[must_use]
    pub const fn nonce(&self) -> &[u8; 16] {
        &self.nonce
    }

    /// SHA-256 of the plain blob.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl fmt::Debug for PrivateOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateOptions(…)")
    }
}

impl fmt::Display for Half {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Public => "public",
            Self::Private => "private",
        })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublicNonce => formatter.write_str("the public options hold a nonce, which is ignored"),
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(half: Half, json: &'a [u8]) -> Result<T, OptionsError> {
    if json.len() > MAX_JSON {
        return Err(OptionsError::TooLong(half, json.len()));
    }
    // serde_json's own text quotes what it met.
    serde_json::from_slice(json).map_err(|error| OptionsError::Json {
        half,
        line: error.line(),
        column: error.column(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPublic {
    cipher: Option<String>,
    hmac: Option<Base64>,
    cipheroptions: Option<RawCipherOptions>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPrivate {
    symkey: Option<Base64>,
    digest: Option<String>,
    cipheroptions: Option<RawCipherOptions>,
}

#[derive(Default)]
struct RawCipherOptions {
    nonce: Option<Base64>,
    unknown: Option<String>,
}

impl RawCipherOptions {
    fn only_known(&self, half: Half) -> Result<(), OptionsError> {
        match &self.unknown {
            Some(name) => Err(OptionsError::UnknownCipherOption(half, shown(name))),
            None => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for RawCipherOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CipherOptionsVisitor)
    }
}

struct CipherOptionsVisitor;

impl<'de> Visitor<'de> for CipherOptionsVisitor {
    type Value = RawCipherOptions;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of cipher options")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawCipherOptions, A::Error> {
        let mut options = RawCipherOptions::default();
        while let Some(name) = map.next_key::<String>()? {
            if name != "nonce" {
                map.next_value::<IgnoredAny>()?;
                options.unknown.get_or_insert(name);
            } else if options.nonce.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("nonce twice"));
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
