//! Genuine evidence of one session, whatever TEE it came from.

use crate::{Denial, Grant, ReferenceValues, Verdict};

/// Genuine evidence of this session. Whether it is enough is the policy's business. Only the modules of
/// the TEEs make one, after all checks that need no policy.
#[derive(Debug)]
pub struct Appraised {
    verdict: Verdict,
}

impl Appraised {
    pub(crate) const fn new(verdict: Verdict) -> Self {
        Self { verdict }
    }

    /// What was found out.
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Compares with what the relying party allows.
    ///
    /// # Errors
    /// The first check that failed, with the records of all that were made.
    pub fn grant(&self, reference: &ReferenceValues) -> Result<Grant, Denial> {
        Grant::decide(&self.verdict, reference)
    }
}

/// Genuine evidence that was looked at without all that a broker knows of its session: for people, offline.
/// There is no way from here to a [`Grant`].
#[derive(Debug)]
pub struct Inspected {
    verdict: Verdict,
}

impl Inspected {
    pub(crate) const fn new(verdict: Verdict) -> Self {
        Self { verdict }
    }

    /// What was found out.
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Makes the checks that a broker would make with these reference values. The verdict has them at the end
    /// of its list.
    ///
    /// # Errors
    /// The first check that failed, with the records of all that were made.
    pub fn compare(&self, reference: &ReferenceValues) -> Result<Verdict, Denial> {
        Grant::decide(&self.verdict, reference).map(|grant| grant.verdict().clone())
    }
}
