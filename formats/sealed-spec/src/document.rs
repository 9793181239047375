//! The sealed document: one JWE in compact form (RFC 7516), `dir` with `A256GCM`.
//!
//! There is exactly one text for a document: its digest is over that ASCII, so every other spelling
//! (white space, padding, other header order, unknown header fields, `zip`) is refused. The plaintext
//! is JSON followed by spaces up to the next KiB, so that its length tells little.

use std::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit, Nonce, Tag};
use aes_gcm::{Aes256Gcm, Key};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::key::SpecKey;
use crate::names::{KeyId, Lineage, SpecDigest, dns_subdomain};
use crate::spec::{SealedSpec, SpecError};

/// Longest sealed document: a ConfigMap holds 1 MiB, its other fields need a little of it.
pub const MAX_DOCUMENT: usize = (1024 - 16) * 1024;
/// Longest protected header, decoded.
const MAX_HEADER: usize = 4096;
/// Plaintexts are padded to multiples of this.
pub const PADDING_STEP: usize = 1024;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// What the caller decides about a document; the rest of the [`Header`] is fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderFields {
    /// Where the key will be; its lineage and revision become the document's.
    pub key_id: KeyId,
    /// Kubernetes namespace.
    pub namespace: String,
    /// The workload whose pods this is for.
    pub workload: Workload,
}

/// The workload that a document is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Which kind of object makes the pods.
    pub kind: WorkloadKind,
    /// Its name.
    pub name: String,
}

/// Kinds of objects that make pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// One pod of that very name.
    Pod,
    /// Pods with generated names.
    Deployment,
    /// Pods `<name>-<ordinal>`.
    StatefulSet,
    /// One generated pod a node.
    DaemonSet,
    /// Pods with generated names.
    ReplicaSet,
    /// Pods that run to completion.
    Job,
    /// Jobs by the clock.
    CronJob,
}

impl WorkloadKind {
    /// As in a manifest's `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Workload {
    /// Whether a pod of this workload can have that name. Pods' names are generated (and come from
    /// the host), except a Pod's own and a StatefulSet's, which end in the ordinal.
    pub fn admits_pod_name(&self, pod: &str) -> bool {
        let rest = pod.strip_prefix(&self.name);
        match self.kind {
            WorkloadKind::Pod => pod == self.name,
            WorkloadKind::StatefulSet => {
                rest.and_then(|rest| rest.strip_prefix('-')).is_some_and(|ordinal| {
                    ordinal.parse::<u32>().is_ok_and(|number| number.to_string() == ordinal)
                })
            }
            _ => rest.is_some_and(|rest| rest.starts_with('-') && rest.len() > 1) && dns_subdomain(pod),
        }
    }
}

/// The protected header, all of it authenticated. Field order is the canonical order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    alg: Alg,
    enc: Enc,
    typ: Typ,
    kid: KeyId,
    namespace: String,
    workload: Workload,
    lineage: Lineage,
    revision: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Alg {
    #[serde(rename = "dir")]
    Dir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Enc {
    #[serde(rename = "A256GCM")]
    A256Gcm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Typ {
    #[serde(rename = "sealpod-spec+json")]
    Spec,
}

impl Header {
    /// Where the key is.
    pub fn key_id(&self) -> &KeyId {
        &self.kid
    }

    /// Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The workload whose pods this is for.
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The line of revisions.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// The revision, from 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn check(&self) -> Result<(), DocumentError> {
        if self.kid.lineage() != &self.lineage || self.kid.revision() != self.revision {
            return Err(DocumentError::HeaderKeyId);
        }
        if !crate::names::dns_label(&self.namespace) {
            return Err(DocumentError::HeaderName("namespace"));
        }
        if !dns_subdomain(&self.workload.name) {
            return Err(DocumentError::HeaderName("workload name"));
        }
        Ok(())
    }
}

/// A sealed document in its only spelling.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedDocument {
    text: String,
    header: Header,
}

/// Why a text is not a sealed document, or could not be made or opened.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// Longer than a ConfigMap can carry.
    #[error("sealed document: {0} bytes, at most {MAX_DOCUMENT} fit into a ConfigMap; make the pod smaller")]
    TooLong(usize),
    /// A byte that no document has, with its offset.
    #[error(
        "sealed document: byte {0} is not base64url or a dot: it was changed on the way (white space and line ends count)"
    )]
    Character(usize),
    /// Not five parts, or the second isn't empty.
    #[error("sealed document: not a JWE of five parts with an empty key part")]
    Shape,
    /// Not the canonical base64url of anything.
    #[error("sealed document: the {0} is not canonical base64url")]
    Base64(&'static str),
    /// A part has the wrong length.
    #[error("sealed document: the {0} has a wrong length")]
    Length(&'static str),
    /// The header is not one of ours: `alg`, `enc`, `typ`, an unknown field, a bad name.
    #[error("sealed document: header: {0}")]
    Header(String),
    /// The header's JSON is not in its canonical spelling.
    #[error("sealed document: header: not in its canonical spelling")]
    HeaderSpelling,
    /// `kid` names another lineage or revision.
    #[error("sealed document: header: kid, lineage and revision contradict each other")]
    HeaderKeyId,
    /// A name in the header is not one.
    #[error("sealed document: header: {0} is not a Kubernetes name")]
    HeaderName(&'static str),
    /// The key does not open it.
    #[error("sealed document: the key does not open it: another document's key, or the document was changed")]
    WrongKey,
    /// The plaintext's padding is not spaces to the next step.
    #[error("sealed document: the plaintext is not padded as the format says")]
    Padding,
    /// The plaintext is not a valid specification.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The system's random number generator failed.
    #[error("sealed document: no random numbers from the system: {0}")]
    Random(getrandom::Error),
    /// The cipher refused; happens for impossible sizes only.
    #[error("sealed document: encryption failed")]
    Encryption,
}

/// Seals `spec` under `key`, which must be fresh: one key, one document.
pub fn seal(
    spec: &SealedSpec,
    fields: &HeaderFields,
    key: &SpecKey,
) -> Result<SealedDocument, DocumentError> {
    let mut nonce = [0u8; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(DocumentError::Random)?;
    seal_with_nonce(spec, fields, key, nonce)
}

/// Opens a document given as text: [`SealedDocument::parse`], then [`SealedDocument::open`].
pub fn open(text: &str, key: &SpecKey) -> Result<SealedSpec, DocumentError> {
    SealedDocument::parse(text)?.open(key)
}

fn seal_with_nonce(
    spec: &SealedSpec,
    fields: &HeaderFields,
    key: &SpecKey,
    nonce: [u8; NONCE_LEN],
) -> Result<SealedDocument, DocumentError> {
    spec.validate()?;
    let header = Header {
        alg: Alg::Dir,
        enc: Enc::A256Gcm,
        typ: Typ::Spec,
        lineage: fields.key_id.lineage().clone(),
        revision: fields.key_id.revision(),
        kid: fields.key_id.clone(),
        namespace: fields.namespace.clone(),
        workload: fields.workload.clone(),
    };
    header.check()?;
    let plaintext = serde_json::to_vec(spec).map(Zeroizing::new).map_err(|_| DocumentError::Encryption)?;
    seal_bytes(&plaintext, header, key, nonce)
}

fn seal_bytes(
    json: &[u8],
    header: Header,
    key: &SpecKey,
    nonce: [u8; NONCE_LEN],
) -> Result<SealedDocument, DocumentError> {
    let padded = json.len().next_multiple_of(PADDING_STEP);
    // One allocation: growing would leave copies of the plaintext behind.
    let mut body = Zeroizing::new(Vec::with_capacity(padded));
    body.extend_from_slice(json);
    body.resize(padded, b' ');
    let protected = URL_SAFE_NO_PAD.encode(canonical(&header)?);
    let tag = cipher(key)
        .encrypt_inout_detached(
            &Nonce::<Aes256Gcm>::from(nonce),
            protected.as_bytes(),
            body.as_mut_slice().into(),
        )
        .map_err(|_| DocumentError::Encryption)?;
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let text = format!("{protected}..{}.{}.{}", part(&nonce), part(&body), part(&tag));
    if text.len() > MAX_DOCUMENT {
        return Err(DocumentError::TooLong(text.len()));
    }
    Ok(SealedDocument { text, header })
}

impl SealedDocument {
    /// Accepts the one canonical spelling only. Nothing is decrypted yet: the header is what the
    /// document *claims* until [`Self::open`] succeeds or its digest is the expected one.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        if text.len() > MAX_DOCUMENT {
            return Err(DocumentError::TooLong(text.len()));
        }
        let foreign = |b: u8| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if let Some(offset) = text.bytes().position(foreign) {
            return Err(DocumentError::Character(offset));
        }
        let parts = Parts::split(text)?;
        let header = decode("header", parts.protected)?;
        if header.len() > MAX_HEADER {
            return Err(DocumentError::Length("header"));
        }
        let parsed: Header =
            serde_json::from_slice(&header).map_err(|error| DocumentError::Header(error.to_string()))?;
        if canonical(&parsed)? != header {
            return Err(DocumentError::HeaderSpelling);
        }
        parsed.check()?;
        if decode("nonce", parts.nonce)?.len() != NONCE_LEN {
            return Err(DocumentError::Length("nonce"));
        }
        if decode("tag", parts.tag)?.len() != TAG_LEN {
            return Err(DocumentError::Length("tag"));
        }
        let body = decode("ciphertext", parts.body)?.len();
        if body == 0 || body % PADDING_STEP != 0 {
            return Err(DocumentError::Length("ciphertext"));
        }
        Ok(Self { text: text.to_owned(), header: parsed })
    }

    /// The document itself, ASCII without line end.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// SHA-256 over the canonical ASCII: what initdata and registration name.
    pub fn digest(&self) -> SpecDigest {
        SpecDigest::of(self.text.as_bytes())
    }

    /// The protected header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Decrypts and checks everything.
    pub fn open(&self, key: &SpecKey) -> Result<SealedSpec, DocumentError> {
        let parts = Parts::split(&self.text)?;
        let nonce = decode("nonce", parts.nonce)?;
        let tag = decode("tag", parts.tag)?;
        let nonce =
            Nonce::<Aes256Gcm>::try_from(nonce.as_slice()).map_err(|_| DocumentError::Length("nonce"))?;
        let tag = Tag::<Aes256Gcm>::try_from(tag.as_slice()).map_err(|_| DocumentError::Length("tag"))?;
        let mut body = Zeroizing::new(decode("ciphertext", parts.body)?);
        cipher(key)
            .decrypt_inout_detached(&nonce, parts.protected.as_bytes(), body.as_mut_slice().into(), &tag)
            .map_err(|_| DocumentError::WrongKey)?;
        let end = body.iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1);
        if body.len() - end >= PADDING_STEP || end == 0 {
            return Err(DocumentError::Padding);
        }
        Ok(SealedSpec::from_json(&body[..end])?)
    }
}

impl fmt::Debug for SealedDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedDocument").field("digest", &self.digest()).finish_non_exhaustive()
    }
}

struct Parts<'a> {
    protected: &'a str,
    nonce: &'a str,
    body: &'a str,
    tag: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, DocumentError> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(DocumentError::Shape);
        let (protected, key, nonce, body, tag) = (next()?, next()?, next()?, next()?, next()?);
        if parts.next().is_some() || !key.is_empty() {
            return Err(DocumentError::Shape);
        }
        Ok(Self { protected, nonce, body, tag })
    }
}

/// The engine refuses padding and non-zero trailing bits, so each byte string has one text.
fn decode(what: &'static str, text: &str) -> Result<Vec<u8>, DocumentError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| DocumentError::Base64(what))
}

fn canonical(header: &Header) -> Result<Vec<u8>, DocumentError> {
    serde_json::to_vec(header).map_err(|error| DocumentError::Header(error.to_string()))
}

fn cipher(key: &SpecKey) -> Aes256Gcm {
    let mut bytes = Key::<Aes256Gcm>::from(*key.as_bytes());
    let cipher = Aes256Gcm::new(&bytes);
    bytes.zeroize();
    cipher
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
