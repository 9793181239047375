//! Wrapping and unwrapping of private options, whatever the scheme, and the keyring that tries every key that fits.

use std::fmt;

use crate::annotation::{EncryptedLayer, Scheme, WrappedKey};
use crate::options::{OptionsError, PrivateOptions};

/// Wraps a layer's options for all recipients of one scheme: one JWE, one CMS message, one OpenPGP message, one PKCS #11
/// blob, or a call of one key provider. May block.
pub trait Wrap: Send + Sync {
    /// Under which annotation the result belongs.
    fn scheme(&self) -> Scheme;

    /// The wrapped options, in the scheme's own format.
    ///
    /// # Errors
    /// See [`WrapError`].
    fn wrap(&self, private: &PrivateOptions) -> Result<Vec<u8>, WrapError>;
}

/// One key, or one program that holds keys, which may open wrapped options. May block.
pub trait Unwrap: Send + Sync {
    /// Whether it is worth trying on keys of this scheme.
    fn opens(&self, scheme: &Scheme) -> bool;

    /// What to call this key in errors: a file's name, a URI, a provider. Never a secret.
    fn name(&self) -> String;

    /// The private options inside of `wrapped`.
    ///
    /// # Errors
    /// See [`UnwrapError`].
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<PrivateOptions, UnwrapError>;
}

/// Why options were not wrapped.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// A recipient's key can't be used.
    #[error("recipient {recipient}: {reason}")]
    Recipient {
        /// Which recipient.
        recipient: String,
        /// What is wrong with its key.
        reason: String,
    },
    /// The program or service that wraps failed.
    #[error("{by} did not wrap the layer's key: {reason}")]
    Failed {
        /// The provider, token or service.
        by: String,
        /// What it said.
        reason: String,
    },
    /// No random bytes.
    #[error("no random bytes: {0}")]
    Random(String),
}

/// Why wrapped options were not opened. No text holds what was inside.
#[derive(Debug, thiserror::Error)]
pub enum UnwrapError {
    /// Not wrapped for this key. Also what a wrong key looks like.
    #[error("not wrapped for this key")]
    NotRecipient,
    /// The wrapped bytes aren't what the scheme writes.
    #[error("malformed: {0}")]
    Malformed(String),
    /// An algorithm that isn't supported, or isn't allowed.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The program or service that holds the key failed, or refused.
    #[error("{0}")]
    Failed(String),
    /// Opened, but what was inside isn't private options.
    #[error("opened, but refused: {0}")]
    Options(#[from] OptionsError),
}

/// All keys of whoever opens layers.
#[derive(Default)]
pub struct Keyring(Vec<Box<dyn Unwrap>>);

/// No key opened a layer.
#[derive(Debug, thiserror::Error)]
pub struct NotAuthorised {
    /// Schemes that the layer is wrapped for, each once.
    pub schemes: Vec<Scheme>,
    /// What each try came to, at most [`MAX_TRIES`] of them.
    pub tries: Vec<Try>,
}

/// One key on one wrapped key.
#[derive(Debug)]
pub struct Try {
    /// Whose format.
    pub scheme: Scheme,
    /// Name of the key.
    pub key: String,
    /// Why it didn't open.
    pub error: UnwrapError,
}

/// How many failed tries an error lists.
pub const MAX_TRIES: usize = 16;

impl Keyring {
    /// A ring of these keys, tried in this order.
    #[must_use]
    pub const fn new(keys: Vec<Box<dyn Unwrap>>) -> Self {
        Self(keys)
    }

    /// Adds a key.
    pub fn push(&mut self, key: Box<dyn Unwrap>) {
        self.0.push(key);
    }

    /// Whether there is no key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The private options of a layer: tries every key on every wrapped key that it fits, and takes the first that opens.
    /// That one opens is also the whole check of who may use a layer, so it is made for each layer, every time.
    ///
    /// # Errors
    /// [`NotAuthorised`], which says what each key came to.
    pub fn open(&self, layer: &EncryptedLayer) -> Result<PrivateOptions, NotAuthorised> {
        let mut tries = Vec::new();
        for wrapped in &layer.wrapped {
            for key in self.0.iter().filter(|key| key.opens(&wrapped.scheme)) {
                match key.unwrap(wrapped) {
                    Ok(private) => return Ok(private),
                    Err(error) if tries.len() < MAX_TRIES => {
                        tries.push(Try { scheme: wrapped.scheme.clone(), key: key.name(), error });
                    }
                    Err(_) => {}
                }
            }
        }
        let mut schemes: Vec<_> = layer.wrapped.iter().map(|wrapped| wrapped.scheme.clone()).collect();
        schemes.sort();
        schemes.dedup();
        Err(NotAuthorised { schemes, tries })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|key| key.name())).finish()
    }
}

impl fmt::Display for NotAuthorised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not authorised to open this layer: ")?;
        if self.tries.is_empty() {
            formatter.write_str("no key was given for any of its schemes (")?;
            for (at, scheme) in self.schemes.iter().enumerate() {
                write!(formatter, "{}{scheme}", if at == 0 { "" } else { ", " })?;
            }
            return formatter.write_str(")");
        }
        for (at, Try { scheme, key, error }) in self.tries.iter().enumerate() {
            write!(formatter, "{}{scheme} with {key}: {error}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::PublicOptions;
    use zeroize::Zeroizing;

    struct Fake {
        scheme: Scheme,
        opens: &'static [u8],
    }

    impl Unwrap for Fake {
        fn opens(&self, scheme: &Scheme) -> bool {
            *scheme == self.scheme
        }

        fn name(&self) -> String {
            format!("key {}", self.opens.escape_ascii())
        }

        fn unwrap(&self, wrapped: &WrappedKey) -> Result<PrivateOptions, UnwrapError> {
            assert_eq!(wrapped.scheme, self.scheme, "was tried on another scheme");
            if wrapped.blob != self.opens {
                return Err(UnwrapError::NotRecipient);
            }
            Ok(PrivateOptions::from_parts(Zeroizing::new([1; 32]), [2; 16], [3; 32]))
        }
    }

    fn layer() -> EncryptedLayer {
        let key = |scheme, blob: &[u8]| WrappedKey { scheme, blob: blob.to_vec() };
        let wrapped = vec![key(Scheme::Jwe, b"a"), key(Scheme::Jwe, b"b"), key(Scheme::Pgp, b"c")];
        EncryptedLayer { public: PublicOptions::new([0; 32]), wrapped }
    }

    fn ring(keys: &[(Scheme, &'static [u8])]) -> Keyring {
        let mut ring = Keyring::default();
        for (scheme, opens) in keys {
            ring.push(Box::new(Fake { scheme: scheme.clone(), opens }));
        }
        ring
    }

    #[test]
    fn any_key_on_any_wrapped_key() {
        for fits in [(Scheme::Jwe, &b"a"[..]), (Scheme::Jwe, b"b"), (Scheme::Pgp, b"c")] {
            let ring = ring(&[(Scheme::Jwe, b"x"), fits, (Scheme::Pkcs7, b"a")]);
            assert_eq!(ring.open(&layer()).unwrap().key(), &[1; 32]);
        }
    }

    #[test]
    fn refusals_say_what_was_tried() {
        let error = ring(&[(Scheme::Jwe, b"x"), (Scheme::Pkcs7, b"a")]).open(&layer()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not authorised to open this layer: jwe with key x: not wrapped for this key; jwe with key x: not wrapped for this key",
        );
        let error = ring(&[(Scheme::Pkcs7, b"a")]).open(&layer()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not authorised to open this layer: no key was given for any of its schemes (jwe, pgp)",
        );
        assert!(Keyring::default().open(&layer()).is_err());
    }

    #[test]
    fn the_list_of_tries_is_bounded() {
        let mut layer = layer();
        layer.wrapped = vec![layer.wrapped[0].clone(); 100];
        assert_eq!(ring(&[(Scheme::Jwe, b"x")]).open(&layer).unwrap_err().tries.len(), MAX_TRIES);
    }
}
