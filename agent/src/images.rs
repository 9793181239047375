//! Root file systems for containers: pulled inside the guest, started as soon as the specification is open.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent_image::{ErrorKind, ImageConfiguration, ImageError, ImageStore, Rootfs};
use async_trait::async_trait;
use protocols::refusal::{Code, Refusal};
use sealed_spec::{ImageRef, SealedSpec};

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
    /// A fresh root file system for one container, below `directory`; waits at most `patience` for a pull.
    async fn root(&self, image: &ImageRef, directory: &Path, patience: Duration) -> Result<Root, Refusal>;
}

/// Images pulled by digest from the registries of the sealed specification.
pub struct Pulled {
    directory: PathBuf,
    ca_bundle: PathBuf,
    store: OnceLock<Arc<ImageStore>>,
}

impl Pulled {
    /// Layers are kept below `directory`, in guest memory.
    pub fn new(directory: PathBuf, ca_bundle: PathBuf) -> Self {
        Self { directory, ca_bundle, store: OnceLock::new() }
    }
}

#[async_trait]
impl Images for Pulled {
    fn begin(&self, spec: &SealedSpec) -> Result<(), Refusal> {
        let bundle = Some(self.ca_bundle.clone());
        let store = ImageStore::new(self.directory.clone(), spec.registries.clone(), bundle)
            .map_err(|e| refusal(&e))?;
        let store = self.store.get_or_init(|| Arc::new(store));
        for image in spec.images.values() {
            store.start_pull(image).map_err(|e| refusal(&e))?;
        }
        Ok(())
    }

    async fn root(&self, image: &ImageRef, directory: &Path, patience: Duration) -> Result<Root, Refusal> {
        let Some(store) = self.store.get().cloned() else {
            return Err(Refusal::new(Code::SpecNotOpen, "no image is being pulled yet"));
        };
        let pulled = match tokio::time::timeout(patience, store.pull(image)).await {
            Ok(pulled) => pulled.map_err(|e| refusal(&e))?,
            Err(_) => {
                let percent = store.progress(&image.digest).unwrap_or(0);
                return Err(Refusal::new(
                    Code::ImagePull,
                    format!("pulling {percent} %; the next try joins this pull"),
                ));
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
