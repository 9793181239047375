//! JOSE headers (RFC 7516 section 4): the members of the protected, the shared and the recipient's header
//! together, in which no name may come twice.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Value, json};

use super::JweError;
use super::content::Encryption;
use crate::encoding::shown;
use crate::keys::{Epk, base64url};

/// One JSON object, in which a name that comes twice is an error.
#[derive(Debug, Default, Clone)]
pub(super) struct Members(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a header object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a header given twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Members {
    pub(super) fn parse(json: &[u8]) -> Result<Self, JweError> {
        serde_json::from_slice(json)
            .map_err(|_| JweError::Malformed("the protected header is not a JSON object"))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }
}

/// Everything that is said of one recipient.
pub(super) struct Header<'a>(BTreeMap<&'a str, &'a Value>);

impl<'a> Header<'a> {
    /// Joins the parts; refuses what this reader must understand and doesn't.
    pub(super) fn join(protected: &'a Members, others: [&'a Members; 2]) -> Result<Self, JweError> {
        let mut joined = BTreeMap::new();
        for (name, value) in &protected.0 {
            joined.insert(name.as_str(), value);
        }
        for (name, value) in others.into_iter().flat_map(|members| &members.0) {
            // Where nothing authenticates it, the host would choose how the content is decrypted.
            if name == "enc" {
                return Err(JweError::Malformed("'enc' is not in the protected header"));
            }
            if joined.insert(name.as_str(), value).is_some() {
                return Err(JweError::Twice(shown(name)));
            }
        }
        for (name, what) in [("zip", "compression"), ("crit", "critical headers")] {
            if let Some(value) = joined.get(name) {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                return Err(JweError::Unsupported { what, name: shown(&text) });
            }
        }
        Ok(Self(joined))
    }

    pub(super) fn alg(&self) -> Result<&'a str, JweError> {
        self.0.get("alg").and_then(|alg| alg.as_str()).ok_or(JweError::Malformed("a recipient has no 'alg'"))
    }

    pub(super) fn epk(&self) -> Result<Epk, JweError> {
        let malformed = JweError::Malformed("'epk' is not a public EC key");
        self.0.get("epk").and_then(|value| Epk::deserialize(*value).ok()).ok_or(malformed)
    }

    /// `apu` or `apv` (RFC 7518 section 4.6.1); absent means empty.
    pub(super) fn party(&self, name: &str) -> Result<Vec<u8>, JweError> {
        let Some(value) = self.0.get(name) else { return Ok(Vec::new()) };
        let bytes = value.as_str().and_then(base64url);
        bytes.map(|bytes| bytes.to_vec()).ok_or(JweError::Malformed("'apu' or 'apv' is not base64url"))
    }

    /// The protected header of a flattened JWE.
    pub(super) fn for_one(recipient: &Value, encryption: Encryption) -> Value {
        let mut header = recipient.clone();
        header["enc"] = encryption.name().into();
        header
    }

    /// The protected header of a general JWE.
    pub(super) fn for_several(encryption: Encryption) -> Value {
        json!({ "enc": encryption.name() })
    }
}
