//! What a request of the key provider protocol comes to.

use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use encrypted_image::annotation::{Scheme, WrappedKey};
use encrypted_image::coco::Packet;
use encrypted_image::keyprovider::{Parameters, Reply, Request};
use encrypted_image::options::PrivateOptions;
use encrypted_image::wrap::{Unwrap as _, Wrap as _};
use owner_image::provider::Operation;
use owner_image::provider::server::Handler;
use zeroize::Zeroizing;

use crate::commands::image_key::Pusher;
use crate::identity::IdentityDir;
use crate::keystore::{ImageKey, ImageKeyUri, KeyStore};

/// What ocicrypt sends for a provider that was named without parameters.
const NO_PARAMETERS: &[u8] = b"Enabled";

/// Wraps and unwraps with the keys of one identity.
pub(super) struct KeyProvider {
    directory: IdentityDir,
    store: KeyStore,
    name: String,
    create: bool,
    /// Held while a key is made: a tool encrypts layers at the same time, for the same new key.
    making: Mutex<()>,
}

impl KeyProvider {
    pub(super) fn new(directory: &IdentityDir, name: &str, create: bool) -> Result<Self> {
        let store = KeyStore::of(directory)?;
        Ok(Self {
            directory: directory.clone(),
            store,
            name: name.to_owned(),
            create,
            making: Mutex::default(),
        })
    }

    /// One request, which has to be for `operation` if that is given; or one line that says why not.
    pub(super) fn request(
        &self,
        operation: Option<Operation>,
        request: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, String> {
        self.answer_to(operation, request)
            .map(|reply| reply.to_json())
            .map_err(|error| crate::one_line(&error))
    }

    fn answer_to(&self, operation: Option<Operation>, request: &[u8]) -> Result<Reply> {
        match (Request::from_json(request)?, operation) {
            (Request::Wrap { parameters, options }, None | Some(Operation::Wrap)) => {
                self.wrap(&parameters, &options).map(Reply::Wrapped)
            }
            (Request::Unwrap { parameters, wrapped }, None | Some(Operation::Unwrap)) => {
                self.unwrap(&parameters, wrapped).map(Reply::Unwrapped)
            }
            _ => bail!("request is for the other of WrapKey and UnWrapKey"),
        }
    }

    fn wrap(&self, parameters: &Parameters, options: &[u8]) -> Result<Vec<u8>> {
        let uri = match self.own(parameters)?.as_slice() {
            [uri] => self.store.uri(uri)?,
            [] => bail!("no key is named; write provider:{}:kbs:///REPOSITORY/image-key/TAG", self.name),
            _ => bail!(
                "{} keys are named, one is needed; encrypt for one, then add recipients",
                self.own(parameters)?.len()
            ),
        };
        // Not whatever comes: an empty or foreign payload, wrapped, would look like a recipient and open nothing.
        let options = PrivateOptions::from_json(options)
            .context("what is to be wrapped is not a layer's private options")?;
        let mut key = self.key(&uri)?.broker_key()?;
        if self.name == encrypted_image::coco::ATTESTATION_AGENT {
            key = key.for_attestation_agent();
        }
        Ok(key.wrap(&options)?)
    }

    fn unwrap(&self, parameters: &Parameters, wrapped: Vec<u8>) -> Result<Zeroizing<Vec<u8>>> {
        let packet = Packet::from_json(&wrapped).context("the annotation is not one of this provider")?;
        let uri = self.store.own(&packet.resource().parse()?)?;
        for named in self.own(parameters)? {
            ensure!(self.store.uri(named)? == uri, "the layer is encrypted for {uri}, not for {named}");
        }
        let wrapped = WrappedKey { scheme: Scheme::Provider(self.name.clone()), blob: wrapped };
        let options = self.store.get(&uri)?.broker_key()?.unwrap(&wrapped);
        Ok(options.with_context(|| format!("image key {uri}"))?.to_json())
    }

    /// This provider's own parameters. Callers send those of all recipients, keys among them: they are not looked at.
    fn own<'a>(&self, parameters: &'a Parameters) -> Result<Vec<&'a str>> {
        let own = parameters.get(&self.name).map(Vec::as_slice).unwrap_or_default();
        let named = own.iter().filter(|value| value.as_slice() != NO_PARAMETERS);
        named
            .map(|value| {
                let text = std::str::from_utf8(value).ok().filter(|text| text.starts_with("kbs:///"));
                text.ok_or_else(|| {
                    anyhow!("parameter of {} is not kbs:///REPOSITORY/image-key/TAG", self.name)
                })
            })
            .collect()
    }

    fn key(&self, uri: &ImageKeyUri) -> Result<ImageKey> {
        if !self.create {
            return self.store.get(uri);
        }
        let _making =
            self.making.lock().map_err(|_| anyhow!("an earlier request failed midway; start again"))?;
        if let Some(key) = self.store.find(uri)? {
            return Ok(key);
        }
        let key = match self.store.create(uri) {
            Ok(key) => key,
            // Another process was quicker.
            Err(error) => return self.store.find(uri)?.ok_or(error),
        };
        let pushed = Pusher::of(&self.directory)?.push(&key, None, &[]).with_context(|| {
            format!("image key {uri} was made but isn't at the broker; run 'sealpod image key push {uri}'")
        })?;
        // Standard output is the reply's.
        eprintln!("sealpod: made image key {uri}; {pushed}");
        Ok(key)
    }
}

impl Handler for KeyProvider {
    fn answer(&self, operation: Operation, request: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        self.request(Some(operation), request)
    }
}

#[cfg(test)]
#[path = "handler_tests.rs"]
mod tests;
