//! A release policy in the verifier's terms. Broker and command line both take this way, so that an owner
//! who appraises evidence offline sees what the broker would decide. What a policy doesn't say is not
//! allowed, and every field of it counts here.

mod snp;

use protocols::owner::{LaunchDigest, PolicyTee, ReleasePolicy};
use verifier::{ReferenceValues, TeeKind};

/// A policy that passed its own validation never fails here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("release policy: {field} can't be applied")]
pub struct MappingError {
    /// Which field.
    pub field: &'static str,
}

/// The reference values of a release policy.
///
/// # Errors
/// If a value of it is not what [`ReleasePolicy::validate`] lets pass.
pub fn reference_values(policy: &ReleasePolicy) -> Result<ReferenceValues, MappingError> {
    // Every field is named, so that a new one can't be forgotten here. The first and the last are about
    // registrations and releases, and none of the evidence's business.
    let ReleasePolicy { minimum_revision: _, tee, launch_digest, snp, sev: _, pef: _, releases: _ } = policy;
    Ok(ReferenceValues {
        tee: tee.iter().map(kind).collect::<Result<_, _>>()?,
        launch_digests: launch_digest.iter().map(launch).collect::<Result<_, _>>()?,
        snp: snp.as_ref().map(snp::reference).transpose()?,
        ..ReferenceValues::default()
    })
}

fn kind(tee: &PolicyTee) -> Result<TeeKind, MappingError> {
    TeeKind::from_name(tee.name()).ok_or(MappingError { field: "tee" })
}

fn launch(allowed: &LaunchDigest) -> Result<verifier::LaunchDigest, MappingError> {
    let digest = hex::decode(&allowed.digest).map_err(|_| MappingError { field: "launch_digest" })?;
    Ok(verifier::LaunchDigest { name: allowed.name.clone(), digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_a_policy_has_its_name_in_the_verifier() {
        for tee in PolicyTee::ALL {
            assert_eq!(kind(&tee).unwrap().name(), tee.name());
            assert_eq!(kind(&tee).unwrap().is_emulated(), tee.is_emulated());
        }
    }
}
