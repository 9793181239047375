//! The end of every operation that writes: what didn't change is copied, what did is published, documents
//! follow, and the name comes last.

use std::collections::{BTreeMap, BTreeSet};

use encrypted_image::{Family, LayerMediaType};

use super::Job;
use super::layer::{Fault, copy};
use crate::document::{
    DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, Digest, Manifest, OCI_CONFIG, OCI_MANIFEST,
};
use crate::error::ImageError;
use crate::report::{Done, ImageReport, LayerReport, Report};
use crate::store::{Document, Stage};
use crate::tree::{Image, Node, fetch_document};

/// What an operation made of the layers that were chosen.
#[derive(Default)]
pub(super) struct Changes {
    layers: BTreeMap<(Digest, usize), (Done, Descriptor)>,
    staged: Vec<(Box<dyn Stage>, Descriptor)>,
    /// Manifests of Docker become OCI's: Docker's have no annotations, and no tool reads keys in them.
    to_oci: bool,
    pub(super) notes: Vec<String>,
}

impl Changes {
    /// None yet, to be written in manifests that have annotations.
    pub(super) fn to_oci() -> Self {
        Self { to_oci: true, ..Self::default() }
    }

    /// A layer has another descriptor.
    pub(super) fn layer(&mut self, image: &Image, layer: usize, done: Done, descriptor: Descriptor) {
        self.layers.insert((image.descriptor.digest, layer), (done, descriptor));
    }

    /// A blob is to be published.
    pub(super) fn staged(&mut self, stage: Box<dyn Stage>, descriptor: Descriptor) {
        self.staged.push((stage, descriptor));
    }

    fn of(&self, image: &Image, layer: usize) -> Option<&(Done, Descriptor)> {
        self.layers.get(&(image.descriptor.digest, layer))
    }

    fn touches(&self, image: &Image) -> bool {
        (0..image.manifest.layers.len()).any(|layer| self.of(image, layer).is_some())
    }

    /// The image's manifest with everything that was changed; none if nothing was.
    fn manifest(&self, image: &Image) -> Option<Manifest> {
        if !self.touches(image) {
            return None;
        }
        let mut manifest = image.manifest.clone();
        for (at, layer) in manifest.layers.iter_mut().enumerate() {
            if let Some((_, descriptor)) = self.of(image, at) {
                layer.clone_from(descriptor);
            }
        }
        if self.to_oci {
            to_oci(&image.descriptor.media_type, &mut manifest);
        }
        Some(manifest)
    }
}

fn to_oci(media_type: &str, manifest: &mut Manifest) {
    if media_type != DOCKER_MANIFEST {
        return;
    }
    manifest.media_type = Some(OCI_MANIFEST.to_owned());
    if manifest.config.media_type == DOCKER_CONFIG {
        OCI_CONFIG.clone_into(&mut manifest.config.media_type);
    }
    for layer in &mut manifest.layers {
        if let Some(parsed) = LayerMediaType::parse(&layer.media_type) {
            layer.media_type = oci(parsed).to_string();
        }
    }
}

/// The same kind of layer in OCI's words.
pub(super) fn oci(media_type: LayerMediaType) -> LayerMediaType {
    let family = match media_type.family {
        Family::Docker => Family::Oci,
        Family::DockerForeign => Family::OciNonDistributable,
        family => family,
    };
    LayerMediaType { family, ..media_type }
}

/// Writes everything, and names it.
pub(super) fn finish(job: Job<'_>, root: &Node, mut changes: Changes) -> Result<Report, ImageError> {
    let mut seen = BTreeSet::new();
    for image in root.images() {
        for blob in kept_blobs(image, &changes) {
            if seen.insert(blob.digest) {
                keep(job, blob)?;
            }
        }
    }
    let mut documents = Vec::new();
    opaque(job, root, &mut documents)?;
    let descriptor = root.rewrite(&mut |image| changes.manifest(image), &mut documents);
    let images = root.images().into_iter().map(|image| image_report(image, &changes)).collect();

    let mut published = Vec::new();
    let named = publish(job, std::mem::take(&mut changes.staged), &mut published)
        .and_then(|()| name(job, &documents, &descriptor));
    if let Err(error) = named {
        published.iter().for_each(|blob| job.destination.withdraw(blob));
        return Err(error);
    }
    changes.notes.extend(root.left_out());
    let (digest, media_type) = (descriptor.digest, descriptor.media_type);
    Ok(Report { digest, from: root.descriptor().digest, media_type, images, notes: changes.notes })
}

/// What the image still needs as it was.
fn kept_blobs<'a>(image: &'a Image, changes: &'a Changes) -> impl Iterator<Item = &'a Descriptor> {
    let layers = image.manifest.layers.iter().enumerate();
    let kept = layers.filter(|(at, layer)| {
        changes.of(image, *at).is_none_or(|(_, descriptor)| descriptor.digest == layer.digest)
    });
    std::iter::once(&image.manifest.config).chain(kept.map(|(_, layer)| layer))
}

fn keep(job: Job<'_>, blob: &Descriptor) -> Result<(), ImageError> {
    match copy(job, blob, None) {
        Ok(_) => Ok(()),
        // A layer that may not be handed on is fetched from its own address by whoever runs the image.
        Err(Fault::Store(crate::StoreError::NoBlob { .. })) if blob.rest.contains_key("urls") => Ok(()),
        Err(fault) => Err(fault.about(blob)),
    }
}

/// Entries that aren't read here are kept, and copied if they are there.
fn opaque(job: Job<'_>, node: &Node, documents: &mut Vec<Document>) -> Result<(), ImageError> {
    match node {
        Node::Image(_) | Node::Opaque { held: false, .. } => Ok(()),
        Node::Index { entries, .. } => entries.iter().try_for_each(|entry| opaque(job, entry, documents)),
        Node::Opaque { descriptor, held: true } => {
            let bytes = fetch_document(job.source, descriptor)?;
            documents.push(Document { descriptor: descriptor.clone(), bytes });
            Ok(())
        }
    }
}

fn publish(
    job: Job<'_>,
    staged: Vec<(Box<dyn Stage>, Descriptor)>,
    published: &mut Vec<Descriptor>,
) -> Result<(), ImageError> {
    for (stage, descriptor) in staged {
        let new = !job.destination.has(&descriptor)?;
        stage.publish(&descriptor)?;
        if new {
            published.push(descriptor);
        }
    }
    Ok(())
}

fn name(job: Job<'_>, documents: &[Document], root: &Descriptor) -> Result<(), ImageError> {
    let Some((last, others)) = documents.split_last() else { return Ok(()) };
    for document in others {
        job.destination.put(document)?;
    }
    job.destination.commit(root, &last.bytes)?;
    Ok(())
}

fn image_report(image: &Image, changes: &Changes) -> ImageReport {
    let manifest = changes.manifest(image);
    let after = manifest.as_ref().unwrap_or(&image.manifest);
    let layers = image.manifest.layers.iter().zip(&after.layers).enumerate().map(|(at, (before, after))| {
        let done = changes.of(image, at).map_or(Done::Kept, |(done, _)| *done);
        LayerReport::new(done, before, after)
    });
    let digest =
        manifest.as_ref().map_or(image.descriptor.digest, |manifest| Digest::of(&manifest.to_bytes()));
    ImageReport {
        platform: image.platform.as_ref().map(ToString::to_string),
        digest,
        from: image.descriptor.digest,
        layers: layers.collect(),
    }
}
