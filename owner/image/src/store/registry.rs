//! An image at a registry. What is read streams; what is written is made in a file without a name first where
//! its digest isn't known, or its contents aren't verified, before the last byte.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use oci_registry::{Content, Download, Reference, RegistryError, Repository};
use tokio::runtime::Handle;

use super::draft::Draft;
use super::{Destination, Document, Source, Stage, StoreError};
use crate::document::{Descriptor, Digest, Kind};
use crate::observer::Meter;

/// One image of a registry, to be read or written.
#[derive(Clone)]
pub struct Registry {
    runtime: Handle,
    repository: Repository,
    reference: Reference,
    /// Repositories of the same registry that may have the blobs already.
    mount_from: Vec<String>,
    replaces: Option<Digest>,
}

impl Registry {
    /// The image that `reference` names. The runtime must be another thread's.
    #[must_use]
    pub fn new(runtime: Handle, repository: Repository, reference: Reference) -> Self {
        Self { runtime, repository, reference, mount_from: Vec::new(), replaces: None }
    }

    /// To be written to in place of the image that is there now, and only of that.
    #[must_use]
    pub fn replacing(self, root: &Descriptor) -> Self {
        Self { replaces: Some(root.digest), ..self }
    }

    /// Blobs may be at this image's registry already, in its repository.
    #[must_use]
    pub fn mounting(mut self, from: &Reference) -> Self {
        if from.host == self.reference.host && from.repository != self.reference.repository {
            self.mount_from.push(from.repository.clone());
        }
        self
    }

    fn failed(&self, error: &RegistryError) -> StoreError {
        StoreError::Registry { place: format!("docker://{}", self.reference), problem: error.to_string() }
    }

    fn wait<T>(&self, asked: impl Future<Output = Result<T, RegistryError>>) -> Result<T, StoreError> {
        self.runtime.block_on(asked).map_err(|error| self.failed(&error))
    }

    fn tag(&self) -> Result<&str, StoreError> {
        match (&self.reference.tag, &self.reference.digest) {
            (Some(tag), None) => Ok(tag),
            _ => Err(StoreError::Registry {
                place: format!("docker://{}", self.reference),
                problem: "an image is written under a tag, not a digest; name one".to_owned(),
            }),
        }
    }

    fn push(&self, blob: &Descriptor, content: &dyn Content, meter: &dyn Meter) -> Result<(), StoreError> {
        let digest = oci_digest(&blob.digest);
        let mounts: Vec<&str> = self.mount_from.iter().map(String::as_str).collect();
        let told = std::sync::atomic::AtomicU64::new(0);
        let progress = |sent: u64| {
            let before = told.fetch_max(sent, std::sync::atomic::Ordering::Relaxed);
            meter.bytes(sent.saturating_sub(before));
        };
        self.wait(self.repository.push_blob(&digest, blob.size, content, &mounts, &progress))?;
        Ok(())
    }
}

fn oci_digest(digest: &Digest) -> oci_registry::Digest {
    oci_registry::Digest::from(*digest.as_bytes())
}

impl Source for Registry {
    fn root(&self) -> Result<Document, StoreError> {
        let document = match (&self.reference.digest, &self.reference.tag) {
            (Some(digest), _) => self.wait(self.repository.manifest(digest))?,
            (None, Some(tag)) => self.wait(self.repository.tagged(tag))?,
            (None, None) => self.wait(self.repository.tagged("latest"))?,
        };
        let media_type = Kind::media_type_of(&document.bytes).map_err(|source| StoreError::Document {
            place: format!("docker://{}", self.reference),
            source,
        })?;
        let descriptor = Descriptor::of(&media_type, &document.bytes);
        Ok(Document { descriptor, bytes: document.bytes })
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        let document = self.wait(self.repository.manifest(&oci_digest(&descriptor.digest)))?;
        Ok(Box::new(io::Cursor::new(document.bytes)))
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        let digest = oci_digest(&descriptor.digest);
        let download = self.repository.download(&digest, descriptor.size);
        Ok(Box::new(Arriving { runtime: self.runtime.clone(), download, chunk: Bytes::new() }))
    }

    fn holds(&self, descriptor: &Descriptor) -> Result<bool, StoreError> {
        self.wait(self.repository.has_manifest(&oci_digest(&descriptor.digest)))
    }
}

/// A blob as it comes.
struct Arriving {
    runtime: Handle,
    download: Download,
    chunk: Bytes,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.download.chunk()).map_err(io::Error::other)? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.chunk.len());
        buffer[..length].copy_from_slice(&self.chunk.split_to(length));
        Ok(length)
    }
}

impl Destination for Registry {
    fn has(&self, descriptor: &Descriptor) -> Result<bool, StoreError> {
        let size = self.wait(self.repository.has_blob(&oci_digest(&descriptor.digest)))?;
        Ok(size.is_some_and(|size| size == descriptor.size || size == 0))
    }

    fn stage(&self) -> Result<Box<dyn Stage>, StoreError> {
        let directory = std::env::temp_dir();
        let draft =
            Draft::new(&directory, 0o600).map_err(StoreError::system(&directory, "creating a file"))?;
        Ok(Box::new(Staged { registry: self.clone(), draft }))
    }

    fn transfer(
        &self,
        source: &dyn Source,
        blob: &Descriptor,
        meter: &dyn Meter,
    ) -> Result<bool, StoreError> {
        // The registry holds the bytes to their digest before it takes them.
        self.push(blob, &Streamed { source, blob }, meter)?;
        Ok(true)
    }

    fn put(&self, document: &Document) -> Result<(), StoreError> {
        let media_type = &document.descriptor.media_type;
        self.wait(self.repository.push_manifest(&document.bytes, media_type, None))?;
        Ok(())
    }

    fn withdraw(&self, _blob: &Descriptor) {
        // Registries forget blobs that no manifest names; deleting needs rights that pushing doesn't.
    }

    fn commit(&self, root: &Descriptor, bytes: &[u8]) -> Result<(), StoreError> {
        let tag = self.tag()?;
        if let Some(replaced) = self.replaces {
            let now = self.wait(self.repository.tagged(tag))?;
            if now.digest.as_bytes() != replaced.as_bytes() {
                return Err(StoreError::Changed { place: format!("docker://{}", self.reference) });
            }
        }
        self.wait(self.repository.push_manifest(bytes, &root.media_type, Some(tag)))?;
        Ok(())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.tag().map(drop)
    }
}

/// A blob of another store, read as it is sent.
struct Streamed<'a> {
    source: &'a dyn Source,
    blob: &'a Descriptor,
}

impl Content for Streamed<'_> {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let reader = self.source.open(self.blob).map_err(io::Error::other)?;
        Ok(Box::new(Skipping { reader, left: from }))
    }
}

/// Leaves the first bytes out, when it is read: reading may block.
struct Skipping {
    reader: Box<dyn Read + Send>,
    left: u64,
}

impl Read for Skipping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left > 0 {
            let skipped = io::copy(&mut (&mut self.reader).take(self.left), &mut io::sink())?;
            self.left = self.left.saturating_sub(skipped);
            if self.left > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.reader.read(buffer)
    }
}

struct Staged {
    registry: Registry,
    draft: Draft,
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.draft.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.draft.flush()
    }
}

impl Stage for Staged {
    fn publish(self: Box<Self>, descriptor: &Descriptor) -> Result<(), StoreError> {
        let file = self.draft.into_file().map_err(StoreError::system(std::env::temp_dir(), "reading"))?;
        let content = Kept(Arc::new(file));
        self.registry.push(descriptor, &content, &crate::Silent)
    }
}

/// A file without a name, read from any place.
struct Kept(Arc<File>);

impl Content for Kept {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(At { file: Arc::clone(&self.0), offset: from }))
    }
}

struct At {
    file: Arc<File>,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
