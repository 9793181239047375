//! The passport model: a token in which another broker, that this one's operator trusts, says what it
//! appraised. It stands for evidence, under the same policies, for the key that it names.
//!
//! Who shows a token need not be the guest that it is about: what is released is wrapped to the key that the
//! token names, so it is of use to that guest alone.

mod keys;

use std::path::PathBuf;
use std::time::SystemTime;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use protocols::rcar::Jwk;
use protocols::refusal::Code;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use verifier::{TeeKind, passport};

use crate::appraise::{Attested, Named};
use crate::clock;
use crate::config;
use crate::refused::Refused;
use crate::token::{Audience, MAX_BYTES, PROFILE};

use keys::Key;

/// Longest life of a token that is taken, and how far the other broker's clock may be ahead; in seconds.
const LONGEST: u64 = 24 * 3600;
const SKEW: u64 = 60;

/// Why an issuer's keys can't be used.
#[derive(Debug, thiserror::Error)]
#[error("trust.passport keys {path}: {problem}")]
pub struct PassportError {
    path: PathBuf,
    problem: String,
}

/// The issuers that are trusted.
#[derive(Default)]
pub(crate) struct Passports(Vec<Issuer>);

struct Issuer {
    name: String,
    audience: String,
    tee: Vec<TeeKind>,
    keys: Vec<Key>,
}

impl Passports {
    /// Reads every issuer's keys.
    ///
    /// # Errors
    /// [`PassportError`].
    pub(crate) fn load(issuers: &[config::Passport]) -> Result<Self, PassportError> {
        let load = |issuer: &config::Passport| {
            let keys = keys::load(&issuer.keys)
                .map_err(|problem| PassportError { path: issuer.keys.clone(), problem })?;
            let tee = issuer.tee.iter().filter_map(|kind| TeeKind::from_name(kind)).collect();
            Ok(Issuer { name: issuer.issuer.clone(), audience: issuer.audience.clone(), tee, keys })
        };
        issuers.iter().map(load).collect::<Result<_, _>>().map(Self)
    }

    /// In words, for the log.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|issuer| format!("passports of {}", issuer.name))
    }

    /// Takes a token for the evidence that its issuer appraised.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(crate) fn admit(&self, token: &str, now: SystemTime) -> Result<Attested, Refused> {
        if token.len() > MAX_BYTES {
            return Err(foreign("it is too long"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(|| foreign("it is no JWT"))?;
        let (header, payload) = signed.split_once('.').ok_or_else(|| foreign("it is no JWT"))?;
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| foreign("its header has other members"))?;
        if header.alg != "ES256" || header.typ.as_deref().is_some_and(|typ| typ != "JWT") {
            return Err(foreign("it is not an ES256 JWT"));
        }
        let payload = decode(payload)?;
        let Claimed { iss } = serde_json::from_slice(&payload).map_err(|_| foreign("it names no issuer"))?;
        // Names and key ids only find a key; the signature decides.
        let issuer = self.0.iter().find(|issuer| issuer.name == iss);
        let issuer = issuer.ok_or_else(|| foreign("its issuer is not trusted"))?;
        let key = issuer.keys.iter().find(|key| key.kid == header.kid);
        let key = key.ok_or_else(|| foreign("its key is not the issuer's"))?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| foreign("its signature is wrong"))?;
        let payload: Payload<'_> = serde_json::from_slice(&payload)
            .map_err(|error| foreign(&format!("its claims are not those of a passport: {error}")))?;
        issuer.admit(&payload, clock::unix(now))
    }
}

impl Issuer {
    fn admit(&self, payload: &Payload<'_>, now: u64) -> Result<Attested, Refused> {
        if !payload.aud.names(&self.audience) {
            return Err(foreign("it is for another audience"));
        }
        if payload.exp <= now {
            return Err(Refused::new(
                Code::Session,
                "the passport has expired; get a new one from its issuer",
            ));
        }
        let begins = payload.nbf.unwrap_or(payload.iat).max(payload.iat);
        if begins > now + SKEW {
            return Err(foreign("it is not valid yet"));
        }
        if payload.exp > payload.iat.saturating_add(LONGEST) {
            return Err(foreign("it lives longer than a day"));
        }
        if payload.eat_profile != PROFILE {
            return Err(foreign("it is no attestation result (eat_profile)"));
        }
        let Submodule { status, vector, evidence } = &payload.submods.cpu0;
        let contraindicated = status.is_contraindicated() || vector.values().any(Integer::is_contraindicated);
        let vouched = passport::appraise(evidence.verdict()?.get(), &self.name)?;
        let tee = vouched.verdict().tee;
        if !self.tee.contains(&tee) {
            return Err(Refused::new(
                Code::TeeKind,
                format!("passports of {} are not taken for evidence of kind '{}'", self.name, tee.name()),
            ));
        }
        // Emulation is the one thing that a status may be bad for, and then the kind has to say it.
        if contraindicated && !tee.is_emulated() {
            return Err(Refused::new(Code::TeeKind, "the passport's issuer contraindicates the evidence"));
        }
        let key = evidence.runtime_data_claims.tee_pubkey.clone();
        key.validate().map_err(|error| foreign(&error.to_string()))?;
        let digest = hex::encode(vouched.verdict().init_data);
        if evidence.init_data.as_ref().is_some_and(|claimed| *claimed != digest) {
            return Err(foreign("its initdata is not the one that its evidence names"));
        }
        let sealed = match &evidence.init_data_claims {
            Some(InitDataClaims { sealed_spec, key_id }) => match (sealed_spec.parse(), key_id.parse()) {
                (Ok(sealed_spec), Ok(key_id)) => Ok(Named { sealed_spec, key_id }),
                _ => Err("the passport names no sealed spec".to_owned()),
            },
            None => Err("the passport vouches for no initdata".to_owned()),
        };
        Ok(Attested::by_passport(vouched, key, sealed))
    }
}

/// Reads a token, and a payload as if its issuer had signed it. For fuzzing: true if it would be admitted.
#[doc(hidden)]
#[must_use]
pub fn read_passport(text: &str) -> bool {
    let tee = vec![TeeKind::Snp, TeeKind::SnpEmulated];
    let issuer = Issuer { name: "a".into(), audience: "b".into(), tee, keys: Vec::new() };
    let payload = serde_json::from_str::<Payload<'_>>(text);
    let admitted = payload.is_ok_and(|payload| issuer.admit(&payload, 0).is_ok());
    admitted || Passports(vec![issuer]).admit(text, SystemTime::UNIX_EPOCH).is_ok()
}

/// No member may choose anything: `jwk`, `jku`, `x5c`, `crit` and all others are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: Option<String>,
}

#[derive(Deserialize)]
struct Claimed {
    iss: String,
}

#[derive(Deserialize)]
struct Payload<'a> {
    aud: Audience,
    eat_profile: String,
    exp: u64,
    iat: u64,
    nbf: Option<u64>,
    #[serde(borrow)]
    submods: Submods<'a>,
}

/// One attester: with several, what one of them says would count for the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submods<'a> {
    #[serde(borrow)]
    cpu0: Submodule<'a>,
}

#[derive(Deserialize)]
struct Submodule<'a> {
    #[serde(rename = "ear.status")]
    status: Status,
    #[serde(rename = "ear.trustworthiness-vector")]
    vector: std::collections::BTreeMap<String, Integer>,
    #[serde(rename = "ear.veraison.annotated-evidence", borrow)]
    evidence: Annotated<'a>,
}

/// AR4SI section 2.3: a trustworthiness claim is a signed byte. Whatever isn't is refused, never cut off.
#[derive(Deserialize)]
struct Integer(i8);

impl Integer {
    fn is_contraindicated(&self) -> bool {
        !(-96..96).contains(&self.0)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Status {
    Number(Integer),
    Name(StatusName),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StatusName {
    None,
    Affirming,
    Warning,
    Contraindicated,
}

impl Status {
    fn is_contraindicated(&self) -> bool {
        match self {
            Self::Number(number) => number.is_contraindicated(),
            Self::Name(name) => matches!(name, StatusName::Contraindicated),
        }
    }
}

#[derive(Deserialize)]
struct Annotated<'a> {
    /// The verdict on SNP evidence. Other kinds' verdicts rest on what only their broker knows.
    #[serde(borrow)]
    snp: Option<&'a RawValue>,
    init_data: Option<String>,
    init_data_claims: Option<InitDataClaims>,
    runtime_data_claims: RuntimeData,
}

impl<'a> Annotated<'a> {
    fn verdict(&self) -> Result<&'a RawValue, Refused> {
        self.snp
            .ok_or_else(|| foreign("it vouches for no SNP report, and passports of other kinds aren't taken"))
    }
}

#[derive(Deserialize)]
struct InitDataClaims {
    sealed_spec: String,
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RuntimeData {
    tee_pubkey: Jwk,
}

fn foreign(problem: &str) -> Refused {
    Refused::new(Code::Session, format!("the token is not taken: {problem}"))
}

fn decode(part: &str) -> Result<Vec<u8>, Refused> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| foreign("it is no JWT"))
}

#[cfg(test)]
mod tests;
