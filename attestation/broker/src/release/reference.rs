//! The owner's policy in the verifier's terms. What it doesn't say is not allowed.

use protocols::owner::PolicyStatement;
use protocols::refusal::Code;
use verifier::ReferenceValues;

use crate::refused::Refused;

/// Reference values that the evidence is held against.
pub(super) fn reference_values(statement: &PolicyStatement) -> Result<ReferenceValues, Refused> {
    let PolicyStatement { repository, lineage, policy, .. } = statement;
    let mut reference = reference_values::reference_values(policy).map_err(|error| {
        Refused::new(Code::Internal, "the lineage's policy can't be applied").because(error.to_string())
    })?;
    // Evidence of a PEF guest is as good as the word of whoever enrolled its blob: the key's owner's, and
    // nobody else's.
    if let Some(pef) = &mut reference.pef {
        pef.repository.clone_from(repository);
        pef.lineage.clone_from(lineage);
    }
    Ok(reference)
}
