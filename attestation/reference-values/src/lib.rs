//! A release policy in the verifier's terms. Broker and command line both take this way, so that an owner
//! who appraises evidence offline sees what the broker would decide. What a policy doesn't say is not
//! allowed, and every field of it counts here.

mod sev;
mod snp;

use protocols::owner::{LaunchDigest, PefPolicy, PolicyTee, ReleasePolicy, Releases};
pub use snp::product;
use verifier::{PefReference, ReferenceValues, TeeKind};

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
    // Every field is named, so that a new one can't be forgotten here. The first is about registrations, and
    // none of the evidence's business.
    let ReleasePolicy { minimum_revision: _, tee, launch_digest, snp, sev, pef, releases } = policy;
    Ok(ReferenceValues {
        tee: tee.iter().map(kind).collect::<Result<_, _>>()?,
        launch_digests: launch_digest.iter().map(launch).collect::<Result<_, _>>()?,
        snp: snp.as_ref().map(snp::reference).transpose()?,
        sev: sev.as_ref().map(sev::reference).transpose()?,
        pef: tee
            .iter()
            .any(|tee| tee.is_pef())
            .then(|| pef_reference(pef.as_ref(), *releases))
            .transpose()?,
    })
}

/// Whose key it is, the caller adds: a policy doesn't know.
fn pef_reference(policy: Option<&PefPolicy>, releases: Releases) -> Result<PefReference, MappingError> {
    let PefPolicy { allow_limited_releases, machines } = policy.cloned().unwrap_or_default();
    let machine = |digits: &String| {
        let mut fingerprint = [0; 32];
        hex::decode_to_slice(digits, &mut fingerprint).map_err(|_| MappingError { field: "pef.machines" })?;
        Ok(fingerprint)
    };
    Ok(PefReference {
        machines: machines.iter().map(machine).collect::<Result<_, _>>()?,
        limited_releases: releases != Releases::Unlimited,
        allow_limited_releases,
        ..PefReference::default()
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
    use tee_evidence::sev::FirmwareApi;
    use verifier::SevReference;

    use super::*;

    fn policy(extra: &str) -> ReferenceValues {
        let digests: String = [("snp", 96), ("sev", 64)]
            .iter()
            .filter(|(name, _)| extra.contains(name))
            .map(|(name, digits)| {
                format!("[[launch_digest]]\nname = \"{name}\"\ndigest = \"{}\"\n", "0a".repeat(digits / 2))
            })
            .collect();
        let text = format!("minimum_revision = 1\n{extra}\n{digests}");
        reference_values(&ReleasePolicy::from_toml(&text).unwrap()).unwrap()
    }

    #[test]
    fn sections_are_there_for_the_kinds_that_are_named() {
        let sev = policy(
            "tee = [\"sev-es\"]\n[sev]\nminimum_api = \"1.51\"\nminimum_build = 3\ndenied_products = [\"naples\"]\ndenied_chips = [\"0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d\"]",
        );
        let expected = SevReference {
            minimum_api: FirmwareApi { major: 1, minor: 51 },
            minimum_build: 3,
            required_bits: verifier::sev::STRICT,
            denied_products: vec![verifier::sev::SevProduct::Naples],
            denied_chips: vec![[13; 32]],
        };
        assert_eq!((sev.snp, sev.sev, sev.pef), (None, Some(expected), None));
        assert_eq!(sev.launch_digests[0].digest, [10; 32]);
        let pef = policy("tee = [\"pef\"]");
        assert_eq!((pef.snp, pef.sev, pef.pef), (None, None, Some(PefReference::default())));
        let limited = policy("tee = [\"pef\"]\nreleases = \"once\"\n[pef]\nallow_limited_releases = true");
        let limited = limited.pef.unwrap();
        assert!(limited.limited_releases && limited.allow_limited_releases);
        let listed = policy(&format!("tee = [\"pef\"]\n[pef]\nmachines = [\"{}\"]", "0b".repeat(32)));
        assert_eq!(listed.pef.unwrap().machines, [[11; 32]]);
    }

    #[test]
    fn every_kind_of_a_policy_has_its_name_in_the_verifier() {
        for tee in PolicyTee::ALL {
            assert_eq!(kind(&tee).unwrap().name(), tee.name());
            assert_eq!(kind(&tee).unwrap().is_emulated(), tee.is_emulated());
        }
    }
}
