//! The owner's policy in the verifier's terms. What it doesn't say is not allowed.

use protocols::owner::{MinimumTcb, PolicyTee, ReleasePolicy};
use protocols::refusal::Code;
use verifier::snp::Tcb;
use verifier::{LaunchDigest, ReferenceValues, SnpReference, TeeKind};

use crate::refused::Refused;

/// Reference values that the evidence is held against.
pub(super) fn reference_values(policy: &ReleasePolicy) -> Result<ReferenceValues, Refused> {
    let damaged = || Refused::new(Code::Internal, "the lineage's policy can't be applied");
    let kind = |tee: &PolicyTee| TeeKind::from_name(tee.name()).ok_or_else(damaged);
    let launch = |allowed: &protocols::owner::LaunchDigest| {
        let digest = hex::decode(&allowed.digest).map_err(|_| damaged())?;
        Ok(LaunchDigest { name: allowed.name.clone(), digest })
    };
    let snp = policy.snp.as_ref().map(|snp| {
        let MinimumTcb { bootloader, tee, snp: firmware, microcode, fmc } = snp.minimum_tcb;
        SnpReference {
            minimum_tcb: Tcb { fmc, bootloader, tee, snp: firmware, microcode },
            allow_debug: snp.allow_debug,
            allow_migrate_ma: snp.allow_migrate_ma,
            allow_smt: snp.allow_smt,
            vmpl: u32::from(snp.vmpl),
            ..SnpReference::default()
        }
    });
    Ok(ReferenceValues {
        tee: policy.tee.iter().map(kind).collect::<Result<_, _>>()?,
        launch_digests: policy.launch_digest.iter().map(launch).collect::<Result<_, Refused>>()?,
        snp,
        ..ReferenceValues::default()
    })
}
