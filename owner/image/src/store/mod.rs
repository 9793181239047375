//! Where images come from and go to: one pair of traits, an implementation a kind of place.
//!
//! What a store hands out is not believed: whoever reads a document or a blob checks its digest.

mod archive;
mod draft;
mod layout;
mod registry;

use std::io::{self, Read, Write};
use std::path::PathBuf;

use thiserror::Error;

use crate::document::{Descriptor, Digest, DigestError, DocumentError};
use crate::observer::Meter;

pub use archive::{Archive, ArchiveWriter};
pub use layout::Layout;
pub use registry::Registry;

/// A manifest or an index with what points to it.
#[derive(Debug, Clone)]
pub struct Document {
    /// What points to it.
    pub descriptor: Descriptor,
    /// Its bytes, as they are hashed.
    pub bytes: Vec<u8>,
}

/// Reads an image.
pub trait Source: Send + Sync {
    /// The document that the image's name stands for.
    ///
    /// # Errors
    /// When there is none, or several.
    fn root(&self) -> Result<Document, StoreError>;

    /// A manifest or index that an index lists.
    ///
    /// # Errors
    /// When it isn't there.
    fn document(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError>;

    /// A blob of the image, from its beginning.
    ///
    /// # Errors
    /// When it isn't there.
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Whether [`document`](Self::document) would find it.
    ///
    /// # Errors
    /// When that can't be told.
    fn holds(&self, descriptor: &Descriptor) -> Result<bool, StoreError>;
}

/// Takes an image.
pub trait Destination: Send + Sync {
    /// Whether this blob is there already, with that size.
    ///
    /// # Errors
    /// When that can't be told.
    fn has(&self, descriptor: &Descriptor) -> Result<bool, StoreError>;

    /// Room for a blob whose digest isn't known yet. Nobody sees it before it is published; dropped, it
    /// never was.
    ///
    /// # Errors
    /// When there is no room.
    fn stage(&self) -> Result<Box<dyn Stage>, StoreError>;

    /// Takes a blob straight from another store, where it can hold the bytes to their digest by itself;
    /// `false` where it can't.
    ///
    /// # Errors
    /// When it can and fails.
    fn transfer(
        &self,
        _source: &dyn Source,
        _blob: &Descriptor,
        _meter: &dyn Meter,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Whether the image's name can be written at all; asked before anything is done.
    ///
    /// # Errors
    /// When it can't.
    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Takes a document that others will point to.
    ///
    /// # Errors
    /// When it can't be written.
    fn put(&self, document: &Document) -> Result<(), StoreError>;

    /// Takes a blob back that was published for an image that then couldn't be finished.
    fn withdraw(&self, blob: &Descriptor);

    /// Takes the image's own document and gives it its name; the last step.
    ///
    /// # Errors
    /// When it can't be written or named.
    fn commit(&self, root: &Descriptor, bytes: &[u8]) -> Result<(), StoreError>;
}

/// Room for one blob.
pub trait Stage: Write + Send {
    /// Makes it visible as the blob that `descriptor` points to; the caller has checked that it is.
    ///
    /// # Errors
    /// When the store doesn't take it.
    fn publish(self: Box<Self>, descriptor: &Descriptor) -> Result<(), StoreError>;
}

/// Why an image can't be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The system said no.
    #[error("{path}: {operation} failed: {source}")]
    System {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// No layout there.
    #[error("{0}: not an OCI image layout of version 1.0.0; is it the right directory?")]
    NoLayout(PathBuf),
    /// No image of that name.
    #[error("{place}: no image '{reference}' in it; it has {known}")]
    NoImage {
        /// Which store.
        place: String,
        /// What was asked for.
        reference: String,
        /// What there is.
        known: String,
    },
    /// Several images of that name, or no name and several images.
    #[error("{place}: {count} images fit; name one of {known}")]
    Ambiguous {
        /// Which store.
        place: String,
        /// How many.
        count: usize,
        /// What they are called.
        known: String,
    },
    /// Somebody else gave the name to another image meanwhile.
    #[error("{place}: the image was changed by somebody else meanwhile, nothing was replaced; run it again")]
    Changed {
        /// Which store.
        place: String,
    },
    /// A blob is missing.
    #[error("{place}: blob {digest} is missing")]
    NoBlob {
        /// Which store.
        place: String,
        /// Which blob.
        digest: Digest,
    },
    /// A blob is not as long as whoever points to it says.
    #[error("{place}: blob {digest} has {found} bytes, not the {expected} that its descriptor says")]
    Size {
        /// Which store.
        place: String,
        /// Which blob.
        digest: Digest,
        /// By its descriptor.
        expected: u64,
        /// In truth.
        found: u64,
    },
    /// A file of the store is not what it should be.
    #[error("{place}: {source}")]
    Document {
        /// Which file.
        place: String,
        /// What is wrong.
        source: DocumentError,
    },
    /// A digest that isn't one.
    #[error("{place}: {source}")]
    Digest {
        /// Which file.
        place: String,
        /// What is wrong.
        source: DigestError,
    },
    /// An archive that can't be read.
    #[error("{place}: {problem}")]
    Archive {
        /// Which file.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The registry said no.
    #[error("{place}: {problem}")]
    Registry {
        /// Which image.
        place: String,
        /// What it said.
        problem: String,
    },
}

impl StoreError {
    /// For `map_err`.
    pub(crate) fn system(
        path: impl Into<PathBuf>,
        operation: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::System { path, operation, source }
    }
}
