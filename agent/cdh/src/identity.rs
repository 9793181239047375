//! What one container may ask for.

use std::collections::HashMap;

use async_trait::async_trait;
use protocols::rcar::ResourceUri;
use protocols::refusal::{Code, Refusal};
use zeroize::Zeroizing;

/// One container, as the resource services know it. Implementations decide before they fetch.
#[async_trait]
pub trait Identity: Send + Sync + 'static {
    /// The bytes of a resource.
    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal>;

    /// The address of a key that the guest's configuration knows by name, for checking sealed secrets.
    fn named_key(&self, _name: &str) -> Option<ResourceUri> {
        None
    }

    /// Pulls an image into a bundle.
    async fn pull_image(&self, _image: &str, _bundle: &str) -> Result<(), Refusal> {
        Err(not_here("PullImage"))
    }

    /// Mounts a volume whose keys are resources.
    async fn mount(&self, _mount: Mount) -> Result<(), Refusal> {
        Err(not_here("SecureMount"))
    }
}

/// A volume that a container asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The driver's name.
    pub kind: String,
    /// The driver's options.
    pub options: HashMap<String, String>,
    /// Mount flags.
    pub flags: Vec<String>,
    /// Where to.
    pub point: String,
}

fn not_here(what: &str) -> Refusal {
    Refusal::new(
        Code::Mode,
        format!("{what} is not for containers of this guest; images and volumes are the pod's"),
    )
}
