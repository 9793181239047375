//! From a manifest and its inputs to the archive's bytes.

use crate::cpio::{Member, Writer};
use crate::manifest::{Entry, Manifest, NodeKind};
use flate2::{Compression, GzBuilder};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

/// Where each named input lies on this machine.
pub type Inputs = BTreeMap<String, PathBuf>;

/// Why an initrd could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The manifest asks for an input that was not given.
    #[error("initrd input {0:?} is missing; pass --input {0}=PATH")]
    InputMissing(String),
    /// An input was given that the manifest doesn't use: most likely a misspelt name.
    #[error("initrd input {0:?} is not used by the manifest; it asks for: {1}")]
    InputUnused(String, String),
    /// An input could not be read.
    #[error("reading initrd input {name:?} from {path}: {source}")]
    Read {
        /// The input's name.
        name: String,
        /// Its file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The archive could not be put together.
    #[error("writing initrd member {path:?}: {source}")]
    Write {
        /// The member's path.
        path: String,
        /// What failed.
        #[source]
        source: io::Error,
    },
}

/// Builds the gzip-compressed archive.
///
/// The bytes depend on the manifest's entries and the inputs' bytes only: members are sorted by path,
/// times and owners are zero, inode numbers follow the order, and the gzip header names neither time,
/// file nor operating system.
pub fn build(manifest: &Manifest, inputs: &Inputs) -> Result<Vec<u8>, BuildError> {
    let contents = read(manifest, inputs)?;
    let gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    let mut writer = Writer::new(gzip);
    for (path, entry) in manifest.entries() {
        let (permissions, member) = match entry {
            Entry::Directory { mode } => (*mode, Member::Directory),
            Entry::File { mode, input } => {
                let bytes = contents.get(input.as_str()).map(Vec::as_slice).unwrap_or_default();
                (*mode, Member::File(bytes))
            }
            Entry::Symlink { target } => (0o777, Member::Symlink(target)),
            Entry::Node { mode, kind: NodeKind::Char, major, minor } => {
                (*mode, Member::Character(*major, *minor))
            }
            Entry::Node { mode, kind: NodeKind::Block, major, minor } => {
                (*mode, Member::Block(*major, *minor))
            }
        };
        writer
            .member(path.trim_start_matches('/'), permissions, &member)
            .map_err(|source| BuildError::Write { path: path.clone(), source })?;
    }
    writer
        .finish()
        .and_then(|gzip| gzip.finish())
        .map_err(|source| BuildError::Write { path: "TRAILER!!!".to_owned(), source })
}

fn read<'a>(manifest: &'a Manifest, inputs: &Inputs) -> Result<BTreeMap<&'a str, Vec<u8>>, BuildError> {
    let wanted = manifest.inputs();
    if let Some(unused) = inputs.keys().find(|name| !wanted.contains(&name.as_str())) {
        return Err(BuildError::InputUnused(unused.clone(), wanted.join(", ")));
    }
    wanted
        .into_iter()
        .map(|name| {
            let path = inputs.get(name).ok_or_else(|| BuildError::InputMissing(name.to_owned()))?;
            let bytes = fs::read(path).map_err(|source| BuildError::Read {
                name: name.to_owned(),
                path: path.clone(),
                source,
            })?;
            Ok((name, bytes))
        })
        .collect()
}
