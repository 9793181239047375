//! The guest's side: output in, sealed lines out, one chunk of memory.

use thiserror::Error;
use zeroize::Zeroizing;

use super::chunk::{Kind, LogInfo, MAX_PAYLOAD, StreamKey};
use super::key::{LogKeyError, LogRecipient, fresh};

/// Why output can't be sealed.
#[derive(Debug, Error)]
pub enum SealerError {
    /// The stream's key can't be made.
    #[error("sealed log: the stream's key can't be made")]
    Key(#[source] LogKeyError),
    /// Names that don't fit into a chunk.
    #[error("sealed log: the names of container and instance are too long")]
    Info,
    /// A primitive refused its input; can't happen with the sizes used.
    #[error("sealed log: encryption failed")]
    Seal,
}

/// Seals one output of one run of a container.
pub struct Sealer {
    key: StreamKey,
    next: u64,
    pending: Zeroizing<Vec<u8>>,
}

impl Sealer {
    /// Begins a stream; its first line is appended to `out`.
    pub fn new(recipient: &LogRecipient, info: &LogInfo, out: &mut Vec<u8>) -> Result<Self, SealerError> {
        let ephemeral = fresh().map_err(SealerError::Key)?;
        let public = ephemeral.public_key();
        let key =
            StreamKey::derive(&ephemeral, &recipient.public, &public, &recipient.public, &recipient.sender);
        let key = key.ok_or(SealerError::Seal)?;
        // Allocated once: what grows leaves copies behind that nobody wipes.
        let pending = Zeroizing::new(Vec::with_capacity(MAX_PAYLOAD));
        let mut sealer = Self { key, next: 0, pending };
        let info = serde_json::to_vec(info).map_err(|_| SealerError::Info)?;
        if info.len() > MAX_PAYLOAD {
            return Err(SealerError::Info);
        }
        sealer.emit(Kind::Start, &info, out)?;
        Ok(sealer)
    }

    /// Takes output and appends sealed lines to `out`, each with its line end: everything up to the
    /// last line end in `bytes`, and full chunks of longer lines. The rest, less than a chunk, waits.
    /// `out` grows by at most 1.5 times `bytes`, and one line.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), SealerError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(MAX_PAYLOAD - self.pending.len()));
            self.pending.extend(now);
            bytes = later;
            if self.pending.len() == MAX_PAYLOAD {
                self.flush(out)?;
            }
        }
        if let Some(end) = self.pending.iter().rposition(|b| *b == b'\n') {
            let rest = Zeroizing::new(self.pending[end + 1..].to_vec());
            self.pending.truncate(end + 1);
            self.flush(out)?;
            self.pending.extend(rest.as_slice());
        }
        Ok(())
    }

    /// Seals what waits for its line end, such as a prompt; for when the process has been silent.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), SealerError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.pending);
        let sealed = self.emit(Kind::Data, &pending, out);
        zeroize::Zeroize::zeroize(pending.as_mut_slice());
        pending.clear();
        self.pending = pending;
        sealed
    }

    /// Whether something waits for its line end.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Ends the stream: what is left, and the mark that nothing follows. A sealer that is dropped
    /// instead leaves a stream whose reader can't tell whether its end is missing.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), SealerError> {
        self.flush(out)?;
        self.emit(Kind::End, &[], out)
    }

    fn emit(&mut self, kind: Kind, payload: &[u8], out: &mut Vec<u8>) -> Result<(), SealerError> {
        self.key.seal(self.next, kind, payload, out).ok_or(SealerError::Seal)?;
        self.next = self.next.checked_add(1).ok_or(SealerError::Seal)?;
        Ok(())
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("next", &self.next).finish_non_exhaustive()
    }
}
