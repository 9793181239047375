//! What a tag may mean: the digest of the manifest that the registry gives for it now, if the sealed image policy's
//! signatures vouch for that digest under this name. Verified before anything else of the image is asked for.

use image_policy::{Policy, PolicyError, Refusal, SignatureInput, verify};
use oci_registry::{Reference, Repository, Signature};

use crate::{Digest, ImageError};

/// The policy of the sealed specification.
pub(crate) fn policy(value: serde_json::Value) -> Result<Policy, ImageError> {
    let fail = |error: PolicyError| ImageError::Signature(error.to_string());
    Policy::from_value(value).map_err(fail)
}

/// The digest to go on with. `now` is in seconds since 1970.
pub(crate) async fn permitted(
    repository: &Repository,
    reference: &Reference,
    policy: Option<&Policy>,
    now: u64,
) -> Result<Digest, ImageError> {
    let fail = |reason: String| ImageError::Signature(format!("image {reference}: {reason}"));
    let policy =
        policy.ok_or_else(|| fail("no image policy is sealed for an image without a digest".into()))?;
    let image = image_policy::Reference::parse(&reference.to_string()).map_err(|e| fail(e.to_string()))?;
    let tag = image.tag().ok_or_else(|| fail("it is sealed without a digest and has no tag".into()))?;
    let requirements = policy.requirements_for(&image);
    if requirements.rejects() {
        return Err(fail("the image policy rejects it".into()));
    }
    // Sealing refuses that too; whatever sealed this, an unsigned tag means whatever the host likes.
    if !requirements.asks_for_signatures() {
        return Err(fail("the image policy asks for no signature of it".into()));
    }
    let digest = Digest::of(&repository.tagged(tag).await?.bytes);
    let mut found = Vec::new();
    if requirements.asks_for_cosign() {
        found.extend(repository.cosign_signatures(&digest).await?);
    }
    if requirements.asks_for_simple() {
        found.extend(repository.simple_signatures(&digest).await?);
    }
    let signatures: Vec<_> = found.into_iter().map(input).collect();
    let permitted = verify(&requirements, &image, &digest.to_string(), &signatures, now)
        .map_err(|refusal: Refusal| ImageError::Signature(refusal.to_string()))?;
    permitted.digest().parse().map_err(|_| fail("the permitted digest isn't one".into()))
}

fn input(found: Signature) -> SignatureInput {
    match found {
        Signature::Simple(blob) => SignatureInput::Simple(blob),
        Signature::Cosign { payload, signature } => SignatureInput::Cosign { payload, signature },
    }
}
