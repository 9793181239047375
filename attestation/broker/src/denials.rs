//! How many refusals one machine, address or the world may put into the audit log: evidence is proof of a real
//! machine, not of good will, and refused evidence of nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Records that one may cause at once, and then one a [`PERIOD`].
const BURST: u32 = 32;
const PERIOD: Duration = Duration::from_secs(2);

/// The same for those who proved nothing.
const SLOW: Duration = Duration::from_secs(30);

/// Names remembered.
const NAMES: usize = 4096;

struct Bucket {
    left: u32,
    filled: SystemTime,
    suppressed: u64,
}

/// A bucket of records for each name.
pub(crate) struct Denials {
    period: Duration,
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl Default for Denials {
    fn default() -> Self {
        Self { period: PERIOD, buckets: Mutex::default() }
    }
}

impl Denials {
    /// For those who proved nothing.
    pub(crate) fn slow() -> Self {
        Self { period: SLOW, ..Self::default() }
    }

    /// Whether a refusal of `name` is to be recorded; if so, how many before it weren't.
    pub(crate) fn admit(&self, name: &str, now: SystemTime) -> Option<u64> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= NAMES && !buckets.contains_key(name) {
            // Forgetting costs at most another burst a name.
            buckets.clear();
        }
        let full = || Bucket { left: BURST, filled: now, suppressed: 0 };
        let bucket = buckets.entry(name.to_owned()).or_insert_with(full);
        let passed = now.duration_since(bucket.filled).unwrap_or_default();
        let periods = u32::try_from(passed.as_secs() / self.period.as_secs()).unwrap_or(u32::MAX);
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
        for chip in 0..3 * NAMES {
            denials.admit(&chip.to_string(), NOW);
        }
        assert!(denials.buckets.lock().unwrap().len() <= NAMES);
    }
}
