//! Root file systems for containers: pulled inside the guest, started as soon as the specification is open.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use agent_image::{
    Asked, Encryption, ErrorKind, Image, ImageConfiguration, ImageError, ImageStore, Resources, Rootfs,
    Settings,
};
use async_trait::async_trait;
use protocols::rcar::ResourceUri;
use protocols::refusal::{Code, Refusal};
use sealed_spec::{ImageRef, KbsUri, LayerStore, SealedSpec};
use slog::{Logger, info};

use crate::layer_disk::LayerDisk;
use crate::opening::KeySource;
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
    /// Starts pulling everything that the specification names, with what `broker` has for it.
    async fn begin(&self, spec: &SealedSpec, broker: Arc<dyn KeySource>) -> Result<(), Refusal>;
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
    /// Where layers are, if not in guest memory.
    disk: OnceLock<LayerDisk>,
    log: Logger,
}

impl Pulled {
    /// Layers are kept below `directory`: in guest memory, unless the specification says otherwise.
    pub fn new(directory: PathBuf, ca_bundle: PathBuf, log: Logger) -> Self {
        let (store, disk) = (OnceLock::new(), OnceLock::new());
        Self { directory, ca_bundle, store, opening: Mutex::new(()), disk, log }
    }
}

impl Pulled {
    /// The store of the plain path, made once: making it clears what was in the making.
    fn open_store(&self) -> Result<Arc<ImageStore>, Refusal> {
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = self.store.get() {
            return Ok(store.clone());
        }
        let settings =
            Settings { ca_bundle: Some(self.ca_bundle.clone()), ..Settings::new(self.directory.clone()) };
        let store = ImageStore::new(settings).map_err(|e| refusal(&e))?;
        Ok(self.store.get_or_init(|| Arc::new(store)).clone())
    }
}

#[async_trait]
impl Images for Pulled {
    async fn begin(&self, spec: &SealedSpec, broker: Arc<dyn KeySource>) -> Result<(), Refusal> {
        if spec.layer_store == LayerStore::Device {
            let directory = self.directory.clone();
            let made = tokio::task::spawn_blocking(move || LayerDisk::make(&directory)).await;
            let made = made.map_err(|_| Refusal::new(Code::LayerStore, "setting it up was interrupted"))?;
            let disk = made.map_err(|e| Refusal::new(Code::LayerStore, e.to_string()))?;
            info!(self.log, # "host", "layers are kept on the host's disk, encrypted"; "bytes" => disk.bytes());
            // It stays mounted until the VM ends.
            let _ = self.disk.set(disk);
        }
        let settings = Settings {
            registries: spec.registries.clone(),
            proxy: spec.proxy.clone(),
            image_policy: spec.image_policy.clone(),
            ca_bundle: Some(self.ca_bundle.clone()),
            resources: Arc::new(Broker(broker)),
            ..Settings::new(self.directory.clone())
        };
        let store = ImageStore::new(settings).map_err(|e| refusal(&e))?;
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
        let Encryption { encrypted, plain, public_nonces } = pulled.encryption();
        // Its keys were sealed with it, so its owner may take all of it for encrypted.
        if !image.keys.is_empty() || encrypted > 0 {
            info!(self.log, # "host", "layers of an image"; "encrypted" => encrypted, "plain" => plain,
                "public nonces ignored" => public_nonces);
        }
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

/// What the broker has for pulls: image keys and logins.
struct Broker(Arc<dyn KeySource>);

impl Resources for Broker {
    fn resource<'a>(&'a self, uri: &'a KbsUri) -> Asked<'a> {
        Box::pin(async move {
            let uri: ResourceUri =
                uri.to_string().parse().map_err(|_| "its name is no resource's".to_owned())?;
            self.0.resource(&uri).await.map_err(|refusal| refusal.to_string())
        })
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
        ErrorKind::Key => Code::ImageKey,
        ErrorKind::Signature => Code::ImageSignature,
    };
    // Names of registries and images are sealed, but a host that carries the pull has seen them.
    Refusal::new(code, error.to_string())
}
