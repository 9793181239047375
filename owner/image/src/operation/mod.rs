//! What can be done to an image. Each operation reads the whole image first, refuses before it writes what it
//! can refuse then, and gives the result its name last.

mod check;
mod decrypt;
mod encrypt;
mod finish;
mod inspect;
mod layer;
mod recipients;
mod rotate;

pub use check::{Authorisation, LayerKeys, check};
pub use decrypt::decrypt;
pub use encrypt::encrypt;
pub use inspect::{InspectedImage, InspectedLayer, Inspection, WrappedFor, inspect};
pub use recipients::{Removal, add, remove};
pub use rotate::rotate;

use encrypted_image::{
    EncryptedLayer, Family, Keyring, Layer, LayerMediaType, PrivateOptions, Wrap, WrappedKey,
};

use crate::document::Descriptor;
use crate::error::{ImageError, Layers, Noted, Problem};
use crate::observer::Observer;
use crate::select::Selection;
use crate::store::{Destination, Source};
use crate::tree::{Image, Node};

/// From where to where, and who watches.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Where the image is.
    pub source: &'a dyn Source,
    /// Where the result goes; may be the same place.
    pub destination: &'a dyn Destination,
    /// Which manifests and layers.
    pub selection: &'a Selection,
    /// Is told of progress.
    pub observer: &'a dyn Observer,
}

/// An encrypted layer that was chosen.
struct Locked<'a> {
    image: &'a Image,
    layer: usize,
    media_type: LayerMediaType,
    encrypted: EncryptedLayer,
}

impl Locked<'_> {
    fn noted(&self, note: String) -> Noted {
        Noted { image: self.image.to_string(), layer: self.layer, note }
    }
}

/// What a chosen layer is; refuses when media type and annotations don't agree.
fn kind(image: &Image, layer: usize) -> Result<Layer, ImageError> {
    let descriptor = &image.manifest.layers[layer];
    Layer::of_descriptor(&descriptor.media_type, &descriptor.annotations)
        .map_err(|error| ImageError::layer(image, layer, error))
}

/// Refuses layers of a file system without a configuration that says what they unpack to, and in which order.
fn ordered(image: &Image) -> Result<(), ImageError> {
    let tar = |layer: &Descriptor| {
        LayerMediaType::parse(&layer.media_type).is_some_and(|media_type| media_type.family != Family::Wasm)
    };
    match image.manifest.layers.iter().position(tar) {
        Some(layer) if image.config.is_none() => {
            let media_type = image.manifest.config.media_type.clone();
            Err(ImageError::layer(image, layer, Problem::ConfigMediaType(media_type)))
        }
        _ => Ok(()),
    }
}

/// The encrypted layers that were chosen; none is an error.
fn locked<'a>(root: &'a Node, selection: &Selection) -> Result<Vec<Locked<'a>>, ImageError> {
    selection.check(root)?;
    let mut found = Vec::new();
    for image in root.images().into_iter().filter(|image| selection.takes(image)) {
        for layer in selection.layers(image)? {
            if let Layer::Encrypted(media_type, encrypted) = kind(image, layer)? {
                found.push(Locked { image, layer, media_type, encrypted });
            }
        }
    }
    if found.is_empty() { Err(ImageError::NotEncrypted(what(root))) } else { Ok(found) }
}

fn what(root: &Node) -> String {
    match root {
        Node::Image(image) => image.to_string(),
        Node::Index { descriptor, .. } => format!("index {}", descriptor.digest.short()),
        Node::Opaque { descriptor, .. } => descriptor.digest.to_string(),
    }
}

/// The private options of every layer, in their order, or the exact list of what no key opens.
fn unlock(locked: &[Locked<'_>], keys: &Keyring) -> Result<Vec<PrivateOptions>, ImageError> {
    let mut opened = Vec::with_capacity(locked.len());
    let mut missing = Layers::default();
    for layer in locked {
        match keys.open(&layer.encrypted) {
            Ok(private) => opened.push(private),
            Err(reason) => missing.0.push(layer.noted(reason.to_string())),
        }
    }
    if missing.0.is_empty() {
        Ok(opened)
    } else {
        Err(ImageError::NotAuthorised { missing, of: locked.len() })
    }
}

/// Wraps for all recipients.
fn wrap(
    image: &Image,
    layer: usize,
    recipients: &[Box<dyn Wrap>],
    private: &PrivateOptions,
) -> Result<Vec<WrappedKey>, ImageError> {
    recipients
        .iter()
        .map(|recipient| {
            let blob = recipient.wrap(private).map_err(|error| ImageError::layer(image, layer, error))?;
            Ok(WrappedKey { scheme: recipient.scheme(), blob })
        })
        .collect()
}
