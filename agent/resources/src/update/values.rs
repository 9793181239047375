//! The host's values, checked.

use std::collections::BTreeSet;

use crate::error::{ResourceError, Result};

/// No kernel has more processors or memory nodes.
const MAX_INDEX: u32 = 8192;

pub(super) fn malformed(what: &str, value: impl std::fmt::Display) -> ResourceError {
    let value: String = value.to_string().chars().take(64).collect();
    ResourceError::malformed(format!("{what} '{value}' is not one that can be set"))
}

/// A list as `0-3,5`: processors or memory nodes.
pub fn processors(list: &str) -> Result<BTreeSet<u32>> {
    let unreadable = || malformed("processor or memory node list", list);
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse::<u32>().ok()).flatten();
        number.filter(|number| *number < MAX_INDEX).ok_or_else(unreadable)
    };
    let mut set = BTreeSet::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(unreadable());
        }
        set.extend(first..=last);
    }
    Ok(set)
}

/// `2MB`, `1GB`: it becomes part of a file's name.
pub(super) fn page_size(text: &str) -> Result<&str> {
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| text.strip_suffix(unit));
    match digits {
        Some(digits) if (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(text)
        }
        _ => Err(malformed("hugepage size", text)),
    }
}

/// `major:minor` of a block device.
pub(super) fn device(major: i64, minor: i64) -> Result<String> {
    if (0..1 << 12).contains(&major) && (0..1 << 20).contains(&minor) {
        Ok(format!("{major}:{minor}"))
    } else {
        Err(malformed("block device", format!("{major}:{minor}")))
    }
}

/// Shares of version 1, from 2 to 262144 with 1024 in the middle, as the weight of version 2, from 1 to
/// 10000 with 100 in the middle; the curve through these three points is the one that runtimes agree on,
/// and libcontainer's when it makes the container.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = log2(shares);
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // Between 1 and 10,000 by the bounds above.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    let weight = 10f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

fn log2(shares: u64) -> f64 {
    f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2()
}

/// Weights of version 1, from 10 to 1000, as those of version 2, from 1 to 10000.
pub(super) fn io_weight(weight: u32) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_or_refused() {
        assert_eq!(processors("0-2,5\n").unwrap(), [0, 1, 2, 5].into());
        for list in ["", "a", "1-", "-1", "2-1", "0,,1", "0-99999", "+1", "0 1", "1\n2", "123456"] {
            assert!(matches!(processors(list), Err(ResourceError::Malformed(_))), "{list:?}");
        }
    }

    #[test]
    fn page_sizes_name_no_other_file() {
        assert_eq!(page_size("2MB").unwrap(), "2MB");
        for text in ["", "MB", "2", "../2MB", "2MB/x", "x2MB", "1234567MB"] {
            assert!(page_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn shares_keep_their_ends_and_their_middle() {
        for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (22_000, 1204), (262_144, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert_eq!(weight_of_shares(u64::MAX), 10_000);
        assert_eq!((io_weight(10), io_weight(1000)), (1, 10_000));
    }

    #[test]
    fn devices_fit_the_kernels_numbers() {
        assert_eq!(device(8, 16).unwrap(), "8:16");
        assert!(device(-1, 0).is_err() && device(4096, 0).is_err() && device(8, 1 << 20).is_err());
    }
}
