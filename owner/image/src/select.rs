//! Which of an image's manifests and layers an operation is about.

use encrypted_image::LayerMediaType;
use thiserror::Error;

use crate::document::{Descriptor, Platform};
use crate::tree::{Image, Node, listed};

/// What was asked for; nothing is everything.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these platforms.
    pub platforms: Vec<Platform>,
    /// Only these layers: 0 is the base, −1 the topmost.
    pub layers: Vec<i64>,
}

/// What was asked for is not in the image.
#[derive(Debug, Error)]
pub enum SelectionError {
    /// No manifest for it.
    #[error("no manifest for platform {wanted}; the image is for {known}")]
    Platform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        known: String,
    },
    /// A manifest that is listed and can't be had: whoever keeps it back would leave it as it was.
    #[error(
        "{entry} is missing where the image is, and would be left as it was; to leave it out on purpose, choose others with --platform: there is {known}"
    )]
    Absent {
        /// Which one.
        entry: String,
        /// What there is.
        known: String,
    },
    /// No such layer.
    #[error("{image} has no layer {wanted}: it has {count}, {range}")]
    Layer {
        /// Which manifest.
        image: String,
        /// What was asked for.
        wanted: i64,
        /// How many there are.
        count: usize,
        /// What may be asked for.
        range: String,
    },
    /// A layer that was asked for isn't one of a file system.
    #[error("{image}: layer {layer} is of media type '{media_type}', which has no encrypted form")]
    MediaType {
        /// Which manifest.
        image: String,
        /// Which layer.
        layer: usize,
        /// What it is.
        media_type: String,
    },
}

impl Selection {
    /// Whether a manifest is meant.
    #[must_use]
    pub fn takes(&self, image: &Image) -> bool {
        self.means(image.platform.as_ref())
    }

    fn means(&self, platform: Option<&Platform>) -> bool {
        self.platforms.is_empty()
            || self.platforms.iter().any(|wanted| platform.is_some_and(|own| own.is(wanted)))
    }

    /// Fails for a platform that the image isn't for, and for what an index lists, is meant, and isn't there.
    ///
    /// # Errors
    /// Names the first such platform or entry.
    pub fn check(&self, root: &Node) -> Result<(), SelectionError> {
        let images = root.images();
        let has = |wanted: &Platform| {
            images.iter().any(|image| image.platform.as_ref().is_some_and(|own| own.is(wanted)))
        };
        if let Some(entry) = root.absent().into_iter().find(|entry| self.means(entry.platform.as_ref())) {
            return Err(SelectionError::Absent { entry: listed(entry), known: known(&images) });
        }
        match self.platforms.iter().find(|wanted| !has(wanted)) {
            None => Ok(()),
            Some(wanted) => Err(SelectionError::Platform { wanted: wanted.clone(), known: known(&images) }),
        }
    }

    /// The layers of a manifest that are meant, in order. Those that have no encrypted form (attestations,
    /// charts) are meant only when asked for, and then refused.
    ///
    /// # Errors
    /// When one that was asked for isn't there.
    pub fn layers(&self, image: &Image) -> Result<Vec<usize>, SelectionError> {
        let layers = &image.manifest.layers;
        let known = |layer: &Descriptor| LayerMediaType::parse(&layer.media_type).is_some();
        if self.layers.is_empty() || !layers.iter().any(known) {
            return Ok((0..layers.len()).filter(|at| known(&layers[*at])).collect());
        }
        let count = layers.len();
        let mut chosen = Vec::with_capacity(self.layers.len());
        for wanted in &self.layers {
            let from_base =
                if *wanted < 0 { wanted.checked_add_unsigned(count as u64) } else { Some(*wanted) };
            let at = from_base.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < count);
            let at = at.ok_or_else(|| SelectionError::Layer {
                image: image.to_string(),
                wanted: *wanted,
                count,
                range: format!("0 to {} from the base or -1 to -{count} from the top", count - 1),
            })?;
            if !known(&layers[at]) {
                let media_type = layers[at].media_type.clone();
                return Err(SelectionError::MediaType { image: image.to_string(), layer: at, media_type });
            }
            chosen.push(at);
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }
}

/// What there is, for people.
fn known(images: &[&Image]) -> String {
    let platform =
        |image: &&Image| image.platform.as_ref().map_or("an unnamed one".to_owned(), Platform::to_string);
    let mut known: Vec<String> = images.iter().map(platform).collect();
    known.dedup();
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}
