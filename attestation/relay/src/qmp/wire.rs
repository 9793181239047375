//! One line of QMP: bounded before it is parsed, and exactly one of the four messages that a server sends.

use serde_json::{Map, Value};
use thiserror::Error;

/// Longest line in bytes; the longest honest one is `query-sev-capabilities`, about 12 KiB.
pub const MAX_LINE: usize = 64 * 1024;
/// Deepest nesting of arrays and objects; honest ones stay below six.
pub const MAX_NESTING: usize = 16;
/// Longest class and description that errors carry on, in characters.
const MAX_CLASS: usize = 64;
const MAX_DESC: usize = 256;

/// What the server says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The first line of a connection.
    Greeting,
    /// Something happened; nobody here waits for it.
    Event,
    /// A command's answer.
    Return {
        /// The command's, if it is a number of ours.
        id: Option<u64>,
        /// What the command returns.
        value: Value,
    },
    /// A command's failure.
    Error {
        /// The command's.
        id: Option<u64>,
        /// A word.
        class: String,
        /// For people.
        desc: String,
    },
}

/// Why a line is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// More than [`MAX_LINE`] bytes.
    #[error("a line is longer than {MAX_LINE} bytes")]
    Long,
    /// More than [`MAX_NESTING`] levels.
    #[error("a line nests deeper than {MAX_NESTING} levels")]
    Deep,
    /// Not a JSON object.
    #[error("a line is not a JSON object")]
    Json,
    /// Not one of the messages.
    #[error("a line is not one of greeting, event, return and error")]
    Kind,
    /// An error without class or description.
    #[error("an error without class or description")]
    Error,
}

/// Parses a line, with or without its end.
///
/// # Errors
/// [`WireError`].
pub fn parse(line: &[u8]) -> Result<Message, WireError> {
    let line = line.trim_ascii();
    if line.len() > MAX_LINE {
        return Err(WireError::Long);
    }
    if nesting(line) > MAX_NESTING {
        return Err(WireError::Deep);
    }
    let mut object: Map<String, Value> = serde_json::from_slice(line).map_err(|_| WireError::Json)?;
    let id = object.get("id").and_then(Value::as_u64);
    let mut kinds = ["QMP", "event", "return", "error"].into_iter().filter(|name| object.contains_key(*name));
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return Err(WireError::Kind) };
    let value = object.remove(kind).unwrap_or_default();
    Ok(match kind {
        "QMP" => Message::Greeting,
        "event" => Message::Event,
        "return" => Message::Return { id, value },
        _ => {
            let text = |name| value.get(name).and_then(Value::as_str).ok_or(WireError::Error);
            let (class, desc) = (shown(text("class")?, MAX_CLASS), shown(text("desc")?, MAX_DESC));
            Message::Error { id, class, desc }
        }
    })
}

/// The deepest level of brackets outside of strings.
fn nesting(line: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Fit for a line of a log.
fn shown(text: &str, longest: usize) -> String {
    text.chars().take(longest).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_four_messages() {
        assert_eq!(parse(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"), Ok(Message::Greeting));
        assert_eq!(parse(br#"{"timestamp": {}, "event": "RESUME"}"#), Ok(Message::Event));
        let value = serde_json::json!({"a": [1]});
        assert_eq!(parse(br#"{"return": {"a": [1]}, "id": 7}"#), Ok(Message::Return { id: Some(7), value }));
        let text = br#"{"id": "x", "error": {"class": "GenericError", "desc": "no\nKVM"}}"#;
        let desc = "no\u{fffd}KVM".to_owned();
        assert_eq!(parse(text), Ok(Message::Error { id: None, class: "GenericError".to_owned(), desc }));
    }

    #[test]
    fn everything_else_is_refused() {
        for (line, error) in [
            ("", WireError::Json),
            ("[]", WireError::Json),
            ("{\"return\": {}} {}", WireError::Json),
            ("{\"return\": ", WireError::Json),
            ("{}", WireError::Kind),
            ("{\"id\": 1}", WireError::Kind),
            ("{\"return\": {}, \"event\": \"x\"}", WireError::Kind),
            ("{\"error\": {}}", WireError::Error),
            ("{\"error\": {\"class\": 1, \"desc\": \"x\"}}", WireError::Error),
            ("{\"error\": \"x\"}", WireError::Error),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(error), "{line}");
        }
    }

    #[test]
    fn bounds_hold_at_their_edges() {
        let nested = |depth: usize| {
            format!("{{\"return\": {}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1)).into_bytes()
        };
        assert!(parse(&nested(MAX_NESTING)).is_ok());
        assert_eq!(parse(&nested(MAX_NESTING + 1)), Err(WireError::Deep));
        // Brackets in strings don't nest; a quote behind a backslash doesn't end one.
        let text = format!("{{\"return\": \"{}\\\"[\"}}", "[{".repeat(100));
        assert!(parse(text.as_bytes()).is_ok());

        let padded = |length: usize| format!("{{\"return\": \"{}\"}}", "x".repeat(length - 14)).into_bytes();
        assert_eq!(padded(MAX_LINE).len(), MAX_LINE);
        assert!(parse(&padded(MAX_LINE)).is_ok());
        assert_eq!(parse(&padded(MAX_LINE + 1)), Err(WireError::Long));
    }

    #[test]
    fn what_errors_carry_on_is_cut() {
        let text = format!(
            "{{\"error\": {{\"class\": \"{}\", \"desc\": \"{}\"}}}}",
            "c".repeat(MAX_CLASS + 1),
            "d".repeat(MAX_DESC + 1)
        );
        let Ok(Message::Error { class, desc, .. }) = parse(text.as_bytes()) else { panic!() };
        assert_eq!((class.len(), desc.len()), (MAX_CLASS, MAX_DESC));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&line));
        }
    }
}
