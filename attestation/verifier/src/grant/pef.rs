//! What a policy demands of PEF guests beyond their kind.

use super::section;
use crate::checks::Checks;
use crate::denial::refuse;
use crate::{Denial, PefClaims, PefReference, ReferenceValues};

pub(super) const PLAN: &[&str] =
    &["tee_kind", "policy_section", "enrolled_by", "policy_machines", "releases"];

/// The blob's name in releases.
pub(super) fn decide(
    claims: &PefClaims,
    reference: &ReferenceValues,
    checks: &mut Checks,
) -> Result<String, Denial> {
    let reference = section(reference.pef.as_ref(), "pef", checks)?;
    checks.pass("enrolled_by", || {
        if claims.repository != reference.repository || claims.lineage != reference.lineage {
            return refuse!(
                CertificateChain,
                "blob {} was not enrolled for lineage '{}' by the owner of the key",
                claims.blob,
                reference.lineage
            );
        }
        Ok(format!("{}/{}", claims.repository, claims.lineage))
    })?;
    machines(claims, reference, checks)?;
    checks.pass("releases", || {
        if reference.limited_releases && !reference.allow_limited_releases {
            return refuse!(
                TeeKind,
                "the policy limits releases, and PEF guests can't be told apart; it has to say \
                 allow_limited_releases in [pef]"
            );
        }
        Ok(if reference.limited_releases { "limited, allowed by name" } else { "unlimited" }.to_owned())
    })?;
    Ok(format!("blob {}", claims.blob))
}

/// Which machine it is can't be told, so every one that could be it has to be allowed.
fn machines(claims: &PefClaims, reference: &PefReference, checks: &mut Checks) -> Result<(), Denial> {
    if reference.machines.is_empty() {
        checks
            .not_checked("policy_machines", "the policy names none: those that the owner put into the blob");
        return Ok(());
    }
    checks.pass("policy_machines", || {
        match claims.machines.iter().find(|machine| !reference.machines.contains(machine)) {
            Some(machine) => refuse!(
                CertificateChain,
                "blob {} can be opened by machine {}, which is not in the policy",
                claims.blob,
                hex::encode(machine)
            ),
            None => Ok(format!("all {} of the blob", claims.machines.len())),
        }
    })
}
