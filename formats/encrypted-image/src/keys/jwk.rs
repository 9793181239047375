//! JSON Web Keys (RFC 7517, RFC 7518 section 6): RSA, EC and octets. A member given twice is refused,
//! unknown ones are ignored, as section 4 rules.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ec::{Curve, EcPrivate, EcPublic};
use super::rsa::{RsaPrivate, RsaPublic};
use super::{Hints, KeyError, PrivateKey, PublicKey, SymmetricKey};

/// Base64url without padding, one spelling a value; decoded without leaving copies.
pub(crate) fn base64url(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

struct Bytes(Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64url without padding")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                base64url(text).map(Bytes).ok_or_else(|| E::custom("not base64url"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Bytes {
    /// A number without leading zeros, which some writers leave.
    fn number(&self) -> &[u8] {
        let zeros = self.0.iter().take_while(|byte| **byte == 0).count();
        &self.0[zeros..]
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    x: Option<Bytes>,
    y: Option<Bytes>,
    d: Option<Bytes>,
    n: Option<Bytes>,
    e: Option<Bytes>,
    p: Option<Bytes>,
    q: Option<Bytes>,
    oth: Option<serde::de::IgnoredAny>,
    k: Option<Bytes>,
    keys: Option<serde::de::IgnoredAny>,
}

impl Jwk {
    fn parse(json: &[u8]) -> Result<Self, KeyError> {
        // The error of serde_json could quote the key.
        let jwk: Self = serde_json::from_slice(json).map_err(|_| KeyError::Malformed("JWK"))?;
        if jwk.keys.is_some() {
            return Err(KeyError::Unsupported("a set of JWKs"));
        }
        if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "enc") {
            return Err(KeyError::Purpose("use"));
        }
        let fits = match (jwk.kty.as_deref(), jwk.alg.as_deref()) {
            (Some("RSA"), Some(alg)) => alg.starts_with("RSA-OAEP"),
            (Some("EC"), Some(alg)) => alg.starts_with("ECDH-ES"),
            _ => true,
        };
        if fits { Ok(jwk) } else { Err(KeyError::Purpose("alg")) }
    }

    fn hints(self) -> Hints {
        Hints { kid: self.kid, alg: self.alg }
    }

    fn point(&self) -> Result<EcPublic, KeyError> {
        let name = self.crv.as_deref().ok_or(KeyError::Malformed("JWK"))?;
        let curve = Curve::from_name(name).ok_or(KeyError::Unsupported("an EC key on this curve"))?;
        EcPublic::from_coordinates(curve, &member(&self.x)?.0, &member(&self.y)?.0)
    }
}

fn member(bytes: &Option<Bytes>) -> Result<&Bytes, KeyError> {
    bytes.as_ref().ok_or(KeyError::Malformed("JWK"))
}

pub(super) fn private(json: &[u8]) -> Result<PrivateKey, KeyError> {
    let jwk = Jwk::parse(json)?;
    match jwk.kty.as_deref() {
        Some("oct") => SymmetricKey::from_bytes(&member(&jwk.k)?.0).map(PrivateKey::Symmetric),
        Some("RSA" | "EC") if jwk.d.is_none() => Err(KeyError::PublicForPrivate),
        Some("RSA") => {
            if jwk.oth.is_some() {
                return Err(KeyError::Unsupported("an RSA key of more than two primes"));
            }
            let primes = match (&jwk.p, &jwk.q) {
                (Some(p), Some(q)) => vec![p.number(), q.number()],
                (None, None) => Vec::new(),
                _ => return Err(KeyError::Malformed("JWK")),
            };
            let (n, e, d) = (member(&jwk.n)?, member(&jwk.e)?, member(&jwk.d)?);
            RsaPrivate::from_numbers(n.number(), e.number(), d.number(), &primes).map(PrivateKey::Rsa)
        }
        Some("EC") => {
            let point = jwk.point()?;
            let key = EcPrivate::from_scalar(point.curve(), &member(&jwk.d)?.0)?;
            if key.public() == point { Ok(PrivateKey::Ec(key)) } else { Err(KeyError::Inconsistent("EC")) }
        }
        Some(_) => Err(KeyError::Unsupported("a JWK of this 'kty'")),
        None => Err(KeyError::Malformed("JWK")),
    }
}

pub(super) fn public(json: &[u8]) -> Result<PublicKey, KeyError> {
    let jwk = Jwk::parse(json)?;
    if jwk.d.is_some() || jwk.k.is_some() {
        return Err(KeyError::PrivateForPublic);
    }
    match jwk.kty.as_deref() {
        Some("RSA") => {
            let key = RsaPublic::from_numbers(member(&jwk.n)?.number(), member(&jwk.e)?.number())?;
            Ok(PublicKey::Rsa(key.with_hints(jwk.hints())))
        }
        Some("EC") => Ok(PublicKey::Ec(jwk.point()?.with_hints(jwk.hints()))),
        Some(_) => Err(KeyError::Unsupported("a JWK of this 'kty'")),
        None => Err(KeyError::Malformed("JWK")),
    }
}

/// The sender's key of one agreement, as a JWE's header carries it (RFC 7518 section 4.6.1.1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Epk {
    kty: String,
    crv: String,
    x: String,
    y: String,
    /// Refused when it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<String>,
}

impl Epk {
    pub(crate) fn of(key: &EcPublic) -> Self {
        let (x, y) = key.coordinates();
        let (kty, crv) = ("EC".to_owned(), key.curve().name().to_owned());
        Self { kty, crv, x: URL_SAFE_NO_PAD.encode(x), y: URL_SAFE_NO_PAD.encode(y), d: None }
    }

    /// The curve's name, whether or not it is one of ours.
    pub(crate) fn curve(&self) -> &str {
        &self.crv
    }

    /// The key, if it is a public one and a point on `curve`.
    pub(crate) fn key(&self, curve: Curve) -> Result<EcPublic, KeyError> {
        if self.kty != "EC" || self.d.is_some() || self.crv != curve.name() {
            return Err(KeyError::Malformed("JWK"));
        }
        let [x, y] = [&self.x, &self.y].map(|text| base64url(text).ok_or(KeyError::Malformed("JWK")));
        EcPublic::from_coordinates(curve, &x?, &y?)
    }
}
