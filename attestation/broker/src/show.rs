//! Audit records for people: what happened, and the table of checks behind it.

use std::fmt::Write;

use protocols::audit::Record;
use serde_json::Value;

/// Bytes of a value in a line.
const WIDTH: usize = 160;

/// A record in lines: number, time, event and subject, then its details, then its checks.
#[must_use]
pub fn record(record: &Record) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = writeln!(text, "{} {} {} {}", record.seq, record.time, record.event, plain(&record.subject));
    let detail = record.detail.as_object();
    for (name, value) in detail.into_iter().flatten() {
        if !matches!(value, Value::Object(_) | Value::Array(_) | Value::Null) {
            let _ = writeln!(text, "    {name:<18} {}", scalar(value));
        }
    }
    for name in ["left_out_before", "images", "policy"] {
        if let Some(value) = record.detail.get(name).filter(|value| !value.is_null()) {
            let _ = writeln!(text, "    {name:<18} {}", scalar(value));
        }
    }
    if let Some(verdict) = record.detail.get("verdict").and_then(Value::as_object) {
        for (name, value) in verdict.iter().filter(|(name, value)| *name != "checks" && !value.is_null()) {
            let _ = writeln!(text, "    {:<18} {}", format!("verdict.{name}"), scalar(value));
        }
    }
    let checks = record.detail.pointer("/verdict/checks").or_else(|| record.detail.get("checks"));
    for check in checks.and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| check.get(name).and_then(Value::as_str).unwrap_or_default();
        let _ = writeln!(
            text,
            "    {:<11} {:<20} {}",
            part("outcome"),
            plain(part("check")),
            plain(part("value"))
        );
    }
    text
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        other => plain(&other.to_string()),
    }
}

/// What strangers sent may stand in a record: no escape reaches the terminal.
fn plain(text: &str) -> String {
    let mut shown: String =
        text.chars().take(WIDTH).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if shown.len() < text.len() && text.chars().count() > WIDTH {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use protocols::audit::Head;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_shown_with_each_check_and_no_escapes() {
        let detail = json!({
            "code": "SIGNATURE", "detail": "a\u{1b}[31mb", "reason": null, "left_out_before": { "EVIDENCE": 3 },
            "checks": [
                { "check": "layout", "outcome": "passed", "value": "1184 bytes" },
                { "check": "signature", "outcome": "failed", "value": "wrong" },
                { "check": "binding", "outcome": "not_reached", "value": "" },
            ],
        });
        let record = Record::after(&Head::default(), "t", "attestation.refused", "10.0.0.1", detail).unwrap();
        let text = super::record(&record);
        for part in
            ["attestation.refused", "failed      signature", "not_reached binding", "EVIDENCE", "1184"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'));
    }
}
