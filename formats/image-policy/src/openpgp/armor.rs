//! ASCII armour of keyrings: RFC 9580 6.2. Its checksum is left alone, as the RFC has it: keys sign themselves.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// The packets in a keyring file, armoured or not.
pub(crate) fn unarmored(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    // A packet begins with its highest bit set, armour with text.
    if bytes.first().is_none_or(|byte| byte & 0x80 != 0) {
        return Ok(bytes.into());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "the keyring is neither OpenPGP packets nor armour")?;
    let mut lines = text.lines().map(str::trim_end);
    let mut packets = Vec::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        if line != BEGIN {
            return Err(format!("the keyring is armoured as something else than {BEGIN:?}"));
        }
        // Headers, up to an empty line.
        if !lines.by_ref().any(str::is_empty) {
            return Err("the keyring's armour ends too early".into());
        }
        let mut body = String::new();
        loop {
            match lines.next() {
                None => return Err("the keyring's armour ends too early".into()),
                Some(END) => break,
                Some(checksum) if checksum.len() == 5 && checksum.starts_with('=') => {}
                Some(line) => body.push_str(line),
            }
        }
        packets.extend(STANDARD.decode(body).map_err(|_| "the keyring's armour is not base64".to_owned())?);
    }
    Ok(packets.into())
}
