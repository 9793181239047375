//! The one message of `keyprovider.KeyProviderService`, the same in both directions and over both RPC
//! systems: `bytes` in field 1, which hold JSON. Written by hand: a generator would be larger than it.

use thiserror::Error;
use zeroize::Zeroizing;

/// Longest message, in bytes: ocicrypt's readers send every provider all keys and key rings that they have.
pub(super) const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Longest answer, in bytes: a wrapped layer key is below 2 KiB in every scheme, its spelling as an array of
/// numbers below four times that.
pub const MAX_ANSWER: usize = 256 * 1024;

/// Field 1, length-delimited.
const TAG: u8 = 0x0a;
/// Tag and the longest length of five bytes.
pub(super) const OVERHEAD: usize = 6;

/// Why bytes are not that message.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum MessageError {
    /// Not field 1 with a length, or cut off.
    #[error("message is not a single bytes field")]
    Form,
    /// Something after the field.
    #[error("message holds more than its one field")]
    Trailing,
    /// Nothing in it.
    #[error("message is empty")]
    Empty,
    /// Longer than [`MAX_MESSAGE`].
    #[error("message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
}

/// The message with `content`.
pub(super) fn encode(content: &[u8]) -> Result<Zeroizing<Vec<u8>>, MessageError> {
    if content.is_empty() {
        return Err(MessageError::Empty);
    }
    if content.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    let mut message = Zeroizing::new(Vec::with_capacity(content.len() + OVERHEAD));
    message.push(TAG);
    let mut length = content.len();
    while length >= 0x80 {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(content);
    Ok(message)
}

/// What `message` holds.
pub(super) fn decode(message: &[u8]) -> Result<&[u8], MessageError> {
    let (tag, mut rest) = message.split_first().ok_or(MessageError::Empty)?;
    if *tag != TAG {
        return Err(MessageError::Form);
    }
    let mut length = 0;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, after) = rest.split_first().ok_or(MessageError::Form)?;
        rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return content(rest, length);
        }
    }
    Err(MessageError::Form)
}

fn content(rest: &[u8], length: usize) -> Result<&[u8], MessageError> {
    if length > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    match rest.len() {
        found if found < length => Err(MessageError::Form),
        found if found > length => Err(MessageError::Trailing),
        0 => Err(MessageError::Empty),
        _ => Ok(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for length in [1, 0x7f, 0x80, 0x3fff, 0x4000, MAX_MESSAGE] {
            let content = vec![0x7b; length];
            let message = encode(&content).unwrap();
            assert_eq!(decode(&message).unwrap(), content);
            assert!(message.len() <= length + OVERHEAD);
        }
        assert_eq!(**encode(b"{}").unwrap(), *b"\x0a\x02{}");
    }

    #[test]
    fn everything_else_is_refused() {
        for (bytes, error) in [
            (&b""[..], MessageError::Empty),
            (b"\x0a\x00", MessageError::Empty),
            (b"\x0a", MessageError::Form),
            (b"\x12\x02{}", MessageError::Form),
            (b"\x0a\x03{}", MessageError::Form),
            (b"\x0a\x80", MessageError::Form),
            (b"\x0a\x80\x80\x80\x80\x80\x01", MessageError::Form),
            (b"\x0a\x02{}\x12\x00", MessageError::Trailing),
            (b"\x0a\xff\xff\xff\xff\x0f{}", MessageError::TooLong),
        ] {
            assert_eq!(decode(bytes), Err(error), "{bytes:?}");
        }
        assert_eq!(encode(b"").unwrap_err(), MessageError::Empty);
        assert_eq!(encode(&vec![0; MAX_MESSAGE + 1]).unwrap_err(), MessageError::TooLong);
    }
}
