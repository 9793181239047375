//! Connections that have answered and may answer again: small blobs come by the dozen, and a TLS handshake
//! costs more than each of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;

use crate::body::Outgoing;
use crate::origin::Origin;

/// Servers close idle connections after 15 s to a few minutes.
const LONGEST_IDLE: Duration = Duration::from_secs(12);
const MOST_IDLE: usize = 16;
const MOST_IDLE_PER_KEY: usize = 4;

pub(crate) type Sender = SendRequest<Outgoing>;

/// What makes two connections the same: where to, trusted by what, through whom.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) origin: Origin,
    /// Address of the TLS configuration, which its client keeps for as long as it lives.
    pub(crate) tls: usize,
    pub(crate) proxy: Option<String>,
}

struct Idle {
    key: Key,
    sender: Sender,
    since: Instant,
}

/// Idle connections.
#[derive(Clone, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Idle>>>);

impl Pool {
    /// The youngest idle connection of this kind.
    pub(crate) fn take(&self, key: &Key) -> Option<Sender> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(alive);
        let found = idle.iter().rposition(|connection| connection.key == *key)?;
        Some(idle.remove(found).sender)
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn put(&self, key: Key, sender: Sender) {
        let connection = Idle { key, sender, since: Instant::now() };
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(alive);
        if idle.iter().filter(|other| other.key == connection.key).count() >= MOST_IDLE_PER_KEY {
            return;
        }
        if idle.len() >= MOST_IDLE {
            idle.remove(0);
        }
        idle.push(connection);
    }
}

fn alive(connection: &Idle) -> bool {
    !connection.sender.is_closed() && connection.since.elapsed() < LONGEST_IDLE
}
