//! SEV and SEV-ES against a policy: platform, firmware, guest policy, launch digest.

use tee_evidence::sev::Policy;

use super::{launch_digest, section};
use crate::checks::Checks;
use crate::denial::refuse;
use crate::{Denial, ReferenceValues, SevClaims, SevReference};

/// The checks that every policy makes.
pub(super) const PLAN: &[&str] = &[
    "tee_kind",
    "policy_section",
    "product_allowed",
    "chip",
    "minimum_firmware",
    "guest_policy",
    "launch_digest",
];

/// The name of the launch digest.
pub(super) fn decide(
    claims: &SevClaims,
    reference: &ReferenceValues,
    checks: &mut Checks,
) -> Result<String, Denial> {
    let policy = section(reference.sev.as_ref(), "sev", checks)?;
    platform(claims, policy, checks)?;
    firmware(claims, policy, checks)?;
    guest_policy(claims, policy, checks)?;
    launch_digest(&claims.measurement, reference, checks)
}

fn platform(claims: &SevClaims, reference: &SevReference, checks: &mut Checks) -> Result<(), Denial> {
    checks.pass("product_allowed", || {
        let product = claims.product;
        if reference.denied_products.contains(&product) {
            return refuse!(TeeKind, "processors of the product {} are not trusted any more", product.name());
        }
        Ok(product.name().to_owned())
    })?;
    checks.pass("chip", || {
        if reference.denied_chips.contains(&claims.chip) {
            return refuse!(CertificateChain, "chip {} is denied", hex::encode(claims.chip));
        }
        Ok(hex::encode(claims.chip))
    })
}

/// A later API version has builds of its own.
fn firmware(claims: &SevClaims, reference: &SevReference, checks: &mut Checks) -> Result<(), Denial> {
    checks.pass("minimum_firmware", || {
        let SevReference { minimum_api, minimum_build, .. } = *reference;
        if (claims.api, claims.build) < (minimum_api, minimum_build) {
            return refuse!(
                Tcb,
                "SEV firmware is {} build {}, below the policy's minimum {minimum_api} build {minimum_build}",
                claims.api,
                claims.build
            );
        }
        Ok(format!("{} build {}", claims.api, claims.build))
    })
}

fn guest_policy(claims: &SevClaims, reference: &SevReference, checks: &mut Checks) -> Result<(), Denial> {
    checks.pass("guest_policy", || {
        let policy = Policy(claims.policy.bits);
        let missing = reference.required_bits & !policy.0;
        if missing != 0 {
            return refuse!(
                GuestPolicy,
                "guest was launched with policy {:#x}, which lacks {}; the release policy demands it",
                policy.0,
                Policy::names(missing)
            );
        }
        Ok(format!("{:#x}", policy.0))
    })
}
