//! Power PEF: a secret that only an authorised machine could unwrap for the guest that was measured.

use serde::Serialize;

/// What evidence of a PEF guest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PefClaims {}

/// What a policy demands of PEF guests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PefReference {}
