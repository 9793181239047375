//! The guest as a machine: processors, clock, randomness. Time and randomness come from the host and are
//! treated so.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// No clock of a guest with this agent was ever right below it (2026-11-01, seconds since the epoch): a
/// host that sets it earlier would bring expired certificates back to life.
pub const BUILT: i64 = 1_793_491_200;

/// Randomness of one request; more adds nothing.
const MAX_SEED: usize = 4096;

/// Why the clock wasn't set.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// Earlier than the agent.
    #[error("the time {0} is before this agent was built")]
    TooEarly(i64),
    /// Not a time.
    #[error("microseconds must be from 0 to 999999")]
    Malformed,
    /// The kernel refused.
    #[error("the kernel refused the time: {0}")]
    Kernel(nix::errno::Errno),
}

/// Sets the clock, never before the agent was built.
pub fn set_clock(seconds: i64, microseconds: i64) -> Result<(), ClockError> {
    clock_settime(ClockId::CLOCK_REALTIME, acceptable(seconds, microseconds)?).map_err(ClockError::Kernel)
}

/// Sets a clock right that the machine started with before the agent was built; true if that was so.
pub fn raise_clock() -> Result<bool, ClockError> {
    let born = std::time::UNIX_EPOCH + std::time::Duration::from_secs(BUILT.unsigned_abs());
    if std::time::SystemTime::now() >= born {
        return Ok(false);
    }
    set_clock(BUILT, 0).map(|()| true)
}

fn acceptable(seconds: i64, microseconds: i64) -> Result<TimeSpec, ClockError> {
    if !(0..1_000_000).contains(&microseconds) {
        return Err(ClockError::Malformed);
    }
    if seconds < BUILT {
        return Err(ClockError::TooEarly(seconds));
    }
    Ok(TimeSpec::new(seconds, microseconds * 1000))
}

/// Mixes bytes into the kernel's pool, without counting them as entropy.
pub fn mix_randomness(bytes: &[u8]) -> io::Result<()> {
    let seed = &bytes[..bytes.len().min(MAX_SEED)];
    fs::OpenOptions::new().write(true).open("/dev/urandom")?.write_all(seed)
}

/// Brings processors online that were hot-plugged; returns how many are online.
pub fn online_processors(devices: &Path) -> io::Result<usize> {
    let mut online = 0;
    for entry in fs::read_dir(devices)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
        if number.is_none_or(|n| n.is_empty() || !n.bytes().all(|b| b.is_ascii_digit())) {
            continue;
        }
        let switch = entry.path().join("online");
        match fs::read_to_string(&switch) {
            Ok(state) if state.trim() == "0" => {
                if fs::write(&switch, "1").is_ok() {
                    online += 1;
                }
            }
            // The first processor has no switch.
            _ => online += 1,
        }
    }
    Ok(online)
}

/// Bytes of a memory block for hot-plugging; 0 where that isn't possible.
pub fn memory_block_size() -> u64 {
    let text = fs::read_to_string("/sys/devices/system/memory/block_size_bytes").unwrap_or_default();
    u64::from_str_radix(text.trim(), 16).unwrap_or(0)
}

/// Bytes of the agent's resident memory.
pub fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_before_the_agents_birth() {
        assert!(acceptable(BUILT, 0).is_ok());
        assert!(matches!(acceptable(BUILT - 1, 0), Err(ClockError::TooEarly(_))));
        assert!(matches!(acceptable(i64::MIN, 0), Err(ClockError::TooEarly(_))));
        assert!(matches!(acceptable(BUILT, -1), Err(ClockError::Malformed)));
        assert!(matches!(acceptable(BUILT, i64::MAX), Err(ClockError::Malformed)));
    }

    #[test]
    fn sleeping_processors_are_woken() {
        let dir = tempfile::tempdir().unwrap();
        for (name, state) in
            [("cpu0", None), ("cpu1", Some("0\n")), ("cpu2", Some("1\n")), ("cpufreq", Some("0\n"))]
        {
            fs::create_dir(dir.path().join(name)).unwrap();
            if let Some(state) = state {
                fs::write(dir.path().join(name).join("online"), state).unwrap();
            }
        }
        assert_eq!(online_processors(dir.path()).unwrap(), 3);
        assert_eq!(fs::read_to_string(dir.path().join("cpu1/online")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.path().join("cpufreq/online")).unwrap(), "0\n");
    }
}
