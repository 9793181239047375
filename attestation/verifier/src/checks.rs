//! The list of checks of an appraisal, in the order in which they are made: what passed and on which
//! value, what nobody checked, and, when one failed, which others were never reached.

use serde::Serialize;

use crate::Denial;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Made, and passed.
    Passed,
    /// Not made: the reader must not take it for made.
    NotChecked,
    /// Made, and failed: it ended the appraisal. In a [`Denial`] only.
    Failed,
    /// Not made, because an earlier one failed. In a [`Denial`] only.
    NotReached,
}

impl Outcome {
    /// The name in verdicts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::NotChecked => "not_checked",
            Self::Failed => "failed",
            Self::NotReached => "not_reached",
        }
    }
}

/// A check and what it looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckRecord {
    /// Its name.
    pub check: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// What it looked at; why it failed; empty if it wasn't reached.
    pub value: String,
}

/// Records checks as they are made.
#[derive(Debug, Clone)]
pub(crate) struct Checks {
    records: Vec<CheckRecord>,
    /// Every check that such an appraisal always makes, in order.
    plan: &'static [&'static str],
}

impl Checks {
    /// Starts an appraisal that makes these checks.
    pub(crate) const fn new(plan: &'static [&'static str]) -> Self {
        Self { records: Vec::new(), plan }
    }

    /// Goes on after checks that were made, with further ones.
    pub(crate) const fn after(records: Vec<CheckRecord>, plan: &'static [&'static str]) -> Self {
        Self { records, plan }
    }

    /// Makes a check and records how it went. On success it says what it looked at.
    pub(crate) fn run<T>(
        &mut self,
        check: &'static str,
        look: impl FnOnce() -> Result<(T, String), Denial>,
    ) -> Result<T, Denial> {
        match look() {
            Ok((found, value)) => {
                self.record(check, Outcome::Passed, value);
                Ok(found)
            }
            Err(denial) => Err(self.failed(check, denial)),
        }
    }

    /// Makes a check that finds nothing but whether it passes.
    pub(crate) fn pass(
        &mut self,
        check: &'static str,
        look: impl FnOnce() -> Result<String, Denial>,
    ) -> Result<(), Denial> {
        self.run(check, || look().map(|value| ((), value)))
    }

    /// Records that a check was not made, and why.
    pub(crate) fn not_checked(&mut self, check: &'static str, why: impl Into<String>) {
        self.record(check, Outcome::NotChecked, why.into());
    }

    /// All records.
    pub(crate) fn into_records(self) -> Vec<CheckRecord> {
        self.records
    }

    fn record(&mut self, check: &'static str, outcome: Outcome, value: String) {
        self.records.push(CheckRecord { check, outcome, value });
    }

    fn failed(&self, check: &'static str, denial: Denial) -> Denial {
        let mut records = self.records.clone();
        records.push(CheckRecord { check, outcome: Outcome::Failed, value: denial.detail.clone() });
        for &later in self.plan {
            if records.iter().all(|record| record.check != later) {
                records.push(CheckRecord {
                    check: later,
                    outcome: Outcome::NotReached,
                    value: String::new(),
                });
            }
        }
        Denial { checks: records, ..denial }
    }
}
