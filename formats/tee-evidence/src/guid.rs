//! GUIDs and their two byte orders: RFC 4122 (certificate tables) and EFI's mixed-endian form
//! (firmware tables, SEV hash tables).

use std::fmt;

/// A GUID by its value; write it as in its text form: `Guid::new(0xc0b406a4_a803_4952_9743_3fb6014cd0ae)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(u128);

impl Guid {
    /// The all-zero GUID, which ends tables.
    pub const ZERO: Self = Self(0);

    /// A GUID from the hexadecimal digits of its text form.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// From 16 bytes in text order (RFC 4122).
    pub const fn from_be_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// 16 bytes in text order (RFC 4122).
    pub const fn to_be_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From 16 bytes in EFI order: the first three fields little-endian.
    pub const fn from_efi_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(swap(bytes)))
    }

    /// 16 bytes in EFI order: the first three fields little-endian.
    pub const fn to_efi_bytes(self) -> [u8; 16] {
        swap(self.0.to_be_bytes())
    }

    /// Reads the text form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, either case.
    pub fn parse(text: &str) -> Option<Self> {
        let mut value = 0u128;
        for (at, byte) in text.bytes().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
            } else {
                value = (value << 4) | u128::from(char::from(byte).to_digit(16)?);
            }
        }
        (text.len() == 36).then_some(Self(value))
    }
}

const fn swap(b: [u8; 16]) -> [u8; 16] {
    [b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            (v >> 80) & 0xffff,
            (v >> 64) & 0xffff,
            (v >> 48) & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOOTER: Guid = Guid::new(0x96b582de_1fb2_45f7_baea_a366c55a082d);

    #[test]
    fn text_and_both_byte_orders_agree() {
        assert_eq!(FOOTER.to_string(), "96b582de-1fb2-45f7-baea-a366c55a082d");
        assert_eq!(Guid::parse("96B582DE-1fb2-45f7-baea-a366c55a082d"), Some(FOOTER));
        assert_eq!(FOOTER.to_efi_bytes()[..6], [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f]);
        assert_eq!(Guid::from_efi_bytes(FOOTER.to_efi_bytes()), FOOTER);
        assert_eq!(Guid::from_be_bytes(FOOTER.to_be_bytes()), FOOTER);
    }

    #[test]
    fn other_texts_are_no_guids() {
        for text in ["", "96b582de1fb245f7baeaa366c55a082d", "96b582de-1fb2-45f7-baea-a366c55a082", "{}"] {
            assert_eq!(Guid::parse(text), None, "{text}");
        }
        assert_eq!(Guid::parse("96b582de-1fb2-45f7-baea-a366c55a082d0"), None);
        assert_eq!(Guid::parse("96b582de+1fb2-45f7-baea-a366c55a082d"), None);
    }
}
