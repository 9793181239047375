//! Names and digests in text form, and what is allowed in them. One place, since broker, owner and
//! agent must agree to the letter.

use sha2::{Digest, Sha256};
use thiserror::Error;

/// A name or digest that breaks its rule.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// A repository name.
    #[error("repository '{0}' is not valid: 1 to 63 of a-z, 0-9 and '-', no '-' at either end")]
    Repository(String),
    /// A lineage name.
    #[error("lineage '{0}' is not valid: 1 to 128 of a-z, 0-9, '-' and '.', a letter or digit at either end")]
    Lineage(String),
    /// A segment of a resource address.
    #[error("segment '{0}' is not valid: letters, digits, '_', '-' and, not first, '.'; at most 253")]
    Segment(String),
    /// A `sha256:` digest.
    #[error("digest '{0}' is not 'sha256:' and 64 lower-case hex digits")]
    Digest(String),
    /// A launch digest.
    #[error("launch digest '{0}' is not 96 (SNP) or 64 (SEV, SEV-ES) lower-case hex digits")]
    LaunchDigest(String),
    /// A launch digest of zeros, which no measured launch has.
    #[error("launch digest is all zeros; run 'sealpod measure' on the guest image")]
    ZeroLaunchDigest,
}

/// Checks a repository name: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
pub fn repository(name: &str) -> Result<(), NameError> {
    let ok = name.len() <= 63 && edges(name) && name.bytes().all(|b| alnum(b) || b == b'-');
    ok.then_some(()).ok_or_else(|| NameError::Repository(shown(name)))
}

/// Checks a lineage name: a repository's alphabet and `.`, at most 128 bytes.
pub fn lineage(name: &str) -> Result<(), NameError> {
    let ok = name.len() <= 128 && edges(name) && name.bytes().all(|b| alnum(b) || matches!(b, b'-' | b'.'));
    ok.then_some(()).ok_or_else(|| NameError::Lineage(shown(name)))
}

/// Checks a segment of a `kbs:///` address: `[A-Za-z0-9_-]+[A-Za-z0-9_.-]*`, at most 253 bytes.
pub fn segment(name: &str) -> Result<(), NameError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let ok = name.len() <= 253
        && name.bytes().next().is_some_and(word)
        && name.bytes().all(|b| word(b) || b == b'.');
    ok.then_some(()).ok_or_else(|| NameError::Segment(shown(name)))
}

/// Checks `sha256:<64 lower-case hex digits>`.
pub fn digest(text: &str) -> Result<(), NameError> {
    let ok = text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(lower_hex));
    ok.then_some(()).ok_or_else(|| NameError::Digest(shown(text)))
}

/// Checks a launch digest: 96 (SNP) or 64 (SEV, SEV-ES) lower-case hex digits, not all zero.
pub fn launch_digest(text: &str) -> Result<(), NameError> {
    if !matches!(text.len(), 64 | 96) || !text.bytes().all(lower_hex) {
        return Err(NameError::LaunchDigest(shown(text)));
    }
    if text.bytes().all(|b| b == b'0') { Err(NameError::ZeroLaunchDigest) } else { Ok(()) }
}

/// `sha256:<hex>` of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn edges(name: &str) -> bool {
    name.bytes().next().is_some_and(alnum) && name.bytes().last().is_some_and(alnum)
}

fn lower_hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

/// The start of a name, for an error message.
fn shown(name: &str) -> String {
    name.chars().take(96).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "team-a", "0", &"a".repeat(63)] {
            repository(good).unwrap();
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "a\0", "ä", &"a".repeat(64)] {
            assert!(repository(bad).is_err(), "{bad}");
        }
        lineage("web.eu-1").unwrap();
        for bad in ["", ".", "a.", ".a", "a_b", &"a".repeat(129)] {
            assert!(lineage(bad).is_err(), "{bad}");
        }
        segment("sealed-spec_1.r2").unwrap();
        for bad in ["", ".", "..", ".a", "a b", "a%2f", "a/b"] {
            assert!(segment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests() {
        digest(&sha256(b"")).unwrap();
        let hex = "ab".repeat(32);
        for bad in [
            hex.clone(),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{hex}0"),
            format!("sha512:{hex}"),
        ] {
            assert!(digest(&bad).is_err(), "{bad}");
        }
        launch_digest(&"ab".repeat(48)).unwrap();
        assert_eq!(launch_digest(&"0".repeat(96)), Err(NameError::ZeroLaunchDigest));
        for bad in ["", "ab", &"ab".repeat(47), &"AB".repeat(48), &"ab".repeat(49)] {
            assert!(launch_digest(bad).is_err(), "{bad}");
        }
    }
}
