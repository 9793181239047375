//! Root file systems for containers: pulled inside the guest, started as soon as the specification is open.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use agent_image::{ErrorKind, Image, ImageConfiguration, ImageError, ImageStore, Rootfs};
use async_trait::async_trait;
use protocols::refusal::{Code, Refusal};
use sealed_spec::{ImageRef, SealedSpec};

use crate::slots::{Over, Patience};

/// A mounted root file system.
pub struct Root {
    /// Its directory.
    pub path: PathBuf,
    /// What the image says about processes in it.
    pub config: ImageConfiguration,
    /// Unmounts when dropped.
    pub mount: Box<dyn Any + Send + Sync>,
}

/// Where root file systems come from. Production: [`Pulled`].
#[async_trait]
pub trait Images: Send + Sync {
    /// Starts pulling everything that the specification names.
    fn begin(&self, spec: &SealedSpec) -> Result<(), Refusal>;
    /// A fresh root file system for one container, below `directory`; waits for a pull as long as
    /// `patience` says.
    async fn root(&self, image: &ImageRef, directory: &Path, patience: Patience) -> Result<Root, Refusal>;
    /// On the plain path: an image by the name that the host gives it, a tag too. It goes on being pulled
    /// when nobody waits.
    async fn named(&self, reference: &str) -> Result<Arc<Image>, Refusal> {
        Err(Refusal::new(Code::ImagePull, format!("{reference}: nothing is pulled here")))
    }
}

/// Images pulled by digest from the registries of the sealed specification.
pub struct Pulled {
    directory: PathBuf,
    ca_bundle: PathBuf,
    store: OnceLock<Arc<ImageStore>>,
    opening: Mutex<()>,
}

impl Pulled {
    /// Layers are kept below `directory`, in guest memory.
    pub fn new(directory: PathBuf, ca_bundle: PathBuf) -> Self {
        Self { directory, ca_bundle, store: OnceLock::new(), opening: Mutex::new(()) }
    }
}

impl Pulled {
    /// The store of the plain path, made once: making it clears what was in the making.
    fn open_store(&self) -> Result<Arc<ImageStore>, Refusal> {
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = self.store.get() {
            return Ok(store.clone());
        }
        let bundle = Some(self.ca_bundle.clone());
        let store = ImageStore::new(self.directory.clone(), Vec::new(), bundle).map_err(|e| refusal(&e))?;
        Ok(self.store.get_or_init(|| Arc::new(store)).clone())
    }
}

#[async_trait]
impl Images for Pulled {
    fn begin(&self, spec: &SealedSpec) -> Result<(), Refusal> {
        let bundle = Some(self.ca_bundle.clone());
        let store = ImageStore::new(self.directory.clone(), spec.registries.clone(), bundle)
            .map_err(|e| refusal(&e))?;
        let store = self.store.get_or_init(|| Arc::new(store));
        // A debug image waits until it is asked for: it may never be, and layers take guest memory.
        for image in spec.images.values() {
            store.start_pull(image).map_err(|e| refusal(&e))?;
        }
        Ok(())
    }

    async fn root(
        &self,
        image: &ImageRef,
        directory: &Path,
        mut patience: Patience,
    ) -> Result<Root, Refusal> {
        let Some(store) = self.store.get().cloned() else {
            return Err(Refusal::new(Code::SpecNotOpen, "no image is being pulled yet"));
        };
        let pulled = tokio::select! {
            biased;
            pulled = store.pull(image) => pulled.map_err(|e| refusal(&e))?,
            over = patience.over() => {
                return Err(match over {
                    Over::Time => pulling(store.progress(image).unwrap_or(0)),
                    Over::Superseded => Refusal::new(Code::SlotBusy, "a later try to make the container has taken over"),
                });
            }
        };
        let directory = directory.to_owned();
        let mounted = tokio::task::spawn_blocking(move || {
            let mount = Rootfs::mount(&pulled, &directory)?;
            Ok((mount, pulled.config().clone()))
        });
        let failed = |text: String| Refusal::new(Code::ImageUnpack, text);
        let (mount, config) = mounted
            .await
            .map_err(|_| failed("mounting the root file system was interrupted".into()))?
            .map_err(|e: agent_image::RootfsError| failed(e.to_string()))?;
        Ok(Root { path: mount.path().to_owned(), config, mount: Box::new(mount) })
    }

    async fn named(&self, reference: &str) -> Result<Arc<Image>, Refusal> {
        let store = self.open_store()?;
        let image = store.resolve(reference).await.map_err(|e| refusal(&e))?;
        store.pull(&image).await.map_err(|e| refusal(&e))
    }
}

/// For whoever asks again: the kubelet does, and joins the pull.
fn pulling(percent: u8) -> Refusal {
    Refusal::new(Code::ImagePulling, format!("pulling {percent} %; the next try joins this pull"))
}

fn refusal(error: &ImageError) -> Refusal {
    let code = match error.kind() {
        ErrorKind::Pull => Code::ImagePull,
        ErrorKind::Digest => Code::ImageDigest,
        ErrorKind::Unpack => Code::ImageUnpack,
        ErrorKind::Config => Code::ImageConfig,
    };
    // Names of registries and images are sealed, but a host that carries the pull has seen them.
    Refusal::new(code, error.to_string())
}
