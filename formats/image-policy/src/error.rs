//! What is wrong with a policy, and why an image is refused.

use thiserror::Error;

use crate::reference::ReferenceError;

/// Why a policy file can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Larger than [`crate::MAX_POLICY`].
    #[error("image policy: it is larger than {} KiB", crate::MAX_POLICY / 1024)]
    TooLarge,
    /// Not JSON, or JSON with a key that is there twice.
    #[error("image policy: {0}")]
    Json(String),
    /// A member that containers-policy.json(5) doesn't have there.
    #[error("image policy: {at}: {key:?} is unknown here; see containers-policy.json(5)")]
    UnknownKey {
        /// Where.
        at: String,
        /// The member.
        key: String,
    },
    /// A member that has to be there.
    #[error("image policy: {at}: {key:?} is missing")]
    Missing {
        /// Where.
        at: String,
        /// The member.
        key: &'static str,
    },
    /// A value of the wrong type or form.
    #[error("image policy: {at}: {problem}")]
    Value {
        /// Where.
        at: String,
        /// What is wrong, and what it should be.
        problem: String,
    },
    /// A requirement, key type or identity type that nobody defined.
    #[error("image policy: {at}: type {name:?} is unknown; known are {known}")]
    UnknownType {
        /// Where.
        at: String,
        /// The type.
        name: String,
        /// Those that are known.
        known: &'static str,
    },
    /// Something that the format has and this program doesn't.
    #[error("image policy: {at}: {what} isn't supported; {next}")]
    Unsupported {
        /// Where.
        at: String,
        /// The thing.
        what: String,
        /// What to do instead.
        next: &'static str,
    },
    /// A key that can't be read.
    #[error("image policy: {at}: {problem}")]
    Key {
        /// Where.
        at: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A key file that can't be read when it is to be inlined.
    #[error("image policy: {at}: key file {path:?}: {reason}")]
    KeyFile {
        /// Where.
        at: String,
        /// The file, as the policy names it.
        path: String,
        /// What its reader said.
        reason: String,
    },
}

/// Why one signature doesn't count.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// Not of the form that its kind has.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Well formed, but of a kind that isn't accepted.
    #[error("{what} isn't accepted; {next}")]
    Unsupported {
        /// The thing.
        what: String,
        /// What to do instead.
        next: &'static str,
    },
    /// No key of the policy made it.
    #[error("no key of the policy made it{}", named(.issuer))]
    OtherKey {
        /// Key id that the signature names, if any: a hint, not verified.
        issuer: Option<String>,
    },
    /// The key that made it may not be used (any more).
    #[error("key {key} {reason}")]
    KeyUnusable {
        /// Its key id.
        key: String,
        /// Why.
        reason: String,
    },
    /// The key fits and the arithmetic does not: changed after signing.
    #[error("it doesn't verify with the policy's key: the payload or the signature was changed")]
    Tampered,
    /// It ended.
    #[error("it expired")]
    Expired,
    /// It begins in the future.
    #[error("it was made in the future; check the signer's clock")]
    Future,
    /// The signed JSON isn't a signature payload.
    #[error("signed payload: {0}")]
    Payload(String),
    /// It vouches for another image.
    #[error("it is for the image {signed}")]
    OtherDigest {
        /// Digest in the signed payload.
        signed: String,
    },
    /// It vouches for another name.
    #[error("it is for the name {signed:?}, which the policy doesn't accept{hint}")]
    OtherReference {
        /// Reference in the signed payload.
        signed: String,
        /// What may have been meant.
        hint: &'static str,
    },
}

fn named(id: &Option<String>) -> String {
    id.as_ref().map(|id| format!("; it names key {id}")).unwrap_or_default()
}

/// Why an image may not run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The policy has `reject` for it.
    #[error("image {0}: the policy rejects it")]
    Rejected(String),
    /// The image has no signature of the kind that the policy asks for.
    #[error(
        "image {reference}: the policy asks for a {kind} signature and the registry has none ({others} of another kind)"
    )]
    Unsigned {
        /// The image.
        reference: String,
        /// Kind of signature.
        kind: &'static str,
        /// How many of another kind there are.
        others: usize,
    },
    /// No signature is good enough.
    #[error("image {reference}: no {kind} signature is accepted: {}", join(.reasons))]
    NoneAccepted {
        /// The image.
        reference: String,
        /// Kind of signature.
        kind: &'static str,
        /// One reason a signature.
        reasons: Vec<SignatureError>,
    },
    /// More signatures than anybody needs.
    #[error("image {reference}: {count} signatures, at most {} are looked at", crate::MAX_SIGNATURES)]
    TooMany {
        /// The image.
        reference: String,
        /// How many.
        count: usize,
    },
    /// The manifest's digest isn't one.
    #[error("manifest digest {0:?} is not sha256:<64 lower-case hex digits>")]
    Digest(String),
    /// The policy names a key file; a guest has none.
    #[error(
        "image {0}: the policy names key files, which have to be inlined before it is used; seal the pod again"
    )]
    KeyFiles(String),
    /// The reference isn't one.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

fn join(reasons: &[SignatureError]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
