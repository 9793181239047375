//! What is missing and why: for the guest, who gets no addresses, and for the log, which gets all.

use std::fmt;

use crate::item::ItemError;
use crate::key::Key;

/// A piece of collateral that isn't there, or is there and stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Which.
    pub key: Key,
    /// Why.
    pub why: Why,
}

/// Why a piece isn't there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Not in the cache, and there is nobody to ask.
    NotCached,
    /// The key distribution service has none.
    NotFound(String),
    /// The key distribution service can't be reached, is busy, or gives something else.
    Unavailable(String),
    /// Being fetched; not there in time.
    Slow,
    /// Too much is being fetched.
    Busy,
    /// What the cache has is damaged.
    Damaged(String),
    /// The given bytes are not it.
    Refused(ItemError),
}

impl Note {
    pub(crate) fn new(key: &Key, why: Why) -> Self {
        Self { key: key.clone(), why }
    }

    /// With everything, for the log of whoever keeps the cache.
    #[must_use]
    pub fn detail(&self) -> String {
        match &self.why {
            Why::NotFound(detail) | Why::Unavailable(detail) | Why::Damaged(detail) => {
                format!("{self} ({detail})")
            }
            _ => self.to_string(),
        }
    }
}

/// One line without addresses, ending in the next step.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const IMPORT: &str =
            "run 'sealpod collateral fetch' where there is a network and import its bundle here";
        write!(f, "{}: ", self.key)?;
        match &self.why {
            Why::NotCached => {
                write!(f, "not in the cache, and no key distribution service is configured; {IMPORT}")
            }
            Why::NotFound(_) => {
                write!(
                    f,
                    "the key distribution service has none; check that chip and TCB version are genuine"
                )
            }
            Why::Unavailable(_) => {
                write!(f, "the key distribution service gives none now; try again later, or {IMPORT}")
            }
            Why::Slow => write!(f, "still being fetched; try again"),
            Why::Busy => write!(f, "too much is being fetched; try again"),
            Why::Damaged(_) => write!(f, "damaged in the cache; {IMPORT}"),
            Why::Refused(error) => write!(f, "{error}"),
        }
    }
}
