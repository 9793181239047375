//! One pull: keys, manifest, config, the layers side by side.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use oci_registry::{Reference, Repository};
use sealed_spec::KbsUri;
use tokio::task::JoinSet;

use crate::keys::ImageKeys;
use crate::manifest::{self, Document, LayerPlan, Manifest, Verified};
use crate::store::{Encryption, Image, Inner, Progress, locked};
use crate::{Digest, ImageError, layer, signature};

impl Inner {
    /// `digest` is `None` for an image that is named by its tag.
    pub(crate) async fn image(
        self: Arc<Self>,
        digest: Option<Digest>,
        reference: &Reference,
        keys: &[KbsUri],
        progress: &Arc<Progress>,
    ) -> Result<Arc<Image>, ImageError> {
        // Whoever signs for a tag could otherwise put a plain image where the owner expects an encrypted one.
        let must_be_encrypted = digest.is_none() && !keys.is_empty();
        let repository = self.sources.open(reference, &*self.resources).await?;
        // Keys first: without them, nothing is asked of the registry.
        let keys = ImageKeys::ask(keys, &*self.resources).await?;
        let digest = match digest {
            Some(digest) => digest,
            None => signature::permitted(&repository, reference, self.policy.as_ref(), now()).await?,
        };
        let manifest = self.manifest(&repository, &digest).await?;
        let config = repository.small_blob(&manifest.config.digest, "image config").await?;
        let config = Verified::check(config, &manifest.config.digest, "image config")?;
        let interrupted = |_| ImageError::Interrupted { image: digest.to_string() };
        let limits = self.limits.clone();
        let planned = tokio::task::spawn_blocking(move || manifest::plan(&manifest, &config, &keys, &limits));
        let (config, plans) = planned.await.map_err(interrupted)??;
        let encryption = encryption(&plans);
        if must_be_encrypted && encryption.encrypted == 0 {
            let reason = "no layer of it is encrypted, though the sealed spec names keys for this tag; seal it without \
                          keys, or by digest";
            return Err(ImageError::Manifest { what: "image manifest", reason: reason.into() });
        }
        progress.total.store(plans.iter().map(|p| p.size).fold(0, u64::saturating_add), Ordering::Relaxed);

        let mut tasks = JoinSet::new();
        for (index, plan) in plans.into_iter().enumerate() {
            let (inner, repository, progress) = (self.clone(), repository.clone(), progress.clone());
            tasks.spawn(async move { (index, inner.layer(&repository, &plan, &progress).await) });
        }
        let mut layers = vec![PathBuf::new(); tasks.len()];
        while let Some(task) = tasks.join_next().await {
            let (index, layer) = task.map_err(interrupted)?;
            layers[index] = layer?;
        }
        Ok(Arc::new(Image { digest, config, layers, encryption }))
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

    /// A layer's directory: the one that is there, if the plan is a title to it, else fetched.
    async fn layer(
        &self,
        repository: &Repository,
        plan: &LayerPlan,
        progress: &Progress,
    ) -> Result<PathBuf, ImageError> {
        let lock = locked(&self.layer_locks).entry(plan.diff_id).or_default().clone();
        let _held = lock.lock().await;
        let title = plan.title();
        if locked(&self.titles).contains(&title) {
            progress.done.fetch_add(plan.size, Ordering::Relaxed);
            return Ok(self.layers.join(plan.diff_id.hex()));
        }
        let _permit = self.permits.acquire().await;
        let come = AtomicU64::new(0);
        // A mirror that sent something else is followed by a transfer from the beginning.
        let on_bytes = |received| {
            let before = come.swap(received, Ordering::Relaxed);
            progress.done.fetch_add(received.wrapping_sub(before), Ordering::Relaxed);
        };
        let fetched = layer::fetch(repository, plan, &self.stage, &self.limits, on_bytes).await;
        let published = match fetched {
            Ok(layer) => layer.publish(&self.layers),
            Err(error) => Err(error),
        };
        match &published {
            Ok(_) => {
                locked(&self.titles).insert(title);
            }
            Err(_) => on_bytes(0),
        }
        published
    }
}

/// Seconds since 1970, by the guest's clock: never below the time that the broker's token named.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn encryption(plans: &[LayerPlan]) -> Encryption {
    let sealed = || plans.iter().filter_map(|plan| plan.sealed.as_ref());
    let encrypted = sealed().count();
    Encryption {
        encrypted,
        plain: plans.len() - encrypted,
        public_nonces: sealed().filter(|sealed| !sealed.public.warnings.is_empty()).count(),
    }
}
