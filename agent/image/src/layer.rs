//! One layer from the network to a directory, as a stream: transfer, digest, decompression, diff id and
//! unpacking run side by side over a few hundred KiB, whatever the layer's size. The result is a
//! [`VerifiedLayer`]; until then the directory is in the stage, under a name that nothing looks up.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use oci_registry::{Download, Hasher, Repository};
use tokio::sync::mpsc;

use crate::manifest::{Compression, LayerPlan};
use crate::unpack::Unpacker;
use crate::{Digest, ImageError, Limits, archive};

/// Chunks between network and disk; a chunk is at most 256 KiB.
const QUEUE: usize = 8;
/// RFC 8878 section 3.1.1.1.2 recommends decoders to support 8 MiB; more would let a layer claim memory.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A staged layer whose blob digest, size and diff id were all checked. Only this can be published.
pub(crate) struct VerifiedLayer {
    stage: Stage,
    diff_id: Digest,
}

/// A directory that vanishes unless it is published.
struct Stage {
    path: Option<PathBuf>,
}

impl Stage {
    fn create(directory: &Path, plan: &LayerPlan) -> Result<Self, ImageError> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{}.{serial}", plan.diff_id.hex()));
        fs::create_dir(&path).map_err(|e| ImageError::store("make a staging directory", e))?;
        Ok(Self { path: Some(path) })
    }

    fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What can't be removed is never looked up, and goes at the next start.
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl VerifiedLayer {
    /// Makes the layer visible, at once and whole.
    pub(crate) fn publish(mut self, layers: &Path) -> Result<PathBuf, ImageError> {
        let target = layers.join(self.diff_id.hex());
        let staged = self.stage.path().to_owned();
        fs::rename(&staged, &target).map_err(|e| ImageError::store("publish a layer", e))?;
        self.stage.path = None;
        Ok(target)
    }
}

/// Fetches, checks and unpacks a layer into a new directory below `stage`. `on_bytes` hears of each chunk.
pub(crate) async fn fetch(
    repository: &Repository,
    plan: &LayerPlan,
    stage: &Path,
    limits: &Limits,
    on_bytes: impl Fn(u64),
) -> Result<VerifiedLayer, ImageError> {
    let mut download = repository.download(&plan.blob, plan.size);
    loop {
        let (stage, unpacked, actual) = attempt(&mut download, plan, stage, limits, &on_bytes).await?;
        if actual != plan.blob {
            // Another source may have the right bytes; what these ones made is dropped with its stage.
            download.reject(&actual)?;
            continue;
        }
        let diff_id =
            unpacked.map_err(|reason| ImageError::Unpack { layer: plan.diff_id.to_string(), reason })?;
        if diff_id != plan.diff_id {
            return Err(mismatch("unpacked layer".into(), &plan.diff_id, &diff_id));
        }
        return Ok(VerifiedLayer { stage, diff_id });
    }
}

/// One unpacking, with the digest of the blob that it was fed.
async fn attempt(
    download: &mut Download,
    plan: &LayerPlan,
    stage: &Path,
    limits: &Limits,
    on_bytes: impl Fn(u64),
) -> Result<(Stage, Result<Digest, String>, Digest), ImageError> {
    let stage = Stage::create(stage, plan)?;
    let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE);
    let (job, bounds) = (plan.clone(), limits.clone());
    // The stage goes with the task: it may outlive this future, and must not lose its directory before.
    let unpacking = tokio::task::spawn_blocking(move || {
        let result = unpack(Chunks { receiver, chunk: Bytes::new() }, stage.path(), &job, &bounds);
        (stage, result)
    });
    let transferred = transfer(download, sender, on_bytes).await;
    let (stage, unpacked) =
        unpacking.await.map_err(|e| ImageError::store("unpack a layer", io::Error::other(e.to_string())))?;
    Ok((stage, unpacked, transferred?))
}

/// Reads the blob once from its beginning: hashed here, and handed to the unpacker. An unpacker that gave up
/// has its reason; the rest is still hashed, so that a blob which was tampered with is called that, whatever
/// it did to the unpacker.
async fn transfer(
    download: &mut Download,
    sender: mpsc::Sender<Bytes>,
    on_bytes: impl Fn(u64),
) -> Result<Digest, ImageError> {
    let (mut hasher, mut sender) = (Hasher::default(), Some(sender));
    while let Some(chunk) = download.chunk().await? {
        hasher.update(&chunk);
        on_bytes(chunk.len() as u64);
        if let Some(open) = &sender
            && open.send(chunk).await.is_err()
        {
            sender = None;
        }
    }
    Ok(hasher.finish())
}

fn mismatch(what: String, expected: &Digest, actual: &Digest) -> ImageError {
    ImageError::DigestMismatch { what, expected: expected.to_string(), actual: actual.to_string() }
}

/// Decompresses and unpacks; the result is the digest of the whole tar stream.
fn unpack(chunks: Chunks, directory: &Path, plan: &LayerPlan, limits: &Limits) -> Result<Digest, String> {
    let decompressed: Box<dyn Read> = match plan.compression {
        Compression::None => Box::new(chunks),
        // Layers are often several gzip members in a row.
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(chunks)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(chunks).map_err(|e| format!("zstd: {e}"))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|e| format!("zstd: {e}"))?;
            Box::new(decoder)
        }
    };
    let mut stream =
        Measured { inner: decompressed, hasher: Hasher::default(), limit: limits.layer_unpacked_bytes };
    let mut unpacker = Unpacker::new(directory)?;
    archive::read(&mut stream, limits.layer_entries, |member, data| unpacker.member(member, data))?;
    unpacker.finish()?;
    // The diff id covers what follows the end marker too.
    io::copy(&mut stream, &mut io::sink()).map_err(|e| format!("tar stream: {e}"))?;
    Ok(stream.hasher.finish())
}

/// The transferred chunks as a reader. The end of the channel reads as the end of the blob: whether it
/// was, the receiving side knows.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let length = out.len().min(self.chunk.len());
        out[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}

/// Hashes what is read and stops at a bound.
struct Measured<R> {
    inner: R,
    hasher: Hasher,
    limit: u64,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.hasher.update(&out[..read]);
        if self.hasher.length() > self.limit {
            return Err(io::Error::other(format!("unpacks to more than {} bytes", self.limit)));
        }
        Ok(read)
    }
}
