//! Time as the broker writes it. What decides gets its time passed in from one [`Clock`].

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

/// Where time comes from: the system's clock, or a test's.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock of one's own.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Seconds since 1970.
#[must_use]
pub fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// RFC 3339, UTC, whole seconds: `2026-11-21T22:29:00Z`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let t = whole_seconds(time);
    let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", t.hour(), t.minute(), t.second())
}

/// The date form of HTTP headers (RFC 9110 section 5.6.7): `Sat, 21 Nov 2026 22:29:00 GMT`.
#[must_use]
pub fn http_date(time: SystemTime) -> String {
    let t = whole_seconds(time);
    let (weekday, month) = (t.weekday().to_string(), t.month().to_string());
    let (weekday, month) = (&weekday[..3], &month[..3]);
    let (day, year) = (t.day(), t.year());
    format!("{weekday}, {day:02} {month} {year:04} {:02}:{:02}:{:02} GMT", t.hour(), t.minute(), t.second())
}

fn whole_seconds(time: SystemTime) -> OffsetDateTime {
    let seconds = i64::try_from(unix(time)).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_795_300_140, 999);
        assert_eq!(rfc3339(time), "2026-11-21T22:29:00Z");
        assert_eq!(http_date(time), "Sat, 21 Nov 2026 22:29:00 GMT");
        assert_eq!(http_date(SystemTime::UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
