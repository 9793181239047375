//! Claiming a slot while an earlier try may still be under way: the kubelet gives up on a create that
//! takes too long and comes back with a new id. The later try takes over; the earlier one ends and cleans
//! up first, so that there are never two instances.

use std::time::Duration;

use slog::info;
use tokio::sync::watch;
use tokio::time::Instant;

use super::SlotError;
use crate::agent::Agent;
use crate::container::Stage;
use crate::error::{Error, Result};

/// A try that launches is not interrupted: its launch helper has a limit of its own, below this.
const TAKE_OVER: Duration = Duration::from_secs(90);
/// Tries that one create takes over from before it gives up.
const MAX_TAKEN_OVER: usize = 4;

/// One try to make an instance, from its claim until it has failed and cleaned up, or the instance is in
/// the books.
#[derive(Debug)]
pub struct Try {
    superseded: watch::Receiver<bool>,
    _end: watch::Sender<()>,
}

/// The other side of a [`Try`].
#[derive(Debug)]
pub(super) struct Rope {
    supersede: watch::Sender<bool>,
    end: watch::Receiver<()>,
}

/// How long a create waits for its image: until its client gives up, or a later try takes over.
#[derive(Debug, Clone)]
pub struct Patience {
    until: Instant,
    superseded: watch::Receiver<bool>,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The client is about to give up.
    Time,
    /// A later try has taken over.
    Superseded,
}

impl Try {
    pub(super) fn begin() -> (Self, Rope) {
        let (supersede, superseded) = watch::channel(false);
        let (sender, end) = watch::channel(());
        (Self { superseded, _end: sender }, Rope { supersede, end })
    }

    /// Whether a later try has taken over.
    pub fn superseded(&self) -> bool {
        *self.superseded.borrow()
    }

    /// This try's patience.
    pub fn patience(&self, until: Instant) -> Patience {
        Patience { until, superseded: self.superseded.clone() }
    }
}

impl Rope {
    /// Asks the try to end; the result closes when it has.
    pub(super) fn pull(&self) -> watch::Receiver<()> {
        self.supersede.send_replace(true);
        self.end.clone()
    }

    pub(super) fn ended(&self) -> bool {
        self.end.has_changed().is_err()
    }
}

impl Patience {
    /// Patience that nobody cuts short.
    pub fn until(until: Instant) -> Self {
        Self { until, superseded: watch::channel(false).1 }
    }

    /// Waits until there is none left.
    pub async fn over(&mut self) -> Over {
        let superseded = async {
            if self.superseded.wait_for(|superseded| *superseded).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = superseded => Over::Superseded,
            () = tokio::time::sleep_until(self.until) => Over::Time,
        }
    }
}

impl Agent {
    /// Claims the slot. An earlier try in it, or its instance if that was never started, makes room.
    pub(crate) async fn claim(&self, name: &str, id: &str) -> Result<Try> {
        for _ in 0..MAX_TAKEN_OVER {
            self.sweep();
            let other = match self.containers.slots(|slots| slots.claim(name, id))? {
                Err(SlotError::Pending { id: other, .. }) => other,
                claimed => return Ok(claimed?),
            };
            info!(self.log, # "host", "a later try takes over"; "id" => id, "from" => &other);
            if let Some(mut end) = self.containers.slots(|slots| slots.supersede(&other))? {
                // Closes when the try has ended; nothing is ever sent.
                let _ = tokio::time::timeout(TAKE_OVER, end.changed()).await;
            }
            if self.containers.instance(&other).is_ok_and(|i| i.stage() == Stage::Created) {
                self.remove(&other, Some(Duration::from_secs(10))).await?;
            }
        }
        self.containers.slots(|slots| slots.claim(name, id))?.map_err(Error::from)
    }

    /// Tells the slots of every end that the reaper has seen: the host may have heard of it first.
    fn sweep(&self) {
        for instance in self.containers.instances() {
            if let Some(code) = instance.init.watched.code() {
                self.containers.note(|slots| slots.exited(&instance.id, code));
            }
        }
    }
}

/// What a try answers that a later one has taken over.
pub(crate) fn superseded(name: &str) -> Error {
    SlotError::Superseded(name.to_owned()).into()
}
