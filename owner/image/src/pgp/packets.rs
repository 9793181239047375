//! OpenPGP's packet framing (RFC 4880, section 4): old and new headers, and partial body lengths put together.
//! ocicrypt's library writes a first part of 128 bytes where the RFC wants 512, so that is taken too.

use zeroize::Zeroizing;

/// Packet tags (section 4.3).
pub(super) mod tag {
    pub(crate) const SESSION_KEY: u8 = 1;
    pub(crate) const SIGNATURE: u8 = 2;
    pub(crate) const PASSWORD_SESSION_KEY: u8 = 3;
    pub(crate) const ONE_PASS_SIGNATURE: u8 = 4;
    pub(crate) const SECRET_KEY: u8 = 5;
    pub(crate) const PUBLIC_KEY: u8 = 6;
    pub(crate) const SECRET_SUBKEY: u8 = 7;
    pub(crate) const COMPRESSED: u8 = 8;
    pub(crate) const UNPROTECTED: u8 = 9;
    pub(crate) const LITERAL: u8 = 11;
    pub(crate) const USER_ID: u8 = 13;
    pub(crate) const PUBLIC_SUBKEY: u8 = 14;
    pub(crate) const PROTECTED: u8 = 18;
    pub(crate) const GNUPG_AEAD: u8 = 20;
}

/// Packets whose body may come in parts (section 4.2.2.4).
const PARTIAL: [u8; 4] = [tag::COMPRESSED, tag::UNPROTECTED, tag::LITERAL, tag::PROTECTED];

/// A sequence of packets that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than the caller's limit.
    #[error("{length} bytes are more than the {limit} that are read")]
    TooLong {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// More packets than the caller's limit.
    #[error("more than {0} packets")]
    TooMany(usize),
    /// The first bit of a packet is set.
    #[error("byte {0} does not begin a packet")]
    NoPacket(usize),
    /// A length that reaches past the end.
    #[error("the packet at byte {0} is cut short")]
    Truncated(usize),
    /// No length at all: the rest of the file.
    #[error("the packet at byte {0} has no length")]
    Indeterminate(usize),
    /// Parts where the RFC allows none.
    #[error("the packet at byte {0} may not come in parts")]
    Partial(usize),
}

/// One packet, its body in one piece.
pub(super) struct Packet {
    pub(super) tag: u8,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// All packets of `bytes`; nothing may be left over.
pub(super) fn read(bytes: &[u8], limit: usize, most: usize) -> Result<Vec<Packet>, FrameError> {
    if bytes.len() > limit {
        return Err(FrameError::TooLong { length: bytes.len(), limit });
    }
    let mut cursor = Cursor { bytes, at: 0 };
    let mut packets = Vec::new();
    while cursor.at < bytes.len() {
        if packets.len() == most {
            return Err(FrameError::TooMany(most));
        }
        packets.push(cursor.packet()?);
    }
    Ok(packets)
}

/// The tag of the first packet, whatever its length.
pub(super) fn first_tag(bytes: &[u8]) -> Option<u8> {
    match *bytes.first()? {
        new if new & 0xc0 == 0xc0 => Some(new & 0x3f),
        old if old & 0x80 != 0 => Some((old >> 2) & 0x0f),
        _ => None,
    }
}

/// The shortest new-format header for a packet, then its body.
pub(super) fn write(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(0xc0 | tag);
    match body.len() {
        short @ 0..192 => out.push(short as u8),
        middle @ 192..8384 => {
            let rest = middle - 192;
            out.extend_from_slice(&[(rest >> 8) as u8 + 192, rest as u8]);
        }
        long => {
            out.push(255);
            out.extend_from_slice(&(long as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

enum Length {
    Whole(usize),
    Part(usize),
}

impl Cursor<'_> {
    fn packet(&mut self) -> Result<Packet, FrameError> {
        let start = self.at;
        let first = self.byte(start)?;
        if first & 0x80 == 0 {
            return Err(FrameError::NoPacket(start));
        }
        if first & 0x40 == 0 {
            let length = match first & 3 {
                0 => self.number(1, start)?,
                1 => self.number(2, start)?,
                2 => self.number(4, start)?,
                _ => return Err(FrameError::Indeterminate(start)),
            };
            let body = Zeroizing::new(self.take(length, start)?.to_vec());
            return Ok(Packet { tag: (first >> 2) & 0x0f, body });
        }
        let tag = first & 0x3f;
        // Parts never add up to more than the input, so this is enough and the body never moves.
        let mut body = Zeroizing::new(Vec::new());
        loop {
            match self.length(start)? {
                Length::Whole(length) => {
                    body.extend_from_slice(self.take(length, start)?);
                    return Ok(Packet { tag, body });
                }
                Length::Part(_) if !PARTIAL.contains(&tag) => return Err(FrameError::Partial(start)),
                Length::Part(length) => {
                    if body.capacity() == 0 {
                        body.reserve_exact(self.bytes.len() - self.at);
                    }
                    body.extend_from_slice(self.take(length, start)?);
                }
            }
        }
    }

    /// A new-format length (section 4.2.2).
    fn length(&mut self, start: usize) -> Result<Length, FrameError> {
        let first = usize::from(self.byte(start)?);
        Ok(match first {
            0..192 => Length::Whole(first),
            192..224 => Length::Whole(((first - 192) << 8) + self.number(1, start)? + 192),
            224..255 => Length::Part(1 << (first & 0x1f)),
            _ => Length::Whole(self.number(4, start)?),
        })
    }

    fn number(&mut self, octets: usize, start: usize) -> Result<usize, FrameError> {
        Ok(self.take(octets, start)?.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    }

    fn byte(&mut self, start: usize) -> Result<u8, FrameError> {
        Ok(self.take(1, start)?[0])
    }

    fn take(&mut self, length: usize, start: usize) -> Result<&[u8], FrameError> {
        let end = self.at.checked_add(length).ok_or(FrameError::Truncated(start))?;
        let taken = self.bytes.get(self.at..end).ok_or(FrameError::Truncated(start))?;
        self.at = end;
        Ok(taken)
    }
}
