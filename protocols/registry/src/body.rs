//! What a request carries: nothing, a few bytes, or a stream of known length.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Counts the bytes that left, for whoever has to tell slow from dead.
#[derive(Clone, Default)]
pub(crate) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    pub(crate) fn sent(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request's body.
pub(crate) enum Outgoing {
    Empty,
    Whole(Bytes),
    Stream {
        receiver: mpsc::Receiver<io::Result<Bytes>>,
        /// Bytes still to come: announced, so neither more nor fewer may.
        remaining: u64,
        pulse: Pulse,
    },
}

impl Outgoing {
    /// The same again, where that is possible.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Stream { .. } => None,
        }
    }

    pub(crate) fn pulse(&self) -> Option<Pulse> {
        match self {
            Self::Stream { pulse, .. } => Some(pulse.clone()),
            _ => None,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream { remaining: 0, .. } => Poll::Ready(None),
            Self::Stream { receiver, remaining, pulse } => receiver.poll_recv(context).map(|chunk| {
                let chunk = match chunk {
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) => return Some(Err(error)),
                    None => return Some(Err(io::ErrorKind::UnexpectedEof.into())),
                };
                pulse.0.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                match remaining.checked_sub(chunk.len() as u64) {
                    Some(rest) => *remaining = rest,
                    None => return Some(Err(io::Error::other("more bytes than announced"))),
                }
                Some(Ok(Frame::data(chunk)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Empty => 0,
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Stream { remaining, .. } => *remaining,
        })
    }
}
