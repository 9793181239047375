//! The keys of one image: what the sealed specification names, asked for at the broker, for as long as the
//! image's manifest is read.

use std::pin::Pin;
use std::sync::Arc;

use encrypted_image::coco::{BrokerKey, Packet};
use encrypted_image::jwe::JweUnwrap;
use encrypted_image::keys::{Certificate, PrivateKey};
use encrypted_image::pkcs7::Pkcs7Unwrap;
use encrypted_image::{EncryptedLayer, Keyring, PrivateOptions};
use sealed_spec::KbsUri;
use zeroize::Zeroizing;

use crate::{Digest, ImageError};

/// A private key in PEM is some KiB.
const MAX_KEY: usize = 64 << 10;

/// Resources that the broker gives to this guest: image keys and logins at registries.
pub trait Resources: Send + Sync {
    /// One of them; the error is for people.
    fn resource<'a>(&'a self, uri: &'a KbsUri) -> Asked<'a>;
}

/// An answer to come.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<Zeroizing<Vec<u8>>, String>> + Send + 'a>>;

/// There is no broker.
pub struct NoResources;

impl Resources for NoResources {
    fn resource<'a>(&'a self, _: &'a KbsUri) -> Asked<'a> {
        Box::pin(async { Err("this guest has no broker to ask".to_owned()) })
    }
}

/// The keys of one image, by name.
#[derive(Default)]
pub(crate) struct ImageKeys {
    names: Vec<String>,
    ring: Keyring,
}

impl ImageKeys {
    /// Asks for all of them: an image whose keys aren't all there isn't pulled.
    pub(crate) async fn ask(uris: &[KbsUri], resources: &dyn Resources) -> Result<Self, ImageError> {
        let mut keys = Self::default();
        for uri in uris {
            let fail = |reason: String| ImageError::Key { uri: uri.to_string(), reason };
            let bytes = resources.resource(uri).await.map_err(fail)?;
            keys.add(&uri.to_string(), &bytes).map_err(fail)?;
        }
        Ok(keys)
    }

    fn add(&mut self, uri: &str, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() > MAX_KEY {
            return Err(format!("{} bytes are no key", bytes.len()));
        }
        self.names.push(uri.to_owned());
        match <[u8; 32]>::try_from(bytes) {
            Ok(key) => self.add_shared(uri, Zeroizing::new(key)),
            Err(_) => self.add_private(uri, bytes),
        }
    }

    /// A key that whoever encrypts has too.
    fn add_shared(&mut self, uri: &str, key: Zeroizing<[u8; 32]>) -> Result<(), String> {
        let key = BrokerKey::new(uri, key).ok_or("its name is no key's")?;
        // Annotations come from manifests that the sealed specification or a signature names: the host, who sees
        // whether a guest goes on, doesn't choose what is opened.
        self.ring.push(Box::new(key.reading_ctr()));
        Ok(())
    }

    /// A private key in PEM or DER, with its certificate beside it or not; or a JWK of either kind.
    fn add_private(&mut self, uri: &str, bytes: &[u8]) -> Result<(), String> {
        let key = PrivateKey::parse(bytes).map_err(|e| e.to_string())?;
        if let PrivateKey::Symmetric(key) = &key {
            return self.add_shared(uri, Zeroizing::new(*key.as_bytes()));
        }
        let key = Arc::new(key);
        let mut pkcs7 = Pkcs7Unwrap::new(uri, key.clone());
        // Beside an EC key, a certificate says nothing that is needed.
        if let (PrivateKey::Rsa(_), Ok(certificate)) = (&*key, Certificate::parse(bytes)) {
            pkcs7 = pkcs7.with_certificate(certificate).map_err(|e| e.to_string())?;
        }
        self.ring.push(Box::new(JweUnwrap::new(uri, key)));
        self.ring.push(Box::new(pkcs7));
        Ok(())
    }

    /// A layer's options, by whichever of the keys opens them.
    pub(crate) fn open(
        &self,
        layer: &Digest,
        encrypted: &EncryptedLayer,
    ) -> Result<PrivateOptions, ImageError> {
        self.ring.open(encrypted).map_err(|error| ImageError::NotAuthorised {
            layer: layer.to_string(),
            reason: format!("{error}{}", self.hint(encrypted)),
        })
    }

    /// Which keys would be the right ones, if the layer says so.
    fn hint(&self, encrypted: &EncryptedLayer) -> String {
        let wanted = encrypted.wrapped.iter().filter(|wrapped| Packet::scheme_fits(&wrapped.scheme));
        let mut wanted: Vec<_> = wanted
            .filter_map(|wrapped| Packet::from_json(&wrapped.blob).ok())
            .map(|packet| packet.resource())
            .filter(|kid| !self.names.contains(kid))
            .collect();
        wanted.sort();
        wanted.dedup();
        wanted.truncate(4);
        match (wanted.as_slice(), self.names.as_slice()) {
            ([], []) => "; the sealed spec names no key for this image: seal it with its key".to_owned(),
            ([], _) => String::new(),
            (wanted, []) => {
                format!(
                    "; it was encrypted for {}, and the sealed spec names no key for this image: seal it with that key",
                    wanted.join(", ")
                )
            }
            (wanted, names) => format!(
                "; it was encrypted for {}, the sealed spec names {} for this image",
                wanted.join(", "),
                names.join(", ")
            ),
        }
    }
}
