//! Whether an image may run: every requirement of its list, against the signatures that came with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Refusal, SignatureError};
use crate::identity::SignedIdentity;
use crate::keys::Keys;
use crate::openpgp::{self, Keyring};
use crate::payload::{self, Payload};
use crate::policy::Requirements;
use crate::public_key::PublicKey;
use crate::reference::{self, Reference};
use crate::requirement::Requirement;
use crate::{MAX_SIGNATURE, MAX_SIGNATURES};

/// A signature as it came: nothing of it is trusted.
#[derive(Clone, Debug)]
pub enum SignatureInput {
    /// Simple signing: an OpenPGP signed message.
    Simple(Vec<u8>),
    /// cosign.
    Cosign {
        /// The payload: the blob of type `application/vnd.dev.cosign.simplesigning.v1+json`.
        payload: Vec<u8>,
        /// Its annotation `dev.cosignproject.cosign/signature`, base64.
        signature: String,
    },
}

/// The policy lets this image run. Only [`verify`] makes one, and only this digest may be fetched for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Permitted {
    digest: String,
}

impl Permitted {
    /// Digest of the manifest or index: `sha256:<64 lower-case hex digits>`.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

const SIMPLE: &str = "simple signing (OpenPGP)";
const COSIGN: &str = "cosign";

/// Checks an image against the requirements for it.
///
/// `digest` is the SHA-256 of the manifest or index that came, computed by the caller; `now` is in seconds since
/// 1970, and only for the expiry of OpenPGP keys and signatures.
///
/// # Errors
/// When a requirement doesn't hold; the error says which, and why no signature was good enough.
pub fn verify(
    requirements: &Requirements<'_>,
    reference: &Reference,
    digest: &str,
    signatures: &[SignatureInput],
    now: u64,
) -> Result<Permitted, Refusal> {
    if !reference::is_digest(digest) {
        return Err(Refusal::Digest(digest.chars().take(100).collect()));
    }
    if signatures.len() > MAX_SIGNATURES {
        return Err(Refusal::TooMany { reference: reference.to_string(), count: signatures.len() });
    }
    let image = Image { reference, digest, signatures };
    // A policy always has at least one requirement in a list.
    for requirement in requirements.list() {
        match requirement {
            Requirement::AcceptAnything => {}
            Requirement::Reject => return Err(Refusal::Rejected(reference.to_string())),
            Requirement::SignedBy { keys: Keys::Here(keyring), identity } => {
                image.any(
                    SIMPLE,
                    |signature| match signature {
                        SignatureInput::Simple(blob) => Some(simple(blob, keyring, now)),
                        SignatureInput::Cosign { .. } => None,
                    },
                    identity,
                )?;
            }
            Requirement::SigstoreSigned { keys: Keys::Here(keys), identity } => {
                image.any(
                    COSIGN,
                    |signature| match signature {
                        SignatureInput::Cosign { payload, signature } => {
                            Some(cosign(payload, signature, keys))
                        }
                        SignatureInput::Simple(_) => None,
                    },
                    identity,
                )?;
            }
            Requirement::SignedBy { keys: Keys::Files(_), .. }
            | Requirement::SigstoreSigned { keys: Keys::Files(_), .. } => {
                return Err(Refusal::KeyFiles(reference.to_string()));
            }
        }
    }
    Ok(Permitted { digest: digest.to_owned() })
}

struct Image<'a> {
    reference: &'a Reference,
    digest: &'a str,
    signatures: &'a [SignatureInput],
}

impl Image<'_> {
    /// Whether one of the signatures of a kind is good and for this image. `open` verifies one, or says that it
    /// is of another kind.
    fn any(
        &self,
        kind: &'static str,
        open: impl Fn(&SignatureInput) -> Option<Result<Payload, SignatureError>>,
        identity: &SignedIdentity,
    ) -> Result<(), Refusal> {
        let mut reasons = Vec::new();
        let mut others = 0;
        for signature in self.signatures {
            match open(signature).map(|payload| payload.and_then(|payload| self.is_meant(&payload, identity)))
            {
                None => others += 1,
                Some(Ok(())) => return Ok(()),
                Some(Err(reason)) => reasons.push(reason),
            }
        }
        let reference = self.reference.to_string();
        if reasons.is_empty() {
            return Err(Refusal::Unsigned { reference, kind, others });
        }
        Err(Refusal::NoneAccepted { reference, kind, reasons })
    }

    fn is_meant(&self, payload: &Payload, identity: &SignedIdentity) -> Result<(), SignatureError> {
        if payload.digest != self.digest {
            return Err(SignatureError::OtherDigest { signed: payload.digest.chars().take(100).collect() });
        }
        if identity.accepts(self.reference, &payload.reference) {
            return Ok(());
        }
        // cosign writes repositories only, and the default asks for the tag.
        let name_only = Reference::parse(&payload.reference)
            .is_ok_and(|signed| signed.is_name_only() && signed.name() == self.reference.name());
        let hint = if name_only {
            "; it names no tag: a signedIdentity of type matchRepository accepts that, for every tag of the repository"
        } else {
            ""
        };
        Err(SignatureError::OtherReference { signed: payload.reference.clone(), hint })
    }
}

fn simple(blob: &[u8], keyring: &Keyring, now: u64) -> Result<Payload, SignatureError> {
    bounded(blob)?;
    let signed = openpgp::open(blob, keyring, now)?;
    Payload::parse(&signed, payload::SIMPLE).map_err(SignatureError::Payload)
}

fn cosign(payload: &[u8], signature: &str, keys: &[PublicKey]) -> Result<Payload, SignatureError> {
    bounded(payload)?;
    let malformed = |_| SignatureError::Malformed("its annotation is not standard base64".into());
    bounded(signature.as_bytes())?;
    let signature = STANDARD.decode(signature).map_err(malformed)?;
    // It doesn't say which key made it, so a changed payload looks like another key.
    if !keys.iter().any(|key| key.verifies(payload, &signature)) {
        return Err(SignatureError::OtherKey { issuer: None });
    }
    Payload::parse(payload, payload::COSIGN).map_err(SignatureError::Payload)
}

fn bounded(bytes: &[u8]) -> Result<(), SignatureError> {
    if bytes.len() > MAX_SIGNATURE {
        return Err(SignatureError::Malformed(format!("it is larger than {} KiB", MAX_SIGNATURE / 1024)));
    }
    Ok(())
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
