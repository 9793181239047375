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
        Scheme::Pkcs7 => counted(pkcs7(&key.blob)),
        Scheme::Pgp => counted(pgp(&key.blob)),
    }
}

/// One line a recipient; nothing where the format wasn't understood.
fn counted(shows: Option<Vec<String>>) -> (Option<usize>, Vec<String>) {
    let shows = shows.unwrap_or_default();
    ((!shows.is_empty()).then_some(shows.len()), shows)
}

/// RFC 4880 §5.1: the packets before the encrypted data, each with the id of a recipient's key.
fn pgp(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut shows = Vec::new();
    // A new-format header of a public-key encrypted session key, and a length of one or two octets.
    while let [0xc1, first, rest @ ..] = bytes {
        let (length, rest) = match (first, rest) {
            (0..192, rest) => (usize::from(*first), rest),
            (192..224, [second, rest @ ..]) => {
                ((usize::from(*first) - 192) * 256 + usize::from(*second) + 192, rest)
            }
            _ => return None,
        };
        let (packet, after) = rest.split_at_checked(length)?;
        match packet {
            [3, id @ ..] => shows.push(format!("key {}", hex::encode_upper(id.get(..8)?))),
            _ => return None,
        }
        bytes = after;
    }
    Some(shows)
}

/// RFC 5652 §6.1: the recipients of an EnvelopedData, by their certificates' serial numbers.
fn pkcs7(bytes: &[u8]) -> Option<Vec<String>> {
    let (content_info, _) = der(bytes, 0x30)?;
    let (_, rest) = der(content_info, 0x06)?;
    let (explicit, _) = der(rest, 0xa0)?;
    let (enveloped, _) = der(explicit, 0x30)?;
    let (_, rest) = der(enveloped, 0x02)?;
    let (mut recipients, _) = der(rest, 0x31)?;
    let mut shows = Vec::new();
    while !recipients.is_empty() {
        let (recipient, rest) = der(recipients, 0x30)?;
        let (_, identifier) = der(recipient, 0x02)?;
        let (issuer_and_serial, _) = der(identifier, 0x30)?;
        let (_, serial) = der(issuer_and_serial, 0x30)?;
        let (serial, _) = der(serial, 0x02)?;
        shows.push(format!("serial {}", printable(&hex::encode(serial))));
        recipients = rest;
    }
    Some(shows)
}

/// The contents of the first element, which must have this tag, and what follows it.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match bytes {
        [found, short @ ..=0x7f, rest @ ..] if *found == tag => (usize::from(*short), rest),
        [found, 0x81, length, rest @ ..] if *found == tag => (usize::from(*length), rest),
        [found, 0x82, high, low, rest @ ..] if *found == tag => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_of_openpgp() {
        let packet = |id: u8| [vec![0xc1, 12, 3], vec![id; 8], vec![1, 0, 0]].concat();
        let message = [packet(0xab), packet(0x01), vec![0xd2, 4, 1, 2, 3, 4]].concat();
        assert_eq!(pgp(&message).unwrap(), ["key ABABABABABABABAB", "key 0101010101010101"]);
        for cut in 1..message.len() {
            let _ = pgp(&message[..cut]);
        }
        assert_eq!(counted(pgp(b"")), (None, Vec::new()));
        assert_eq!(pgp(&[0xc1, 255, 0, 0, 0, 1, 3]), None);
    }

    #[test]
    fn strangers_text() {
        let blob = br#"{"protected":"","recipients":[{"header":{"alg":"a\u001b[31m","kid":"k"}},{}]}"#;
        let (count, shows) = jwe(blob);
        assert_eq!((count, shows.len()), (Some(2), 2));
        assert!(!shows.concat().contains('\u{1b}'));
        for junk in [&b""[..], b"{", b"[]", b"...", b"null", &[0x30; 40]] {
            let _ = (jwe(junk), pkcs7(junk), pkcs11(junk), provider(junk));
        }
    }
}
