//! How often and after what pause something is tried again.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use hyper::header::{HeaderMap, RETRY_AFTER};

use crate::{Limits, RegistryError};

/// Attempts at one thing.
pub(crate) struct Attempts<'a> {
    limits: &'a Limits,
    failures: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self { limits, failures: 0 }
    }

    /// After a failure: waits and returns, or gives the failure back because it is the last one.
    pub(crate) async fn failed(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failures += 1;
        if !error.is_transient() || self.failures >= self.limits.attempts {
            return Err(error.after(self.failures));
        }
        tokio::time::sleep(pause(self.limits, self.failures, error.retry_after())).await;
        Ok(())
    }
}

/// Runs `operation` until it succeeds, fails for good, or has had its attempts.
pub(crate) async fn retry<T, F>(limits: &Limits, mut operation: impl FnMut() -> F) -> Result<T, RegistryError>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let mut attempts = Attempts::new(limits);
    loop {
        match operation().await {
            Err(error) => attempts.failed(error).await?,
            done => return done,
        }
    }
}

/// The pause after so many failures: what the registry asks for, else doubling; at most the longest. Half of
/// the doubling part is random, so that guests which failed together don't come back together.
pub(crate) fn pause(limits: &Limits, failures: u32, asked: Option<Duration>) -> Duration {
    if let Some(asked) = asked {
        return asked.min(limits.longest_pause);
    }
    let doubled = limits.backoff.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let half = doubled.min(limits.longest_pause) / 2;
    // Not a secret: any hasher that starts anew each time will do.
    let random = RandomState::new().build_hasher().finish();
    half + half.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

/// `Retry-After` in seconds. A date is not looked at: the clock may be the adversary's.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_bounded() {
        let limits = Limits::default();
        for failures in [1, 2, 3, 40, u32::MAX] {
            let pause = pause(&limits, failures, None);
            assert!(pause >= limits.backoff / 2 && pause <= limits.longest_pause, "{pause:?}");
        }
        let second = Duration::from_secs(1);
        assert_eq!(pause(&limits, 1, Some(second)), second);
        assert_eq!(pause(&limits, 1, Some(Duration::MAX)), limits.longest_pause);
    }

    #[test]
    fn seconds_are_read_and_dates_are_not() {
        let read = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(read("31536000"), Some(Duration::from_secs(31_536_000)));
        for other in ["", "-1", "1.5", "99999999999999999999999", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
