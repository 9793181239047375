//! The sealed specification: the key from the broker, the document from wherever it is, opened once.

use std::sync::{Arc, OnceLock};

use agent_resources::clock::BUILT;
use async_trait::async_trait;
use protocols::rcar::ResourceUri;
use protocols::refusal::{Code, Refusal};
use sealed_spec::initdata::SealpodConfig;
use sealed_spec::{SealedDocument, SealedSpec, SpecDigest, SpecKey};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::policy::Phase;
use crate::quarantine::Quarantine;

/// A document in a ConfigMap can't be larger.
const MAX_DOCUMENT: u64 = 1024 * 1024;

/// What this VM is for, and the way to its key. Production: [`crate::attested::Attested`].
#[async_trait]
pub trait KeySource: Send + Sync {
    /// The verified configuration, or why there is none.
    fn config(&self) -> Result<&SealpodConfig, Refusal>;
    /// The sealed document, when it came with the configuration.
    fn document(&self) -> Option<&str>;
    /// Attests and asks for the key.
    async fn release_key(&self) -> Result<SpecKey, Refusal>;
    /// Asks the broker for a resource that the sealed specification lists.
    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        Err(Refusal::new(Code::Resource, format!("{uri} can't be asked for: this guest has no broker")))
    }
    /// The key opened the sealed specification: tells whoever released it.
    async fn confirm(&self) {}
    /// No time before this is believed, in seconds since the epoch.
    fn earliest(&self) -> i64 {
        BUILT
    }
}

/// The way from boot to an open specification.
pub struct Opening {
    source: Arc<dyn KeySource>,
    key: Mutex<Option<SpecKey>>,
    spec: OnceLock<Arc<SealedSpec>>,
}

impl Opening {
    /// Nothing is open yet.
    pub fn new(source: Box<dyn KeySource>) -> Self {
        Self { source: source.into(), key: Mutex::new(None), spec: OnceLock::new() }
    }

    /// Whether containers can be made.
    pub fn phase(&self) -> Phase {
        if self.spec.get().is_some() { Phase::Open } else { Phase::Before }
    }

    /// The open specification.
    pub fn spec(&self) -> Option<Arc<SealedSpec>> {
        self.spec.get().cloned()
    }

    /// Digest of the sealed document that this VM is for.
    pub fn digest(&self) -> Result<SpecDigest, Refusal> {
        self.source.config().map(|config| config.sealed_spec)
    }

    /// No time before this is believed, in seconds since the epoch.
    pub fn earliest(&self) -> i64 {
        self.source.earliest()
    }

    /// The open specification, or the refusal to act without it.
    pub fn require(&self) -> Result<Arc<SealedSpec>, Refusal> {
        self.spec().ok_or_else(|| {
            Refusal::new(Code::SpecNotOpen, "the sealed spec is not open; create the sandbox first")
        })
    }

    /// Whom to ask for what the specification names.
    pub fn source(&self) -> Arc<dyn KeySource> {
        self.source.clone()
    }

    /// Asks the broker for a resource; what may be asked for is checked before.
    pub async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.source.resource(uri).await
    }

    /// Gets the key, and opens the document if it came with the initdata.
    pub async fn release(&self) -> Result<(), Refusal> {
        self.source.config()?;
        // One handshake at a time; nobody else waits for this lock before there is a key.
        let mut key = self.key.lock().await;
        if key.is_none() {
            *key = Some(self.source.release_key().await?);
        }
        match (self.source.document(), key.as_ref()) {
            (Some(document), Some(key)) => self.open(document, key),
            _ => Ok(()),
        }
    }

    /// Opens the document that was copied in, if that hasn't happened yet. True if it happened now.
    pub async fn open_copied(&self, quarantine: &Quarantine) -> Result<bool, Refusal> {
        if self.spec.get().is_some() {
            return Ok(false);
        }
        let wanted = &self.source.config()?.sealed_spec;
        let key = self.key.lock().await;
        let Some(key) = key.as_ref() else {
            return Err(Refusal::new(Code::SpecNotOpen, "there is no key yet; create the sandbox first"));
        };
        if self.spec.get().is_some() {
            return Ok(false);
        }
        let document = find(quarantine, wanted)?;
        self.open(&document, key).map(|()| true)
    }

    fn open(&self, text: &str, key: &SpecKey) -> Result<(), Refusal> {
        let config = self.source.config()?;
        let invalid = |e: &dyn std::fmt::Display| Refusal::new(Code::SpecInvalid, e.to_string());
        let document = SealedDocument::parse(text).map_err(|e| invalid(&e))?;
        if document.digest() != config.sealed_spec {
            return Err(Refusal::new(
                Code::SpecDigestMismatch,
                format!(
                    "the sealed document's digest is {}, this VM is for {}",
                    document.digest(),
                    config.sealed_spec
                ),
            ));
        }
        if document.header().key_id() != &config.key_id {
            return Err(invalid(&"the sealed document names another key than the initdata"));
        }
        let spec = document.open(key).map_err(|e| invalid(&e))?;
        if self.spec.set(Arc::new(spec)).is_ok() {
            // Nothing in this guest waits for it.
            let source = self.source.clone();
            drop(tokio::spawn(async move { source.confirm().await }));
        }
        Ok(())
    }
}

/// The digest decides, not the place; a document with another one is told from none at all.
fn find(quarantine: &Quarantine, wanted: &SpecDigest) -> Result<String, Refusal> {
    let mut others = 0;
    let found = quarantine.find(MAX_DOCUMENT, |bytes| {
        let matches = SpecDigest::of(bytes) == *wanted;
        let text = std::str::from_utf8(bytes).ok();
        if !matches && text.is_some_and(|text| SealedDocument::parse(text).is_ok()) {
            others += 1;
        }
        matches
    });
    let found =
        found.map_err(|e| Refusal::new(Code::SpecMissing, format!("reading copied files: {}", e.kind())))?;
    match found.map(String::from_utf8) {
        Some(Ok(text)) => Ok(text),
        Some(Err(_)) => Err(Refusal::new(Code::SpecInvalid, "the sealed document is not text")),
        None if others > 0 => Err(Refusal::new(
            Code::SpecDigestMismatch,
            format!(
                "{others} sealed document(s) were copied in, none with digest {wanted}; deploy the ConfigMap that 'sealpod seal' wrote"
            ),
        )),
        None => Err(Refusal::new(
            Code::SpecMissing,
            format!(
                "no sealed document with digest {wanted} was copied in; is the pod's ConfigMap deployed and mounted?"
            ),
        )),
    }
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;
