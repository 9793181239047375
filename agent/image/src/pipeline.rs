//! One layer from transferred bytes to a directory, as a stream over three threads, whatever its size:
//!
//! ```text
//! network ─▶ authenticate: digest of the blob, HMAC
//!        └─▶ open: decrypt, private digest, decompress ─▶ unpack: diff id, tar, files
//! ```
//!
//! Between them are short queues, and buffers that are used again. A stage that fails stops those after it
//! and not those before: a blob that was tampered with is called that, whatever it did to the unpacker.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use encrypted_image::Compression;
use encrypted_image::{Authenticated, CipherError, DigestCheck, Keystream, MacCheck, authenticate};
use oci_registry::{Digest, Hasher};
use tokio::sync::mpsc;

use crate::manifest::{LayerPlan, Sealed};
use crate::unpack::Unpacker;
use crate::{Limits, archive};

/// Chunks on their way to be opened; each is what one read of the network brought, at most 256 KiB.
const CHUNKS: usize = 8;
/// Blocks on their way to be unpacked, and their size.
const BLOCKS: usize = 4;
const BLOCK: usize = 128 << 10;
/// Decrypted at once: small enough for the processor's cache.
const PIECE: usize = 32 << 10;
/// RFC 8878 section 3.1.1.1.2 recommends decoders to support 8 MiB; more would let a layer claim memory.
const ZSTD_WINDOW_LOG: u32 = 23;

/// What the bytes of a layer came to. None of it is compared with what was promised yet, but for
/// `authenticated`.
pub(crate) struct Outcome {
    /// Digest of the transferred bytes.
    pub(crate) blob: Digest,
    /// Of an encrypted layer: HMAC and private digest.
    pub(crate) authenticated: Option<Result<Authenticated, CipherError>>,
    /// Digest of the tar stream; or why it can't be unpacked.
    pub(crate) unpacked: Result<Digest, String>,
}

/// Takes the chunks until their sender is gone, and fills `directory`. Blocks.
pub(crate) fn run(
    chunks: mpsc::Receiver<Bytes>,
    plan: &LayerPlan,
    directory: &Path,
    limits: &Limits,
) -> io::Result<Outcome> {
    let (mac, cipher) = match &plan.sealed {
        None => (None, None),
        Some(Sealed { public, private }) => {
            let (mac, keystream, digest) = authenticate::split(private, public);
            (Some(mac), Some(Cipher { keystream, digest }))
        }
    };
    let (to_open, encrypted) = sync_channel(CHUNKS);
    let (to_unpack, blocks) = sync_channel(BLOCKS);
    let (used, empty) = sync_channel(BLOCKS);
    thread::scope(|scope| {
        let named = |name: &str| thread::Builder::new().name(name.into());
        let transferred = named("layer-check").spawn_scoped(scope, || check(chunks, mac, to_open))?;
        let compression = plan.compression;
        let opened = named("layer-open").spawn_scoped(scope, move || {
            let mut source =
                Source { chunks: encrypted, cipher, chunk: Bytes::new(), piece: Vec::new(), at: 0 };
            open(&mut source, compression, &Blocks { full: to_unpack, empty });
            source.drain();
            source.cipher.map(|cipher| cipher.digest.finish())
        })?;
        let unpacked = unpack(Tar::new(blocks, used, limits.layer_unpacked_bytes), directory, limits);
        let lost = |_| io::Error::other("a thread of the unpacker ended early");
        let (blob, mac) = transferred.join().map_err(lost)?;
        let digest = opened.join().map_err(lost)?;
        let authenticated = match (mac, digest) {
            (Some(mac), Some(digest)) => Some(mac.finish().and_then(|mac| Authenticated::join(mac, digest?))),
            _ => None,
        };
        Ok(Outcome { blob, authenticated, unpacked })
    })
}

/// Digest and HMAC of what was transferred, to the last byte.
fn check(
    mut chunks: mpsc::Receiver<Bytes>,
    mut mac: Option<MacCheck>,
    next: SyncSender<Bytes>,
) -> (Digest, Option<MacCheck>) {
    let mut hasher = Hasher::default();
    let mut next = Some(next);
    while let Some(chunk) = chunks.blocking_recv() {
        // First on its way, so that the next thread works on it meanwhile.
        if next.as_ref().is_some_and(|next| next.send(chunk.clone()).is_err()) {
            next = None;
        }
        hasher.update(&chunk);
        if let Some(mac) = &mut mac {
            mac.update(&chunk);
        }
    }
    (hasher.finish(), mac)
}

struct Cipher {
    keystream: Keystream,
    digest: DigestCheck,
}

/// The plain blob: transferred chunks, decrypted piece by piece. The end of the queue reads as the end of
/// the blob: whether it was, the receiving side knows.
struct Source {
    chunks: Receiver<Bytes>,
    cipher: Option<Cipher>,
    chunk: Bytes,
    /// What was decrypted last, and how much of it was read.
    piece: Vec<u8>,
    at: usize,
}

impl Source {
    /// Brings the private digest to the end of the blob.
    fn drain(&mut self) {
        while let Ok(rest @ 1..) = self.fill_buf().map(<[u8]>::len) {
            self.consume(rest);
        }
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at < self.piece.len() {
            return Ok(&self.piece[self.at..]);
        }
        while self.chunk.is_empty() {
            match self.chunks.recv() {
                Ok(chunk) => self.chunk = chunk,
                Err(_) => return Ok(&[]),
            }
        }
        let Some(cipher) = &mut self.cipher else { return Ok(&self.chunk) };
        let next = self.chunk.split_to(self.chunk.len().min(PIECE));
        self.piece.clear();
        self.piece.extend_from_slice(&next);
        cipher.keystream.apply(&mut self.piece);
        cipher.digest.update(&self.piece);
        self.at = 0;
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        if self.cipher.is_some() {
            self.at = (self.at + amount).min(self.piece.len());
        } else {
            drop(self.chunk.split_to(amount.min(self.chunk.len())));
        }
    }
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let have = self.fill_buf()?;
        let length = out.len().min(have.len());
        out[..length].copy_from_slice(&have[..length]);
        self.consume(length);
        Ok(length)
    }
}

type Block = Result<Vec<u8>, String>;

struct Blocks {
    full: SyncSender<Block>,
    empty: Receiver<Vec<u8>>,
}

/// Decompresses to the end of the blob, as long as somebody takes it.
fn open(source: &mut Source, compression: Compression, blocks: &Blocks) {
    let done = match compression {
        Compression::None => blocks.fill(source),
        // Layers are often several gzip members in a row.
        Compression::Gzip => blocks.fill(&mut flate2::bufread::MultiGzDecoder::new(source)),
        Compression::Zstd => zstd::Decoder::with_buffer(source)
            .and_then(|mut decoder| decoder.window_log_max(ZSTD_WINDOW_LOG).map(|()| decoder))
            .and_then(|mut decoder| blocks.fill(&mut decoder)),
    };
    if let Err(error) = done {
        let hint = match compression {
            Compression::Zstd => {
                " (a zstd window above 8 MiB is refused: compress the layer with a lower level)"
            }
            _ => "",
        };
        // Nobody there: then it has its own reason.
        let _ = blocks.full.send(Err(format!("{error}{hint}")));
    }
}

impl Blocks {
    fn fill(&self, reader: &mut impl Read) -> io::Result<()> {
        let mut made = 0;
        loop {
            let mut block = match self.empty.try_recv() {
                Ok(block) => block,
                Err(_) if made < BLOCKS => {
                    made += 1;
                    vec![0; BLOCK]
                }
                Err(_) => match self.empty.recv() {
                    Ok(block) => block,
                    Err(_) => return Ok(()),
                },
            };
            block.resize(BLOCK, 0);
            let mut have = 0;
            while have < BLOCK {
                match reader.read(&mut block[have..]) {
                    Ok(0) => break,
                    Ok(read) => have += read,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            block.truncate(have);
            if have == 0 || self.full.send(Ok(block)).is_err() {
                return Ok(());
            }
        }
    }
}

/// The tar stream: hashed and bounded, block by block.
struct Tar {
    blocks: Receiver<Block>,
    used: SyncSender<Vec<u8>>,
    block: Vec<u8>,
    at: usize,
    hasher: Hasher,
    limit: u64,
}

impl Tar {
    fn new(blocks: Receiver<Block>, used: SyncSender<Vec<u8>>, limit: u64) -> Self {
        Self { blocks, used, block: Vec::new(), at: 0, hasher: Hasher::default(), limit }
    }
}

impl Read for Tar {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            let Ok(next) = self.blocks.recv() else { return Ok(0) };
            let next = next.map_err(io::Error::other)?;
            let block = std::mem::replace(&mut self.block, next);
            // There is room for all that were made; the first was none.
            let _ = self.used.try_send(block);
            self.at = 0;
            self.hasher.update(&self.block);
            if self.hasher.length() > self.limit {
                return Err(io::Error::other(format!("unpacks to more than {} bytes", self.limit)));
            }
        }
        let length = out.len().min(self.block.len() - self.at);
        out[..length].copy_from_slice(&self.block[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Unpacks; the result is the digest of the whole tar stream.
fn unpack(mut stream: Tar, directory: &Path, limits: &Limits) -> Result<Digest, String> {
    let mut unpacker = Unpacker::new(directory)?;
    archive::read(&mut stream, limits.layer_entries, |member, data| unpacker.member(member, data))?;
    unpacker.finish()?;
    // The diff id covers what follows the end marker too.
    io::copy(&mut stream, &mut io::sink()).map_err(|e| format!("tar stream: {e}"))?;
    Ok(stream.hasher.finish())
}
