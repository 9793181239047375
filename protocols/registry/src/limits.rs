//! Bounds on what a registry may make its client wait for, repeat and remember.

use std::time::Duration;

/// Bounds on the traffic with one registry. There is no bound on a whole transfer's time: it may go on as
/// long as it gets on.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Manifest, index, config or signature, bytes.
    pub document_bytes: u64,
    /// Time to reach an address, and again to finish the TLS handshake.
    pub connect_timeout: Duration,
    /// Time without a byte after which a transfer counts as dead.
    pub idle_timeout: Duration,
    /// Waiting time in which [`Limits::slow_bytes`] must come, or the connection is given up.
    pub slow_window: Duration,
    /// Bytes that must come in each [`Limits::slow_window`].
    pub slow_bytes: u64,
    /// Attempts in a row that bring nothing.
    pub attempts: u32,
    /// Pause before the second attempt; doubles with each further one, and a part of it is random.
    pub backoff: Duration,
    /// Longest pause, whatever the registry asks for.
    pub longest_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes: 4 << 20,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            slow_window: Duration::from_secs(60),
            slow_bytes: 64 << 10,
            attempts: 4,
            backoff: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
        }
    }
}
