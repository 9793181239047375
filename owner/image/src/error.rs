//! Why an operation on an image failed: which manifest, which layer, which check.

use std::fmt;
use std::io;

use encrypted_image::{CipherError, LayerError, OptionsError, WrapError};
use thiserror::Error;

use crate::document::{Digest, DocumentError};
use crate::pipeline::PassError;
use crate::select::SelectionError;
use crate::store::StoreError;

/// Why an operation failed. The destination's name stands for what it stood for before.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was asked for isn't there.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// A document or blob is not what it should be.
    #[error("{digest}: {problem}")]
    Broken {
        /// Which one.
        digest: Digest,
        /// What is wrong.
        problem: Problem,
    },
    /// A layer is not what it should be.
    #[error("layer {layer} of {image}: {problem}")]
    Layer {
        /// Which manifest.
        image: String,
        /// Which layer, from the base.
        layer: usize,
        /// What is wrong.
        problem: Problem,
    },
    /// Encrypting what is encrypted.
    #[error(
        "already encrypted: {0}; 'recipients add' lets others open it, 'rotate' gives it new keys, '--layer' chooses other layers"
    )]
    AlreadyEncrypted(Layers),
    /// Nobody to encrypt for.
    #[error("no recipient: nobody could open the image; give --recipient")]
    NoRecipient,
    /// Nothing that can be encrypted.
    #[error("nothing to encrypt: no manifest that was chosen has a layer of a file system")]
    NothingToEncrypt,
    /// Decrypting, or re-wrapping, what is plain.
    #[error("not encrypted: {0} has no encrypted layer; use 'sealpod image encrypt' first")]
    NotEncrypted(String),
    /// Keys are missing.
    #[error(
        "you are not authorized to use this image: no suitable key for {} of {of} encrypted layers, nothing was decrypted: {missing}",
        .missing.0.len()
    )]
    NotAuthorised {
        /// What no key opens, and why.
        missing: Layers,
        /// How many were tried.
        of: usize,
    },
    /// Removing would leave nobody.
    #[error("{0}: nobody who could open it would be left; name who stays with --keep, or rotate")]
    NobodyLeft(String),
    /// Removing what isn't there.
    #[error("no layer is wrapped for {0}; 'sealpod image inspect' lists who is")]
    NoSuchScheme(String),
}

/// Some layers, each with a note.
#[derive(Debug, Default)]
pub struct Layers(pub Vec<Noted>);

/// One layer with a note.
#[derive(Debug)]
pub struct Noted {
    /// Its manifest.
    pub image: String,
    /// Which one, from the base.
    pub layer: usize,
    /// What is to be said of it.
    pub note: String,
}

impl fmt::Display for Layers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Noted { image, layer, note }) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            let colon = if note.is_empty() { "" } else { ": " };
            write!(formatter, "{separator}layer {layer} of {image}{colon}{note}")?;
        }
        Ok(())
    }
}

/// What is wrong with a document, blob or layer.
#[derive(Debug, Error)]
pub enum Problem {
    /// Not what its digest says.
    #[error("its bytes have the digest {found}: damaged or exchanged")]
    Digest {
        /// What they have.
        found: Digest,
    },
    /// A document that is none.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A document that is too long.
    #[error("{0} bytes; no manifest or configuration is that long")]
    DocumentSize(u64),
    /// Indexes in indexes.
    #[error("indexes are nested more than {0} deep")]
    TooDeep(usize),
    /// A document broke off.
    #[error("reading failed: {0}")]
    Read(#[source] io::Error),
    /// The stream.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// HMAC or private digest.
    #[error("could not properly decrypt byte stream: {0}")]
    Cipher(#[from] CipherError),
    /// Annotations and media type.
    #[error(transparent)]
    Annotations(#[from] LayerError),
    /// No key could be made.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A recipient.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// Another layer than the configuration names at this place.
    #[error(
        "it unpacks to diff id {found}, the configuration names {expected} here: layers were reordered or exchanged"
    )]
    DiffId {
        /// By the configuration.
        expected: Digest,
        /// In truth.
        found: Digest,
    },
    /// A configuration that names no layers, beside layers of a file system.
    #[error(
        "the configuration is of media type '{0}', which doesn't say what layers unpack to, so nothing holds this one to its place; only OCI's and Docker's do; '--platform' leaves the manifest out"
    )]
    ConfigMediaType(String),
    /// More or fewer layers than the configuration names.
    #[error(
        "the manifest has {layers} layers, its configuration names {diff_ids}: layers were added or taken away"
    )]
    DiffIdCount {
        /// By the manifest.
        layers: usize,
        /// By the configuration.
        diff_ids: usize,
    },
}

impl ImageError {
    pub(crate) fn about(digest: &Digest, problem: impl Into<Problem>) -> Self {
        Self::Broken { digest: *digest, problem: problem.into() }
    }

    pub(crate) fn layer(image: &impl fmt::Display, layer: usize, problem: impl Into<Problem>) -> Self {
        Self::Layer { image: image.to_string(), layer, problem: problem.into() }
    }
}
