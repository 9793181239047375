//! Decrypts every encrypted layer of the manifests that were chosen, all or none.

use encrypted_image::{EncryptedLayer, Keyring, Layer, PrivateOptions};
use subtle::ConstantTimeEq as _;

use super::finish::{Changes, finish};
use super::layer::{Opened, copy, open};
use super::{Job, Locked, kind, locked, ordered, unlock};
use crate::document::{Descriptor, Digest};
use crate::error::{ImageError, Problem};
use crate::report::{Done, Report};
use crate::tree::{Image, Node};

/// A blob that was decrypted in this run, for other manifests that have the same layer.
struct Finished {
    encrypted: Digest,
    private: PrivateOptions,
    hmac: [u8; 32],
    plain: Digest,
    diff_id: Digest,
}

/// Decrypts with whatever of `keys` opens a layer.
///
/// # Errors
/// When a layer isn't opened by any key, isn't what was encrypted (HMAC, private digest), or isn't what the
/// configuration names at its place. Nothing decrypted is left at the destination then.
pub fn decrypt(job: Job<'_>, keys: &Keyring) -> Result<Report, ImageError> {
    let root = Node::read(job.source)?;
    let locked = locked(&root, job.selection)?;
    locked.iter().try_for_each(|layer| ordered(layer.image))?;
    let opened = unlock(&locked, keys)?;
    let mut changes = Changes::default();
    let mut finished: Vec<Finished> = Vec::new();
    for (layer, private) in locked.iter().zip(opened) {
        let expected = expected_diff_id(layer.image, layer.layer)?;
        let (before, hmac) = (&layer.image.manifest.layers[layer.layer], layer.encrypted.public.hmac);
        warn(layer, &mut changes);
        let known = finished.iter().position(|known| {
            known.encrypted == before.digest && known.hmac == hmac && same(&known.private, &private)
        });
        let at = match known {
            Some(at) => at,
            None => {
                let opened =
                    open(job, before, layer.media_type.compression, &private, &layer.encrypted.public);
                let Opened { stage, digest, diff_id } =
                    opened.map_err(|fault| fault.of(layer.image, layer.layer))?;
                changes.staged(stage, Descriptor::new(&before.media_type, digest, before.size));
                finished.push(Finished { encrypted: before.digest, private, hmac, plain: digest, diff_id });
                finished.len() - 1
            }
        };
        let known = &finished[at];
        check(layer.image, layer.layer, expected, known.diff_id)?;
        let mut after = before.pointing_at(&layer.media_type.plain().to_string(), known.plain, before.size);
        EncryptedLayer::strip(&mut after.annotations);
        changes.layer(layer.image, layer.layer, Done::Decrypted, after);
    }
    check_plain_layers(job, &locked)?;
    left_encrypted(&root, job, &mut changes)?;
    finish(job, &root, changes)
}

pub(super) fn warn(layer: &Locked<'_>, changes: &mut Changes) {
    for warning in &layer.encrypted.public.warnings {
        changes.notes.push(format!("layer {} of {}: {warning}", layer.layer, layer.image));
    }
}

/// What the layer must unpack to; nothing where [`ordered`] allows that: a module beside no image's
/// configuration.
pub(super) fn expected_diff_id(image: &Image, layer: usize) -> Result<Option<Digest>, ImageError> {
    let Some(config) = &image.config else { return Ok(None) };
    let (layers, diff_ids) = (image.manifest.layers.len(), config.diff_ids.len());
    match config.diff_ids.get(layer) {
        Some(diff_id) if layers == diff_ids => Ok(Some(*diff_id)),
        _ => Err(ImageError::layer(image, layer, Problem::DiffIdCount { layers, diff_ids })),
    }
}

pub(super) fn check(
    image: &Image,
    layer: usize,
    expected: Option<Digest>,
    found: Digest,
) -> Result<(), ImageError> {
    match expected {
        Some(expected) if expected != found => {
            Err(ImageError::layer(image, layer, Problem::DiffId { expected, found }))
        }
        _ => Ok(()),
    }
}

/// A plain layer beside encrypted ones may have been put there by anybody, too.
fn check_plain_layers(job: Job<'_>, locked: &[Locked<'_>]) -> Result<(), ImageError> {
    let mut images: Vec<&Image> = locked.iter().map(|layer| layer.image).collect();
    images.dedup_by_key(|image| image.descriptor.digest);
    for image in images.into_iter().filter(|image| image.config.is_some()) {
        for layer in 0..image.manifest.layers.len() {
            if let Layer::Plain(media_type) = kind(image, layer)? {
                let expected = expected_diff_id(image, layer)?;
                let found = copy(job, &image.manifest.layers[layer], Some(media_type.compression))
                    .map_err(|fault| fault.of(image, layer))?;
                if let Some(found) = found {
                    check(image, layer, expected, found)?;
                }
            }
        }
    }
    Ok(())
}

/// What stays encrypted because it wasn't chosen is said.
fn left_encrypted(root: &Node, job: Job<'_>, changes: &mut Changes) -> Result<(), ImageError> {
    for image in root.images() {
        let chosen = if job.selection.takes(image) { job.selection.layers(image)? } else { Vec::new() };
        let left = image.manifest.layers.iter().enumerate().filter(|(at, layer)| {
            let encrypted = encrypted_image::LayerMediaType::parse(&layer.media_type)
                .is_some_and(|media_type| media_type.encrypted);
            encrypted && !chosen.contains(at)
        });
        let left = left.count();
        if left > 0 {
            changes.notes.push(format!("{image} stays encrypted: {left} of its layers"));
        }
    }
    Ok(())
}

/// Whether two descriptors' options are of one encryption.
pub(super) fn same(one: &PrivateOptions, other: &PrivateOptions) -> bool {
    let equal =
        one.key().ct_eq(other.key()) & one.nonce().ct_eq(other.nonce()) & one.digest().ct_eq(other.digest());
    equal.into()
}
