//! The appraisal for people and for programs.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};
use verifier::{CheckRecord, Denial, Outcome, Verdict};

use super::Means;

/// One line a check, then what comes of it.
pub(super) fn text(result: &Result<Verdict, Denial>, means: &Means) -> String {
    let records = records(result);
    let width = records.iter().map(|record| record.check.len()).max().unwrap_or_default();
    let mut out = String::new();
    for CheckRecord { check, outcome, value } in records {
        let outcome = match outcome {
            Outcome::Passed => "passed",
            Outcome::NotChecked => "NOT CHECKED",
            Outcome::Failed => "FAILED",
            Outcome::NotReached => "not reached",
        };
        let line = format!("{check:width$}  {outcome:11}  {}", printable(value));
        // Writing to a string doesn't fail.
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let _ = writeln!(out, "\n{}", conclusion(result, means));
    for warning in warnings(result, means) {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

/// The same for programs.
pub(super) fn json(result: &Result<Verdict, Denial>, means: &Means) -> Result<Value> {
    let (outcome, verdict, refusal) = match result {
        Ok(verdict) => ("passed", serde_json::to_value(verdict)?, Value::Null),
        Err(denial) => {
            ("refused", Value::Null, json!({ "code": denial.check.code(), "detail": denial.detail }))
        }
    };
    Ok(json!({
        "outcome": outcome,
        "policy": means.reference.is_some(),
        "checks": records(result),
        "refusal": refusal,
        "verdict": verdict,
        "warnings": warnings(result, means),
    }))
}

fn records(result: &Result<Verdict, Denial>) -> &[CheckRecord] {
    match result {
        Ok(verdict) => &verdict.checks,
        Err(denial) => &denial.checks,
    }
}

fn conclusion(result: &Result<Verdict, Denial>, means: &Means) -> String {
    match result {
        Err(denial) => {
            let code = denial.check.code();
            format!("refused: {code}: {}\nmore: sealpod explain {code}", printable(&denial.detail))
        }
        Ok(verdict) => {
            let (tee, trust) = (verdict.tee.name(), &verdict.trust);
            match means.reference {
                Some(_) => format!("passed: evidence of kind {tee} ({trust}) that the policy allows"),
                None => format!("authentic: evidence of kind {tee} ({trust}); no policy was given"),
            }
        }
    }
}

fn warnings(result: &Result<Verdict, Denial>, means: &Means) -> Vec<String> {
    let mut out = Vec::new();
    for CheckRecord { check, value, .. } in
        records(result).iter().filter(|record| record.outcome == Outcome::NotChecked)
    {
        out.push(format!("{check} was not checked: {value}"));
    }
    if result.as_ref().is_ok_and(|verdict| verdict.tee.is_emulated()) {
        out.push("the evidence is emulated: it proves nothing about hardware".to_owned());
    } else if means.anchors.emulated().next().is_some() && result.is_err() {
        out.push("an emulated root was trusted".to_owned());
    }
    out
}

/// Values hold text of certificates, which anybody may have written.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
