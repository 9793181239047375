//! Attestation tokens: JWTs (ES256) in the EAR shape that stock clients carry, naming what was appraised.
//!
//! At the broker itself a token is only another name for its session: what releases a key is the appraisal
//! kept there, never a claim read back from a token.

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
use zeroize::Zeroizing;

use crate::clock;
use crate::sessions::SessionId;

/// Longest token that is looked at, in bytes.
const MAX_BYTES: usize = 32 * 1024;

/// The EAR profile (draft-ietf-rats-ear).
const PROFILE: &str = "tag:github.com,2023:veraison/ear";

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
}

/// What a token says, in one place.
#[derive(Debug)]
pub struct Claims<'a> {
    /// The TEE's name in the protocol.
    pub tee: &'static str,
    /// Whether AMD's roots vouch for it.
    pub genuine: bool,
    /// The verdict on the evidence.
    pub verdict: Value,
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

/// The key that signs tokens.
pub struct TokenKey {
    key: EcdsaKeyPair,
    header: String,
    issuer: String,
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

    /// Reads what [`TokenKey::generate`] made. `issuer` is the name that tokens carry.
    ///
    /// # Errors
    /// [`TokenError::Key`].
    pub fn parse(text: &str, issuer: &str) -> Result<Self, TokenError> {
        let pkcs8 =
            Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(text.trim_end()).map_err(|_| TokenError::Key)?);
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random)
            .map_err(|_| TokenError::Key)?;
        // RFC 7638: SHA-256 over the required members in lexical order.
        let (x, y) = point(key.public_key().as_ref())?;
        let kid = thumbprint("P-256", &x, &y);
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": kid }).to_string();
        let header = BASE64_URL_SAFE_NO_PAD.encode(header);
        Ok(Self { key, header, issuer: issuer.to_owned(), random })
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
        let payload = json!({
            "eat_profile": PROFILE,
            "iss": self.issuer,
            "iat": clock::unix(now),
            "exp": clock::unix(now + lifetime),
            "jti": id.reveal(),
            "ear.verifier-id": {
                "developer": "sealpod",
                "build": concat!("sealpod-broker ", env!("CARGO_PKG_VERSION")),
            },
            "submods": { "cpu0": submodule(claims) },
        });
        let signed = format!("{}.{}", self.header, BASE64_URL_SAFE_NO_PAD.encode(payload.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).map_err(|_| TokenError::Sign)?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
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
            iss: String,
            exp: u64,
            jti: String,
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
        if payload.exp <= clock::unix(now) {
            return Err(TokenError::Expired);
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

/// The appraisal of the one attester there is. Only what was checked is claimed: which launch digests are
/// good is each lineage's release policy, so nothing is said about executables.
fn submodule(claims: &Claims<'_>) -> Value {
    // AR4SI (draft-ietf-rats-ar4si) section 2.3: 2 affirming, 0 no claim, 97 hardware not recognised.
    let (status, hardware, identity) =
        if claims.genuine { ("none", 2, 2) } else { ("contraindicated", 97, 97) };
    let mut evidence = json!({
        "report_data": hex::encode(claims.report_data),
        "runtime_data_claims": { "nonce": claims.nonce, "tee-pubkey": claims.tee_pubkey },
    });
    evidence[claims.tee] = claims.verdict.clone();
    if let Some(init_data) = claims.init_data {
        evidence["init_data"] = hex::encode(init_data).into();
        evidence["init_data_claims"] = claims.init_data_claims.clone();
    }
    json!({
        "ear.status": status,
        "ear.trustworthiness-vector": {
            "instance-identity": identity,
            "configuration": 0,
            "executables": 0,
            "file-system": 0,
            "hardware": hardware,
            "runtime-opaque": 0,
            "storage-opaque": 0,
            "sourced-data": 0,
        },
        "ear.appraisal-policy-id": "sealpod:authenticity",
        "ear.veraison.annotated-evidence": evidence,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const LIFETIME: Duration = Duration::from_secs(300);

    fn key(issuer: &str) -> TokenKey {
        TokenKey::parse(&TokenKey::generate().unwrap(), issuer).unwrap()
    }

    fn id() -> SessionId {
        SessionId::parse("00112233445566778899aabbccddeeff").unwrap()
    }

    fn jwk() -> Jwk {
        protocols::rcar::EphemeralKey::generate().unwrap().public_jwk()
    }

    fn token(key: &TokenKey, genuine: bool) -> String {
        let jwk = jwk();
        let claims = Claims {
            tee: "snp",
            genuine,
            verdict: json!({ "measurement": "ab" }),
            report_data: &[1, 2],
            nonce: "bm9uY2U=",
            tee_pubkey: &jwk,
            init_data: Some(&[3; 32]),
            init_data_claims: json!({ "sealed_spec": "sha256:00" }),
        };
        key.issue(id(), &claims, NOW, LIFETIME).unwrap()
    }

    fn payload(token: &str) -> Value {
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn our_token_names_its_session_until_it_expires() {
        let key = key("https://broker.example");
        let token = token(&key, true);
        assert_eq!(key.verify(&token, NOW + LIFETIME - Duration::from_secs(1)), Ok(id()));
        assert_eq!(key.verify(&token, NOW + LIFETIME), Err(TokenError::Expired));
    }

    #[test]
    fn emulated_evidence_is_contraindicated() {
        let key = key("i");
        let genuine = payload(&token(&key, true))["submods"]["cpu0"].clone();
        assert_eq!(genuine["ear.status"], "none");
        assert_eq!(genuine["ear.veraison.annotated-evidence"]["snp"]["measurement"], "ab");
        assert_eq!(genuine["ear.veraison.annotated-evidence"]["init_data"], "03".repeat(32));
        let emulated = payload(&token(&key, false))["submods"]["cpu0"].clone();
        assert_eq!(emulated["ear.status"], "contraindicated");
        assert_eq!(emulated["ear.trustworthiness-vector"]["hardware"], 97);
    }

    #[test]
    fn another_brokers_token_is_refused() {
        let token = token(&key("i"), true);
        assert_eq!(key("i").verify(&token, NOW), Err(TokenError::Foreign));
    }

    #[test]
    fn another_issuer_is_refused() {
        let text = TokenKey::generate().unwrap();
        let token = token(&TokenKey::parse(&text, "a").unwrap(), true);
        assert_eq!(TokenKey::parse(&text, "b").unwrap().verify(&token, NOW), Err(TokenError::Foreign));
    }

    #[test]
    fn a_header_that_chooses_is_refused() {
        let key = key("i");
        let token = token(&key, true);
        let rest = token.split_once('.').unwrap().1;
        for header in [
            json!({ "alg": "none", "typ": "JWT" }),
            json!({ "alg": "HS256", "typ": "JWT" }),
            json!({ "alg": "ES256", "typ": "JWT", "jwk": jwk() }),
            json!({ "typ": "JWT", "alg": "ES256" }),
        ] {
            let forged = format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(header.to_string()));
            assert_eq!(key.verify(&forged, NOW), Err(TokenError::Foreign), "{header}");
        }
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert_eq!(key.verify(&format!("{signed}."), NOW), Err(TokenError::Foreign));
    }

    #[test]
    fn a_changed_payload_is_refused() {
        let key = key("i");
        let token = token(&key, true);
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let mut changed = payload(&token);
        changed["exp"] = json!(u64::MAX);
        parts[1] = BASE64_URL_SAFE_NO_PAD.encode(changed.to_string());
        assert_eq!(key.verify(&parts.join("."), NOW), Err(TokenError::Foreign));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let key = key("i");
        for text in ["", ".", "..", "a.b.c", &"a".repeat(MAX_BYTES + 1)] {
            assert_eq!(key.verify(text, NOW), Err(TokenError::Foreign));
        }
    }
}
