//! `--key`.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use encrypted_image::coco::{BrokerKey, Packet};
use encrypted_image::jwe::JweUnwrap;
use encrypted_image::keys::{Certificate, KeyError, PrivateKey, PublicKey};
use encrypted_image::pkcs7::Pkcs7Unwrap;
use encrypted_image::{PrivateOptions, Scheme, Unwrap, UnwrapError, WrappedKey};
use zeroize::Zeroizing;

use super::{AccessError, Password, Tools, read};
use crate::pgp::{PgpKeys, is_secret_key_file};
use crate::pkcs11::{KeyFile, Pkcs11Keys, is_key_file};
use crate::provider::{ConfigError, ProviderArg};

/// One of `--key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// `FILE[:PASSWORD]`: a private key, a certificate to one, OpenPGP secret keys, a description of a key on
    /// a token, or 32 bytes that a broker holds too.
    File {
        /// The file.
        path: PathBuf,
        /// What opens it.
        password: Option<Password>,
    },
    /// `provider:NAME[:PARAMETERS]`
    Provider(ProviderArg),
    /// `kbs:///…`: a key that a broker releases to guests, from the owner's own store.
    Broker(String),
}

impl FromStr for Key {
    type Err = AccessError;
    fn from_str(text: &str) -> Result<Self, AccessError> {
        // What is shown has no password in it.
        let (head, rest) = match text.split_once(':') {
            Some((head, rest)) => (head, Some(rest)),
            None => (text, None),
        };
        let wrong = || AccessError::Key(head.to_owned());
        match (head, rest) {
            ("", _) => Err(wrong()),
            ("kbs", Some(_)) => Ok(Self::Broker(text.to_owned())),
            ("provider", Some(rest)) => Ok(Self::Provider(rest.parse().map_err(|_| wrong())?)),
            (path, None) => Ok(Self::File { path: path.into(), password: None }),
            (path, Some(password)) => {
                let password = Some(Password::parse(password).ok_or_else(wrong)?);
                Ok(Self::File { path: path.into(), password })
            }
        }
    }
}

/// A key with what it is called.
pub struct NamedKey {
    /// As it was given, without its password.
    pub name: String,
    /// What it opens; a private key opens several schemes.
    pub unwraps: Vec<Box<dyn Unwrap>>,
}

/// Reads keys.
///
/// # Errors
/// When one can't be read or used.
pub fn unlocks(keys: &[Key], tools: &Tools<'_>) -> Result<Vec<NamedKey>, AccessError> {
    let (mut named, mut private, mut certificates) = (Vec::new(), Vec::new(), Vec::new());
    for key in keys {
        match key {
            Key::Broker(uri) => {
                let broker = |reason| AccessError::Broker { uri: uri.clone(), reason };
                let key: Box<dyn Unwrap> = Box::new((tools.broker_key)(uri).map_err(broker)?);
                named.push(NamedKey { name: uri.clone(), unwraps: vec![key] });
            }
            Key::Provider(ProviderArg { name, parameters }) => {
                let configured = tools.providers.ok_or_else(|| ConfigError::None(name.clone()))?;
                let key: Box<dyn Unwrap> = Box::new(configured.unwrapper(name, vec![parameters.clone()])?);
                named.push(NamedKey { name: format!("provider:{name}"), unwraps: vec![key] });
            }
            Key::File { path, password } => match open(path, password.as_ref(), tools)? {
                Opened::Certificate(certificate) => certificates.push((path, certificate)),
                Opened::Private(key) => private.push((path, Arc::new(key))),
                Opened::Other(key) => {
                    named.push(NamedKey { name: path.display().to_string(), unwraps: vec![key] });
                }
            },
        }
    }
    for (path, key) in &private {
        let name = path.display().to_string();
        let of_key = certificates.iter().find(|(_, certificate)| of(certificate, key));
        let mut pkcs7 = Pkcs7Unwrap::new(name.as_str(), Arc::clone(key));
        if let Some((_, certificate)) = of_key {
            pkcs7 = pkcs7.with_certificate(certificate.clone())?;
        }
        let unwraps: Vec<Box<dyn Unwrap>> =
            vec![Box::new(JweUnwrap::new(name.as_str(), Arc::clone(key))), Box::new(pkcs7)];
        named.push(NamedKey { name, unwraps });
    }
    for (path, certificate) in certificates {
        if !private.iter().any(|(_, key)| of(&certificate, key)) {
            return Err(AccessError::Certificate(path.clone()));
        }
    }
    Ok(named)
}

fn of(certificate: &Certificate, key: &PrivateKey) -> bool {
    key.public().is_some_and(|public: PublicKey| public == *certificate.public_key())
}

enum Opened {
    Private(PrivateKey),
    Certificate(Certificate),
    Other(Box<dyn Unwrap>),
}

/// By what the file holds, as with skopeo: names say nothing.
fn open(path: &Path, password: Option<&Password>, tools: &Tools<'_>) -> Result<Opened, AccessError> {
    let (bytes, file) = (read(path)?, path.display().to_string());
    let password = password.map(Password::read).transpose()?;
    let password = password.as_ref().map(|password| password.as_slice());
    if is_secret_key_file(&bytes) {
        return Ok(Opened::Other(Box::new(PgpKeys::read(&file, &bytes, password)?)));
    }
    if is_key_file(&bytes) {
        let key = KeyFile::parse(&file, &bytes)?;
        return Ok(Opened::Other(Box::new(Pkcs11Keys::new(key, tools.pkcs11.clone(), (tools.modules)()?))));
    }
    let key = match password {
        Some(password) => PrivateKey::parse_with_password(&bytes, password),
        None => PrivateKey::parse(&bytes),
    };
    match key {
        Ok(PrivateKey::Symmetric(key)) => {
            Ok(Opened::Other(Box::new(Shared { file, key: Zeroizing::new(*key.as_bytes()) })))
        }
        Ok(key) => Ok(Opened::Private(key)),
        Err(error) => match Certificate::parse(&bytes) {
            Ok(certificate) if error != KeyError::Encrypted && error != KeyError::Password => {
                Ok(Opened::Certificate(certificate))
            }
            _ => Err(AccessError::KeyFile { path: path.into(), source: error }),
        },
    }
}

/// 32 bytes that a broker holds under whatever URI the layer names.
struct Shared {
    file: String,
    key: Zeroizing<[u8; 32]>,
}

impl Unwrap for Shared {
    fn opens(&self, scheme: &Scheme) -> bool {
        Packet::scheme_fits(scheme)
    }

    fn name(&self) -> String {
        self.file.clone()
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<PrivateOptions, UnwrapError> {
        let packet =
            Packet::from_json(&wrapped.blob).map_err(|error| UnwrapError::Malformed(error.to_string()))?;
        let key = BrokerKey::new(&packet.kid, self.key.clone())
            .ok_or_else(|| UnwrapError::Malformed("kid is no kbs:/// URI".to_owned()))?;
        key.unwrap(wrapped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let parse = |text: &str| text.parse::<Key>().unwrap();
        let file = |password| Key::File { path: "k.pem".into(), password };
        let text = |text: &str| Some(Password::Text(Zeroizing::new(text.to_owned())));
        assert_eq!(parse("k.pem"), file(None));
        assert_eq!(parse("k.pem:secret"), file(text("secret")));
        assert_eq!(parse("k.pem:pass=a:b"), file(text("a:b")));
        assert_eq!(parse("k.pem:file=pw"), file(Some(Password::File("pw".into()))));
        assert_eq!(parse("k.pem:fd=7"), file(Some(Password::Descriptor(7))));
        assert_eq!(parse("kbs:///a/image-key/b"), Key::Broker("kbs:///a/image-key/b".to_owned()));
        let provider = ProviderArg { name: "kms".to_owned(), parameters: "x:y".to_owned() };
        assert_eq!(parse("provider:kms:x:y"), Key::Provider(provider));
        for bad in ["", ":secret", "k.pem:fd=x", "k.pem:file=", "provider:"] {
            let error = bad.parse::<Key>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(!format!("{:?}", parse("k.pem:secret")).contains("secret"));
    }
}
