//! An image as it is in its store: one manifest, or an index of several, each document checked against what
//! points to it.

use std::fmt;
use std::io::Read as _;

use crate::document::{
    Config, DOCUMENT_LIMIT, Descriptor, Digest, DocumentError, Index, Kind, Manifest, OCI_INDEX, Platform,
};
use crate::error::{ImageError, Problem};
use crate::store::{Document, Source, StoreError};

/// Indexes in indexes in indexes; nobody writes more.
const DEPTH: usize = 3;

/// What a descriptor points to.
#[derive(Debug)]
pub enum Node {
    /// A list.
    Index {
        /// What points to it.
        descriptor: Descriptor,
        /// As it is stored.
        bytes: Vec<u8>,
        /// As it is read.
        index: Index,
        /// What its entries point to, in their order.
        entries: Vec<Node>,
    },
    /// One image.
    Image(Box<Image>),
    /// Something that isn't in the source, or not understood: kept as it is, copied when it is there, and
    /// always said. [`Selection::check`](crate::Selection::check) refuses what is absent and was asked for.
    Opaque {
        /// What points to it.
        descriptor: Descriptor,
        /// Whether the source has it.
        held: bool,
    },
}

/// One image: a manifest with its configuration.
#[derive(Debug)]
pub struct Image {
    /// What points to it.
    pub descriptor: Descriptor,
    /// As it is stored.
    pub bytes: Vec<u8>,
    /// As it is read.
    pub manifest: Manifest,
    /// The configuration as it is stored.
    pub config_bytes: Vec<u8>,
    /// The configuration, where it is an image's.
    pub config: Option<Config>,
    /// What it is for, as the index says, else the configuration.
    pub platform: Option<Platform>,
}

impl fmt::Display for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.descriptor.digest.short();
        match &self.platform {
            Some(platform) => write!(formatter, "manifest {digest} ({platform})"),
            None => write!(formatter, "manifest {digest}"),
        }
    }
}

impl Node {
    /// Reads all documents of an image.
    ///
    /// # Errors
    /// When one is missing, damaged, or no document.
    pub fn read(source: &dyn Source) -> Result<Self, ImageError> {
        let root = source.root()?;
        verified(&root.descriptor, &root.bytes)?;
        read(source, root, DEPTH)
    }

    /// What points to it.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        match self {
            Self::Index { descriptor, .. } | Self::Opaque { descriptor, .. } => descriptor,
            Self::Image(image) => &image.descriptor,
        }
    }

    /// All manifests, in order.
    #[must_use]
    pub fn images(&self) -> Vec<&Image> {
        match self {
            Self::Index { entries, .. } => entries.iter().flat_map(Self::images).collect(),
            Self::Image(image) => vec![image],
            Self::Opaque { .. } => Vec::new(),
        }
    }

    /// Manifests and indexes that are listed and not in the source.
    pub(crate) fn absent(&self) -> Vec<&Descriptor> {
        let unread = self.unread().into_iter();
        let absent = unread.filter(|(entry, held)| !held && Kind::of(&entry.media_type) != Kind::Other);
        absent.map(|(entry, _)| entry).collect()
    }

    /// What nothing was done with, for people.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let why = |entry: &Descriptor| match Kind::of(&entry.media_type) {
            Kind::Other => format!("media type '{}' is neither a manifest nor an index", entry.media_type),
            Kind::Manifest | Kind::Index => "it isn't where the image is".to_owned(),
        };
        let unread = self.unread().into_iter();
        unread.map(|(entry, _)| format!("{} stays as it was: {}", listed(entry), why(entry))).collect()
    }

    /// Entries that weren't read, and whether the source has them.
    fn unread(&self) -> Vec<(&Descriptor, bool)> {
        match self {
            Self::Index { entries, .. } => entries.iter().flat_map(Self::unread).collect(),
            Self::Image(_) => Vec::new(),
            Self::Opaque { descriptor, held } => vec![(descriptor, *held)],
        }
    }

    /// The same image with what `change` makes of each manifest; what it leaves alone keeps its bytes and so
    /// its digest, and an index of nothing but such stays as it is too. All documents are listed, the root
    /// last.
    pub(crate) fn rewrite(
        &self,
        change: &mut dyn FnMut(&Image) -> Option<Manifest>,
        documents: &mut Vec<Document>,
    ) -> Descriptor {
        match self {
            Self::Opaque { descriptor, .. } => descriptor.clone(),
            Self::Image(image) => {
                let document = match change(image) {
                    None => Document { descriptor: image.descriptor.clone(), bytes: image.bytes.clone() },
                    Some(manifest) => {
                        let media_type = manifest.media_type.clone();
                        let media_type = media_type.unwrap_or_else(|| image.descriptor.media_type.clone());
                        rewritten(&image.descriptor, &media_type, manifest.to_bytes())
                    }
                };
                documents.push(document.clone());
                document.descriptor
            }
            Self::Index { descriptor, bytes, index, entries } => {
                let manifests: Vec<Descriptor> =
                    entries.iter().map(|entry| entry.rewrite(change, documents)).collect();
                let document = if manifests == index.manifests {
                    Document { descriptor: descriptor.clone(), bytes: bytes.clone() }
                } else {
                    rewritten(descriptor, OCI_INDEX, index.with(manifests).to_bytes())
                };
                documents.push(document.clone());
                document.descriptor
            }
        }
    }
}

/// An entry of an index, for people.
pub(crate) fn listed(entry: &Descriptor) -> String {
    let platform = entry.platform.as_ref().map_or("no platform".to_owned(), ToString::to_string);
    format!("index entry {} ({platform})", entry.digest)
}

fn rewritten(old: &Descriptor, media_type: &str, bytes: Vec<u8>) -> Document {
    let descriptor = old.pointing_at(media_type, Digest::of(&bytes), bytes.len() as u64);
    Document { descriptor, bytes }
}

fn read(source: &dyn Source, document: Document, depth: usize) -> Result<Node, ImageError> {
    let Document { descriptor, bytes } = document;
    let wrong = |source: DocumentError| ImageError::about(&descriptor.digest, Problem::Document(source));
    match Kind::of(&descriptor.media_type) {
        Kind::Other => Err(wrong(DocumentError::MediaType(descriptor.media_type.clone()))),
        Kind::Manifest => Ok(Node::Image(Box::new(image(source, descriptor, bytes)?))),
        Kind::Index => {
            let index = Index::parse(&bytes, &descriptor.media_type).map_err(wrong)?;
            let entries: Result<Vec<Node>, ImageError> =
                index.manifests.iter().map(|entry| read_entry(source, entry, depth)).collect();
            Ok(Node::Index { entries: entries?, descriptor, bytes, index })
        }
    }
}

fn read_entry(source: &dyn Source, entry: &Descriptor, depth: usize) -> Result<Node, ImageError> {
    let held = source.holds(entry)?;
    if !held || Kind::of(&entry.media_type) == Kind::Other {
        return Ok(Node::Opaque { descriptor: entry.clone(), held });
    }
    let depth =
        depth.checked_sub(1).ok_or_else(|| ImageError::about(&entry.digest, Problem::TooDeep(DEPTH)))?;
    let bytes = fetch_document(source, entry)?;
    read(source, Document { descriptor: entry.clone(), bytes }, depth)
}

fn image(source: &dyn Source, descriptor: Descriptor, bytes: Vec<u8>) -> Result<Image, ImageError> {
    let wrong =
        |digest: Digest| move |source: DocumentError| ImageError::about(&digest, Problem::Document(source));
    let manifest = Manifest::parse(&bytes, &descriptor.media_type).map_err(wrong(descriptor.digest))?;
    let config_bytes = fetch(source, &manifest.config)?;
    let config = match Config::is_image(&manifest.config.media_type) {
        true => Some(Config::parse(&config_bytes).map_err(wrong(manifest.config.digest))?),
        false => None,
    };
    let own = config.as_ref().and_then(|config| config.platform.clone());
    let platform = descriptor.platform.clone().or(own);
    Ok(Image { descriptor, bytes, manifest, config_bytes, config, platform })
}

/// A blob that is a document, whole and checked.
pub(crate) fn fetch(source: &dyn Source, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    whole(descriptor, |descriptor| source.open(descriptor))
}

/// A manifest or index that an index lists, whole and checked.
pub(crate) fn fetch_document(source: &dyn Source, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    whole(descriptor, |descriptor| source.document(descriptor))
}

fn whole<'a>(
    descriptor: &'a Descriptor,
    open: impl FnOnce(&'a Descriptor) -> Result<Box<dyn std::io::Read + Send>, StoreError>,
) -> Result<Vec<u8>, ImageError> {
    let broken = |problem| ImageError::about(&descriptor.digest, problem);
    if descriptor.size > DOCUMENT_LIMIT {
        return Err(broken(Problem::DocumentSize(descriptor.size)));
    }
    let mut bytes = Vec::new();
    let reader = open(descriptor)?;
    reader.take(descriptor.size + 1).read_to_end(&mut bytes).map_err(|error| broken(Problem::Read(error)))?;
    verified(descriptor, &bytes)?;
    Ok(bytes)
}

fn verified(descriptor: &Descriptor, bytes: &[u8]) -> Result<(), ImageError> {
    let found = Digest::of(bytes);
    if found == descriptor.digest && bytes.len() as u64 == descriptor.size {
        return Ok(());
    }
    Err(ImageError::about(&descriptor.digest, Problem::Digest { found }))
}
