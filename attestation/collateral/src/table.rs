//! A cache for people: one line a piece, with its dates, and for lists whether they are fresh.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use x509_cert::der::DateTime;

use crate::bundle::Piece;

/// Days before a list's end from which it counts as ending soon.
const SOON_DAYS: u64 = 14;

/// Lines for pieces, in their order.
#[must_use]
pub fn table(pieces: &[Piece], now: SystemTime) -> String {
    let mut out = String::new();
    for Piece { key, item, written } in pieces {
        // Writing to a string doesn't fail.
        let _ = write!(out, "{key}");
        if let Some((from, to)) = item.good() {
            let _ = write!(out, "; {} to {}", date(from), date(to));
            let _ = write!(out, "; {}", freshness(from, to, now, item.revoked().is_some()));
        }
        if let Some(revoked) = item.revoked() {
            let _ = write!(out, "; revokes {revoked}");
        }
        if let Some((name, fingerprint)) = item.root() {
            let _ = write!(out, "; root '{name}' {}", hex::encode(&fingerprint[..8]));
        }
        let _ = writeln!(out, "; here since {}", date(*written));
    }
    out
}

fn freshness(from: SystemTime, to: SystemTime, now: SystemTime, list: bool) -> String {
    let days = |duration: std::time::Duration| duration.as_secs() / 86_400;
    match (now.duration_since(from), to.duration_since(now)) {
        (Err(_), _) => "NOT YET VALID".to_owned(),
        (_, Err(past)) if list => {
            format!("STALE for {} days: fetch or import a newer one", days(past.duration()))
        }
        (_, Err(past)) => format!("EXPIRED for {} days", days(past.duration())),
        (_, Ok(left)) if list && days(left) < SOON_DAYS => format!("fresh for {} more days only", days(left)),
        (_, Ok(_)) if list => "fresh".to_owned(),
        (_, Ok(_)) => "valid".to_owned(),
    }
}

/// Day in UTC.
fn date(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    match DateTime::from_unix_duration(since) {
        Ok(date) => format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day()),
        Err(_) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_list_says_how_long_it_is_good() {
        let day = |n: u64| UNIX_EPOCH + Duration::from_secs(n * 86_400);
        let list = |now| freshness(day(100), day(200), day(now), true);
        assert_eq!(list(99), "NOT YET VALID");
        assert_eq!(list(100), "fresh");
        assert_eq!(list(190), "fresh for 10 more days only");
        assert_eq!(list(203), "STALE for 3 days: fetch or import a newer one");
        assert_eq!(freshness(day(100), day(200), day(203), false), "EXPIRED for 3 days");
        assert_eq!(date(day(0)), "1970-01-01");
    }
}
