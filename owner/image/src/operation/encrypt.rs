//! Encrypts the layers that were chosen.

use std::collections::BTreeMap;

use encrypted_image::{EncryptedLayer, Layer, LayerMediaType, PrivateOptions, Wrap, WrappedKey};

use super::finish::{Changes, finish, oci};
use super::layer::{Sealed, seal};
use super::{Job, kind, ordered, wrap};
use crate::document::{Descriptor, Digest};
use crate::error::{ImageError, Layers, Noted};
use crate::report::{Done, Report};
use crate::tree::{Image, Node};

/// A blob that was encrypted in this run: another manifest's layer of the same bytes becomes the same blob.
struct Finished {
    digest: Digest,
    encrypted: EncryptedLayer,
}

/// Encrypts for all `recipients`.
///
/// # Errors
/// Without a recipient, for layers that are encrypted or not there, and when anything fails on the way. The
/// destination's name then stands for what it stood for before.
pub fn encrypt(job: Job<'_>, recipients: &[Box<dyn Wrap>]) -> Result<Report, ImageError> {
    if recipients.is_empty() {
        return Err(ImageError::NoRecipient);
    }
    let root = Node::read(job.source)?;
    let chosen = chosen(&root, job)?;
    // Wrapping first: a recipient's key or provider that doesn't work is found before the bytes are moved.
    let mut keys: BTreeMap<Digest, (PrivateOptions, Vec<WrappedKey>)> = BTreeMap::new();
    for (image, layer, _) in &chosen {
        let plain = image.manifest.layers[*layer].digest;
        if let std::collections::btree_map::Entry::Vacant(entry) = keys.entry(plain) {
            let private = PrivateOptions::generate(*plain.as_bytes())
                .map_err(|error| ImageError::layer(image, *layer, error))?;
            let wrapped = wrap(image, *layer, recipients, &private)?;
            entry.insert((private, wrapped));
        }
    }
    let mut changes = Changes::to_oci();
    let mut finished: BTreeMap<Digest, Finished> = BTreeMap::new();
    for (image, layer, media_type) in chosen {
        let before = &image.manifest.layers[layer];
        if let Some((private, wrapped)) = keys.remove(&before.digest) {
            let sealed = seal(job, before, &private).map_err(|fault| fault.of(image, layer))?;
            let Sealed { stage, digest, public } = sealed;
            let encrypted = EncryptedLayer { public, wrapped };
            changes.staged(stage, before.pointing_at(&before.media_type, digest, before.size));
            finished.insert(before.digest, Finished { digest, encrypted });
        }
        if let Some(done) = finished.get(&before.digest) {
            changes.layer(image, layer, Done::Encrypted, descriptor(before, media_type, done));
        }
    }
    finish(job, &root, changes)
}

fn descriptor(before: &Descriptor, media_type: LayerMediaType, done: &Finished) -> Descriptor {
    let media_type = oci(media_type).encrypted().to_string();
    let mut after = before.pointing_at(&media_type, done.digest, before.size);
    after.annotations.extend(done.encrypted.to_annotations());
    after
}

/// What is to be encrypted; all of it must be plain now.
fn chosen<'a>(root: &'a Node, job: Job<'_>) -> Result<Vec<(&'a Image, usize, LayerMediaType)>, ImageError> {
    job.selection.check(root)?;
    let (mut plain, mut encrypted) = (Vec::new(), Layers::default());
    for image in root.images().into_iter().filter(|image| job.selection.takes(image)) {
        for layer in job.selection.layers(image)? {
            match kind(image, layer)? {
                Layer::Plain(media_type) => {
                    // It couldn't be decrypted.
                    ordered(image)?;
                    plain.push((image, layer, media_type));
                }
                Layer::Encrypted(..) => {
                    encrypted.0.push(Noted { image: image.to_string(), layer, note: String::new() });
                }
            }
        }
    }
    if !encrypted.0.is_empty() {
        return Err(ImageError::AlreadyEncrypted(encrypted));
    }
    if plain.is_empty() { Err(ImageError::NothingToEncrypt) } else { Ok(plain) }
}
