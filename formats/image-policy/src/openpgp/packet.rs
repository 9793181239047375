//! Packet headers and lengths: RFC 9580 4.2.

use std::borrow::Cow;

use super::cursor::{Cursor, SHORT};

pub(super) const SIGNATURE: u8 = 2;
pub(super) const ONE_PASS: u8 = 4;
pub(super) const SECRET_KEY: u8 = 5;
pub(super) const PUBLIC_KEY: u8 = 6;
pub(super) const SECRET_SUBKEY: u8 = 7;
pub(super) const COMPRESSED: u8 = 8;
pub(super) const MARKER: u8 = 10;
pub(super) const LITERAL: u8 = 11;
pub(super) const TRUST: u8 = 12;
pub(super) const USER_ID: u8 = 13;
pub(super) const PUBLIC_SUBKEY: u8 = 14;
pub(super) const USER_ATTRIBUTE: u8 = 17;
pub(super) const PADDING: u8 = 21;

/// One packet.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) tag: u8,
    pub(super) body: Cow<'a, [u8]>,
}

/// The packets in some bytes. Those that carry data may be written without knowing their length in advance.
pub(super) struct Packets<'a>(Cursor<'a>);

impl<'a> Packets<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(Cursor::new(bytes))
    }

    /// All of them, of which there may be at most `limit`.
    pub(super) fn all(mut self, limit: usize) -> Result<Vec<Packet<'a>>, &'static str> {
        let mut packets = Vec::new();
        while !self.0.is_empty() {
            if packets.len() == limit {
                return Err("it has too many packets");
            }
            packets.push(self.next()?);
        }
        Ok(packets)
    }

    fn next(&mut self) -> Result<Packet<'a>, &'static str> {
        let header = self.0.u8()?;
        if header & 0x80 == 0 {
            return Err("it is not a sequence of OpenPGP packets");
        }
        if header & 0x40 != 0 {
            let tag = header & 0x3f;
            return Ok(Packet { tag, body: self.body(may_stream(tag))? });
        }
        let tag = header >> 2 & 0x0f;
        let length = match header & 3 {
            0 => usize::from(self.0.u8()?),
            1 => usize::from(self.0.u16()?),
            2 => length(self.0.u32()?)?,
            _ if may_stream(tag) => self.0.rest().len(),
            _ => return Err("a packet has no length"),
        };
        Ok(Packet { tag, body: self.0.take(length)?.into() })
    }

    /// The body after a header of the newer format.
    fn body(&mut self, may_stream: bool) -> Result<Cow<'a, [u8]>, &'static str> {
        let mut parts: Option<Vec<u8>> = None;
        loop {
            let first = self.0.u8()?;
            let (length, last) = match first {
                0..192 => (usize::from(first), true),
                192..224 => (((usize::from(first) - 192) << 8) + usize::from(self.0.u8()?) + 192, true),
                224..255 if may_stream => (1 << (first & 0x1f), false),
                224..255 => return Err("a packet has no length"),
                255 => (length(self.0.u32()?)?, true),
            };
            let part = self.0.take(length)?;
            match (&mut parts, last) {
                (None, true) => return Ok(part.into()),
                (None, false) => parts = Some(part.to_vec()),
                (Some(parts), _) => parts.extend_from_slice(part),
            }
            if let (true, Some(parts)) = (last, parts.as_mut()) {
                return Ok(std::mem::take(parts).into());
            }
        }
    }
}

fn may_stream(tag: u8) -> bool {
    matches!(tag, LITERAL | COMPRESSED)
}

fn length(value: u32) -> Result<usize, &'static str> {
    usize::try_from(value).map_err(|_| SHORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, &'static str> {
        let packets = Packets::new(bytes).all(8)?;
        Ok(packets.into_iter().map(|packet| (packet.tag, packet.body.into_owned())).collect())
    }

    #[test]
    fn lengths_of_both_formats() {
        let long = vec![7; 300];
        for header in [
            &[0x99, 0x01, 0x2c][..],
            &[0x9a, 0, 0, 1, 0x2c],
            &[0xc6, 0xc0, 0x6c],
            &[0xc6, 0xff, 0, 0, 1, 0x2c],
        ] {
            assert_eq!(
                bodies(&[header, &long].concat()).unwrap(),
                [(PUBLIC_KEY, long.clone())],
                "{header:?}"
            );
        }
        assert_eq!(
            bodies(&[0xcb, 0xe1, 1, 2, 0xe0, 3, 1, 4, 0xcd, 0]).unwrap(),
            [(LITERAL, vec![1, 2, 3, 4]), (USER_ID, vec![])]
        );
        assert_eq!(bodies(&[0xa3, 1, 2]).unwrap(), [(COMPRESSED, vec![1, 2])]);
    }

    #[test]
    fn lengths_that_lie() {
        for bytes in [
            &[0x99, 0x01][..],
            &[0x99, 0x01, 0x2c, 0],
            &[0xc6, 0xff, 0xff, 0xff, 0xff, 0xff, 0],
            &[0xc6, 0xe1, 1, 2, 0],
            &[0x9b, 1],
            &[0x19, 0, 0],
            &[0xcb, 0xe1, 1, 2],
            &[0xcb, 0xfe, 1, 2],
            &[0xcd, 0].repeat(9),
        ] {
            assert!(bodies(bytes).is_err(), "{bytes:x?}");
        }
    }
}
