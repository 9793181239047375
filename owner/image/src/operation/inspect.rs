//! What an image says of itself, without any key: layers, and who they are wrapped for as far as that shows.
//! All of it is the registry's word.

use encrypted_image::{EncryptedLayer, LayerMediaType, WrappedKey};
use serde::Serialize;

use crate::document::{Annotations, Descriptor, Digest};
use crate::error::ImageError;
use crate::select::Selection;
use crate::store::Source;
use crate::tree::{Image, Node};
use crate::wrapped;

/// An image as it can be seen from outside.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// What its name stands for.
    pub digest: Digest,
    /// Manifest or index.
    pub media_type: String,
    /// Its manifests.
    pub images: Vec<InspectedImage>,
    /// What was left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A manifest as it can be seen from outside.
#[derive(Debug, Clone, Serialize)]
pub struct InspectedImage {
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its annotations.
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
    /// Its layers, the base first.
    pub layers: Vec<InspectedLayer>,
}

/// A layer as it can be seen from outside.
#[derive(Debug, Clone, Serialize)]
pub struct InspectedLayer {
    /// Its place, from the base.
    pub layer: usize,
    /// Its digest.
    pub digest: Digest,
    /// How long it is.
    pub size: u64,
    /// What it is.
    pub media_type: String,
    /// Whether its media type says that it is encrypted.
    pub encrypted: bool,
    /// Who it is wrapped for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wrapped_for: Vec<WrappedFor>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What is odd about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One wrapped key as it can be seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrappedFor {
    /// `jwe`, `pgp`, `provider.NAME` …
    pub scheme: String,
    /// How many can open it; unknown where the format doesn't say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipients: Option<usize>,
    /// Ids of the recipients' keys, URIs of keys at a broker, algorithms: what the format shows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shows: Vec<String>,
}

/// Reads the documents of an image.
///
/// # Errors
/// When it can't be read, or not all of it is there; a layer whose annotations make no sense is listed with what is wrong.
pub fn inspect(source: &dyn Source, selection: &Selection) -> Result<Inspection, ImageError> {
    let root = Node::read(source)?;
    selection.check(&root)?;
    let images = root.images().into_iter().filter(|image| selection.takes(image)).map(image).collect();
    let Descriptor { digest, media_type, .. } = root.descriptor().clone();
    Ok(Inspection { digest, media_type, images, notes: root.left_out() })
}

fn image(image: &Image) -> InspectedImage {
    InspectedImage {
        platform: image.platform.as_ref().map(ToString::to_string),
        digest: image.descriptor.digest,
        media_type: image.descriptor.media_type.clone(),
        annotations: image.descriptor.annotations.clone(),
        layers: image.manifest.layers.iter().enumerate().map(|(at, layer)| inspected(at, layer)).collect(),
    }
}

fn inspected(at: usize, layer: &Descriptor) -> InspectedLayer {
    let encrypted = LayerMediaType::parse(&layer.media_type).is_some_and(|media_type| media_type.encrypted);
    let mut inspected = InspectedLayer {
        layer: at,
        digest: layer.digest,
        size: layer.size,
        media_type: layer.media_type.clone(),
        encrypted,
        wrapped_for: Vec::new(),
        problem: None,
        warnings: Vec::new(),
    };
    match (encrypted, EncryptedLayer::parse(&layer.annotations)) {
        (true, Ok(encrypted)) => {
            inspected.warnings = encrypted.public.warnings.iter().map(ToString::to_string).collect();
            inspected.wrapped_for = encrypted.wrapped.iter().map(shown).collect();
        }
        (true, Err(error)) => inspected.problem = Some(error.to_string()),
        (false, _) if EncryptedLayer::any(&layer.annotations) => {
            let problem =
                "annotations of an encrypted layer on a plain media type: one of the two was changed";
            inspected.problem = Some(problem.to_owned());
        }
        (false, _) => {}
    }
    inspected
}

fn shown(key: &WrappedKey) -> WrappedFor {
    let (recipients, shows) = wrapped::shown(key);
    WrappedFor { scheme: key.scheme.to_string(), recipients, shows }
}
