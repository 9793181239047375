//! What owners sign: registrations, resources, policies and retirements, as compact JWS (RFC 7515) with EdDSA.
//! Header and payload are canonical JSON, so one statement has one form and every other is refused.

mod blob;
mod policy;
mod statement;

use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::canonical::{self, CanonicalError};
use crate::name::{self, NameError};
use crate::rcar::UriError;
pub use crate::signing::{KeyError, PublicKey as OwnerPublicKey, SigningKey as OwnerKey};
pub use blob::{BlobDenial, PefBlob};
pub use policy::{
    ApiVersion, LaunchDigest, MinimumTcb, PefPolicy, PolicyError, PolicyTee, ReleasePolicy, ReleaseWindow,
    Releases, SevPolicy, SevProduct, SevSecret, SnpPolicy, SnpProduct,
};
pub use statement::{IMAGE_KEY_KIND, KEY_KIND, PolicyStatement, Registration, Resource, Retirement};

/// Longest signed statement, in bytes of its compact form.
pub const MAX_STATEMENT: usize = 256 * 1024;

/// Something that an owner signs.
pub trait Statement: Serialize + DeserializeOwned {
    /// The header's `typ`.
    const TYPE: &str;

    /// The repository it speaks for; the header's `kid`.
    fn repository(&self) -> &str;

    /// Checks every value that the types leave open.
    fn validate(&self) -> Result<(), StatementError>;
}

/// Why a statement is refused.
#[derive(Debug, Error)]
pub enum StatementError {
    /// Longer than [`MAX_STATEMENT`].
    #[error("statement is longer than {MAX_STATEMENT} bytes")]
    TooLong,
    /// Not three parts of canonical base64url.
    #[error("statement is not a compact JWS: three parts of base64url without padding")]
    Form,
    /// The header is not exactly the one for this kind and repository.
    #[error("statement's header is not the canonical one of a {0} for its repository")]
    Header(&'static str),
    /// The payload doesn't have the fields.
    #[error("statement's payload is not a {0}")]
    Payload(&'static str, #[source] serde_json::Error),
    /// The payload is not in canonical form.
    #[error("statement's payload is not canonical JSON")]
    NotCanonical,
    /// A number that has no canonical form.
    #[error("statement can't be written canonically")]
    Canonical(#[source] CanonicalError),
    /// The signature doesn't verify with the owner's key.
    #[error("statement is not signed by the key of repository '{0}'")]
    Signature(String),
    /// A name or digest breaks its rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The key's address is malformed.
    #[error("key_id")]
    KeyId(#[source] UriError),
    /// The key's address is not below the owner's repository, or not of the lineage and revision.
    #[error("key_id '{key_id}' is not 'kbs:///{expected}' and eight hex digits")]
    KeyPlace {
        /// The address found.
        key_id: String,
        /// What it has to start with.
        expected: String,
    },
    /// A value out of its range.
    #[error("{field} {problem}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A statement whose signature was checked. Only [`OwnerPublicKey::verify`] makes one.
#[derive(Clone, Debug)]
pub struct Verified<S> {
    statement: S,
    jws: String,
}

impl<S> Verified<S> {
    /// The compact form that was verified; what the broker keeps as proof.
    pub fn jws(&self) -> &str {
        &self.jws
    }

    /// The statement alone.
    pub fn into_inner(self) -> S {
        self.statement
    }
}

impl<S> Deref for Verified<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.statement
    }
}

/// Member order is alphabetical, as canonical JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

fn header<S: Statement>(repository: &str) -> Result<String, StatementError> {
    let header = Header { alg: "EdDSA", kid: repository, typ: S::TYPE };
    let text = canonical::to_string(&header).map_err(StatementError::Canonical)?;
    Ok(URL_SAFE_NO_PAD.encode(text))
}

impl OwnerKey {
    /// Signs a valid statement; its compact form.
    pub fn sign_statement<S: Statement>(&self, statement: &S) -> Result<String, StatementError> {
        statement.validate()?;
        let payload = canonical::to_string(statement).map_err(StatementError::Canonical)?;
        let input = format!("{}.{}", header::<S>(statement.repository())?, URL_SAFE_NO_PAD.encode(payload));
        let signature = self.sign(input.as_bytes());
        let jws = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
        if jws.len() > MAX_STATEMENT { Err(StatementError::TooLong) } else { Ok(jws) }
    }
}

impl OwnerPublicKey {
    /// Verifies a compact form: signature first, then form, then values.
    pub fn verify<S: Statement>(&self, jws: &str) -> Result<Verified<S>, StatementError> {
        let (repository, parts) = split(jws)?;
        let signature = URL_SAFE_NO_PAD.decode(parts.signature).map_err(|_| StatementError::Form)?;
        let signature: [u8; 64] = signature.try_into().map_err(|_| StatementError::Form)?;
        if !self.verifies(parts.input.as_bytes(), &signature) {
            return Err(StatementError::Signature(repository));
        }
        if header::<S>(&repository)? != parts.header {
            return Err(StatementError::Header(S::TYPE));
        }
        let payload = URL_SAFE_NO_PAD.decode(parts.payload).map_err(|_| StatementError::Form)?;
        let statement: S =
            serde_json::from_slice(&payload).map_err(|error| StatementError::Payload(S::TYPE, error))?;
        let again = canonical::to_string(&statement).map_err(StatementError::Canonical)?;
        if again.as_bytes() != payload {
            return Err(StatementError::NotCanonical);
        }
        if statement.repository() != repository {
            return Err(StatementError::Header(S::TYPE));
        }
        statement.validate()?;
        Ok(Verified { statement, jws: jws.to_owned() })
    }
}

/// The repository that a statement claims to speak for: tells whose key to verify it with, nothing more.
pub fn claimed_repository(jws: &str) -> Result<String, StatementError> {
    split(jws).map(|(repository, _)| repository)
}

struct Parts<'a> {
    /// Header and payload with their dot: what is signed.
    input: &'a str,
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

fn split(jws: &str) -> Result<(String, Parts<'_>), StatementError> {
    if jws.len() > MAX_STATEMENT {
        return Err(StatementError::TooLong);
    }
    let (input, signature) = jws.rsplit_once('.').ok_or(StatementError::Form)?;
    let (header, payload) = input.split_once('.').ok_or(StatementError::Form)?;
    let decoded = URL_SAFE_NO_PAD.decode(header).map_err(|_| StatementError::Form)?;
    let Header { kid, .. } = serde_json::from_slice(&decoded).map_err(|_| StatementError::Form)?;
    name::repository(kid)?;
    Ok((kid.to_owned(), Parts { input, header, payload, signature }))
}

#[cfg(test)]
mod tests;
