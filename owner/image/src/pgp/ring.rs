//! Public key rings: what `gpg --export` writes, binary or armored, and how a recipient is found in them.

use pgp::types::KeyDetails;

use super::certificate::{Certificate, Certificates};
use super::packets;
use super::validity::EncryptionKey;
use super::{PgpError, RING_LIMIT, Unusable, armor};

/// Packets of a ring: a quarter of a million keys would be a key server.
const MAX_PACKETS: usize = 1 << 20;

/// One or more key rings, searched together.
#[derive(Default)]
pub struct PublicRing {
    certificates: Certificates,
}

impl std::fmt::Debug for PublicRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicRing").field("keys", &self.len()).finish_non_exhaustive()
    }
}

impl PublicRing {
    /// An empty ring.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what a file holds; `file` is its name, for errors. Keys of unknown kinds are passed over until one is
    /// asked for.
    ///
    /// # Errors
    /// When the file holds no key, is too large or damaged.
    pub fn add(&mut self, file: &str, bytes: &[u8]) -> Result<(), PgpError> {
        let before = self.len();
        let bytes = armor::packets_of(file, bytes)?;
        let packets = packets::read(&bytes, RING_LIMIT, MAX_PACKETS)
            .map_err(|source| PgpError::File { file: file.to_owned(), source })?;
        self.certificates.add(&packets);
        if self.len() == before {
            return Err(PgpError::NoKey { file: file.to_owned(), wanted: "public" });
        }
        Ok(())
    }

    /// Keys in it, also those that can't be read.
    pub fn len(&self) -> usize {
        self.certificates.readable.len() + self.certificates.unreadable.len()
    }

    /// Has nothing been added?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one usable key of that name at `now` (seconds since 1970).
    pub(super) fn find(&self, name: &str, now: u32) -> Result<(&Certificate, EncryptionKey), PgpError> {
        let asked = Asked::parse(name)?;
        let mut usable: Vec<(&Certificate, EncryptionKey)> = Vec::new();
        let mut refused: Option<PgpError> = None;
        for certificate in &self.certificates.readable {
            let reason = match asked.names(certificate, now) {
                Match::No => continue,
                Match::Unsigned => Unusable::Unsigned,
                Match::Yes => match certificate.encryption_key(now) {
                    // The same key may be in two rings.
                    Ok(_) if usable.iter().any(|(other, _)| same(other, certificate)) => continue,
                    Ok(key) => {
                        usable.push((certificate, key));
                        continue;
                    }
                    Err(reason) => reason,
                },
            };
            let fingerprint = fingerprint(certificate);
            refused = Some(PgpError::Unusable { name: name.to_owned(), fingerprint, reason });
        }
        let count = usable.len();
        if count > 1 {
            let some: Vec<String> = usable.iter().take(4).map(|(other, _)| fingerprint(other)).collect();
            return Err(PgpError::Ambiguous { name: name.to_owned(), count, fingerprints: some.join(", ") });
        }
        usable.pop().ok_or_else(|| refused.unwrap_or_else(|| self.unknown(name, &asked)))
    }

    fn unknown(&self, name: &str, asked: &Asked) -> PgpError {
        let name = name.to_owned();
        let unreadable = &self.certificates.unreadable;
        if unreadable.iter().any(|key| key.users.iter().any(|user| asked.is(user))) {
            let reason = Unusable::Unsupported("unknown algorithm or version".into());
            return PgpError::Unusable { name, fingerprint: "of unknown fingerprint".into(), reason };
        }
        PgpError::Unknown { name }
    }
}

/// Upper-case hexadecimal, as gpg prints it.
pub(super) fn fingerprint(certificate: &Certificate) -> String {
    hexadecimal(certificate.primary.it.fingerprint().as_bytes())
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn same(one: &Certificate, other: &Certificate) -> bool {
    one.primary.it.fingerprint() == other.primary.it.fingerprint()
}

/// How somebody is named.
enum Asked {
    Fingerprint(String),
    KeyId(String),
    User(String),
}

enum Match {
    No,
    /// The user id is there, and no signature of the key vouches for it now.
    Unsigned,
    Yes,
}

impl Asked {
    fn parse(name: &str) -> Result<Self, PgpError> {
        let prefixed = name.strip_prefix("0x").or_else(|| name.strip_prefix("0X"));
        let digits: String = prefixed.unwrap_or(name).chars().filter(|c| *c != ' ').collect();
        if digits.chars().all(|c| c.is_ascii_hexdigit()) {
            let digits = digits.to_ascii_uppercase();
            match digits.len() {
                40 => return Ok(Self::Fingerprint(digits)),
                16 => return Ok(Self::KeyId(digits)),
                8 if prefixed.is_some() => return Err(PgpError::ShortKeyId { name: name.to_owned() }),
                _ => {}
            }
        }
        Ok(Self::User(name.to_owned()))
    }

    fn names(&self, certificate: &Certificate, now: u32) -> Match {
        let keys = || {
            let subkeys = certificate.subkeys.iter().map(|subkey| subkey.it.fingerprint());
            std::iter::once(certificate.primary.it.fingerprint()).chain(subkeys)
        };
        let found = match self {
            Self::Fingerprint(wanted) => keys().any(|key| hexadecimal(key.as_bytes()) == *wanted),
            Self::KeyId(wanted) => keys().any(|key| hexadecimal(key.as_bytes()).ends_with(wanted.as_str())),
            Self::User(_) => {
                if !certificate.users.iter().filter_map(|user| user.it.as_str()).any(|user| self.is(user)) {
                    return Match::No;
                }
                if !certificate.valid_users(now).any(|user| self.is(user)) {
                    return Match::Unsigned;
                }
                true
            }
        };
        if found { Match::Yes } else { Match::No }
    }

    /// The whole user id, its name, or its e-mail address (in any case of letters).
    fn is(&self, user: &str) -> bool {
        let Self::User(wanted) = self else {
            return false;
        };
        if user == wanted || user.is_empty() {
            return user == wanted;
        }
        let (name, mail) = match user.rsplit_once('<') {
            Some((name, mail)) => (name.trim(), mail.trim().trim_end_matches('>')),
            None => (user.trim(), if user.contains('@') { user.trim() } else { "" }),
        };
        let bare = name.split_once('(').map_or(name, |(bare, _)| bare.trim());
        let address = wanted.trim_start_matches('<').trim_end_matches('>');
        (!name.is_empty() && (name == wanted || bare == wanted))
            || (!mail.is_empty() && mail.eq_ignore_ascii_case(address))
    }
}
