//! Names and identifiers: repositories, lineages, `kbs:///` URIs, key ids and spec digests.
//!
//! Each is a type of its own that exists only in its valid form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Why a name is refused: which kind of name, what was given (shortened), and the rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {given:?}: {rule}")]
pub struct NameError {
    what: &'static str,
    given: String,
    rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, given: &str, rule: &'static str) -> Self {
        Self { what, given: given.chars().take(160).collect(), rule }
    }
}

/// A string type that parses itself on deserialisation.
macro_rules! string_type {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.to_string()
            }
        }
    };
}

/// An owner's name space at the broker: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(String);

impl Repository {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if label(text, 63, b"-") {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new(
                "repository",
                text,
                "1 to 63 lower-case letters, digits and inner hyphens are allowed",
            ))
        }
    }
}
string_type!(Repository);

/// The line of revisions that one workload goes through: as a repository, plus inner dots, ≤ 128.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lineage(String);

impl Lineage {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Lineage {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if label(text, 128, b"-.") {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::new(
                "lineage",
                text,
                "1 to 128 lower-case letters, digits and inner hyphens or dots are allowed",
            ))
        }
    }
}
string_type!(Lineage);

/// `kbs:///<repository>/<type>/<tag>`: a resource at the broker that the initdata pins (empty host).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KbsUri(String);

impl KbsUri {
    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Repository, type and tag.
    pub fn segments(&self) -> (&str, &str, &str) {
        let mut parts = self.0[KBS_PREFIX.len()..].splitn(3, '/');
        let mut next = || parts.next().unwrap_or_default();
        (next(), next(), next())
    }
}

const KBS_PREFIX: &str = "kbs:///";

impl FromStr for KbsUri {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |rule| Err(NameError::new("resource URI", text, rule));
        let Some(path) = text.strip_prefix(KBS_PREFIX) else {
            return refuse("it must start with kbs:/// (no host: the broker is pinned elsewhere)");
        };
        if text.len() > 512 {
            return refuse("at most 512 bytes are allowed");
        }
        if path.split('/').count() != 3 || !path.split('/').all(kbs_segment) {
            return refuse(
                "three segments <repository>/<type>/<tag> of letters, digits, '_', '-' and inner '.' are needed",
            );
        }
        Ok(Self(text.to_owned()))
    }
}
string_type!(KbsUri);

/// `kbs:///<repository>/sealed-spec/<lineage>.r<revision>.<8 hex>`: the key of one sealing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId {
    text: String,
    repository: Repository,
    lineage: Lineage,
    revision: u64,
}

impl KeyId {
    /// The resource type that holds spec keys.
    pub const TYPE: &'static str = "sealed-spec";

    /// A new id; its last part is random so that every sealing has an id of its own.
    pub fn generate(
        repository: &Repository,
        lineage: &Lineage,
        revision: u64,
    ) -> Result<Self, crate::KeyError> {
        let random = getrandom::u32()?;
        // Revision 0 would not parse again; the types of the callers start at 1.
        let revision = revision.max(1);
        Ok(Self {
            text: format!("{KBS_PREFIX}{repository}/{}/{lineage}.r{revision}.{random:08x}", Self::TYPE),
            repository: repository.clone(),
            lineage: lineage.clone(),
            revision,
        })
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose key it is.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Which workload's.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Which revision's.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The last segment, as in a broker's `/resource/<repository>/sealed-spec/<tag>`.
    pub fn tag(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for KeyId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        const RULE: &str = "kbs:///<repository>/sealed-spec/<lineage>.r<revision>.<8 hex digits> is needed";
        let refuse = || NameError::new("key id", text, RULE);
        let uri: KbsUri = text.parse()?;
        let (repository, kind, tag) = uri.segments();
        let repository = repository.parse()?;
        let (rest, random) = tag.rsplit_once('.').ok_or_else(refuse)?;
        let (lineage, revision) = rest.rsplit_once(".r").ok_or_else(refuse)?;
        let revision = canonical_revision(revision).ok_or_else(refuse)?;
        if kind != Self::TYPE || random.len() != 8 || !random.bytes().all(lower_hex) {
            return Err(refuse());
        }
        Ok(Self { text: text.to_owned(), repository, lineage: lineage.parse()?, revision })
    }
}
string_type!(KeyId);

/// SHA-256 over the canonical ASCII of a sealed document; printed `sha256:<64 lower hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpecDigest([u8; 32]);

impl SpecDigest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SpecDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for SpecDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SpecDigest {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        sha256_hex(text)
            .map(Self)
            .ok_or_else(|| NameError::new("digest", text, "sha256:<64 lower-case hex digits> is needed"))
    }
}

impl TryFrom<String> for SpecDigest {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<SpecDigest> for String {
    fn from(digest: SpecDigest) -> String {
        digest.to_string()
    }
}

/// The bytes of `sha256:<64 lower hex>`.
pub(crate) fn sha256_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("sha256:")?;
    if !digits.bytes().all(lower_hex) {
        return None;
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

/// RFC 1123 label: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
pub(crate) fn dns_label(text: &str) -> bool {
    label(text, 63, b"-")
}

/// RFC 1123 subdomain: labels joined by dots, at most 253 bytes.
pub(crate) fn dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(dns_label)
}

fn label(text: &str, longest: usize, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= longest
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || inner.contains(b))
}

fn kbs_segment(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    text.bytes().next().is_some_and(word) && text.bytes().all(|b| word(b) || b == b'.')
}

fn canonical_revision(text: &str) -> Option<u64> {
    let revision: u64 = text.parse().ok()?;
    (revision >= 1 && revision.to_string() == text).then_some(revision)
}

fn lower_hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_and_lineages() {
        for good in ["a", "acme", "a-1", "0", &"x".repeat(63)] {
            assert!(good.parse::<Repository>().is_ok(), "{good}");
            assert!(good.parse::<Lineage>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "a b", "ä", "..", &"x".repeat(64)] {
            assert!(bad.parse::<Repository>().is_err(), "{bad}");
        }
        assert!("shop.web".parse::<Lineage>().is_ok());
        assert!("shop.web".parse::<Repository>().is_err());
        for bad in [".shop", "shop.", &"x".repeat(129)] {
            assert!(bad.parse::<Lineage>().is_err(), "{bad}");
        }
    }

    #[test]
    fn key_id_round_trips() {
        let id = KeyId::generate(&"acme".parse().unwrap(), &"shop.r7.web".parse().unwrap(), 12).unwrap();
        let again: KeyId = id.as_str().parse().unwrap();
        assert_eq!(again, id);
        assert_eq!(
            (again.repository().as_str(), again.lineage().as_str(), again.revision()),
            ("acme", "shop.r7.web", 12)
        );
        assert!(id.tag().starts_with("shop.r7.web.r12."));
    }

    #[test]
    fn key_ids_refused() {
        for bad in [
            "kbs:///acme/sealed-spec/web.r0.00c0ffee",
            "kbs:///acme/sealed-spec/web.r01.00c0ffee",
            "kbs:///acme/sealed-spec/web.r+1.00c0ffee",
            "kbs:///acme/sealed-spec/web.r1.00C0FFEE",
            "kbs:///acme/sealed-spec/web.r1.00c0ffe",
            "kbs:///acme/sealed-spec/web.00c0ffee",
            "kbs:///acme/other/web.r1.00c0ffee",
            "kbs://host/acme/sealed-spec/web.r1.00c0ffee",
            "kbs:///acme/sealed-spec/web.r1.00c0ffee/x",
            "kbs:///../sealed-spec/web.r1.00c0ffee",
            "kbs:///acme/sealed-spec/%77eb.r1.00c0ffee",
            "kbs:///acme/sealed-spec/web.r1.00c0ffee\n",
            "kbs:///Acme/sealed-spec/web.r1.00c0ffee",
        ] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
        assert!("kbs:///acme/sealed-spec/web.r1.00c0ffee".parse::<KeyId>().is_ok());
    }

    #[test]
    fn digests() {
        let digest = SpecDigest::of(b"x");
        assert_eq!(digest.to_string().parse::<SpecDigest>().unwrap(), digest);
        for bad in [
            digest.to_string().to_uppercase(),
            digest.to_string().replace("sha256:", "sha512:"),
            digest.to_string()[..70].to_owned(),
            format!("{digest}0"),
            String::new(),
        ] {
            assert!(bad.parse::<SpecDigest>().is_err(), "{bad}");
        }
    }
}
