//! Gives encrypted layers new keys: decrypted and encrypted again in one pass, plain only in memory.

use encrypted_image::{EncryptedLayer, Keyring, PrivateOptions, Wrap};

use super::decrypt::{check, expected_diff_id, same, warn};
use super::finish::{Changes, finish};
use super::layer::{Sealed, reseal};
use super::{Job, locked, ordered, unlock, wrap};
use crate::document::Digest;
use crate::error::ImageError;
use crate::report::{Done, Report};
use crate::tree::Node;

struct Finished {
    before: Digest,
    private: PrivateOptions,
    hmac: [u8; 32],
    after: Digest,
    diff_id: Digest,
    encrypted: EncryptedLayer,
}

/// Opens layers with `keys` and encrypts them anew, for exactly `recipients`.
///
/// # Errors
/// As [`decrypt`](super::decrypt()) and [`encrypt`](super::encrypt()).
pub fn rotate(job: Job<'_>, keys: &Keyring, recipients: &[Box<dyn Wrap>]) -> Result<Report, ImageError> {
    if recipients.is_empty() {
        return Err(ImageError::NoRecipient);
    }
    let root = Node::read(job.source)?;
    let locked = locked(&root, job.selection)?;
    locked.iter().try_for_each(|layer| ordered(layer.image))?;
    let opened = unlock(&locked, keys)?;
    let mut changes = Changes::to_oci();
    let mut finished: Vec<Finished> = Vec::new();
    for (layer, private) in locked.iter().zip(opened) {
        let (image, at) = (layer.image, layer.layer);
        let expected = expected_diff_id(image, at)?;
        let (before, hmac) = (&image.manifest.layers[at], layer.encrypted.public.hmac);
        warn(layer, &mut changes);
        let known = finished.iter().position(|known| {
            known.before == before.digest && known.hmac == hmac && same(&known.private, &private)
        });
        let known = match known {
            Some(known) => known,
            None => {
                let new = PrivateOptions::generate(*private.digest())
                    .map_err(|error| ImageError::layer(image, at, error))?;
                let wrapped = wrap(image, at, recipients, &new)?;
                let old = (&private, &layer.encrypted.public);
                let (sealed, diff_id) = reseal(job, before, layer.media_type.compression, old, &new)
                    .map_err(|fault| fault.of(image, at))?;
                let Sealed { stage, digest: after, public } = sealed;
                changes.staged(stage, before.pointing_at(&before.media_type, after, before.size));
                let encrypted = EncryptedLayer { public, wrapped };
                finished.push(Finished { before: before.digest, private, hmac, after, diff_id, encrypted });
                finished.len() - 1
            }
        };
        let known = &finished[known];
        check(image, at, expected, known.diff_id)?;
        let media_type = super::finish::oci(layer.media_type).to_string();
        let mut after = before.pointing_at(&media_type, known.after, before.size);
        EncryptedLayer::strip(&mut after.annotations);
        after.annotations.extend(known.encrypted.to_annotations());
        changes.layer(image, at, Done::Rotated, after);
    }
    finish(job, &root, changes)
}
