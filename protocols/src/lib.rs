//! Wire types: Kata agent ttrpc, key broker (RCAR), owner statements, audit records.
