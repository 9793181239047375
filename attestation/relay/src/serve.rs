//! The accept loop: bounded connections, and a drain with a deadline at the end.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slog::{Logger, info, warn};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::address::Broker;
use crate::listener::{Connection, Listener, Peer};
use crate::pipe::{self, End};

/// For one connection to the broker.
const CONNECT: Duration = Duration::from_secs(10);
/// After an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What bounds the relay.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; further guests wait in the kernel's queue.
    pub connections: usize,
    /// Connections of one guest at a time, where it can be told from others; further ones are closed.
    pub per_guest: usize,
    /// A connection on which nothing moves is closed after once to twice this time.
    pub idle: Duration,
    /// How long open connections may go on after the end was asked for.
    pub drain: Duration,
}

/// Serves until `stop` resolves, then drains. The listener is closed, and its socket removed, first.
pub async fn serve(
    listener: Listener,
    broker: Broker,
    limits: Limits,
    log: Logger,
    stop: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(limits.connections));
    let guests = Guests::default();
    let lines = Arc::new(Lines::default());
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        // Finished ones are only collected here: no more than there is room for pile up.
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(log, "accept failed"; "error" => %error);
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(seat) = guests.enter(peer, limits.per_guest) else {
            if lines.admit() {
                warn!(log, "closed: too many connections of one guest"; "guest" => peer);
            }
            continue;
        };
        let (broker, log, lines, idle) = (broker.clone(), log.clone(), Arc::clone(&lines), limits.idle);
        connections.spawn(async move {
            let _held = (permit, seat);
            let outcome = forward(stream, &broker, idle).await;
            if matches!(outcome, Ok(End::Closed)) || !lines.admit() {
                return;
            }
            match outcome {
                Ok(_) => info!(log, "connection idle, closed"; "guest" => peer),
                Err(error) => {
                    warn!(log, "connection failed"; "guest" => peer, "broker" => %broker, "error" => %error);
                }
            }
        });
    }
    drop(listener);
    while connections.try_join_next().is_some() {}
    info!(log, "draining"; "connections" => connections.len());
    let drained = timeout(limits.drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        warn!(log, "closing connections that did not end in time"; "connections" => connections.len());
    }
    connections.shutdown().await;
}

async fn forward(guest: Box<dyn Connection>, broker: &Broker, idle: Duration) -> io::Result<End> {
    let upstream = timeout(CONNECT, TcpStream::connect((broker.host.as_str(), broker.port)))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "broker does not answer")))?;
    // Handshake messages are small and each side waits for the other's.
    upstream.set_nodelay(true)?;
    pipe::join(guest, upstream, idle).await
}

/// Log lines that guests may cause: a flood of connections must not become a flood of lines.
pub(crate) struct Lines(Mutex<(Instant, u32)>);

impl Lines {
    const A_SECOND: u32 = 20;

    pub(crate) fn admit(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.elapsed() >= Duration::from_secs(1) {
            *state = (Instant::now(), 0);
        }
        state.1 += 1;
        state.1 <= Self::A_SECOND
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self(Mutex::new((Instant::now(), 0)))
    }
}

/// How many connections each guest has open.
#[derive(Clone, Default)]
struct Guests(Arc<Mutex<HashMap<u32, usize>>>);

/// One counted connection.
struct Seat {
    guests: Guests,
    peer: Peer,
}

impl Guests {
    /// `None` when the guest has as many as it may.
    fn enter(&self, peer: Peer, most: usize) -> Option<Seat> {
        if let Some(cid) = peer {
            let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = open.entry(cid).or_default();
            if *count >= most {
                return None;
            }
            *count += 1;
        }
        Some(Seat { guests: self.clone(), peer })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(cid) = self.peer else { return };
        let mut open = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&cid) {
            *count -= 1;
            if *count == 0 {
                open.remove(&cid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_guest_cannot_take_all_seats() {
        let guests = Guests::default();
        let first = guests.enter(Some(3), 2).unwrap();
        let _second = guests.enter(Some(3), 2).unwrap();
        assert!(guests.enter(Some(3), 2).is_none());
        let _other = guests.enter(Some(4), 2).unwrap();
        drop(first);
        assert!(guests.enter(Some(3), 2).is_some());
        assert!(guests.enter(None, 0).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_writes_a_bounded_number_of_lines() {
        let lines = Lines::default();
        assert_eq!((0..1000).filter(|_| lines.admit()).count(), Lines::A_SECOND as usize);
        sleep(Duration::from_secs(1)).await;
        assert!(lines.admit());
    }

    #[test]
    fn guests_that_left_are_forgotten() {
        let guests = Guests::default();
        drop(guests.enter(Some(3), 1));
        assert!(guests.0.lock().unwrap().is_empty());
    }
}
