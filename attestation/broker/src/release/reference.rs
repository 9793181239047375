//! The owner's policy in the verifier's terms. What it doesn't say is not allowed.

use protocols::owner::ReleasePolicy;
use protocols::refusal::Code;
use verifier::ReferenceValues;

use crate::refused::Refused;

/// Reference values that the evidence is held against.
pub(super) fn reference_values(policy: &ReleasePolicy) -> Result<ReferenceValues, Refused> {
    reference_values::reference_values(policy).map_err(|error| {
        Refused::new(Code::Internal, "the lineage's policy can't be applied").because(error.to_string())
    })
}
