//! Private keys on tokens: opens wrapped keys by asking the helper.

use std::sync::{Mutex, PoisonError};

use encrypted_image::pkcs11::Pkcs11Blob;
use encrypted_image::pkcs11::token::{Ciphertext, Operation, Refusal, Request, Secret, VERSION};
use encrypted_image::{PrivateOptions, Scheme, Unwrap, UnwrapError, WrappedKey};
use zeroize::Zeroizing;

use super::{Configuration, Helper, HelperError, KeyFile};

/// One private key on a token.
#[derive(Debug)]
pub struct Pkcs11Keys {
    key: KeyFile,
    helper: Helper,
    configuration: Configuration,
    /// A wrong PIN is never tried a second time: a token locks itself after a few, and an image has many layers.
    pin_refused: Mutex<Option<Refusal>>,
}

impl Pkcs11Keys {
    /// The key that a file names. The token is touched when a layer's key is unwrapped, not before.
    pub fn new(key: KeyFile, helper: Helper, configuration: Configuration) -> Self {
        Self { key, helper, configuration, pin_refused: Mutex::new(None) }
    }

    fn decrypt(&self, blob: Pkcs11Blob) -> Result<Secret, HelperError> {
        // Held while the token is asked, so that layers opened side by side try a wrong PIN once in all.
        let mut pin_refused = self.pin_refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refusal) = &*pin_refused {
            return Err(refusal.clone().into());
        }
        let recipients = blob
            .recipients
            .into_iter()
            .map(|it| Ciphertext { hash: it.hash, bytes: Secret(Zeroizing::new(it.wrapped)) })
            .collect();
        let request = self.key.request(&self.configuration, Operation::Decrypt { recipients });
        let answer = self.helper.ask(&request, &self.key.environment);
        if let Err(HelperError::Refused(refusal @ (Refusal::WrongPin | Refusal::PinLocked))) = &answer {
            *pin_refused = Some(refusal.clone());
        }
        answer
    }
}

impl KeyFile {
    pub(super) fn request(&self, configuration: &Configuration, operation: Operation) -> Request {
        let uri = Secret(Zeroizing::new(self.uri.as_bytes().to_vec()));
        Request { version: VERSION, uri, modules: configuration.0.clone(), operation }
    }
}

impl Unwrap for Pkcs11Keys {
    fn opens(&self, scheme: &Scheme) -> bool {
        *scheme == Scheme::Pkcs11
    }

    fn name(&self) -> String {
        self.key.name()
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<PrivateOptions, UnwrapError> {
        let blob = Pkcs11Blob::from_json(&wrapped.blob)
            .map_err(|error| UnwrapError::Malformed(error.to_string()))?;
        let json = self.decrypt(blob).map_err(|error| match error {
            HelperError::Refused(Refusal::NotRecipient) => UnwrapError::NotRecipient,
            other => UnwrapError::Failed(with_cause(&other)),
        })?;
        Ok(PrivateOptions::from_json(&json.0)?)
    }
}

/// An error with what it was caused by, on one line.
pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
