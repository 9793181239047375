//! Counters: what strangers do is counted, not recorded.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections taken.
    pub connections: Counter,
    /// Connections turned away because too many were open.
    pub connections_refused: Counter,
    /// TLS handshakes that failed.
    pub tls_failed: Counter,
    /// `/auth` requests.
    pub auth: Counter,
    /// `/attest` requests.
    pub attest: Counter,
    /// Refused ones among them.
    pub attest_refused: Counter,
    /// `/resource` requests.
    pub resource: Counter,
    /// Keys that left, repeated answers included.
    pub released: Counter,
    /// Launch sessions opened.
    pub launch_sessions: Counter,
    /// Launches that got a connection's key.
    pub launched: Counter,
    /// Owners' statements offered.
    pub statements: Counter,
    /// Requests refused, all kinds.
    pub refused: Counter,
}
