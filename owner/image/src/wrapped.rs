//! What wrapped keys show of their recipients to everybody. For people to read: nothing is decided by it.

use encrypted_image::{Scheme, WrappedKey};
use serde_json::Value;

/// Longest text of a stranger that is shown.
const SHOWN: usize = 200;

/// How many recipients, and what is to be seen of them.
pub(crate) fn shown(key: &WrappedKey) -> (Option<usize>, Vec<String>) {
    match key.scheme {
        Scheme::Jwe => jwe(&key.blob),
        Scheme::Pkcs11 => pkcs11(&key.blob),
        Scheme::Provider(_) => (Some(1), provider(&key.blob)),
        Scheme::Pkcs7 | Scheme::Pgp => (None, Vec::new()),
    }
}

/// RFC 7516 §7: compact, flattened or general.
fn jwe(blob: &[u8]) -> (Option<usize>, Vec<String>) {
    let Ok(json) = serde_json::from_slice::<Value>(blob) else {
        let header = blob.split(|byte| *byte == b'.').next().unwrap_or_default();
        return (Some(1), header_shows(&[decoded(header)]));
    };
    let protected = decoded(json["protected"].as_str().unwrap_or_default().as_bytes());
    match json["recipients"].as_array() {
        Some(recipients) => {
            let headers: Vec<Value> =
                recipients.iter().map(|recipient| recipient["header"].clone()).collect();
            (Some(recipients.len()), header_shows(&headers))
        }
        None => (Some(1), header_shows(&[protected, json["header"].clone()])),
    }
}

fn decoded(base64url: &[u8]) -> Value {
    use base64::Engine as _;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(base64url).unwrap_or_default();
    serde_json::from_slice(&json).unwrap_or(Value::Null)
}

fn header_shows(headers: &[Value]) -> Vec<String> {
    let mut shows = Vec::new();
    for header in headers {
        for name in ["alg", "kid"] {
            if let Some(value) = header[name].as_str() {
                shows.push(format!("{name} {}", printable(value)));
            }
        }
    }
    shows
}

fn pkcs11(blob: &[u8]) -> (Option<usize>, Vec<String>) {
    let json: Value = serde_json::from_slice(blob).unwrap_or(Value::Null);
    (json["recipients"].as_array().map(Vec::len), Vec::new())
}

/// What providers write is their own; that of Confidential Containers has the URI of a key.
fn provider(blob: &[u8]) -> Vec<String> {
    let json: Value = serde_json::from_slice(blob).unwrap_or(Value::Null);
    let kid = json["kid"].as_str().or_else(|| json["annotations"]["kid"].as_str());
    kid.map(|kid| format!("kid {}", printable(kid))).into_iter().collect()
}

/// Strangers' text on a terminal: no control characters, no novels.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(SHOWN).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
