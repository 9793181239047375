//! Writing archives: made whole beside their place, then put there.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use encrypted_image::LayerMediaType;

use super::read::{Archive, Identity};
use super::{BLOBS, IMAGE_NAME, INDEX_FILE, MANIFEST_FILE, Saved, VERSION_FILE};
use crate::document::{Descriptor, Digest, Index, Kind, Manifest};
use crate::store::draft::Draft;
use crate::store::layout::REF_NAME;
use crate::store::{Destination, Document, Stage, StoreError};

const BLOCK: usize = 512;

/// An archive of one image that is being written.
pub struct ArchiveWriter {
    path: PathBuf,
    directory: PathBuf,
    reference: Option<String>,
    /// The archive that it takes the place of.
    replaces: Option<Identity>,
    state: Arc<Mutex<State>>,
}

/// What has been written.
struct State {
    draft: Option<Draft>,
    blobs: BTreeSet<Digest>,
}

impl ArchiveWriter {
    /// A new file; `reference` is what `docker load` is to call the image.
    ///
    /// # Errors
    /// When the file is there already: archives are written whole.
    pub fn create(path: &Path, reference: Option<&str>) -> Result<Self, StoreError> {
        if path.try_exists().map_err(StoreError::system(path, "reading"))? {
            let place = path.display().to_string();
            let problem = "it is there already, and archives are written whole; name another file".to_owned();
            return Err(StoreError::Archive { place, problem });
        }
        Self::new(path, reference, None)
    }

    /// In place of an archive that was read.
    ///
    /// # Errors
    /// When that has other images too.
    pub fn replacing(path: &Path, reference: Option<&str>, old: &Archive) -> Result<Self, StoreError> {
        if old.images() > 1 {
            let place = path.display().to_string();
            let problem = format!(
                "it holds {} images, the others would be lost; name another file with --to",
                old.images()
            );
            return Err(StoreError::Archive { place, problem });
        }
        let identity = old.identity().map_err(StoreError::system(path, "reading"))?;
        Self::new(path, reference, Some(identity))
    }

    fn new(path: &Path, reference: Option<&str>, replaces: Option<Identity>) -> Result<Self, StoreError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new(".")).to_path_buf();
        let draft = Draft::new(&directory, 0o644).map_err(StoreError::system(path, "creating"))?;
        let state = State { draft: Some(draft), blobs: BTreeSet::new() };
        Ok(Self {
            path: path.into(),
            directory,
            reference: reference.map(str::to_owned),
            replaces,
            state: Arc::new(Mutex::new(state)),
        })
    }

    fn write(&self, add: impl FnOnce(&mut State) -> io::Result<()>) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        add(&mut state).map_err(StoreError::system(&self.path, "writing"))
    }
}

impl State {
    fn draft(&mut self) -> io::Result<&mut Draft> {
        self.draft.as_mut().ok_or_else(|| io::Error::other("it is finished"))
    }

    /// POSIX.1-2017, pax, "ustar Interchange Format": a header, the contents, zeros to a whole block.
    fn member(&mut self, name: &str, size: u64, contents: &mut dyn io::Read) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        let draft = self.draft()?;
        draft.write_all(header.as_bytes())?;
        let written = io::copy(&mut contents.take(size), draft)?;
        if written != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        let padding = [0; BLOCK];
        draft.write_all(&padding[..(BLOCK - over) % BLOCK])
    }

    fn blob(&mut self, digest: Digest, size: u64, contents: &mut dyn io::Read) -> io::Result<()> {
        if self.blobs.contains(&digest) {
            return Ok(());
        }
        self.member(&format!("{BLOBS}{}", digest.hex()), size, contents)?;
        self.blobs.insert(digest);
        Ok(())
    }
}

impl Destination for ArchiveWriter {
    fn has(&self, descriptor: &Descriptor) -> Result<bool, StoreError> {
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner).blobs.contains(&descriptor.digest))
    }

    fn stage(&self) -> Result<Box<dyn Stage>, StoreError> {
        let draft = Draft::new(&self.directory, 0o600)
            .map_err(StoreError::system(&self.directory, "creating a file"))?;
        Ok(Box::new(Staged { draft, path: self.path.clone(), state: Arc::clone(&self.state) }))
    }

    fn put(&self, document: &Document) -> Result<(), StoreError> {
        let Descriptor { digest, size, .. } = &document.descriptor;
        self.write(|state| state.blob(*digest, *size, &mut document.bytes.as_slice()))
    }

    fn withdraw(&self, _blob: &Descriptor) {
        // Nobody has seen the archive.
    }

    fn commit(&self, root: &Descriptor, bytes: &[u8]) -> Result<(), StoreError> {
        let document = Document { descriptor: root.clone(), bytes: bytes.to_vec() };
        self.put(&document)?;
        let mut index = Index::empty();
        index.manifests.push(self.entry(root));
        let index = index.to_bytes();
        let version = br#"{"imageLayoutVersion":"1.0.0"}"#;
        let saved = self.saved(root, bytes);
        self.write(|state| {
            for (name, contents) in [(INDEX_FILE, index.as_slice()), (VERSION_FILE, version)] {
                state.member(name, contents.len() as u64, &mut &*contents)?;
            }
            if let Some(saved) = saved {
                state.member(MANIFEST_FILE, saved.len() as u64, &mut saved.as_slice())?;
            }
            state.draft()?.write_all(&[0; 2 * BLOCK])
        })?;
        self.unchanged()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.draft.take() {
            Some(draft) => draft.rename_to(&self.path).map_err(StoreError::system(&self.path, "replacing")),
            None => Ok(()),
        }
    }
}

impl ArchiveWriter {
    fn entry(&self, root: &Descriptor) -> Descriptor {
        let mut entry = root.clone();
        if let Some(reference) = &self.reference {
            let tag = reference.rsplit_once(':').map_or(reference.as_str(), |(_, tag)| tag);
            entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
            if let Ok(whole) = oci_registry::Reference::parse(reference) {
                entry.annotations.insert(IMAGE_NAME.to_owned(), whole.to_string());
            }
        }
        entry
    }

    /// For `docker load`, of an image that it can run: one platform, plain.
    fn saved(&self, root: &Descriptor, bytes: &[u8]) -> Option<Vec<u8>> {
        if Kind::of(&root.media_type) != Kind::Manifest {
            return None;
        }
        let manifest = Manifest::parse(bytes, &root.media_type).ok()?;
        let encrypted = |layer: &Descriptor| {
            LayerMediaType::parse(&layer.media_type).is_none_or(|media_type| media_type.encrypted)
        };
        if manifest.layers.iter().any(encrypted) {
            return None;
        }
        let path = |blob: &Descriptor| format!("{BLOBS}{}", blob.digest.hex());
        let repo_tags = self.reference.iter().filter(|name| name.contains(':')).cloned().collect();
        let saved = Saved {
            config: path(&manifest.config),
            repo_tags: Some(repo_tags),
            layers: manifest.layers.iter().map(path).collect(),
        };
        serde_json::to_vec(&[saved]).ok()
    }

    fn unchanged(&self) -> Result<(), StoreError> {
        let now = match fs::metadata(&self.path) {
            Ok(metadata) => Some(Identity::of(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::system(&self.path, "reading")(error)),
        };
        if now == self.replaces {
            return Ok(());
        }
        Err(StoreError::Changed { place: self.path.display().to_string() })
    }
}

struct Staged {
    draft: Draft,
    path: PathBuf,
    state: Arc<Mutex<State>>,
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
        let Self { draft, path, state } = *self;
        let added = draft.into_file().and_then(|mut file| {
            file.seek(SeekFrom::Start(0))?;
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.blob(descriptor.digest, descriptor.size, &mut file)
        });
        added.map_err(StoreError::system(path, "writing"))
    }
}
