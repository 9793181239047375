//! SEV and SEV-ES: launch attestation.

use serde::Serialize;

/// What a launch of SEV or SEV-ES says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SevClaims {}

/// What a policy demands of SEV and SEV-ES guests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SevReference {}
