//! PEM as tools write it (RFC 7468, and RFC 1421 headers of OpenSSL's traditional encryption): any text
//! before, between and after blocks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::KeyError;

pub(super) const ENCRYPTED_PRIVATE_KEY: &str = "ENCRYPTED PRIVATE KEY";
pub(super) const PRIVATE_KEY: &str = "PRIVATE KEY";
pub(super) const RSA_PRIVATE_KEY: &str = "RSA PRIVATE KEY";
pub(super) const EC_PRIVATE_KEY: &str = "EC PRIVATE KEY";
pub(super) const PUBLIC_KEY: &str = "PUBLIC KEY";
pub(super) const RSA_PUBLIC_KEY: &str = "RSA PUBLIC KEY";
pub(super) const CERTIFICATE: &str = "CERTIFICATE";
/// As OpenSSL labels certificates with its own trust settings; refused by its name.
const TRUSTED_CERTIFICATE: &str = "TRUSTED CERTIFICATE";

const MAX_BLOCKS: usize = 16;

/// True of any private key, also those that are then refused by their name.
pub(super) fn is_private(label: &str) -> bool {
    label == PRIVATE_KEY || label.ends_with(" PRIVATE KEY")
}

pub(super) fn is_public(label: &str) -> bool {
    label == PUBLIC_KEY
        || label.ends_with(" PUBLIC KEY")
        || label == CERTIFICATE
        || label == TRUSTED_CERTIFICATE
}

/// One block, its base64 not yet decoded.
pub(super) struct Block<'a> {
    pub(super) label: &'a str,
    /// The value of `DEK-Info`, of a block that is encrypted the traditional way.
    pub(super) dek_info: Option<&'a str>,
    lines: Vec<&'a str>,
}

impl Block<'_> {
    pub(super) fn is_encrypted(&self) -> bool {
        self.label == ENCRYPTED_PRIVATE_KEY || self.dek_info.is_some()
    }

    pub(super) fn decode(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let length = self.lines.iter().map(|line| line.len()).sum();
        let mut text = Zeroizing::new(String::with_capacity(length));
        self.lines.iter().for_each(|line| text.push_str(line));
        // The whole capacity at once: growing would leave copies behind.
        let mut out = Zeroizing::new(Vec::with_capacity(length / 4 * 3 + 3));
        STANDARD.decode_vec(text.as_bytes(), &mut out).map_err(|_| KeyError::Pem("not base64"))?;
        Ok(out)
    }
}

/// All blocks of a file, at most 16.
pub(super) fn blocks(bytes: &[u8]) -> Result<Vec<Block<'_>>, KeyError> {
    // Text around the blocks may be in any encoding: lines that aren't UTF-8 are skipped.
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| str::from_utf8(line).unwrap_or("").trim());
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, "-----BEGIN ") else { continue };
        if found.len() == MAX_BLOCKS {
            return Err(KeyError::Pem("more than 16 blocks in a file"));
        }
        found.push(block(label, &mut lines)?);
    }
    Ok(found)
}

fn boundary<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

fn block<'a>(label: &'a str, lines: &mut impl Iterator<Item = &'a str>) -> Result<Block<'a>, KeyError> {
    let mut block = Block { label, dek_info: None, lines: Vec::new() };
    let mut encrypted = false;
    for line in lines {
        if let Some(end) = boundary(line, "-----END ") {
            return match (end == label, encrypted == block.dek_info.is_some()) {
                (true, true) => Ok(block),
                (true, false) => Err(KeyError::Pem("Proc-Type and DEK-Info don't go together")),
                (false, _) => Err(KeyError::Pem("BEGIN and END have different labels")),
            };
        }
        match line.split_once(':') {
            Some(_) if !block.lines.is_empty() => return Err(KeyError::Pem("a header behind the body")),
            Some(("Proc-Type", value)) => encrypted = value.trim() == "4,ENCRYPTED",
            Some(("DEK-Info", value)) => block.dek_info = Some(value.trim()),
            Some(_) => {}
            None if line.is_empty() => {}
            None => block.lines.push(line),
        }
    }
    Err(KeyError::Pem("no END line"))
}
