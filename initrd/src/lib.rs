//! Reproducible initrd builder: a manifest and its inputs become one gzip-compressed cpio archive.
//!
//! The same manifest and the same input bytes give the same archive bytes, wherever and whenever they
//! are built, because the archive is part of the launch measurement. What goes in is written in
//! `production.toml` and `test.toml` beside this crate.

mod archive;
mod cpio;
mod manifest;

pub use archive::{BuildError, Inputs, build};
pub use manifest::{Entry, Manifest, ManifestError, NodeKind};
