//! Standard base64 with padding, as every writer of these annotations makes it, and lower-case hex digests.
//! One spelling a value: white space, missing padding and stray last bits are refused.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use zeroize::Zeroizing;

/// Bytes behind canonical standard base64.
pub(crate) fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
    let len = STANDARD.decode_slice(text, &mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

/// Canonical standard base64 of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The 32 bytes of `sha256:<64 lower-case hex digits>`.
pub(crate) fn sha256(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("sha256:")?;
    if digits.len() != 64 || digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut digest = [0; 32];
    hex::decode_to_slice(digits, &mut digest).ok()?;
    Some(digest)
}

/// A digest as descriptors spell it.
pub(crate) fn sha256_text(digest: &[u8; 32]) -> String {
    format!("sha256:{}", hex::encode(digest))
}

/// What a hostile name may show in an error: its first 64 characters, controls escaped.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

/// A base64 string in JSON, decoded on the way so that no copy of a secret's text stays behind.
pub(crate) struct Base64(pub(crate) Zeroizing<Vec<u8>>);

impl<'de> serde::Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(BytesVisitor { numbers: false }).map(Self)
    }
}

/// Bytes in JSON in either spelling that peers use: a base64 string, or an array of numbers.
pub(crate) struct AnyBytes(pub(crate) Zeroizing<Vec<u8>>);

impl<'de> serde::Deserialize<'de> for AnyBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor { numbers: true }).map(Self)
    }
}

/// Bytes written to JSON as a base64 string, without a copy of that.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl serde::Serialize for Text<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(self.0, &STANDARD))
    }
}

struct BytesVisitor {
    numbers: bool,
}

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Zeroizing<Vec<u8>>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("bytes in standard base64")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        decode(text).ok_or_else(|| E::custom("not standard base64"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Self::Value, A::Error> {
        if !self.numbers {
            return Err(A::Error::custom("not standard base64"));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
        while let Some(byte) = numbers.next_element::<u8>()? {
            if bytes.len() == bytes.capacity() {
                // Grown by hand, so that the smaller copy is wiped.
                let mut larger = Zeroizing::new(Vec::with_capacity(bytes.capacity() * 2));
                larger.extend_from_slice(&bytes);
                bytes = larger;
            }
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_of_base64() {
        assert_eq!(decode("AAE=").unwrap().as_slice(), [0, 1]);
        assert_eq!(decode("").unwrap().as_slice(), [0_u8; 0]);
        for other in ["AAE", "AAF=", "AA E=", "AAE=\n", "AAE==", "AA-_", "*AE=", "="] {
            assert!(decode(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn one_spelling_of_a_digest() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(sha256(&good), Some([10; 32]));
        assert_eq!(sha256_text(&[10; 32]), good);
        for other in [
            good.to_uppercase(),
            good.replace('a', "A"),
            good.replace("256", "512"),
            format!("{good}0"),
            String::new(),
        ] {
            assert_eq!(sha256(&other), None, "{other}");
        }
    }

    #[test]
    fn both_spellings_of_bytes() {
        let long: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let json = serde_json::to_string(&long).unwrap();
        assert_eq!(serde_json::from_str::<AnyBytes>(&json).unwrap().0.as_slice(), long);
        assert_eq!(serde_json::from_str::<AnyBytes>("\"AAE=\"").unwrap().0.as_slice(), [0, 1]);
        assert!(serde_json::from_str::<AnyBytes>("[256]").is_err());
        assert!(serde_json::from_str::<Base64>("[1]").is_err());
    }

    #[test]
    fn hostile_names_are_cut_and_escaped() {
        assert_eq!(shown("a\u{1b}[2J"), "a\\u{1b}[2J");
        assert_eq!(shown(&"x".repeat(1000)).len(), 64);
    }
}
