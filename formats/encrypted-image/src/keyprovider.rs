//! Messages of the key provider protocol: JSON in the one `bytes` field of `keyprovider.KeyProviderService`, or on a
//! command's standard streams. Requests go to a program that holds keys, and replies come back from it.
//!
//! Bytes are base64 strings for Go, arrays of numbers for Rust: both are read everywhere. Requests are written with
//! strings, replies with numbers, which is what all of them read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::encoding::{AnyBytes, Text, shown};

/// The longest message that is read, in bytes.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// What a provider is asked.
pub enum Request {
    /// To wrap.
    Wrap {
        /// The parameters of the request, by the name of the provider they are for.
        parameters: Parameters,
        /// The private options, as JSON.
        options: Zeroizing<Vec<u8>>,
    },
    /// To unwrap.
    Unwrap {
        /// As for wrapping.
        parameters: Parameters,
        /// What wrapping gave.
        wrapped: Vec<u8>,
    },
}

/// Parameters by provider. Some of them hold keys.
pub type Parameters = BTreeMap<String, Vec<Zeroizing<Vec<u8>>>>;

/// What a provider answers.
pub enum Reply {
    /// The wrapped options.
    Wrapped(Vec<u8>),
    /// The private options, as JSON.
    Unwrapped(Zeroizing<Vec<u8>>),
}

/// Why a message is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    /// Too long.
    #[error("key provider's message of {0} bytes: at most {MAX_MESSAGE} are read")]
    TooLong(usize),
    /// Not the expected JSON. Doesn't quote it: it may hold keys.
    #[error("key provider's message is not the expected JSON (line {0}, column {1})")]
    Json(usize, usize),
    /// Neither of the two operations.
    #[error("operation {0:?} of key providers is unknown: keywrap and keyunwrap are known")]
    Operation(String),
    /// Without what it is about.
    #[error("key provider's message holds no {0}")]
    Missing(&'static str),
}

impl Request {
    /// Asks the provider `name` to wrap. It is sent its own parameters and nothing else.
    #[must_use]
    pub fn wrap(name: &str, parameters: Vec<Zeroizing<Vec<u8>>>, options: Zeroizing<Vec<u8>>) -> Self {
        Self::Wrap { parameters: BTreeMap::from([(name.to_owned(), parameters)]), options }
    }

    /// Asks the provider `name` to unwrap. It is sent its own parameters and nothing else.
    #[must_use]
    pub fn unwrap(name: &str, parameters: Vec<Zeroizing<Vec<u8>>>, wrapped: Vec<u8>) -> Self {
        Self::Unwrap { parameters: BTreeMap::from([(name.to_owned(), parameters)]), wrapped }
    }

    /// Reads a request.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn from_json(json: &[u8]) -> Result<Self, MessageError> {
        let raw: RawRequest = parse(json)?;
        match raw.op.as_str() {
            "keywrap" => {
                let params = raw.keywrapparams.ok_or(MessageError::Missing("keywrapparams"))?;
                let options = params.optsdata.ok_or(MessageError::Missing("optsdata"))?.0;
                let parameters = params.ec.and_then(|config| config.parameters).map(read_parameters);
                Ok(Self::Wrap { parameters: parameters.unwrap_or_default(), options })
            }
            "keyunwrap" => {
                let params = raw.keyunwrapparams.ok_or(MessageError::Missing("keyunwrapparams"))?;
                let wrapped = params.annotation.ok_or(MessageError::Missing("annotation"))?.0.to_vec();
                let parameters = params.dc.and_then(|config| config.parameters).map(read_parameters);
                Ok(Self::Unwrap { parameters: parameters.unwrap_or_default(), wrapped })
            }
            other => Err(MessageError::Operation(shown(other))),
        }
    }

    /// The request as peers read it.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Wrap { parameters, options } => write(&WriteWrap {
                op: "keywrap",
                keywrapparams: WriteWrapParams {
                    ec: WriteEncrypt {
                        parameters: text_parameters(parameters),
                        decrypt: WriteDecrypt::default(),
                    },
                    optsdata: Text(options),
                },
                keyunwrapparams: Empty {},
            }),
            Self::Unwrap { parameters, wrapped } => write(&WriteUnwrap {
                op: "keyunwrap",
                keywrapparams: Empty {},
                keyunwrapparams: WriteUnwrapParams {
                    dc: WriteDecrypt { parameters: text_parameters(parameters) },
                    annotation: Text(wrapped),
                },
            }),
        }
    }
}

impl Reply {
    /// Reads the reply to a request to wrap.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn wrapped(json: &[u8]) -> Result<Vec<u8>, MessageError> {
        let raw: RawReply = parse(json)?;
        let results = raw.keywrapresults.ok_or(MessageError::Missing("keywrapresults"))?;
        let bytes = results.annotation.filter(|bytes| !bytes.0.is_empty());
        Ok(bytes.ok_or(MessageError::Missing("annotation"))?.0.to_vec())
    }

    /// Reads the reply to a request to unwrap.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn unwrapped(json: &[u8]) -> Result<Zeroizing<Vec<u8>>, MessageError> {
        let raw: RawReply = parse(json)?;
        let results = raw.keyunwrapresults.ok_or(MessageError::Missing("keyunwrapresults"))?;
        let bytes = results.optsdata.filter(|bytes| !bytes.0.is_empty());
        Ok(bytes.ok_or(MessageError::Missing("optsdata"))?.0)
    }

    /// The reply as peers read it.
    #[must_use]
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Wrapped(bytes) => write(&serde_json::json!({ "keywrapresults": { "annotation": bytes } })),
            Self::Unwrapped(bytes) => {
                #[derive(Serialize)]
                struct Results<'a> {
                    optsdata: &'a [u8],
                }
                #[derive(Serialize)]
                struct Message<'a> {
                    keyunwrapresults: Results<'a>,
                }
                write(&Message { keyunwrapresults: Results { optsdata: bytes } })
            }
        }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Wrap { .. } => "Wrap(…)",
            Self::Unwrap { .. } => "Unwrap(…)",
        })
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Wrapped(_) => "Wrapped(…)",
            Self::Unwrapped(_) => "Unwrapped(…)",
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, MessageError> {
    if json.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong(json.len()));
    }
    serde_json::from_slice(json).map_err(|error| MessageError::Json(error.line(), error.column()))
}

/// Counts first, so that the buffer never grows and leaves no copy behind.
fn write(message: &impl Serialize) -> Zeroizing<Vec<u8>> {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    let mut bytes = Zeroizing::new(Vec::new());
    // Strings, numbers and memory: neither pass can fail.
    if serde_json::to_writer(&mut count, message).is_ok() {
        bytes.reserve_exact(count.0);
        let _ = serde_json::to_writer(&mut *bytes, message);
    }
    bytes
}

/// Go writes an absent list as null, and an absent password in one too.
type RawParameters = BTreeMap<String, Option<Vec<Option<AnyBytes>>>>;

fn read_parameters(raw: RawParameters) -> Parameters {
    let bytes = |value: Option<AnyBytes>| value.map(|bytes| bytes.0).unwrap_or_default();
    raw.into_iter()
        .map(|(name, values)| (name, values.unwrap_or_default().into_iter().map(bytes).collect()))
        .collect()
}

type TextParameters<'a> = BTreeMap<&'a str, Vec<Text<'a>>>;

fn text_parameters(parameters: &Parameters) -> TextParameters<'_> {
    parameters
        .iter()
        .map(|(name, values)| (name.as_str(), values.iter().map(|value| Text(value)).collect()))
        .collect()
}

#[derive(Deserialize)]
struct RawRequest {
    op: String,
    keywrapparams: Option<RawWrapParams>,
    keyunwrapparams: Option<RawUnwrapParams>,
}

#[derive(Deserialize)]
struct RawWrapParams {
    ec: Option<RawConfig>,
    optsdata: Option<AnyBytes>,
}

#[derive(Deserialize)]
struct RawUnwrapParams {
    dc: Option<RawConfig>,
    annotation: Option<AnyBytes>,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(rename = "Parameters")]
    parameters: Option<RawParameters>,
}

#[derive(Deserialize)]
struct RawReply {
    keywrapresults: Option<RawWrapResults>,
    keyunwrapresults: Option<RawUnwrapResults>,
}

#[derive(Deserialize)]
struct RawWrapResults {
    annotation: Option<AnyBytes>,
}

#[derive(Deserialize)]
struct RawUnwrapResults {
    optsdata: Option<AnyBytes>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct WriteWrap<'a> {
    op: &'static str,
    keywrapparams: WriteWrapParams<'a>,
    keyunwrapparams: Empty,
}

#[derive(Serialize)]
struct WriteWrapParams<'a> {
    ec: WriteEncrypt<'a>,
    optsdata: Text<'a>,
}

#[derive(Serialize)]
struct WriteUnwrap<'a> {
    op: &'static str,
    keywrapparams: Empty,
    keyunwrapparams: WriteUnwrapParams<'a>,
}

#[derive(Serialize)]
struct WriteUnwrapParams<'a> {
    dc: WriteDecrypt<'a>,
    annotation: Text<'a>,
}

#[derive(Serialize)]
struct WriteEncrypt<'a> {
    #[serde(rename = "Parameters")]
    parameters: TextParameters<'a>,
    #[serde(rename = "DecryptConfig")]
    decrypt: WriteDecrypt<'a>,
}

#[derive(Default, Serialize)]
struct WriteDecrypt<'a> {
    #[serde(rename = "Parameters")]
    parameters: TextParameters<'a>,
}

#[cfg(test)]
#[path = "keyprovider_tests.rs"]
mod tests;
