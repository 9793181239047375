//! What `sealpod` asks the program that talks to PKCS #11 tokens, and what that answers: one JSON document each way
//! over a pipe. A PIN is only in [`Request::uri`].

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::OaepHash;

/// The longest request or answer, in bytes.
pub const MESSAGE_LIMIT: usize = 1 << 20;

/// The only version there is. Both programs are of one release.
pub const VERSION: u32 = 1;

/// One question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The key, as a PKCS #11 URI.
    pub uri: Secret,
    /// Libraries that may be loaded.
    pub modules: Modules,
    /// What to do with the key.
    pub operation: Operation,
}

/// Where libraries are looked for, and which may be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modules {
    /// Searched for `module-name`, in order.
    pub directories: Vec<String>,
    /// Files, or directories (with a slash at the end) whose own files may be loaded.
    pub allowed: Vec<String>,
}

/// What to do with a key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// RSA-OAEP with the token's public key.
    Encrypt {
        /// OAEP's hash.
        hash: OaepHash,
        /// What to encrypt.
        plain: Secret,
    },
    /// RSA-OAEP with the token's private key: the first of these that it opens.
    Decrypt {
        /// In the order of the wrapped key.
        recipients: Vec<Ciphertext>,
    },
}

/// One recipient's share of a wrapped key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ciphertext {
    /// OAEP's hash.
    pub hash: OaepHash,
    /// As long as the key's modulus.
    pub bytes: Secret,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// Ciphertext or plaintext.
    Done(Secret),
    /// Nothing came of it.
    Refused(Refusal),
}

/// Why nothing came of it. No text has a PIN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Refusal {
    /// The request can't be read: the two programs are of different releases.
    #[error("the request was not understood: sealpod and sealpod-pkcs11 must be of the same release")]
    Request,
    /// Built like all others.
    #[error(
        "sealpod-pkcs11 was linked statically and can't load modules: build it with 'cargo xtask pkcs11'"
    )]
    Static,
    /// The URI.
    #[error("{0}")]
    Uri(String),
    /// Neither `module-path` nor `module-name`.
    #[error("the PKCS #11 URI names no module: add module-path or module-name")]
    NoModule,
    /// Not where the configuration allows it.
    #[error("module {0} is not in a place that the configuration allows (pkcs11.allowed-module-paths)")]
    ModuleNotAllowed(String),
    /// No such file.
    #[error("module {0} was not found")]
    ModuleMissing(String),
    /// It can't be loaded or initialised.
    #[error("module {module} can't be used: {reason}")]
    Module {
        /// The file.
        module: String,
        /// What the loader or the module said.
        reason: String,
    },
    /// No token matches the URI.
    #[error("no token in any slot matches the PKCS #11 URI")]
    NoToken,
    /// Several match.
    #[error("{0} tokens match the PKCS #11 URI: name one by its serial or slot-id")]
    ManyTokens(usize),
    /// A private key needs one.
    #[error("the token wants a PIN: add pin-value or pin-source to the PKCS #11 URI")]
    NoPin,
    /// The file of `pin-source`.
    #[error("the PIN file can't be read: {0}")]
    PinFile(String),
    /// Tried once; a token locks itself after a few.
    #[error("the PIN is wrong")]
    WrongPin,
    /// It has locked itself.
    #[error("the PIN is locked: the token's security officer must unlock it")]
    PinLocked,
    /// The URI names no object.
    #[error("the PKCS #11 URI names no key: add object or id")]
    NoObject,
    /// No such key.
    #[error("the token has no {0} RSA key of that name")]
    MissingKey(String),
    /// Several.
    #[error("{0} keys of the token have that name: add the id to the PKCS #11 URI")]
    ManyKeys(usize),
    /// OAEP leaves too little room.
    #[error(
        "{length} bytes do not fit an RSA key of {bits} bits with OAEP {hash}: use a longer key{}",
        if matches!(.hash, OaepHash::Sha256) { " or sha1" } else { "" }
    )]
    TooLong {
        /// Bytes to wrap.
        length: usize,
        /// Of the modulus.
        bits: usize,
        /// OAEP's hash.
        hash: OaepHash,
    },
    /// None of the recipients is this key.
    #[error("not wrapped for this key")]
    NotRecipient,
    /// The token has no such mechanism, or failed.
    #[error("the token refused: {0}")]
    Token(String),
}

/// Bytes that are zeroized, never printed, and base64 in JSON.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.0.as_slice())))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| serde::de::Error::custom("not base64"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_letter_passes_the_pipe() {
        let request = Request {
            version: VERSION,
            uri: Secret(Zeroizing::new(b"pkcs11:?pin-value=31337".to_vec())),
            modules: Modules::default(),
            operation: Operation::Decrypt {
                recipients: vec![Ciphertext { hash: OaepHash::Sha1, bytes: Secret::default() }],
            },
        };
        let json = serde_json::to_string(&request).unwrap();
        assert!(
            json.contains(r#""operation":{"decrypt":{"recipients":[{"hash":"sha1","bytes":""}]}}"#),
            "{json}"
        );
        let read: Request = serde_json::from_str(&json).unwrap();
        assert_eq!(read.uri, request.uri);
        assert!(!format!("{request:?}").contains("31337"));
        assert!(serde_json::from_str::<Request>(&json.replace("version", "vision")).is_err());
    }
}
