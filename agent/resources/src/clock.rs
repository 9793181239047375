//! Time and randomness. Both come from the host and are treated so in a sealed VM.

use std::fs;
use std::io::{self, Write};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// No clock of a guest with this agent was ever right below it (2026-11-01, seconds since the epoch): a
/// host that sets it earlier would bring expired certificates back to life.
pub const BUILT: i64 = 1_793_491_200;

/// Nobody's word moves the clock beyond this: thirty years later.
pub const LATEST: i64 = BUILT + 30 * 365 * 86_400;

/// Randomness of one request; more adds nothing.
const MAX_SEED: usize = 4096;

/// Why the clock wasn't set.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// Earlier than it may be.
    #[error("the time {0} is before this agent was built")]
    TooEarly(i64),
    /// Later than anybody's.
    #[error("the time {0} is decades after this agent was built")]
    TooLate(i64),
    /// Not a time.
    #[error("seconds must not be negative, and microseconds must be from 0 to 999999")]
    Malformed,
    /// The kernel refused.
    #[error("the kernel refused the time: {0}")]
    Kernel(nix::errno::Errno),
}

/// Sets the clock, at `floor` or later.
pub fn set_clock(seconds: i64, microseconds: i64, floor: i64) -> Result<(), ClockError> {
    let time = acceptable(seconds, microseconds, floor)?;
    clock_settime(ClockId::CLOCK_REALTIME, time).map_err(ClockError::Kernel)
}

/// Sets a clock right that the machine started with before the agent was built; true if that was so.
pub fn raise_clock() -> Result<bool, ClockError> {
    let born = std::time::UNIX_EPOCH + std::time::Duration::from_secs(BUILT.unsigned_abs());
    if std::time::SystemTime::now() >= born {
        return Ok(false);
    }
    set_clock(BUILT, 0, BUILT).map(|()| true)
}

/// Moves a clock forward that is before `seconds`, which somebody said who can be believed; true if it was.
pub fn raise_clock_to(seconds: i64) -> Result<bool, ClockError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    match later(now, seconds)? {
        Some(seconds) => set_clock(seconds, 0, BUILT).map(|()| true),
        None => Ok(false),
    }
}

/// What to move the clock to.
fn later(now: i64, seconds: i64) -> Result<Option<i64>, ClockError> {
    if seconds > LATEST {
        return Err(ClockError::TooLate(seconds));
    }
    Ok(Some(seconds).filter(|seconds| *seconds > now))
}

fn acceptable(seconds: i64, microseconds: i64, floor: i64) -> Result<TimeSpec, ClockError> {
    if !(0..1_000_000).contains(&microseconds) || seconds < 0 && floor <= 0 {
        return Err(ClockError::Malformed);
    }
    if seconds < floor {
        return Err(ClockError::TooEarly(seconds));
    }
    Ok(TimeSpec::new(seconds, microseconds * 1000))
}

/// Mixes bytes into the kernel's pool, without counting them as entropy.
pub fn mix_randomness(bytes: &[u8]) -> io::Result<()> {
    let seed = &bytes[..bytes.len().min(MAX_SEED)];
    fs::OpenOptions::new().write(true).open("/dev/urandom")?.write_all(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_vms_clock_never_goes_before_the_agents_birth() {
        assert!(acceptable(BUILT, 0, BUILT).is_ok());
        assert!(matches!(acceptable(BUILT - 1, 0, BUILT), Err(ClockError::TooEarly(_))));
        assert!(matches!(acceptable(i64::MIN, 0, BUILT), Err(ClockError::TooEarly(_))));
        assert!(matches!(acceptable(BUILT, -1, BUILT), Err(ClockError::Malformed)));
        assert!(matches!(acceptable(BUILT, i64::MAX, BUILT), Err(ClockError::Malformed)));
    }

    #[test]
    fn a_clock_is_moved_forward_only_and_not_beyond_reason() {
        assert_eq!(later(BUILT, BUILT + 5).unwrap(), Some(BUILT + 5));
        assert_eq!(later(BUILT + 5, BUILT + 5).unwrap(), None);
        assert_eq!(later(BUILT + 6, BUILT + 5).unwrap(), None);
        assert_eq!(later(BUILT, i64::MIN).unwrap(), None);
        assert_eq!(later(BUILT, LATEST).unwrap(), Some(LATEST));
        for seconds in [LATEST + 1, i64::MAX] {
            assert!(matches!(later(BUILT, seconds), Err(ClockError::TooLate(_))));
        }
    }

    #[test]
    fn without_a_floor_any_time_goes() {
        assert!(acceptable(0, 999_999, 0).is_ok());
        assert!(matches!(acceptable(-1, 0, 0), Err(ClockError::Malformed)));
    }
}
