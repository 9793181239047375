//! Pax extended headers (POSIX.1-2017, pax, "pax Extended Header"): records of any bytes, bounded numbers and
//! times, and the extended attributes that star and libarchive put there.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::archive::printable;

/// libarchive leaves the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A pax record: key and value, both bytes.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// `LENGTH KEY=VALUE\n`, LENGTH counting the whole record. Values are bytes and may hold line breaks.
pub(crate) fn records(mut data: &[u8]) -> Result<Vec<Record>, String> {
    let malformed = || "malformed pax header".to_owned();
    let mut found = Vec::new();
    while !data.is_empty() {
        // GNU tar pads with NULs.
        if data.iter().all(|b| *b == 0) {
            break;
        }
        let space = data.iter().take(8).position(|b| *b == b' ').ok_or_else(malformed)?;
        let length = usize::try_from(number(&data[..space])?).map_err(|_| malformed())?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
        found.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = &data[length..];
    }
    Ok(found)
}

/// A global header counts for all members after it; the tools that unpack images leave it out, so one that
/// would change what a member is or who owns it means different files to different readers.
pub(crate) fn global(data: &[u8]) -> Result<(), String> {
    let harmless = |key: &[u8]| {
        matches!(key, b"comment" | b"mtime" | b"atime" | b"ctime" | b"uname" | b"gname" | b"charset")
            || key.starts_with(b"VENDOR.")
    };
    match records(data)?.iter().find(|(key, _)| !harmless(key)) {
        None => Ok(()),
        Some((key, _)) => Err(format!(
            "global pax header with {}; write the layer with headers of its members",
            printable(key)
        )),
    }
}

/// Decimal digits and nothing else.
pub(crate) fn number(text: &[u8]) -> Result<u64, String> {
    std::str::from_utf8(text)
        .ok()
        .filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| format!("malformed number {} in a pax header", printable(text)))
}

/// Decimal seconds with an optional sign and fraction.
pub(crate) fn time(text: &[u8]) -> Result<(i64, u32), String> {
    let malformed = || format!("malformed time {} in a pax header", printable(text));
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (negative, whole) = whole.strip_prefix('-').map_or((false, whole), |w| (true, w));
    let seconds = i64::try_from(number(whole.as_bytes())?).map_err(|_| malformed())?;
    let mut nanoseconds = 0;
    if !fraction.is_empty() {
        let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        nanoseconds = u32::try_from(number(digits.as_bytes())?).map_err(|_| malformed())?;
    }
    match (negative, nanoseconds) {
        (false, n) => Ok((seconds, n)),
        (true, 0) => Ok((-seconds, 0)),
        // -1.25 s is -2 s and 750 ms.
        (true, n) => Ok((-seconds - 1, 1_000_000_000 - n)),
    }
}

/// An extended attribute, if the record is one: star's form holds the value as it is, libarchive's holds
/// name and value encoded, and some archives have both.
pub(crate) fn xattr(key: &[u8], value: &[u8]) -> Result<Option<Record>, String> {
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        return Ok(Some((name.to_vec(), value.to_vec())));
    }
    let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") else { return Ok(None) };
    let malformed = || format!("malformed pax record {}", printable(key));
    let name = unescaped(name).ok_or_else(malformed)?;
    let value = BASE64.decode(value.trim_ascii_end()).map_err(|_| malformed())?;
    Ok(Some((name, value)))
}

/// `%41` is `A`.
fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let mut byte = [0];
            hex::decode_to_slice(after.get(..2)?, &mut byte).ok()?;
            out.push(byte[0]);
            rest = &after[2..];
        } else {
            out.push(*first);
            rest = after;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_values_may_hold_line_breaks() {
        let record = b"24 SCHILY.xattr.a=x\ny=\0\n";
        assert_eq!(records(record).unwrap(), [(b"SCHILY.xattr.a".to_vec(), b"x\ny=\0".to_vec())]);
    }

    #[test]
    fn malformed_pax_headers_are_refused() {
        for bad in [
            &b"5 a=b"[..],
            b"x a=b\n",
            b"0 a=b\n",
            b"99 a=b\n",
            b"6 ab\n\n\n",
            b"\n",
            b"99999999999 a=b\n",
            b"3 \n",
        ] {
            records(bad).unwrap_err();
        }
    }

    #[test]
    fn times_round_down() {
        assert_eq!(time(b"12.5").unwrap(), (12, 500_000_000));
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"7").unwrap(), (7, 0));
        for bad in [&b""[..], b"x", b"1.x", b"1e3", b"99999999999999999999"] {
            time(bad).unwrap_err();
        }
    }

    #[test]
    fn both_spellings_of_an_attribute_are_read() {
        let wanted = Some((b"user.a b".to_vec(), b"\0v".to_vec()));
        assert_eq!(xattr(b"SCHILY.xattr.user.a b", b"\0v").unwrap(), wanted);
        assert_eq!(xattr(b"LIBARCHIVE.xattr.user.a%20b", b"AHY").unwrap(), wanted);
        assert_eq!(xattr(b"LIBARCHIVE.xattr.user.a%20b", b"AHY=").unwrap(), wanted);
        assert_eq!(xattr(b"LIBARCHIVE.creationtime", b"1").unwrap(), None);
        for (key, value) in [("a%2", "AHY"), ("a%zz", "AHY"), ("a", "A*")] {
            xattr(format!("LIBARCHIVE.xattr.{key}").as_bytes(), value.as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn a_global_header_changes_no_member() {
        global(b"14 comment=ab\n").unwrap();
        global(b"12 mtime=12\n").unwrap();
        for bad in [&b"12 path=abc\n"[..], b"9 uid=12\n", b"11 size=12\n", b"23 GNU.sparse.major=12\n"] {
            let error = global(bad).unwrap_err();
            assert!(error.contains("global") || error.contains("malformed"), "{error}");
        }
    }
}
