//! The guest's images: pulls keyed by digest and keys, joined and surviving their callers, and layers keyed
//! by diff id, shared by all images. Layout below the root: `layers/<diff id>` verified and whole, `stage/`
//! in the making.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::Hash;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image_policy::Policy;
use oci_registry::Reference;
use oci_spec::image::ImageConfiguration;
use sealed_spec::{ImageRef, Proxy, RegistrySource};
use tokio::sync::{Semaphore, watch};

use crate::keys::{NoResources, Resources};
use crate::sources::Sources;
use crate::{Digest, ImageError, Limits, signature};

/// An image whose manifest, config and layers were all verified.
#[derive(Debug)]
pub struct Image {
    pub(crate) digest: Digest,
    pub(crate) config: ImageConfiguration,
    pub(crate) layers: Vec<PathBuf>,
    pub(crate) encryption: Encryption,
}

/// How much of an image was encrypted, for whoever keeps a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encryption {
    /// Layers that a key opened.
    pub encrypted: usize,
    /// Layers that came as they are. Nobody took their encryption off: the manifest that the image's digest
    /// names says so.
    pub plain: usize,
    /// Layers whose public options name a nonce, which was ignored: the private one counts.
    pub public_nonces: usize,
}

impl Image {
    /// Digest of the manifest or index, as sealed.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The image's configuration.
    pub fn config(&self) -> &ImageConfiguration {
        &self.config
    }

    /// Layer directories in overlayfs form, bottom first.
    pub fn layers(&self) -> &[PathBuf] {
        &self.layers
    }

    /// How much of it was encrypted.
    pub fn encryption(&self) -> Encryption {
        self.encryption
    }
}

/// What a store is made from.
pub struct Settings {
    /// Made if missing (0700); must be guest memory or guest-encrypted disk.
    pub root: PathBuf,
    /// The sealed ones.
    pub registries: Vec<RegistrySource>,
    /// The sealed way out of the guest's network.
    pub proxy: Option<Proxy>,
    /// The sealed containers-policy.json(5): who must have signed images that have no digest.
    pub image_policy: Option<serde_json::Value>,
    /// For registries without a sealed certificate; read only when one of them uses TLS.
    pub ca_bundle: Option<PathBuf>,
    /// Where image keys and logins come from.
    pub resources: Arc<dyn Resources>,
    /// Bounds.
    pub limits: Limits,
}

impl Settings {
    /// A store in `root` that knows no registry, key or certificate.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            registries: Vec::new(),
            proxy: None,
            image_policy: None,
            ca_bundle: None,
            resources: Arc::new(NoResources),
            limits: Limits::default(),
        }
    }
}

/// What tells pulls apart. Keys belong to it: whoever names other keys has to show that they open the image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    image: Named,
    keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Named {
    Digest(Digest),
    /// What its tag means is found out when it is pulled.
    Tag(String),
}

impl Wanted {
    fn of(image: &ImageRef) -> Result<Self, ImageError> {
        let mut keys: Vec<_> = image.keys.iter().map(ToString::to_string).collect();
        keys.sort();
        let Some(digest) = &image.digest else {
            return Ok(Self { image: Named::Tag(image.reference.clone()), keys });
        };
        let digest = digest.parse().map_err(|_| ImageError::Reference {
            reference: digest.clone(),
            reason: "the digest must be sha256: and 64 lower-case hex digits",
        })?;
        Ok(Self { image: Named::Digest(digest), keys })
    }
}

type Outcome = Option<Result<Arc<Image>, ImageError>>;

/// A pull that is under way or has succeeded.
#[derive(Clone)]
struct Flight {
    outcome: watch::Receiver<Outcome>,
    progress: Arc<Progress>,
}

/// Bytes of a pull, over all layers.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) total: AtomicU64,
    pub(crate) done: AtomicU64,
}

/// Pulls and keeps images. Clones share everything. Its methods need a Tokio runtime.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) layers: PathBuf,
    pub(crate) stage: PathBuf,
    pub(crate) sources: Sources,
    pub(crate) policy: Option<Policy>,
    pub(crate) resources: Arc<dyn Resources>,
    pub(crate) limits: Limits,
    flights: Mutex<HashMap<Wanted, Flight>>,
    /// Titles of the layers that are there (see [`crate::manifest::LayerPlan::title`]).
    pub(crate) titles: Mutex<HashSet<Digest>>,
    /// One fetch a layer at a time, so that images which share layers don't fetch them twice.
    pub(crate) layer_locks: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    pub(crate) permits: Semaphore,
}

impl ImageStore {
    /// A store that holds nothing yet, whatever its directory did.
    pub fn new(settings: Settings) -> Result<Self, ImageError> {
        let Settings { root, registries, proxy, image_policy, ca_bundle, resources, limits } = settings;
        let policy = image_policy.map(signature::policy).transpose()?;
        let sources = Sources::new(registries, proxy.as_ref(), ca_bundle, &limits)?;
        let [layers, stage] = ["layers", "stage"].map(|name| root.join(name));
        for directory in [&layers, &stage] {
            match fs::remove_dir_all(directory) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(ImageError::store("clear the store's directories", e));
                }
                _ => {}
            }
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|e| ImageError::store("make the store's directories", e))?;
        }
        let permits = Semaphore::new(limits.parallel_layers.max(1));
        let inner = Inner {
            layers,
            stage,
            sources,
            policy,
            resources,
            limits,
            flights: Mutex::default(),
            titles: Mutex::default(),
            layer_locks: Mutex::default(),
            permits,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts pulling, or joins the pull of the same image that is under way or done. What comes of it,
    /// [`ImageStore::pull`] says.
    pub fn start_pull(&self, image: &ImageRef) -> Result<(), ImageError> {
        self.flight(image).map(drop)
    }

    /// The image, as soon as it is there. Dropping the future doesn't stop the pull. After a failure the
    /// next call starts anew.
    pub async fn pull(&self, image: &ImageRef) -> Result<Arc<Image>, ImageError> {
        let mut outcome = self.flight(image)?.outcome;
        loop {
            if let Some(result) = outcome.borrow_and_update().clone() {
                return result;
            }
            if outcome.changed().await.is_err() {
                return Err(ImageError::Interrupted { image: image.reference.clone() });
            }
        }
    }

    /// What a reference means now: by its digest, else by what the registry says that its tag is. For
    /// images that no sealed specification pins; `docker.io/library` and `latest` are filled in.
    pub async fn resolve(&self, reference: &str) -> Result<ImageRef, ImageError> {
        let parsed = Reference::parse(reference)?;
        let digest = match parsed.digest {
            Some(digest) => digest,
            None => {
                let tag = parsed.tag.as_deref().unwrap_or("latest");
                let repository = self.inner.sources.open(&parsed, &*self.inner.resources).await?;
                repository.tagged(tag).await?.digest
            }
        };
        Ok(ImageRef::pinned(reference, digest.to_string()))
    }

    /// Percent of an image's bytes that have come; `None` if nobody asked for it or its pull failed.
    pub fn progress(&self, image: &ImageRef) -> Option<u8> {
        let wanted = Wanted::of(image).ok()?;
        let flight = locked(&self.inner.flights).get(&wanted)?.clone();
        if flight.outcome.borrow().is_some() {
            return Some(100);
        }
        let total = flight.progress.total.load(Ordering::Relaxed);
        let done = flight.progress.done.load(Ordering::Relaxed);
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0);
        Some(u8::try_from(percent.min(99)).unwrap_or(99))
    }

    fn flight(&self, image: &ImageRef) -> Result<Flight, ImageError> {
        let wanted = Wanted::of(image)?;
        let reference = Reference::parse(&image.reference)?;
        let mut flights = locked(&self.inner.flights);
        if let Some(flight) = flights.get(&wanted) {
            return Ok(flight.clone());
        }
        let (sender, outcome) = watch::channel(None);
        let flight = Flight { outcome, progress: Arc::default() };
        flights.insert(wanted.clone(), flight.clone());
        drop(flights);
        let (inner, progress, keys) = (self.inner.clone(), flight.progress.clone(), image.keys.clone());
        // A task of its own: whoever asked may go away. If it dies, `Clear` lets the next caller try.
        tokio::spawn(async move {
            let digest = match wanted.image {
                Named::Digest(digest) => Some(digest),
                Named::Tag(_) => None,
            };
            let mut clear = Clear { inner: inner.clone(), wanted, succeeded: false };
            let result = inner.clone().image(digest, &reference, &keys, &progress).await;
            clear.succeeded = result.is_ok();
            drop(clear);
            // Nobody may be listening any more.
            let _ = sender.send(Some(result));
        });
        Ok(flight)
    }
}

/// Forgets a flight that didn't succeed.
struct Clear {
    inner: Arc<Inner>,
    wanted: Wanted,
    succeeded: bool,
}

impl Drop for Clear {
    fn drop(&mut self) {
        if !self.succeeded {
            locked(&self.inner.flights).remove(&self.wanted);
        }
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
