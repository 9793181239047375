//! Encrypted layers, and a broker that has what it is told to have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use agent_image::{Asked, Digest, Resources};
use encrypted_image::coco::BrokerKey;
use encrypted_image::{
    EncryptedLayer, Encryptor, LayerMediaType, PrivateOptions, PublicOptions, Wrap, WrappedKey,
};
use sealed_spec::KbsUri;
use zeroize::Zeroizing;

use crate::image::Layer;

/// Answers with what was put in; remembers what was asked for.
#[derive(Default)]
pub(crate) struct Broker {
    held: Mutex<HashMap<String, Vec<u8>>>,
    asked: Mutex<Vec<String>>,
}

impl Broker {
    pub(crate) fn holding(resources: &[(&str, &[u8])]) -> Arc<Self> {
        let broker = Self::default();
        for (uri, bytes) in resources {
            broker.put(uri, bytes);
        }
        Arc::new(broker)
    }

    pub(crate) fn put(&self, uri: &str, bytes: &[u8]) {
        self.held.lock().unwrap().insert(uri.to_string(), bytes.to_vec());
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Resources for Broker {
    fn resource<'a>(&'a self, uri: &'a KbsUri) -> Asked<'a> {
        let uri = uri.to_string();
        let answer = self.held.lock().unwrap().get(&uri).cloned();
        self.asked.lock().unwrap().push(uri);
        Box::pin(
            async move { answer.map(Zeroizing::new).ok_or_else(|| "there is no such resource".to_owned()) },
        )
    }
}

pub(crate) const KEY: &str = "kbs:///owner/image-key/app";

pub(crate) fn uri(text: &str) -> KbsUri {
    serde_json::from_value(serde_json::Value::from(text)).unwrap()
}

/// A key of the broker, as whoever encrypts has it.
pub(crate) fn broker_key(uri: &str, byte: u8) -> Box<dyn Wrap> {
    Box::new(BrokerKey::new(uri, Zeroizing::new([byte; 32])).unwrap())
}

pub(crate) fn options(layer: &Layer) -> PrivateOptions {
    PrivateOptions::generate(*Digest::of(&layer.blob).as_bytes()).unwrap()
}

impl Layer {
    /// The same, encrypted for these.
    pub(crate) fn encrypted(self, recipients: &[Box<dyn Wrap>]) -> Self {
        let private = options(&self);
        self.encrypted_with(&private, &private, recipients)
    }

    /// Encrypted with the first options; what is wrapped is the second.
    pub(crate) fn encrypted_with(
        mut self,
        private: &PrivateOptions,
        wrapped: &PrivateOptions,
        recipients: &[Box<dyn Wrap>],
    ) -> Self {
        let mut encryptor = Encryptor::new(private.key(), private.nonce());
        encryptor.update(&mut self.blob);
        let public = PublicOptions::new(encryptor.finish());
        let wrapped = recipients
            .iter()
            .map(|wrap| WrappedKey { scheme: wrap.scheme(), blob: wrap.wrap(wrapped).unwrap() })
            .collect();
        self.annotations = EncryptedLayer { public, wrapped }.to_annotations();
        self.media_type = LayerMediaType::parse(&self.media_type).unwrap().encrypted().to_string();
        self
    }

    /// As it was, but for whom it is encrypted.
    pub(crate) fn rewrapped(mut self, private: &PrivateOptions, recipients: &[Box<dyn Wrap>]) -> Self {
        let mut layer = EncryptedLayer::parse(&self.annotations).unwrap();
        layer.wrapped = recipients
            .iter()
            .map(|wrap| WrappedKey { scheme: wrap.scheme(), blob: wrap.wrap(private).unwrap() })
            .collect();
        self.annotations = layer.to_annotations();
        self
    }
}
