//! One layer, fetched into a stage and checked. The result is a [`VerifiedLayer`]; until then the directory
//! is in the stage, under a name that nothing looks up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use encrypted_image::{CipherError, Staged};
use oci_registry::{Digest, Download, Repository};
use tokio::sync::mpsc;

use crate::manifest::LayerPlan;
use crate::pipeline::{self, Outcome};
use crate::{ImageError, Limits};

/// Chunks between the network and the first thread.
const QUEUE: usize = 8;

/// A staged layer whose blob digest, size and diff id were all checked; of an encrypted one, HMAC and
/// private digest too. Only this can be published.
pub(crate) struct VerifiedLayer {
    stage: Stage,
    diff_id: Digest,
}

/// A directory that vanishes unless it is published.
#[derive(Debug)]
struct Stage {
    path: Option<PathBuf>,
}

impl Stage {
    fn create(directory: &Path, plan: &LayerPlan) -> Result<Self, ImageError> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{}.{serial}", plan.diff_id.hex()));
        fs::create_dir(&path).map_err(|e| ImageError::store("make a staging directory", e))?;
        Ok(Self { path: Some(path) })
    }

    fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What can't be removed is never looked up, and goes at the next start.
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl VerifiedLayer {
    /// Makes the layer visible, at once and whole. One of the same diff id that is there already has the same
    /// content.
    pub(crate) fn publish(mut self, layers: &Path) -> Result<PathBuf, ImageError> {
        let target = layers.join(self.diff_id.hex());
        if target.is_dir() {
            return Ok(target);
        }
        let staged = self.stage.path().to_owned();
        fs::rename(&staged, &target).map_err(|e| ImageError::store("publish a layer", e))?;
        self.stage.path = None;
        Ok(target)
    }

    fn check(stage: Stage, plan: &LayerPlan, outcome: Outcome) -> Result<Self, ImageError> {
        let layer = || plan.blob.to_string();
        let stage = match &plan.sealed {
            None => stage,
            Some(sealed) => {
                let cipher = |source| ImageError::Cipher { layer: layer(), source: Arc::new(source) };
                // A plan that has keys gets no layer without the proof that they opened it.
                let proof = outcome.authenticated.unwrap_or(Err(CipherError::Mixed)).map_err(cipher)?;
                Staged::new(stage, &sealed.private).publish(&proof).map_err(cipher)?
            }
        };
        let diff_id = outcome
            .unpacked
            .map_err(|reason| ImageError::Unpack { layer: plan.diff_id.to_string(), reason })?;
        if diff_id != plan.diff_id {
            return Err(ImageError::DigestMismatch {
                what: "unpacked layer".into(),
                expected: plan.diff_id.to_string(),
                actual: diff_id.to_string(),
            });
        }
        Ok(Self { stage, diff_id })
    }
}

/// Fetches, checks and unpacks a layer into a new directory below `stage`. A transfer that breaks goes on
/// where it broke, with everything that was computed so far. `on_bytes` hears how many have come.
pub(crate) async fn fetch(
    repository: &Repository,
    plan: &LayerPlan,
    stage: &Path,
    limits: &Limits,
    on_bytes: impl Fn(u64),
) -> Result<VerifiedLayer, ImageError> {
    let mut download = repository.download(&plan.blob, plan.size);
    loop {
        let (stage, outcome) = once(&mut download, plan, stage, limits, &on_bytes).await?;
        if outcome.blob == plan.blob {
            let plan = plan.clone();
            // Files are removed when it fails.
            let checked = tokio::task::spawn_blocking(move || VerifiedLayer::check(stage, &plan, outcome));
            return checked.await.map_err(|e| lost(&e))?;
        }
        let removed = tokio::task::spawn_blocking(move || drop(stage));
        removed.await.map_err(|e| lost(&e))?;
        // A mirror's bytes, perhaps: then somebody else is asked for all of them.
        download.reject(&outcome.blob)?;
    }
}

/// All bytes of one attempt, through the pipeline.
async fn once(
    download: &mut Download,
    plan: &LayerPlan,
    stage: &Path,
    limits: &Limits,
    on_bytes: &impl Fn(u64),
) -> Result<(Stage, Outcome), ImageError> {
    let stage = Stage::create(stage, plan)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (job, bounds) = (plan.clone(), limits.clone());
    // The stage goes with the task: it may outlive this future, and must not lose its directory before.
    let pipeline = tokio::task::spawn_blocking(move || {
        let outcome = pipeline::run(receiver, &job, stage.path(), &bounds);
        (stage, outcome)
    });
    let transferred = loop {
        match download.chunk().await {
            Ok(Some(chunk)) => {
                // It only goes away early if it could not start: it has its reason.
                if sender.send(chunk).await.is_err() {
                    break Ok(());
                }
                on_bytes(download.received());
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(sender);
    let (stage, outcome) = pipeline.await.map_err(|e| lost(&e))?;
    transferred?;
    Ok((stage, outcome.map_err(|e| ImageError::store("unpack a layer", e))?))
}

fn lost(error: &tokio::task::JoinError) -> ImageError {
    ImageError::store("unpack a layer", io::Error::other(error.to_string()))
}
