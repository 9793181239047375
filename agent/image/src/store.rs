//! The guest's images: pulls keyed by digest, joined and surviving their callers, and layers keyed by
//! diff id, shared by all images. Layout below the root: `layers/<diff id>` verified and whole,
//! `stage/` in the making.

use std::collections::HashMap;
use std::fs;
use std::hash::Hash;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci_registry::{Access, Client, Login, Reference, Repository, Settings, Source};
use oci_spec::image::ImageConfiguration;
use sealed_spec::{ImageRef, RegistrySource};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::manifest::{self, Document, LayerPlan, Manifest, Verified};
use crate::{Digest, ImageError, Limits, layer};

/// An image whose manifest, config and layers were all verified.
#[derive(Debug)]
pub struct Image {
    digest: Digest,
    config: ImageConfiguration,
    layers: Vec<PathBuf>,
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
struct Progress {
    total: AtomicU64,
    done: AtomicU64,
}

/// Pulls and keeps images. Clones share everything. Its methods need a Tokio runtime.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

struct Inner {
    layers: PathBuf,
    stage: PathBuf,
    limits: Limits,
    client: Client,
    flights: Mutex<HashMap<Digest, Flight>>,
    /// One fetch a layer at a time, so that images which share layers don't fetch them twice.
    layer_locks: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    permits: Semaphore,
}

impl ImageStore {
    /// A store in `root`, which is made if missing (0700) and must be guest memory or guest-encrypted disk.
    /// `registries` are the sealed ones; `ca_bundle` is for registries without a sealed certificate and is
    /// read only when one of them uses TLS.
    pub fn new(
        root: PathBuf,
        registries: Vec<RegistrySource>,
        ca_bundle: Option<PathBuf>,
    ) -> Result<Self, ImageError> {
        Self::with_limits(root, registries, ca_bundle, Limits::default())
    }

    /// As [`ImageStore::new`], with other bounds.
    pub fn with_limits(
        root: PathBuf,
        registries: Vec<RegistrySource>,
        ca_bundle: Option<PathBuf>,
        limits: Limits,
    ) -> Result<Self, ImageError> {
        let layers = root.join("layers");
        let mut stage = root;
        stage.push("stage");
        match fs::remove_dir_all(&stage) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(ImageError::store("clear the staging directory", e));
            }
            _ => {}
        }
        for directory in [&layers, &stage] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|e| ImageError::store("make the store's directories", e))?;
        }
        let client = Client::new(Settings {
            sources: registries.into_iter().map(source).collect(),
            ca_bundle,
            limits: limits.registry.clone(),
            agent: "sealpod-agent",
            ..Settings::default()
        });
        let permits = Semaphore::new(limits.parallel_layers.max(1));
        let inner = Inner {
            layers,
            stage,
            limits,
            client,
            flights: Mutex::default(),
            layer_locks: Mutex::default(),
            permits,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Starts pulling, or joins the pull of the same digest that is under way or done. What comes of it,
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
                self.inner.client.repository(&parsed, Access::Pull)?.tagged(tag).await?.digest
            }
        };
        Ok(ImageRef::pinned(reference, digest.to_string()))
    }

    /// Percent of an image's bytes that have come; `None` if nobody asked for it or its pull failed.
    pub fn progress(&self, image: &ImageRef) -> Option<u8> {
        let digest = image.digest.as_deref()?.parse().ok()?;
        let flight = locked(&self.inner.flights).get(&digest)?.clone();
        if flight.outcome.borrow().is_some() {
            return Some(100);
        }
        let total = flight.progress.total.load(Ordering::Relaxed);
        let done = flight.progress.done.load(Ordering::Relaxed);
        let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0);
        Some(u8::try_from(percent.min(99)).unwrap_or(99))
    }

    fn flight(&self, image: &ImageRef) -> Result<Flight, ImageError> {
        let digest = image.digest.as_deref().unwrap_or_default();
        let digest: Digest = digest.parse().map_err(|_| ImageError::Reference {
            reference: digest.to_owned(),
            reason: "the digest must be sha256: and 64 lower-case hex digits",
        })?;
        if let Some(key) = image.keys.first() {
            let detail = format!("its key is {key}");
            return Err(ImageError::Encrypted { image: digest.to_string(), detail });
        }
        let reference = Reference::parse(&image.reference)?;
        let mut flights = locked(&self.inner.flights);
        if let Some(flight) = flights.get(&digest) {
            return Ok(flight.clone());
        }
        let (sender, outcome) = watch::channel(None);
        let flight = Flight { outcome, progress: Arc::default() };
        flights.insert(digest, flight.clone());
        drop(flights);
        let (inner, progress) = (self.inner.clone(), flight.progress.clone());
        // A task of its own: whoever asked may go away. If it dies, `Clear` lets the next caller try.
        tokio::spawn(async move {
            let clear = Clear { inner: inner.clone(), digest, succeeded: false };
            let result = inner.clone().image(digest, &reference, &progress).await;
            let mut clear = clear;
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
    digest: Digest,
    succeeded: bool,
}

impl Drop for Clear {
    fn drop(&mut self) {
        if !self.succeeded {
            locked(&self.inner.flights).remove(&self.digest);
        }
    }
}

impl Inner {
    async fn image(
        self: Arc<Self>,
        digest: Digest,
        reference: &Reference,
        progress: &Arc<Progress>,
    ) -> Result<Arc<Image>, ImageError> {
        let repository = self.client.repository(reference, Access::Pull)?;
        let manifest = self.manifest(&repository, &digest).await?;
        let config = repository.small_blob(&manifest.config.digest, "image config").await?;
        let config = Verified::check(config, &manifest.config.digest, "image config")?;
        let (config, plans) = manifest::plan(&manifest, &config, &digest, &self.limits)?;
        progress.total.store(plans.iter().map(|p| p.size).fold(0, u64::saturating_add), Ordering::Relaxed);

        let mut tasks = JoinSet::new();
        for (index, plan) in plans.into_iter().enumerate() {
            let (inner, repository, progress) = (self.clone(), repository.clone(), progress.clone());
            tasks.spawn(async move { (index, inner.layer(&repository, &plan, &progress).await) });
        }
        let mut layers = vec![PathBuf::new(); tasks.len()];
        while let Some(task) = tasks.join_next().await {
            let interrupted = |_| ImageError::Interrupted { image: digest.to_string() };
            let (index, layer) = task.map_err(interrupted)?;
            layers[index] = layer?;
        }
        Ok(Arc::new(Image { digest, config, layers }))
    }

    /// The image manifest, by way of an index if the digest names one.
    async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Manifest, ImageError> {
        let mut wanted = *digest;
        for what in ["image manifest", "image manifest named by the index"] {
            let bytes = repository.manifest_as(&wanted, what).await?.bytes;
            let bytes = Verified::check(bytes, &wanted, what)?;
            match manifest::document(&bytes, &self.limits)? {
                Document::Image(manifest) => return Ok(manifest),
                Document::Index(entry) => wanted = entry.digest,
            }
        }
        Err(ImageError::Manifest { what: "image index", reason: "it names another index".into() })
    }

    async fn layer(
        &self,
        repository: &Repository,
        plan: &LayerPlan,
        progress: &Progress,
    ) -> Result<PathBuf, ImageError> {
        let path = self.layers.join(plan.diff_id.hex());
        let lock = locked(&self.layer_locks).entry(plan.diff_id).or_default().clone();
        let _held = lock.lock().await;
        // Whatever has this name was verified against it.
        if path.is_dir() {
            progress.done.fetch_add(plan.size, Ordering::Relaxed);
            return Ok(path);
        }
        let _permit = self.permits.acquire().await;
        let come = AtomicU64::new(0);
        let on_bytes = |bytes| {
            come.fetch_add(bytes, Ordering::Relaxed);
            progress.done.fetch_add(bytes, Ordering::Relaxed);
        };
        let fetched = layer::fetch(repository, plan, &self.stage, &self.limits, on_bytes).await;
        let published = fetched.and_then(|layer| layer.publish(&self.layers));
        if published.is_err() {
            progress.done.fetch_sub(come.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        published
    }
}

/// A sealed source as the client takes it.
fn source(sealed: RegistrySource) -> Source {
    let mut source = Source::new(&sealed.host, &sealed.location);
    source.ca = sealed.ca;
    source.lookaside = sealed.lookaside;
    source.mirrors = sealed.mirrors.iter().map(|location| location.as_str().into()).collect();
    if let (Some(username), Some(password)) = (&sealed.username, &sealed.password) {
        source.login = Some(Login::password(username, password.expose()));
    }
    source
}

fn locked<K: Eq + Hash, V>(map: &Mutex<HashMap<K, V>>) -> MutexGuard<'_, HashMap<K, V>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}
