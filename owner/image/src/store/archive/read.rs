//! Reading archives of either kind as an OCI image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use encrypted_image::{Compression, Family, LayerMediaType};

use super::tarball::Tarball;
use super::{BLOBS, INDEX_FILE, MANIFEST_FILE, Saved, VERSION_FILE, names, one_of};
use crate::document::{
    Config, DOCUMENT_LIMIT, Descriptor, Digest, Hashing, Index, Kind, Manifest, OCI_CONFIG, OCI_MANIFEST,
};
use crate::store::{Document, Source, StoreError};

/// One image of an archive.
pub struct Archive {
    path: PathBuf,
    tarball: Tarball,
    root: Document,
    /// Images that the archive holds.
    count: usize,
    /// Where the blobs are that aren't at their digest.
    blobs: BTreeMap<Digest, (u64, u64)>,
}

impl Archive {
    /// Opens the image `reference`; without one the only image.
    ///
    /// # Errors
    /// When the file is no archive of images, or has no such image.
    pub fn open(path: &Path, reference: Option<&str>) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::system(path, "opening"))?;
        let place = path.display().to_string();
        let broken = |problem: String| StoreError::Archive { place: place.clone(), problem };
        let mut start = [0; 6];
        let _ = std::os::unix::fs::FileExt::read_at(&file, &mut start, 0);
        if compression(&start) != Compression::None {
            return Err(broken("it is compressed; decompress it first (gunzip, unzstd)".to_owned()));
        }
        let tarball = Tarball::open(file).map_err(|error| broken(format!("not a tar file: {error}")))?;
        let small = |name: &str| {
            tarball.small(name, DOCUMENT_LIMIT).map_err(|error| broken(format!("{name}: {error}")))
        };
        if let (Some(_), Some(index)) = (small(VERSION_FILE)?, small(INDEX_FILE)?) {
            let (root, count) = layout(&place, &tarball, &index, reference)?;
            return Ok(Self { path: path.into(), tarball, root, count, blobs: BTreeMap::new() });
        }
        let no_images = || {
            broken(format!(
                "neither {MANIFEST_FILE} nor {INDEX_FILE} in it: no image that 'docker save' wrote"
            ))
        };
        let saved = small(MANIFEST_FILE)?.ok_or_else(no_images)?;
        let (root, count, blobs) = legacy(&place, &tarball, &saved, reference)?;
        Ok(Self { path: path.into(), tarball, root, count, blobs })
    }

    /// How many images the archive holds.
    #[must_use]
    pub fn images(&self) -> usize {
        self.count
    }

    /// What tells that the file at this path is another one now.
    pub(super) fn identity(&self) -> io::Result<Identity> {
        self.tarball.file().metadata().map(|metadata| Identity::of(&metadata))
    }
}

/// Which file, in which state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(u64, u64, u64, i64, i64);

impl Identity {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        Self(metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec())
    }
}

/// An archive that is a layout.
fn layout(
    place: &str,
    tarball: &Tarball,
    index: &[u8],
    reference: Option<&str>,
) -> Result<(Document, usize), StoreError> {
    let document = |source| StoreError::Document { place: place.to_owned(), source };
    let own = Kind::media_type_of(index).unwrap_or_default();
    let index = Index::parse(index, &own).map_err(document)?;
    let descriptor = one_of(place, &index.manifests, reference, names)?.clone();
    let bytes = tarball
        .small(&format!("{BLOBS}{}", descriptor.digest.hex()), DOCUMENT_LIMIT)
        .map_err(|error| StoreError::Archive { place: place.to_owned(), problem: error.to_string() })?
        .ok_or(StoreError::NoBlob { place: place.to_owned(), digest: descriptor.digest })?;
    Ok((Document { descriptor, bytes }, index.manifests.len()))
}

type Legacy = (Document, usize, BTreeMap<Digest, (u64, u64)>);

/// An archive as Docker wrote it before: the manifest is made here, of what the archive has.
fn legacy(
    place: &str,
    tarball: &Tarball,
    saved: &[u8],
    reference: Option<&str>,
) -> Result<Legacy, StoreError> {
    let broken = |problem: String| StoreError::Archive { place: place.to_owned(), problem };
    let entries: Vec<Saved> =
        serde_json::from_slice(saved).map_err(|error| broken(format!("{MANIFEST_FILE}: {error}")))?;
    let image = one_of(place, &entries, reference, |entry| {
        entry.repo_tags.iter().flatten().map(String::as_str).collect()
    })?;
    let missing = |name: &str| broken(format!("{name}, which {MANIFEST_FILE} names, is missing"));
    let read = |error: io::Error| broken(error.to_string());
    let config_bytes =
        tarball.small(&image.config, DOCUMENT_LIMIT).map_err(read)?.ok_or_else(|| missing(&image.config))?;
    let document = |source| StoreError::Document { place: format!("{place}: {}", image.config), source };
    let diff_ids = Config::parse(&config_bytes).map_err(document)?.diff_ids;
    if diff_ids.len() != image.layers.len() {
        let (layers, named) = (image.layers.len(), diff_ids.len());
        return Err(broken(format!("{MANIFEST_FILE} names {layers} layers, the configuration {named}")));
    }
    let mut blobs = BTreeMap::new();
    let config = Descriptor::of(OCI_CONFIG, &config_bytes);
    blobs.insert(config.digest, tarball.find(&image.config).ok_or_else(|| missing(&image.config))?);
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (name, diff_id) in image.layers.iter().zip(diff_ids) {
        let at = tarball.find(name).ok_or_else(|| missing(name))?;
        let mut start = [0; 6];
        let length = tarball.reader(at).read(&mut start).map_err(read)?;
        let compression = compression(&start[..length]);
        // An unpacked layer is known by its diff id, and held to it when it is read.
        let digest = match compression {
            Compression::None => diff_id,
            _ => {
                let mut hashing = Hashing::new(tarball.reader(at));
                io::copy(&mut hashing, &mut io::sink()).map_err(read)?;
                hashing.finish().0
            }
        };
        let media_type = LayerMediaType { family: Family::Oci, compression, encrypted: false };
        layers.push(Descriptor::new(&media_type.to_string(), digest, at.1));
        blobs.insert(digest, at);
    }
    let bytes = Manifest::new(config, layers).to_bytes();
    let document = Document { descriptor: Descriptor::of(OCI_MANIFEST, &bytes), bytes };
    Ok((document, entries.len(), blobs))
}

/// By the first bytes: RFC 1952 §2.3.1, RFC 8878 §3.1.1.
fn compression(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

impl Source for Archive {
    fn root(&self) -> Result<Document, StoreError> {
        Ok(self.root.clone())
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        self.open(descriptor)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        let (place, digest) = (self.path.display().to_string(), descriptor.digest);
        let at = match self.find(&digest) {
            Some(at) => at,
            None => return Err(StoreError::NoBlob { place, digest }),
        };
        if at.1 != descriptor.size {
            return Err(StoreError::Size { place, digest, expected: descriptor.size, found: at.1 });
        }
        Ok(Box::new(self.tarball.reader(at)))
    }

    fn holds(&self, descriptor: &Descriptor) -> Result<bool, StoreError> {
        Ok(self.find(&descriptor.digest).is_some())
    }
}

impl Archive {
    fn find(&self, digest: &Digest) -> Option<(u64, u64)> {
        let known = self.blobs.get(digest).copied();
        known.or_else(|| self.tarball.find(&format!("{BLOBS}{}", digest.hex())))
    }
}
