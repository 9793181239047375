//! A whole layer from a reader to a writer on two threads. The caller's reads, runs AES and the plain digest, and writes;
//! a second one runs HMAC and digest of the encrypted bytes. Memory is a few chunks, whatever the layer's size.
//!
//! [`decrypt`] takes the stage by value and gives it back only with the proof.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::authenticate::{Authenticated, MacCheck, split};
use crate::cipher::{CipherError, Keystream, Mac};
use crate::options::{PrivateOptions, PublicOptions};

/// How many bytes go from stage to stage at once.
const CHUNK: usize = 256 * 1024;
/// How many chunks of encrypted bytes may wait for the second thread.
const CHUNKS: usize = 4;

/// A layer that was decrypted, and is what was encrypted.
#[derive(Debug)]
pub struct Decrypted<W> {
    /// Where it was written to.
    pub stage: W,
    /// The proof, with digest and length of the plain blob.
    pub proof: Authenticated,
    /// SHA-256 of the encrypted blob, to compare with the descriptor's.
    pub encrypted_digest: [u8; 32],
}

/// A layer that was encrypted.
#[derive(Debug)]
pub struct Encrypted<W> {
    /// Where it was written to.
    pub stage: W,
    /// The HMAC for the annotation.
    pub public: PublicOptions,
    /// SHA-256 of the encrypted blob, for the descriptor.
    pub encrypted_digest: [u8; 32],
    /// Length of the blob in bytes, encrypted and plain alike.
    pub length: u64,
}

/// Why a layer did not get through. The stage is gone.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The reader failed.
    #[error("layer could not be read: {0}")]
    Read(#[source] io::Error),
    /// The stage failed.
    #[error("layer could not be written: {0}")]
    Write(#[source] io::Error),
    /// Decrypted, and refused.
    #[error(transparent)]
    Refused(#[from] CipherError),
    /// The plain blob to encrypt isn't the one that the private options name.
    #[error("layer to encrypt does not have the digest that its descriptor names")]
    Source,
    /// The second thread didn't start, or ended early.
    #[error("no second thread for a layer: {0}")]
    Thread(String),
}

/// Decrypts `reader` into `stage`.
///
/// # Errors
/// I/O, or [`PipelineError::Refused`]; `stage` is dropped then.
pub fn decrypt<W: Write>(
    reader: impl Read,
    mut stage: W,
    private: &PrivateOptions,
    public: &PublicOptions,
) -> Result<Decrypted<W>, PipelineError> {
    let (mac, mut keystream, mut digest) = split(private, public);
    let mut plain = vec![0; CHUNK];
    let (mac, encrypted_digest) = beside(mac, |queue| {
        each_chunk(reader, queue, |encrypted| {
            let plain = &mut plain[..encrypted.len()];
            plain.copy_from_slice(encrypted);
            keystream.apply(plain);
            digest.update(plain);
            stage.write_all(plain).map_err(PipelineError::Write)
        })
    })?;
    let proof = Authenticated::join(mac.finish()?, digest.finish()?)?;
    Ok(Decrypted { stage, proof, encrypted_digest })
}

/// Encrypts `reader`, which is the blob with the private digest, into `stage`.
///
/// # Errors
/// I/O, or [`PipelineError::Source`]; `stage` is dropped then.
pub fn encrypt<W: Write>(
    reader: impl Read,
    mut stage: W,
    private: &PrivateOptions,
) -> Result<Encrypted<W>, PipelineError> {
    let mut keystream = Keystream::new(private.key(), private.nonce());
    let mut digest = Sha256::new();
    let mut length = 0;
    let (mac, encrypted_digest) = beside(Mac::new(private.key()), |queue| {
        each_chunk(reader, queue, |chunk| {
            digest.update(&*chunk);
            keystream.apply(chunk);
            length += chunk.len() as u64;
            stage.write_all(chunk).map_err(PipelineError::Write)
        })
    })?;
    if digest.finalize().as_slice().ct_ne(private.digest().as_slice()).into() {
        return Err(PipelineError::Source);
    }
    Ok(Encrypted { stage, public: PublicOptions::new(mac.finish()), encrypted_digest, length })
}

/// What the second thread does besides the digest.
trait Authenticator: Send {
    fn update(&mut self, encrypted: &[u8]);
}

impl Authenticator for Mac {
    fn update(&mut self, encrypted: &[u8]) {
        self.update(encrypted);
    }
}

impl Authenticator for MacCheck {
    fn update(&mut self, encrypted: &[u8]) {
        self.update(encrypted);
    }
}

/// Chunks on their way to the second thread, and back to be filled again.
struct Queue {
    empty: Receiver<Vec<u8>>,
    encrypted: SyncSender<Vec<u8>>,
}

/// Runs `work` here, and beside it a thread that takes all that the queue is given into `mac` and a digest.
fn beside<M: Authenticator>(
    mut mac: M,
    work: impl FnOnce(&Queue) -> Result<(), PipelineError>,
) -> Result<(M, [u8; 32]), PipelineError> {
    let (back, empty) = sync_channel(CHUNKS);
    let (encrypted, arriving) = sync_channel::<Vec<u8>>(CHUNKS);
    for _ in 0..CHUNKS {
        let _ = back.send(Vec::new()); // There is room for all of them, and a receiver.
    }
    thread::scope(|scope| {
        let second = thread::Builder::new().name("layer-hmac".to_owned()).spawn_scoped(scope, move || {
            let mut digest = Sha256::new();
            for chunk in arriving {
                mac.update(&chunk);
                digest.update(&chunk);
                let _ = back.send(chunk); // Nobody takes it any more after the last.
            }
            (mac, digest.finalize().into())
        });
        let second = second.map_err(|error| PipelineError::Thread(error.to_string()))?;
        let queue = Queue { empty, encrypted };
        let worked = work(&queue);
        drop(queue); // The second thread ends when nothing can arrive any more.
        let results = second.join().map_err(|_| ended_early())?;
        worked.map(|()| results)
    })
}

/// Reads chunks until the end, gives each to `work`, and then to the second thread.
fn each_chunk(
    mut reader: impl Read,
    queue: &Queue,
    mut work: impl FnMut(&mut [u8]) -> Result<(), PipelineError>,
) -> Result<(), PipelineError> {
    loop {
        let mut chunk = queue.empty.recv().map_err(|_| ended_early())?;
        chunk.resize(CHUNK, 0);
        let len = fill(&mut reader, &mut chunk).map_err(PipelineError::Read)?;
        if len == 0 {
            return Ok(());
        }
        chunk.truncate(len);
        work(&mut chunk)?;
        queue.encrypted.send(chunk).map_err(|_| ended_early())?;
    }
}

/// Reads until `chunk` is full or the reader at its end.
fn fill(reader: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < chunk.len() {
        match reader.read(&mut chunk[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

fn ended_early() -> PipelineError {
    PipelineError::Thread("it ended early".to_owned())
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
