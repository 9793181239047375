//! A blob as a stream that goes on where it broke: at the same server as long as bytes come, else at the
//! next one that may have it.

use bytes::Bytes;

use crate::repository::{At, Blob, Repository};
use crate::{Digest, RegistryError, retry};

/// Connections that a small blob may take; larger ones may take one more for each of these bytes. Without a
/// bound, a server could send a blob byte by byte, each on a connection of its own.
const CONNECTIONS: u64 = 32;
const BYTES_A_CONNECTION: u64 = 1 << 20;

/// A blob being read. The bytes are not hashed here: whoever keeps them hashes them, and says
/// [`Download::reject`] if they are wrong.
pub struct Download {
    repository: Repository,
    digest: Digest,
    size: u64,
    what: String,
    received: u64,
    open: Option<Blob>,
    connections: u64,
    /// Bytes received before the last failure.
    before: u64,
    failures: u32,
    /// Where it is looked for, in turn.
    order: Vec<At>,
    turn: usize,
    /// Mirrors that sent some of the bytes received.
    senders: Vec<usize>,
    /// What became of mirrors.
    blamed: Vec<String>,
    /// The registry's failure, if it had its turn.
    registry: Option<RegistryError>,
}

impl Download {
    pub(crate) fn new(repository: Repository, digest: Digest, size: u64) -> Self {
        let order = repository.places().order();
        Self {
            repository,
            digest,
            size,
            what: format!("layer {digest}"),
            received: 0,
            open: None,
            connections: 0,
            before: 0,
            failures: 0,
            order,
            turn: 0,
            senders: Vec::new(),
            blamed: Vec::new(),
            registry: None,
        }
    }

    /// Bytes that have come.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next bytes; `None` when all are there, neither more nor fewer than the size. Dropping the future
    /// loses nothing that was handed out, but the transfer may have to be opened again.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            match self.next().await {
                Ok(chunk) => {
                    self.received += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                    return Ok(chunk);
                }
                Err(error) => {
                    self.open = None;
                    self.failed(error).await?;
                }
            }
        }
    }

    /// Says that the bytes hash to `actual`, which is wrong. `Ok`: they came from a mirror, which is not asked
    /// again; the next chunk is byte 0. An error is final.
    pub fn reject(&mut self, actual: &Digest) -> Result<(), RegistryError> {
        let error = RegistryError::DigestMismatch {
            what: self.what.clone(),
            expected: self.digest.to_string(),
            actual: actual.to_string(),
        };
        if self.senders.is_empty() {
            return Err(error.with_mirrors(&self.blamed));
        }
        let places = self.repository.places();
        for mirror in self.senders.drain(..) {
            self.blamed.push(places.blame(mirror, &error));
        }
        self.order = places.order();
        (self.open, self.turn, self.received, self.before, self.failures) = (None, 0, 0, 0, 0);
        Ok(())
    }

    fn at(&self) -> At {
        self.order.get(self.turn).copied().unwrap_or(At::Registry)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let at = self.at();
        let blob = match &mut self.open {
            Some(blob) => blob,
            None => {
                self.connections += 1;
                let server = self.repository.places().server(at);
                let blob = Blob::open(server, &self.digest, self.received, &self.what).await?;
                self.open.insert(blob)
            }
        };
        let rest = self.size - self.received;
        match blob.chunk(&self.what).await {
            // All bytes are there: how the answer ends doesn't matter, unless it goes on.
            Err(_) | Ok(None) if rest == 0 => Ok(None),
            Err(error) => Err(error),
            Ok(None) => Err(RegistryError::Truncated {
                what: self.what.clone(),
                received: self.received,
                expected: self.size,
            }),
            Ok(Some(chunk)) if chunk.len() as u64 > rest => {
                Err(RegistryError::TooLarge { what: self.what.clone(), limit: self.size })
            }
            Ok(Some(chunk)) => {
                if let At::Mirror(mirror) = at
                    && !self.senders.contains(&mirror)
                {
                    self.senders.push(mirror);
                }
                Ok(Some(chunk))
            }
        }
    }

    /// Decides what comes after a failure: the same server once more, the next one, or the end.
    async fn failed(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let limits = self.repository.places().limits.clone();
        let progress = self.received > self.before;
        self.before = self.received;
        self.failures = if progress { 1 } else { self.failures + 1 };
        let worn = self.connections >= CONNECTIONS + self.size / BYTES_A_CONNECTION;
        let again = match self.at() {
            At::Registry => self.failures < limits.attempts,
            // Another one may have it; but a transfer that gets on is not given up.
            At::Mirror(_) => progress,
        };
        if error.is_transient() && again && !worn {
            tokio::time::sleep(retry::pause(&limits, self.failures, error.retry_after())).await;
            return Ok(());
        }
        let error = error.after(self.failures);
        match self.at() {
            At::Registry => self.registry = Some(error.clone()),
            At::Mirror(mirror) => self.blamed.push(self.repository.places().blame(mirror, &error)),
        }
        self.failures = 0;
        self.turn += 1;
        if self.turn < self.order.len() && !worn {
            return Ok(());
        }
        let error = self.registry.take().unwrap_or(error);
        Err(error.with_mirrors(&self.blamed))
    }
}
