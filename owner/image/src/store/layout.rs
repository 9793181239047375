//! An OCI image layout (OCI image specification 1.1, "Image Layout"): a directory of blobs and an index of
//! names. Names change by replacing the index whole, so others see the old image or the new one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::{Destination, Document, Source, Stage, StoreError};
use crate::document::{DOCUMENT_LIMIT, Descriptor, Digest, Index, Kind};

const VERSION_FILE: &str = "oci-layout";
const VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_FILE: &str = "index.json";
const BLOBS: &str = "blobs/sha256";
/// OCI image specification, "Pre-Defined Annotation Keys".
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// One image of a layout, to be read or written.
pub struct Layout {
    directory: PathBuf,
    reference: Option<String>,
    replaces: Option<Digest>,
}

impl Layout {
    /// The image `reference` of the layout in `directory`; without a reference the only one.
    #[must_use]
    pub fn new(directory: &Path, reference: Option<&str>) -> Self {
        Self { directory: directory.into(), reference: reference.map(str::to_owned), replaces: None }
    }

    /// To be written to in place of the image that is there now, and only of that.
    #[must_use]
    pub fn replacing(self, root: &Descriptor) -> Self {
        Self { replaces: Some(root.digest), ..self }
    }

    fn place(&self) -> String {
        self.directory.display().to_string()
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.directory.join(BLOBS).join(digest.hex())
    }

    fn index(&self) -> Result<Index, StoreError> {
        let version = self.directory.join(VERSION_FILE);
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        let read = read(&version).map_err(|_| StoreError::NoLayout(self.directory.clone()))?;
        match serde_json::from_slice(&read) {
            Ok(Version { image_layout_version }) if image_layout_version == "1.0.0" => {}
            _ => return Err(StoreError::NoLayout(self.directory.clone())),
        }
        let path = self.directory.join(INDEX_FILE);
        let bytes = read_file(&path)?;
        let own = Kind::media_type_of(&bytes).unwrap_or_default();
        Index::parse(&bytes, &own)
            .map_err(|source| StoreError::Document { place: path.display().to_string(), source })
    }

    /// Where in the index the image is.
    fn position(&self, index: &Index) -> Result<usize, StoreError> {
        let wanted = self.reference.as_deref();
        let fit: Vec<usize> = (index.manifests.iter().enumerate())
            .filter(|(_, entry)| wanted.is_none() || name(entry) == wanted)
            .map(|(position, _)| position)
            .collect();
        let known = || {
            let names: Vec<&str> =
                index.manifests.iter().map(|entry| name(entry).unwrap_or("(no name)")).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        match (fit.as_slice(), wanted) {
            ([position], _) => Ok(*position),
            ([], wanted) => Err(StoreError::NoImage {
                place: self.place(),
                reference: wanted.unwrap_or("").to_owned(),
                known: known(),
            }),
            (several, _) => {
                Err(StoreError::Ambiguous { place: self.place(), count: several.len(), known: known() })
            }
        }
    }

    /// Makes the directories, where they aren't there yet.
    fn make(&self) -> Result<(), StoreError> {
        let blobs = self.directory.join(BLOBS);
        fs::create_dir_all(&blobs).map_err(StoreError::system(&blobs, "creating"))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.directory.join(name);
        let written = Draft::new(&self.directory, 0o644).and_then(|mut draft| {
            draft.write_all(bytes)?;
            draft.rename_to(&path)
        });
        written.map_err(StoreError::system(&path, "replacing"))
    }
}

fn name(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations.get(REF_NAME).map(String::as_str)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > DOCUMENT_LIMIT {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 4 MiB")),
        false => Ok(bytes),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, StoreError> {
    read(path).map_err(StoreError::system(path, "reading"))
}

impl Source for Layout {
    fn root(&self) -> Result<Document, StoreError> {
        let mut index = self.index()?;
        let descriptor = index.manifests.swap_remove(self.position(&index)?);
        let bytes = read_file(&self.blob(&descriptor.digest))?;
        Ok(Document { descriptor, bytes })
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        self.open(descriptor)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        let path = self.blob(&descriptor.digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::NoBlob { place: self.place(), digest: descriptor.digest });
            }
            opened => opened.map_err(StoreError::system(&path, "opening"))?,
        };
        let found = file.metadata().map_err(StoreError::system(&path, "reading"))?;
        if !found.is_file() || found.len() != descriptor.size {
            let (digest, expected, found) = (descriptor.digest, descriptor.size, found.len());
            return Err(StoreError::Size { place: self.place(), digest, expected, found });
        }
        Ok(Box::new(file))
    }

    fn holds(&self, descriptor: &Descriptor) -> Result<bool, StoreError> {
        self.has(descriptor)
    }
}

impl Destination for Layout {
    fn has(&self, descriptor: &Descriptor) -> Result<bool, StoreError> {
        let path = self.blob(&descriptor.digest);
        match fs::metadata(&path) {
            Ok(found) => Ok(found.is_file() && found.len() == descriptor.size),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(StoreError::system(path, "reading")(error)),
        }
    }

    fn stage(&self) -> Result<Box<dyn Stage>, StoreError> {
        self.make()?;
        let blobs = self.directory.join(BLOBS);
        let draft = Draft::new(&blobs, 0o644).map_err(StoreError::system(&blobs, "creating a file"))?;
        Ok(Box::new(Staged { draft, blobs }))
    }

    fn put(&self, document: &Document) -> Result<(), StoreError> {
        if self.has(&document.descriptor)? {
            return Ok(());
        }
        let mut stage = self.stage()?;
        let path = self.blob(&document.descriptor.digest);
        stage.write_all(&document.bytes).map_err(StoreError::system(path, "writing"))?;
        stage.publish(&document.descriptor)
    }

    fn withdraw(&self, blob: &Descriptor) {
        let _ = fs::remove_file(self.blob(&blob.digest));
    }

    fn commit(&self, root: &Descriptor, bytes: &[u8]) -> Result<(), StoreError> {
        self.put(&Document { descriptor: root.clone(), bytes: bytes.to_vec() })?;
        // Two of us at once: one after the other. Other tools don't ask.
        let lock = File::open(&self.directory).map_err(StoreError::system(&self.directory, "opening"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|error| StoreError::system(&self.directory, "locking")(error.into()))?;
        let version = self.directory.join(VERSION_FILE);
        let mut index = match version.try_exists() {
            Ok(true) => self.index()?,
            Ok(false) => {
                self.replace(VERSION_FILE, VERSION)?;
                Index::empty()
            }
            Err(error) => return Err(StoreError::system(version, "reading")(error)),
        };
        self.enter(&mut index, root)?;
        self.replace(INDEX_FILE, &index.to_bytes())?;
        lock.sync_all().map_err(StoreError::system(&self.directory, "writing"))
    }
}

impl Layout {
    /// Names the image in the index; the other entries stay as and where they are.
    fn enter(&self, index: &mut Index, root: &Descriptor) -> Result<(), StoreError> {
        let mut entry = root.clone();
        let wanted = self.reference.as_deref();
        if let Some(replaced) = self.replaces {
            // The very entry that was read, whatever it is called.
            let position = index
                .manifests
                .iter()
                .position(|entry| entry.digest == replaced && (wanted.is_none() || name(entry) == wanted));
            let position = position.ok_or_else(|| StoreError::Changed { place: self.place() })?;
            index.manifests[position] = entry;
            return Ok(());
        }
        match wanted {
            Some(reference) => entry.annotations.insert(REF_NAME.to_owned(), reference.to_owned()),
            None => entry.annotations.remove(REF_NAME),
        };
        let same_name: Vec<usize> = (0..index.manifests.len())
            .filter(|position| name(&index.manifests[*position]) == wanted)
            .collect();
        match same_name.as_slice() {
            [] => index.manifests.push(entry),
            [position] => index.manifests[*position] = entry,
            several => {
                let known = wanted.unwrap_or("(no name)").to_owned();
                return Err(StoreError::Ambiguous { place: self.place(), count: several.len(), known });
            }
        }
        Ok(())
    }
}

struct Staged {
    draft: Draft,
    blobs: PathBuf,
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
        let path = self.blobs.join(descriptor.digest.hex());
        self.draft.rename_to(&path).map_err(StoreError::system(&path, "writing"))
    }
}
