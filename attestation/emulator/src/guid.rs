//! GUIDs in the two byte orders that AMD's interfaces use.

/// The 16 bytes of a GUID in the order in which it is written (RFC 9562): the certificates table's order.
pub(crate) const fn as_written(text: &str) -> [u8; 16] {
    digits(text)
}

/// The 16 bytes of a GUID as UEFI stores it: the first three groups little-endian, the rest as written.
pub(crate) const fn uefi(text: &str) -> [u8; 16] {
    let plain = digits(text);
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut out = [0; 16];
    let mut index = 0;
    while index < 16 {
        out[index] = plain[order[index]];
        index += 1;
    }
    out
}

/// Characters that are not hexadecimal digits count as zero; callers pass literals.
const fn digits(text: &str) -> [u8; 16] {
    let text = text.as_bytes();
    let mut plain = [0_u8; 16];
    let mut digits = 0;
    let mut at = 0;
    while at < text.len() && digits < 32 {
        let digit = match text[at] {
            value @ b'0'..=b'9' => value - b'0',
            value @ b'a'..=b'f' => value - b'a' + 10,
            _ => 0,
        };
        if text[at] != b'-' {
            plain[digits / 2] = plain[digits / 2] << 4 | digit;
            digits += 1;
        }
        at += 1;
    }
    plain
}

#[cfg(test)]
mod tests {
    const FOOTER: &str = "96b582de-1fb2-45f7-baea-a366c55a082d";

    #[test]
    fn uefi_swaps_the_first_three_groups() {
        assert_eq!(
            super::uefi(FOOTER),
            [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]
        );
    }

    #[test]
    fn as_written_swaps_nothing() {
        assert_eq!(
            super::as_written(FOOTER),
            [0x96, 0xb5, 0x82, 0xde, 0x1f, 0xb2, 0x45, 0xf7, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]
        );
    }
}
