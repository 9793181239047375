//! An image's configuration, as far as layers are held to it.

use serde::Deserialize;

use super::{DOCKER_CONFIG, Digest, DocumentError, OCI_CONFIG, Platform};

/// What is read of a configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the image runs on.
    pub platform: Option<Platform>,
    /// What the unpacked layers hash to, the base first.
    pub diff_ids: Vec<Digest>,
}

impl Config {
    /// Whether a config of this media type says what the layers unpack to.
    #[must_use]
    pub fn is_image(media_type: &str) -> bool {
        matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
    }

    /// Parses an image's configuration.
    ///
    /// # Errors
    /// When it isn't one.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Read {
            #[serde(default)]
            os: String,
            #[serde(default)]
            architecture: String,
            variant: Option<String>,
            rootfs: Rootfs,
        }
        #[derive(Deserialize)]
        struct Rootfs {
            #[serde(default)]
            diff_ids: Vec<Digest>,
        }
        let read: Read = serde_json::from_slice(bytes)
            .map_err(|source| DocumentError::Shape { what: "image configuration", source })?;
        let named = !read.os.is_empty() && !read.architecture.is_empty();
        let platform = named.then(|| Platform::new(read.os, read.architecture, read.variant));
        Ok(Self { platform, diff_ids: read.rootfs.diff_ids })
    }
}
