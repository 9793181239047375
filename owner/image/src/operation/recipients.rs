//! Who may open an image, changed without touching a blob: only annotations differ afterwards.
//!
//! Taking a recipient off is not taking a key back: who could open the image before still can, with the old
//! annotations or with the layer key that was kept. Only new keys ([`rotate`](super::rotate())) shut him out.

use encrypted_image::{EncryptedLayer, Keyring, PrivateOptions, Scheme, Wrap, WrappedKey};

use super::finish::{Changes, finish};
use super::{Job, Locked, locked, unlock, wrap};
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::report::{Done, Report};
use crate::tree::Node;

/// What is taken off.
pub enum Removal<'a> {
    /// All keys of these schemes; nobody's key is needed for that.
    Schemes(&'a [Scheme]),
    /// Everybody but those who are named, among the schemes that are named, or all. Recipients can't be told
    /// apart in most formats, so the layer keys are unwrapped and wrapped again for who stays.
    AllBut {
        /// Schemes that are replaced; none means all.
        schemes: &'a [Scheme],
        /// Who stays.
        keep: &'a [Box<dyn Wrap>],
        /// What opens the layers.
        keys: &'a Keyring,
    },
}

/// Lets `recipients` open the layers that were chosen, too.
///
/// # Errors
/// When a layer isn't opened by any of `keys`, or a recipient's key can't be used.
pub fn add(job: Job<'_>, keys: &Keyring, recipients: &[Box<dyn Wrap>]) -> Result<Report, ImageError> {
    if recipients.is_empty() {
        return Err(ImageError::NoRecipient);
    }
    let root = Node::read(job.source)?;
    let locked = locked(&root, job.selection)?;
    let opened = unlock(&locked, keys)?;
    rewrapped(job, &root, &locked, |at, layer| {
        let mut wrapped = layer.encrypted.wrapped.clone();
        wrapped.extend(wrap(layer.image, layer.layer, recipients, &opened[at])?);
        Ok(wrapped)
    })
}

/// Takes wrapped keys off the layers that were chosen.
///
/// # Errors
/// When nobody would be left, when there is nothing of that kind, and as [`add`].
pub fn remove(job: Job<'_>, removal: &Removal<'_>) -> Result<Report, ImageError> {
    let root = Node::read(job.source)?;
    let locked = locked(&root, job.selection)?;
    let (schemes, keep, opened): (&[Scheme], &[Box<dyn Wrap>], Vec<PrivateOptions>) = match removal {
        Removal::Schemes(schemes) => (schemes, &[], Vec::new()),
        Removal::AllBut { keep: [], .. } => return Err(ImageError::NoRecipient),
        Removal::AllBut { schemes, keep, keys } => (schemes, keep, unlock(&locked, keys)?),
    };
    for scheme in schemes {
        let known = locked.iter().flat_map(|layer| &layer.encrypted.wrapped).any(|key| key.scheme == *scheme);
        if !known {
            return Err(ImageError::NoSuchScheme(scheme.to_string()));
        }
    }
    let goes = |key: &WrappedKey| schemes.is_empty() || schemes.contains(&key.scheme);
    rewrapped(job, &root, &locked, |at, layer| {
        let stay = layer.encrypted.wrapped.iter().filter(|key| !goes(key));
        let mut wrapped: Vec<WrappedKey> = stay.cloned().collect();
        if let Some(private) = opened.get(at) {
            wrapped.extend(wrap(layer.image, layer.layer, keep, private)?);
        }
        match wrapped.is_empty() {
            true => Err(ImageError::NobodyLeft(format!("layer {} of {}", layer.layer, layer.image))),
            false => Ok(wrapped),
        }
    })
}

fn rewrapped(
    job: Job<'_>,
    root: &Node,
    locked: &[Locked<'_>],
    mut change: impl FnMut(usize, &Locked<'_>) -> Result<Vec<WrappedKey>, ImageError>,
) -> Result<Report, ImageError> {
    // Descriptors that are alike stay alike.
    let mut finished: Vec<(Descriptor, Descriptor)> = Vec::new();
    let mut changes = Changes::to_oci();
    for (at, layer) in locked.iter().enumerate() {
        let before = &layer.image.manifest.layers[layer.layer];
        let known = finished.iter().find(|(known, _)| known == before).map(|(_, after)| after.clone());
        let after = match known {
            Some(after) => after,
            None => {
                let wrapped = change(at, layer)?;
                let encrypted = EncryptedLayer { public: layer.encrypted.public.clone(), wrapped };
                let mut after = before.clone();
                after.media_type = super::finish::oci(layer.media_type).to_string();
                EncryptedLayer::strip(&mut after.annotations);
                after.annotations.extend(encrypted.to_annotations());
                finished.push((before.clone(), after.clone()));
                after
            }
        };
        changes.layer(layer.image, layer.layer, Done::Rewrapped, after);
    }
    finish(job, root, changes)
}
