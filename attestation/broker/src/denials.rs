//! How many denied releases a chip may put into the audit log: evidence is proof of a real machine, not of
//! good will.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Records that a chip may cause at once, and then one a [`PERIOD`].
const BURST: u32 = 32;
const PERIOD: Duration = Duration::from_secs(2);

/// Chips remembered. Each one is a machine whose certificate AMD (or the emulated root) signed.
const CHIPS: usize = 4096;

struct Bucket {
    left: u32,
    filled: SystemTime,
    suppressed: u64,
}

/// A bucket of records a chip.
#[derive(Default)]
pub(crate) struct Denials(Mutex<HashMap<String, Bucket>>);

impl Denials {
    /// Whether a denial to `chip` is to be recorded; if so, how many before it weren't.
    pub(crate) fn admit(&self, chip: &str, now: SystemTime) -> Option<u64> {
        let mut chips = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if chips.len() >= CHIPS && !chips.contains_key(chip) {
            // Forgetting costs at most another burst a chip.
            chips.clear();
        }
        let full = || Bucket { left: BURST, filled: now, suppressed: 0 };
        let bucket = chips.entry(chip.to_owned()).or_insert_with(full);
        let passed = now.duration_since(bucket.filled).unwrap_or_default();
        let periods = u32::try_from(passed.as_secs() / PERIOD.as_secs()).unwrap_or(u32::MAX);
        if periods > 0 {
            bucket.left = bucket.left.saturating_add(periods).min(BURST);
            bucket.filled = now;
        }
        if bucket.left == 0 {
            bucket.suppressed += 1;
            return None;
        }
        bucket.left -= 1;
        Some(std::mem::take(&mut bucket.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn a_chip_that_floods_is_counted_and_another_is_recorded() {
        let denials = Denials::default();
        let recorded = (0..1000).filter(|_| denials.admit("a", NOW).is_some()).count();
        assert_eq!(recorded, BURST as usize);
        assert_eq!(denials.admit("b", NOW), Some(0));
        assert_eq!(denials.admit("a", NOW + PERIOD), Some(1000 - u64::from(BURST)));
        assert_eq!(denials.admit("a", NOW + PERIOD), None);
    }

    #[test]
    fn memory_is_bounded() {
        let denials = Denials::default();
        for chip in 0..3 * CHIPS {
            denials.admit(&chip.to_string(), NOW);
        }
        assert!(denials.0.lock().unwrap().len() <= CHIPS);
    }
}
