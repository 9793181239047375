//! Certificate signatures that have verified before. A signature over the same bytes by the same key
//! verifies again, so remembering it changes no outcome: it only spares two RSA verifications a report,
//! a third of the whole. Names, dates, anchors and everything about the report are checked every time.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use ring::digest::{Context, SHA256};

/// A few hundred chips' certificates; the oldest is forgotten first.
const MAX: usize = 512;

/// What [`Verified::is_known`] and [`Verified::remember`] go by: a hash of key and certificate.
pub(crate) type Key = [u8; 32];

/// Bounded; only what verified gets in.
#[derive(Debug, Default)]
pub(crate) struct Verified(Mutex<VecDeque<Key>>);

impl Verified {
    pub(crate) fn key(public_key: &[u8], certificate: &[u8]) -> Key {
        let mut hash = Context::new(&SHA256);
        hash.update(&(public_key.len() as u64).to_le_bytes());
        hash.update(public_key);
        hash.update(certificate);
        let mut key = Key::default();
        key.copy_from_slice(hash.finish().as_ref());
        key
    }

    pub(crate) fn is_known(&self, key: &Key) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    pub(crate) fn remember(&self, key: Key) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&key) {
            return;
        }
        if known.len() == MAX {
            known.pop_front();
        }
        known.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_the_oldest() {
        let verified = Verified::default();
        let key = |n: usize| Verified::key(b"key", &n.to_le_bytes());
        for n in 0..=MAX {
            verified.remember(key(n));
            verified.remember(key(n));
        }
        assert!(!verified.is_known(&key(0)));
        assert!((1..=MAX).all(|n| verified.is_known(&key(n))));
    }

    #[test]
    fn key_and_certificate_do_not_run_into_each_other() {
        assert_ne!(Verified::key(b"ab", b"c"), Verified::key(b"a", b"bc"));
        assert_ne!(Verified::key(b"", b"abc"), Verified::key(b"abc", b""));
    }
}
