//! Images that the host names and the guest pulls (`image_guest_pull`).

use std::any::Any;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_image::{Image, Rootfs};
use agent_storage::{ImagePull, ImageRequest};
use protocols::refusal::{Code, Refusal};

use crate::agent::Agent;
use crate::error::Result;

/// Where nobody pulls.
pub(super) struct NoImages;

impl ImagePull for NoImages {
    fn pull(&self, _: &ImageRequest<'_>) -> std::result::Result<Box<dyn Any + Send>, String> {
        Err("images are pulled for containers".into())
    }
}

/// Images that are here, to be mounted as `CONTAINERS/ID/rootfs`.
pub(super) struct Here {
    pub(super) containers: PathBuf,
    pub(super) images: HashMap<String, Arc<Image>>,
}

impl ImagePull for Here {
    fn pull(&self, request: &ImageRequest<'_>) -> std::result::Result<Box<dyn Any + Send>, String> {
        let image = self.images.get(request.reference).ok_or("it was not pulled")?;
        let directory = self.containers.join(request.container);
        let mounted = Rootfs::mount(image, &directory).map_err(|e| e.to_string())?;
        Ok(Box::new(Mounted { root: Some(mounted), directory }))
    }
}

struct Mounted {
    root: Option<Rootfs>,
    directory: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.root.take());
        // What the container wrote.
        for name in ["rootfs", "upper", "work", "empty"] {
            let _ = std::fs::remove_dir_all(self.directory.join(name));
        }
        let _ = std::fs::remove_dir(&self.directory);
    }
}

impl Agent {
    /// Pulls what a container's storages name; waits as long as the caller and the configuration let it.
    pub(super) async fn pull_named(
        &self,
        references: Vec<String>,
        patience: Duration,
    ) -> Result<HashMap<String, Arc<Image>>> {
        let mut images = HashMap::new();
        for reference in references {
            let pulled = tokio::time::timeout(patience, self.images.named(&reference)).await;
            let image = pulled.unwrap_or_else(|_| {
                let text = format!("{reference}: still being pulled; the next try joins this pull");
                Err(Refusal::new(Code::ImagePulling, text))
            })?;
            images.insert(reference, image);
        }
        Ok(images)
    }
}
