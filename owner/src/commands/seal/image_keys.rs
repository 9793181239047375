//! Keys of encrypted images: found in the layers' annotations where they name keys at the broker, else given with
//! `--image-key`. Checked here, since a key that the guest can't have only shows when the pod doesn't start.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use encrypted_image::coco::Packet;
use encrypted_image::{EncryptedLayer, Layer, Scheme, Unwrap as _, WrappedKey};
use protocols::owner::KEY_KIND;
use sealed_spec::KbsUri;

use super::ContainerAnd;
use crate::keystore::KeyStore;
use crate::registry::LayerDescriptor;

/// Keys from the command line, by container.
pub(super) struct GivenKeys<'a> {
    by_container: BTreeMap<&'a str, Vec<KbsUri>>,
    store: &'a KeyStore,
}

impl<'a> GivenKeys<'a> {
    /// Checks that they are for containers that there are, and the owner's own.
    pub(super) fn new(
        options: &'a [ContainerAnd<KbsUri>],
        containers: &[&str],
        store: &'a KeyStore,
    ) -> Result<Self> {
        let repository = store.repository();
        let mut by_container: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ContainerAnd { container, what } in options {
            ensure!(
                containers.contains(&container.as_str()),
                "--image-key {container}={what}: the pod has no container '{container}'"
            );
            let (owner, kind, _) = what.segments();
            ensure!(
                owner == repository.as_str(),
                "--image-key {container}={what}: the key is in another owner's repository; yours is '{repository}'"
            );
            ensure!(
                kind != KEY_KIND,
                "--image-key {container}={what}: addresses of type {KEY_KIND} hold spec keys"
            );
            by_container.entry(container.as_str()).or_default().push(what.clone());
        }
        Ok(Self { by_container, store })
    }

    /// Keys of a container's image that nobody looked at: it is named by its tag.
    pub(super) fn unseen(&self, container: &str) -> Vec<KbsUri> {
        self.by_container.get(container).cloned().unwrap_or_default()
    }

    /// Keys of a container's image with these layers, of every platform that the guest may take.
    pub(super) fn of(&self, container: &str, layers: &[LayerDescriptor]) -> Result<Vec<KbsUri>> {
        let given = self.unseen(container);
        let mut keys: BTreeSet<KbsUri> = given.iter().cloned().collect();
        let mut encrypted = false;
        for (index, descriptor) in layers.iter().enumerate() {
            let layer = Layer::of_descriptor(&descriptor.media_type, &descriptor.annotations)
                .with_context(|| format!("layer {index}"))?;
            if let Layer::Encrypted(_, layer) = layer {
                encrypted = true;
                let found =
                    self.of_layer(&layer, &given).with_context(|| format!("layer {index} is encrypted"))?;
                keys.extend(found);
            }
        }
        if let (Some(key), false) = (given.first(), encrypted) {
            bail!(
                "--image-key {container}={key}: the image isn't encrypted; encrypt it with 'sealpod image encrypt', or \
                 leave the option out"
            );
        }
        Ok(keys.into_iter().collect())
    }

    /// The owner's keys that one layer names; there has to be one that opens it, or be given. A registry can
    /// write any name into an annotation, so a name counts only with the key that opens what it names, or with
    /// the owner's word.
    fn of_layer(&self, layer: &EncryptedLayer, given: &[KbsUri]) -> Result<Vec<KbsUri>> {
        let repository = self.store.repository();
        let mut own = Vec::new();
        let (mut others, mut unproven) = (BTreeSet::new(), BTreeMap::new());
        for wrapped in layer.wrapped.iter().filter(|wrapped| Packet::scheme_fits(&wrapped.scheme)) {
            let packet =
                Packet::from_json(&wrapped.blob).with_context(|| format!("annotation {}", wrapped.scheme))?;
            let uri: KbsUri = packet.resource().parse()?;
            let (owner, kind, _) = uri.segments();
            if owner != repository.as_str() || kind == KEY_KIND {
                others.insert(uri);
            } else if given.contains(&uri) {
                own.push(uri);
            } else {
                match self.opens(&uri, wrapped) {
                    Ok(()) => own.push(uri),
                    Err(reason) => drop(unproven.insert(uri, reason)),
                }
            }
        }
        let schemes: BTreeSet<_> = layer.wrapped.iter().map(|wrapped| &wrapped.scheme).collect();
        let private_key = schemes.iter().any(|scheme| matches!(scheme, Scheme::Jwe | Scheme::Pkcs7));
        if !own.is_empty() || (private_key && !given.is_empty()) {
            return Ok(own);
        }
        let add = format!("'sealpod image recipients add --recipient kbs:///{repository}/image-key/TAG'");
        if let Some((uri, reason)) = unproven.first_key_value() {
            bail!(
                "for {uri}, which is not known to open it ({reason:#}); if it is yours and meant, say so with --image-key \
                 CONTAINER={uri}, or add a key of yours with {add}"
            );
        }
        if private_key {
            bail!(
                "for {}: name the private key with --image-key CONTAINER=kbs:///{repository}/image-key/TAG ('sealpod image \
                 key import' keeps it), or let a key at the broker open it with {add}",
                names(&schemes)
            );
        }
        if let Some(other) = others.first() {
            bail!(
                "for {other}, which is in another owner's repository than yours, '{repository}', and is never released to \
                 your guests; add a key of yours with {add}"
            );
        }
        bail!("for {}, which guests can't open; add a key at the broker with {add}", names(&schemes))
    }

    /// Whether the owner's own copy of that key opens the layer.
    fn opens(&self, uri: &KbsUri, wrapped: &WrappedKey) -> Result<()> {
        self.store.get(&self.store.own(uri)?)?.broker_key()?.unwrap(wrapped)?;
        Ok(())
    }
}

fn names(schemes: &BTreeSet<&Scheme>) -> String {
    schemes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "image_keys_tests.rs"]
mod tests;
