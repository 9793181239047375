//! Attestation tokens: JWTs (ES256) in the EAR shape that stock clients carry, naming what was appraised.
//! Third parties verify them with the keys at [`JWKS_PATH`].
//!
//! At the broker itself a token is only another name for its session: what releases a key is the appraisal
//! kept there, never a claim read back from a token of its own.

mod ear;

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use protocols::rcar::Jwk;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Value, json};
use verifier::Verdict;
use zeroize::Zeroizing;

use crate::challenge::SessionId;
use crate::clock;

pub(crate) use ear::PROFILE;
use ear::{Issued, Submods, Verifier};

/// Where the keys that verify tokens are (RFC 7517 section 5).
pub const JWKS_PATH: &str = "/kbs/v0/jwks";

/// Longest token that is looked at, in bytes.
pub(crate) const MAX_BYTES: usize = 32 * 1024;

/// `aud` (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    pub(crate) fn names(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

/// An SPKI of P-256 (RFC 5480) is this and the point.
pub(crate) const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Why a token or its key can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The key file isn't one.
    #[error("token.key is not a P-256 key; restore it, or remove it to have a new one made")]
    Key,
    /// Signing failed.
    #[error("the token can't be signed")]
    Sign,
    /// Not one of ours: another form, header, key or changed bytes.
    #[error("the token was not issued by this broker")]
    Foreign,
    /// Too old.
    #[error("the token has expired; start again with /kbs/v0/auth")]
    Expired,
    /// From the future.
    #[error("the token is not valid yet; one of the clocks is wrong")]
    Early,
    /// For others.
    #[error("the token is not for this broker")]
    Audience,
}

/// What a token says, in one place.
#[derive(Debug)]
pub struct Claims<'a> {
    /// The TEE's name in the protocol.
    pub tee: &'static str,
    /// The verdict on the evidence.
    pub verdict: &'a Verdict,
    /// What the report is bound to.
    pub report_data: &'a [u8],
    /// The session's nonce.
    pub nonce: &'a str,
    /// The guest's key.
    pub tee_pubkey: &'a Jwk,
    /// SHA-256 of the initdata, if there is any.
    pub init_data: Option<&'a [u8]>,
    /// What a sealed pod's initdata names.
    pub init_data_claims: Value,
}

/// Who issues tokens, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `iss`: this broker.
    pub issuer: String,
    /// `aud` beside this broker itself: others that may take them.
    pub audiences: Vec<String>,
}

/// The key that signs tokens.
pub struct TokenKey {
    key: EcdsaKeyPair,
    kid: String,
    header: String,
    issuer: String,
    audience: Vec<String>,
    random: SystemRandom,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

impl TokenKey {
    /// Makes a key: base64 of PKCS#8.
    ///
    /// # Errors
    /// [`TokenError::Key`] if the system gave no randomness.
    pub fn generate() -> Result<Zeroizing<String>, TokenError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| TokenError::Key)?;
        Ok(Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(document.as_ref()) + "\n"))
    }

    /// Reads what [`TokenKey::generate`] made.
    ///
    /// # Errors
    /// [`TokenError::Key`].
    pub fn parse(text: &str, names: Names) -> Result<Self, TokenError> {
        let pkcs8 =
            Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(text.trim_end()).map_err(|_| TokenError::Key)?);
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random)
            .map_err(|_| TokenError::Key)?;
        let (x, y) = point(key.public_key().as_ref())?;
        let kid = thumbprint("P-256", &x, &y);
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": kid }).to_string();
        let header = BASE64_URL_SAFE_NO_PAD.encode(header);
        let Names { issuer, mut audiences } = names;
        audiences.insert(0, issuer.clone());
        Ok(Self { key, kid, header, issuer, audience: audiences, random })
    }

    /// Who this broker is in tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key as a JWK set.
    ///
    /// # Errors
    /// [`TokenError::Key`].
    pub fn jwks(&self) -> Result<Value, TokenError> {
        let (x, y) = point(self.key.public_key().as_ref())?;
        Ok(json!({ "keys": [{
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid, "use": "sig", "alg": "ES256",
        }] }))
    }

    /// Issues a token for the session that `id` stands for.
    ///
    /// # Errors
    /// [`TokenError::Sign`].
    pub fn issue(
        &self,
        id: SessionId,
        claims: &Claims<'_>,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<String, TokenError> {
        let now_seconds = clock::unix(now);
        let payload = Issued {
            aud: &self.audience,
            eat_profile: PROFILE,
            verifier: Verifier::THIS,
            exp: clock::unix(now + lifetime),
            iat: now_seconds,
            iss: &self.issuer,
            jti: id.reveal(),
            nbf: now_seconds,
            submods: Submods::of(claims),
        };
        let payload = serde_json::to_vec(&payload).map_err(|_| TokenError::Sign)?;
        let mut token = String::with_capacity(self.header.len() + payload.len() / 3 * 4 + 100);
        token.push_str(&self.header);
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(&payload, &mut token);
        let signature = self.key.sign(&self.random, token.as_bytes()).map_err(|_| TokenError::Sign)?;
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Whether a token has this broker's header, or none at all: else it may be a passport.
    #[must_use]
    pub fn may_be_ours(&self, token: &str) -> bool {
        token.split_once('.').is_none_or(|(header, _)| header == self.header)
    }

    /// The session that a token of ours stands for.
    ///
    /// The header has to be byte for byte the one that we write: there is no algorithm and no key for a
    /// token to choose.
    ///
    /// # Errors
    /// [`TokenError::Foreign`] or [`TokenError::Expired`].
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<SessionId, TokenError> {
        #[derive(Deserialize)]
        struct Payload {
            aud: Vec<String>,
            exp: u64,
            iss: String,
            jti: String,
            nbf: u64,
        }
        if token.len() > MAX_BYTES {
            return Err(TokenError::Foreign);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Foreign)?;
        if header != self.header {
            return Err(TokenError::Foreign);
        }
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Foreign);
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| TokenError::Foreign)?;
        let payload: Payload = serde_json::from_slice(&decode(payload)?).map_err(|_| TokenError::Foreign)?;
        if payload.iss != self.issuer {
            return Err(TokenError::Foreign);
        }
        if !payload.aud.contains(&self.issuer) {
            return Err(TokenError::Audience);
        }
        let now = clock::unix(now);
        if payload.exp <= now {
            return Err(TokenError::Expired);
        }
        if payload.nbf > now {
            return Err(TokenError::Early);
        }
        SessionId::parse(&payload.jti).ok_or(TokenError::Foreign)
    }
}

/// RFC 7638 thumbprint of an EC key, base64url.
#[must_use]
pub fn thumbprint(crv: &str, x: &str, y: &str) -> String {
    let members = json!({ "crv": crv, "kty": "EC", "x": x, "y": y });
    // serde_json's map is ordered, and base64url needs no escapes: this is the canonical form.
    let digest = ring::digest::digest(&ring::digest::SHA256, members.to_string().as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(digest)
}

fn point(uncompressed: &[u8]) -> Result<(String, String), TokenError> {
    match uncompressed.strip_prefix(&[4]).and_then(|xy| xy.split_at_checked(32)) {
        Some((x, y)) => Ok((BASE64_URL_SAFE_NO_PAD.encode(x), BASE64_URL_SAFE_NO_PAD.encode(y))),
        None => Err(TokenError::Key),
    }
}

#[cfg(test)]
mod tests;
