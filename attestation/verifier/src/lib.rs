//! Evidence, collateral and now, to a verdict.
