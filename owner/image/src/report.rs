//! What an operation did, for people and programs.

use serde::Serialize;

use crate::document::{Descriptor, Digest};

/// What became of an image.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What its name stands for now.
    pub digest: Digest,
    /// What it was made from.
    pub from: Digest,
    /// Media type of the document of that name.
    pub media_type: String,
    /// Its manifests, in the index' order.
    pub images: Vec<ImageReport>,
    /// What else should be known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What became of a manifest.
#[derive(Debug, Clone, Serialize)]
pub struct ImageReport {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The manifest now.
    pub digest: Digest,
    /// The manifest before.
    pub from: Digest,
    /// Its layers, the base first.
    pub layers: Vec<LayerReport>,
}

/// What became of a layer.
#[derive(Debug, Clone, Serialize)]
pub struct LayerReport {
    /// What was done with it.
    pub done: Done,
    /// Its blob now.
    pub digest: Digest,
    /// Its blob before.
    pub from: Digest,
    /// How long it is.
    pub size: u64,
    /// What it is now.
    pub media_type: String,
}

/// What was done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    /// Nothing: the same bytes, the same annotations.
    Kept,
    /// It is encrypted now.
    Encrypted,
    /// It is plain now.
    Decrypted,
    /// The same encrypted bytes, other wrapped keys.
    Rewrapped,
    /// Encrypted anew under another key.
    Rotated,
}

impl LayerReport {
    pub(crate) fn new(done: Done, before: &Descriptor, after: &Descriptor) -> Self {
        let (digest, from, size) = (after.digest, before.digest, after.size);
        Self { done, digest, from, size, media_type: after.media_type.clone() }
    }
}
