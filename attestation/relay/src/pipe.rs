//! Two streams joined: bytes both ways, half-closes passed on, ended when nothing moves.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::sleep;

/// Bytes held per direction.
const BUFFER: usize = 16 * 1024;

/// How a pipe ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Both sides closed.
    Closed,
    /// Nothing moved for the idle time, at most twice as long.
    Idle,
}

/// Moves bytes until both sides closed or nothing moves.
pub(crate) async fn join(
    a: impl AsyncRead + AsyncWrite,
    b: impl AsyncRead + AsyncWrite,
    idle: Duration,
) -> io::Result<End> {
    let moved = AtomicU64::new(0);
    let (a_read, a_write) = split(a);
    let (b_read, b_write) = split(b);
    let both = async { tokio::try_join!(copy(a_read, b_write, &moved), copy(b_read, a_write, &moved)) };
    let watch = async {
        let mut seen = moved.load(Ordering::Relaxed);
        loop {
            sleep(idle).await;
            let now = moved.load(Ordering::Relaxed);
            if now == seen {
                return;
            }
            seen = now;
        }
    };
    tokio::select! {
        result = both => result.map(|_| End::Closed),
        () = watch => Ok(End::Idle),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
        moved.fetch_add(length as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn passes_bytes_and_half_closes() {
        let (mut guest, guest_end) = duplex(64);
        let (mut broker, broker_end) = duplex(64);
        let pipe = tokio::spawn(join(guest_end, broker_end, Duration::from_secs(60)));
        let request = vec![7; 100_000];
        let expected = request.clone();
        let broker_side = tokio::spawn(async move {
            let mut got = Vec::new();
            // Ends only if the guest's half-close arrives.
            broker.read_to_end(&mut got).await.unwrap();
            broker.write_all(b"answer").await.unwrap();
            got
        });
        guest.write_all(&request).await.unwrap();
        guest.shutdown().await.unwrap();
        let mut answer = Vec::new();
        guest.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        assert_eq!(broker_side.await.unwrap(), expected);
        assert_eq!(pipe.await.unwrap().unwrap(), End::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn ends_when_nothing_moves() {
        let (mut guest, guest_end) = duplex(64);
        let (_broker, broker_end) = duplex(64);
        let pipe = tokio::spawn(join(guest_end, broker_end, Duration::from_secs(60)));
        guest.write_all(b"hello").await.unwrap();
        assert_eq!(pipe.await.unwrap().unwrap(), End::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_idle_too() {
        let (mut guest, guest_end) = duplex(64);
        let (_broker, broker_end) = duplex(64);
        let pipe = tokio::spawn(join(guest_end, broker_end, Duration::from_secs(60)));
        let writer = tokio::spawn(async move { guest.write_all(&[0; 100_000]).await });
        assert_eq!(pipe.await.unwrap().unwrap(), End::Idle);
        assert!(writer.await.unwrap().is_err());
    }
}
