//! What answers without the disk: the pieces used last, and what is known not to be there. Both bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::item::Item;
use crate::key::Key;

/// A bounded map that forgets what was used longest ago.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    most: usize,
    uses: u64,
    entries: HashMap<Key, (T, u64)>,
}

impl<T: Clone> Recent<T> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, uses: 0, entries: HashMap::new() }
    }

    pub(crate) fn get(&mut self, key: &Key) -> Option<T> {
        self.uses += 1;
        let (value, used) = self.entries.get_mut(key)?;
        *used = self.uses;
        Some(value.clone())
    }

    pub(crate) fn insert(&mut self, key: Key, value: T) {
        self.uses += 1;
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            // Rare next to the network or disk access that brought the new one.
            let oldest = self.entries.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(key, (value, self.uses));
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        self.entries.remove(key);
    }
}

/// A piece in memory.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) item: Arc<Item>,
    /// When its source was last asked for it, in this process.
    pub(crate) asked: Option<SystemTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Key {
        Key::Cek([n; 64])
    }

    #[test]
    fn it_is_bounded_and_forgets_what_was_used_longest_ago() {
        let mut recent = Recent::new(2);
        recent.insert(key(1), 'a');
        recent.insert(key(2), 'b');
        assert_eq!(recent.get(&key(1)), Some('a'));
        recent.insert(key(3), 'c');
        assert_eq!(recent.get(&key(2)), None);
        recent.insert(key(3), 'd');
        assert_eq!((recent.get(&key(1)), recent.get(&key(3))), (Some('a'), Some('d')));
        recent.remove(&key(1));
        assert_eq!(recent.get(&key(1)), None);
    }
}
