//! Canonical JSON (RFC 8785): what gets hashed or signed. Numbers are integers that every JSON
//! reader holds exactly (±(2^53−1)); anything else is refused instead of being rounded.

use serde_json::Value;
use thiserror::Error;

/// Why a value has no canonical form here.
#[derive(Debug, Error)]
pub enum CanonicalError {
    /// A float, or an integer beyond ±(2^53−1).
    #[error("number {0} has no exact canonical form; use an integer below 2^53 or a string")]
    Number(serde_json::Number),
    /// The value could not be turned into JSON.
    #[error("value can't be written as JSON")]
    Serialize(#[source] serde_json::Error),
}

/// The canonical bytes of `value`.
pub fn to_string<T: serde::Serialize>(value: &T) -> Result<String, CanonicalError> {
    let value = serde_json::to_value(value).map_err(CanonicalError::Serialize)?;
    let mut out = String::new();
    write(&value, &mut out)?;
    Ok(out)
}

fn write(value: &Value, out: &mut String) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => {
            const MAX: u64 = (1 << 53) - 1;
            let exact = number.as_u64().is_some_and(|n| n <= MAX)
                || number.as_i64().is_some_and(|n| n.unsigned_abs() <= MAX);
            if !exact {
                return Err(CanonicalError::Number(number.clone()));
            }
            out.push_str(&number.to_string());
        }
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            // RFC 8785 section 3.2.3: members are ordered by UTF-16 code units, not by bytes.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
            out.push('{');
            for (index, (name, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_string(name, out);
                out.push(':');
                write(item, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

/// RFC 8785 section 3.2.2.2: the two-character escapes where JSON has them, lower-case `\u00xx` for
/// the other control characters, everything else as it is.
fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn orders_members_by_utf16() {
        // U+1F600 is D83D DE00 in UTF-16, so it sorts before U+FB33, though not in UTF-8. RFC 8785, 3.2.3.
        let value = json!({"\u{fb33}": 1, "\u{1f600}": 2, "1": 3, "\r": 4, "\u{80}": 5});
        assert_eq!(
            to_string(&value).unwrap(),
            "{\"\\r\":4,\"1\":3,\"\u{80}\":5,\"\u{1f600}\":2,\"\u{fb33}\":1}"
        );
    }

    #[test]
    fn escapes_as_the_rfc_says() {
        let value = json!("€$\u{f}\nA'B\"\\\u{8}\u{c}\t\r/");
        assert_eq!(to_string(&value).unwrap(), "\"€$\\u000f\\nA'B\\\"\\\\\\b\\f\\t\\r/\"");
    }

    #[test]
    fn refuses_numbers_that_readers_would_round() {
        assert!(to_string(&json!((1u64 << 53) - 1)).is_ok());
        assert!(to_string(&json!(1u64 << 53)).is_err());
        assert!(to_string(&json!(u64::MAX)).is_err());
        assert!(to_string(&json!(-(1i64 << 53))).is_err());
        assert!(to_string(&json!(1.5)).is_err());
    }
}
