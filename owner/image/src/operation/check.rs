//! Which keys open which layers, of every platform. Nothing but wrapped keys is read.

use encrypted_image::{Keyring, NotAuthorised};
use serde::Serialize;

use super::locked;
use crate::document::Digest;
use crate::error::ImageError;
use crate::select::Selection;
use crate::store::Source;
use crate::tree::Node;

/// Whether keys open an image: all its encrypted layers.
#[derive(Debug, Clone, Serialize)]
pub struct Authorisation {
    /// Whether every encrypted layer that was chosen is opened by some key.
    pub authorised: bool,
    /// Each of them.
    pub layers: Vec<LayerKeys>,
    /// What was left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Whose keys open a layer.
#[derive(Debug, Clone, Serialize)]
pub struct LayerKeys {
    /// Digest of its manifest.
    pub manifest: Digest,
    /// What the manifest is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Which layer, from the base.
    pub layer: usize,
    /// Its digest.
    pub digest: Digest,
    /// Names of the keys that open it.
    pub opened_by: Vec<String>,
    /// Why the others don't.
    pub refused: Vec<String>,
}

/// Tries each of the named keys on each layer.
///
/// # Errors
/// When the image can't be read or isn't encrypted; a layer that no key opens is no error here.
pub fn check(
    source: &dyn Source,
    selection: &Selection,
    keys: &[(String, Keyring)],
) -> Result<Authorisation, ImageError> {
    let root = Node::read(source)?;
    let mut layers = Vec::new();
    for layer in locked(&root, selection)? {
        let (mut opened_by, mut refused) = (Vec::new(), Vec::new());
        for (name, key) in keys {
            match key.open(&layer.encrypted) {
                Ok(_) => opened_by.push(name.clone()),
                Err(reason) => refused.push(format!("{name}: {}", short(&reason))),
            }
        }
        layers.push(LayerKeys {
            manifest: layer.image.descriptor.digest,
            platform: layer.image.platform.as_ref().map(ToString::to_string),
            layer: layer.layer,
            digest: layer.image.manifest.layers[layer.layer].digest,
            opened_by,
            refused,
        });
    }
    let authorised = layers.iter().all(|layer| !layer.opened_by.is_empty());
    Ok(Authorisation { authorised, layers, notes: root.left_out() })
}

fn short(reason: &NotAuthorised) -> String {
    if reason.tries.is_empty() {
        let schemes: Vec<String> = reason.schemes.iter().map(ToString::to_string).collect();
        return format!("not a key for {}", schemes.join(", "));
    }
    let mut texts: Vec<String> = reason.tries.iter().map(|tried| tried.error.to_string()).collect();
    texts.dedup();
    texts.join(", ")
}
