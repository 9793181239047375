//! Logs: one JSON object a line on standard error. Never secrets: what is logged are names and reasons.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use slog::Drain;

/// Lines a second that refused strangers may cause.
const REFUSALS_A_SECOND: u64 = 20;

/// A logger on standard error.
pub fn stderr() -> slog::Logger {
    let json = slog_json::Json::new(std::io::stderr()).add_default_keys().set_flush(true).build();
    slog::Logger::root(Mutex::new(json).map(slog::Fuse), slog::o!("program" => "sealpod-broker"))
}

/// A logger that keeps nothing, for tests and examples.
pub fn silent() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

/// Lets a bounded number of lines a second through and counts the rest.
#[derive(Debug, Default)]
pub struct Throttle {
    second: AtomicU64,
    lines: AtomicU64,
    suppressed: AtomicU64,
}

impl Throttle {
    /// Whether a line may be written in `second`; if so, how many were suppressed before it.
    pub fn admit(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) < REFUSALS_A_SECOND {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let throttle = Throttle::default();
        let written = (0..1000).filter(|_| throttle.admit(7).is_some()).count() as u64;
        assert_eq!(written, REFUSALS_A_SECOND);
        assert_eq!(throttle.admit(8), Some(1000 - REFUSALS_A_SECOND));
        assert_eq!(throttle.admit(8), Some(0));
    }
}
