//! A cursor over DER (X.690): definite and shortest lengths only, one-byte tags, nothing allocated.

/// What a structure that is not DER is refused with; who calls knows its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotDer;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// `[n]` constructed.
pub(crate) const fn context(n: u8) -> u8 {
    0xa0 | n
}

/// `[n]` primitive.
pub(crate) const fn context_primitive(n: u8) -> u8 {
    0x80 | n
}

/// One value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// With tag and length.
    pub(crate) whole: &'a [u8],
}

/// The values of one level, in turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The content of the one value that `bytes` are, whose tag is `tag`.
    pub(crate) fn only(bytes: &'a [u8], tag: u8) -> Result<Self, NotDer> {
        let mut outer = Self(bytes);
        let inner = outer.nested(tag)?;
        outer.finish()?;
        Ok(inner)
    }

    pub(crate) fn next(&mut self) -> Result<Value<'a>, NotDer> {
        let (&tag, rest) = self.0.split_first().ok_or(NotDer)?;
        // Long tags are in no structure that is read.
        if tag & 0x1f == 0x1f {
            return Err(NotDer);
        }
        let (length, rest) = length(rest)?;
        let (content, rest) = rest.split_at_checked(length).ok_or(NotDer)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Ok(Value { tag, content, whole })
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    pub(crate) fn take(&mut self, tag: u8) -> Result<&'a [u8], NotDer> {
        if self.peek() != Some(tag) {
            return Err(NotDer);
        }
        Ok(self.next()?.content)
    }

    pub(crate) fn nested(&mut self, tag: u8) -> Result<Self, NotDer> {
        self.take(tag).map(Self)
    }

    /// The value, if it has this tag; else nothing is consumed.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, NotDer> {
        if self.peek() == Some(tag) { self.take(tag).map(Some) } else { Ok(None) }
    }

    /// The magnitude of an INTEGER that is not negative, without leading zeros.
    pub(crate) fn unsigned(&mut self) -> Result<&'a [u8], NotDer> {
        match self.take(INTEGER)? {
            [] => Err(NotDer),
            [0] => Ok(&[]),
            [0, next, ..] if next & 0x80 == 0 => Err(NotDer),
            [0, rest @ ..] => Ok(rest),
            [first, ..] if first & 0x80 != 0 => Err(NotDer),
            bytes => Ok(bytes),
        }
    }

    /// An INTEGER from 0 to 255.
    pub(crate) fn small(&mut self) -> Result<u8, NotDer> {
        match self.unsigned()? {
            [] => Ok(0),
            [byte] => Ok(*byte),
            _ => Err(NotDer),
        }
    }

    /// A BIT STRING of whole bytes.
    pub(crate) fn bit_string(&mut self) -> Result<&'a [u8], NotDer> {
        match self.take(BIT_STRING)? {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(NotDer),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn finish(&self) -> Result<(), NotDer> {
        if self.is_empty() { Ok(()) } else { Err(NotDer) }
    }
}

/// Section 10.1: definite, the shortest form.
fn length(bytes: &[u8]) -> Result<(usize, &[u8]), NotDer> {
    let (&first, rest) = bytes.split_first().ok_or(NotDer)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    // 0x80 is the indefinite form; four bytes say more than is ever read.
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        return Err(NotDer);
    }
    let (digits, rest) = rest.split_at_checked(count).ok_or(NotDer)?;
    let length = digits.iter().fold(0usize, |length, digit| (length << 8) | usize::from(*digit));
    let shortest = digits.first() != Some(&0) && length >= 0x80;
    if shortest { Ok((length, rest)) } else { Err(NotDer) }
}

/// Appends one value.
pub(crate) fn push(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let length = content.len();
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let digits = &bytes[length.leading_zeros() as usize / 8..];
        out.push(0x80 | digits.len() as u8);
        out.extend_from_slice(digits);
    }
    out.extend_from_slice(content);
}

/// One value of the parts in turn.
pub(crate) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    push(&mut out, tag, &parts.concat());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_definite_and_shortest() {
        assert_eq!(length(&[0x7f]).map(|l| l.0), Ok(0x7f));
        assert_eq!(length(&[0x81, 0x80]).map(|l| l.0), Ok(0x80));
        assert_eq!(length(&[0x82, 1, 0]).map(|l| l.0), Ok(0x100));
        for bad in [&[0x80][..], &[0x81, 0x7f], &[0x82, 0, 0x80], &[0x85, 1, 0, 0, 0, 0], &[0x82, 1], &[]] {
            assert_eq!(length(bad).map(|l| l.0), Err(NotDer), "{bad:02x?}");
        }
    }

    #[test]
    fn integers_are_not_negative_and_shortest() {
        let unsigned = |bytes: &[u8]| Reader::new(bytes).unsigned().map(<[u8]>::to_vec);
        assert_eq!(unsigned(&[2, 1, 0]), Ok(vec![]));
        assert_eq!(unsigned(&[2, 2, 0, 0x80]), Ok(vec![0x80]));
        for bad in [&[2, 0][..], &[2, 1, 0x80], &[2, 2, 0, 0x7f], &[4, 1, 1], &[2, 2, 1]] {
            assert_eq!(unsigned(bad), Err(NotDer), "{bad:02x?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for size in [0, 0x7f, 0x80, 0xff, 0x100, 0x1_0000] {
            let bytes = value(OCTET_STRING, &[&vec![7; size]]);
            assert_eq!(Reader::new(&bytes).take(OCTET_STRING).map(<[u8]>::len), Ok(size));
        }
    }

    #[test]
    fn trailing_bytes_and_long_tags_are_refused() {
        assert!(Reader::only(&[0x30, 0], SEQUENCE).is_ok());
        assert!(Reader::only(&[0x30, 0, 0], SEQUENCE).is_err());
        assert!(Reader::new(&[0x1f, 0x81, 0x01, 0]).next().is_err());
    }
}
