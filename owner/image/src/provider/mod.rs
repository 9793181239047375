//! Key providers: programs and services outside of this one that wrap and unwrap layer keys, asked by ocicrypt's key
//! provider protocol as a command, over gRPC or over ttrpc. Each is sent the parameters that were given for it and
//! nothing else: no other recipient's keys, no private keys, no passwords.
//!
//! | module | what |
//! |---|---|
//! | `config`, `address` | `OCICRYPT_KEYPROVIDER_CONFIG` |
//! | `transport`, `command`, `grpc`, `tls`, `ttrpc`, `message` | one question and its answer |
//! | [`server`] | the other side of gRPC, for `sealpod keyprovider` |

mod address;
mod command;
mod config;
mod grpc;
mod message;
pub mod server;
mod tls;
mod transport;
mod ttrpc;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use encrypted_image::annotation::{Scheme, WrappedKey};
use encrypted_image::coco::{ATTESTATION_AGENT, Packet, SEALPOD};
use encrypted_image::keyprovider::{Reply, Request};
use encrypted_image::options::PrivateOptions;
use encrypted_image::wrap::{Unwrap, UnwrapError, Wrap, WrapError};
use thiserror::Error;
use zeroize::Zeroizing;

pub use address::{Address, AddressError};
pub use config::{ConfigError, Providers, VARIABLE};
pub use message::MAX_ANSWER;
pub use transport::Operation;

use config::Transport;

/// What a provider gets that was named without parameters, as ocicrypt does it.
const NO_PARAMETERS: &str = "Enabled";

/// `NAME[:PARAMETERS]`, what follows `provider:` in `--recipient` and `--key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderArg {
    /// The provider's name in the configuration, and in the annotation.
    pub name: String,
    /// What it gets: its own business.
    pub parameters: String,
}

/// A provider's argument without a name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "provider:NAME or provider:NAME:PARAMETERS is needed, with a name from the key provider configuration"
)]
pub struct ProviderArgError;

impl FromStr for ProviderArg {
    type Err = ProviderArgError;

    fn from_str(text: &str) -> Result<Self, ProviderArgError> {
        let (name, parameters) = match text.split_once(':') {
            Some((name, parameters)) if !parameters.is_empty() => (name, parameters),
            Some((name, _)) => (name, NO_PARAMETERS),
            None => (text, NO_PARAMETERS),
        };
        if name.is_empty() {
            return Err(ProviderArgError);
        }
        Ok(Self { name: name.to_owned(), parameters: parameters.to_owned() })
    }
}

/// The configuration in `path`, else the one that the environment names, else none.
///
/// # Errors
/// A configuration that is named has to be there and be readable.
pub fn configured(path: Option<&Path>) -> Result<Option<Providers>, ConfigError> {
    let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    match (path, named) {
        (Some(path), _) => Providers::load(path).map(Some),
        (None, Some(path)) => Providers::load(Path::new(&path)).map(Some),
        (None, None) => Ok(None),
    }
}

/// A provider with the parameters for it.
#[derive(Clone)]
struct Provider {
    name: String,
    transport: Transport,
    parameters: Vec<String>,
}

impl Providers {
    /// Wraps by the provider `name`. All its parameters go into one question, as ocicrypt does it, and come to
    /// one wrapped key.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`].
    pub fn wrapper(&self, name: &str, parameters: Vec<String>) -> Result<ProviderWrap, ConfigError> {
        self.provider(name, parameters).map(ProviderWrap)
    }

    /// Unwraps by the provider `name` what was wrapped by it.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`].
    pub fn unwrapper(&self, name: &str, parameters: Vec<String>) -> Result<ProviderUnwrap, ConfigError> {
        self.provider(name, parameters).map(ProviderUnwrap)
    }

    fn provider(&self, name: &str, parameters: Vec<String>) -> Result<Provider, ConfigError> {
        let transport = self.transport(name)?;
        Ok(Provider { name: name.to_owned(), transport, parameters })
    }
}

impl Provider {
    fn scheme(&self) -> Scheme {
        Scheme::Provider(self.name.clone())
    }

    fn label(&self) -> String {
        format!("key provider '{}'", self.name)
    }

    fn parameters(&self) -> Vec<Zeroizing<Vec<u8>>> {
        self.parameters.iter().map(|parameter| Zeroizing::new(parameter.clone().into_bytes())).collect()
    }

    fn ask(&self, operation: Operation, request: &Request) -> Result<Zeroizing<Vec<u8>>, String> {
        transport::ask(&self.transport, operation, &request.to_json()).map_err(|error| error.to_string())
    }
}

/// A key provider that wraps.
pub struct ProviderWrap(Provider);

impl Wrap for ProviderWrap {
    fn scheme(&self) -> Scheme {
        self.0.scheme()
    }

    fn wrap(&self, private: &PrivateOptions) -> Result<Vec<u8>, WrapError> {
        let failed = |reason: String| WrapError::Failed { by: self.0.label(), reason };
        let request = Request::wrap(&self.0.name, self.0.parameters(), private.to_json());
        let reply = self.0.ask(Operation::Wrap, &request).map_err(failed)?;
        let wrapped = Reply::wrapped(&reply).map_err(|error| failed(error.to_string()))?;
        check(&self.0, &wrapped, private).map_err(failed)?;
        Ok(wrapped)
    }
}

/// What can be seen of a wrapped key from outside: a provider that hands back what it was given has wrapped
/// nothing, and one that answers with a packet for another key would make an image that nobody can open.
fn check(provider: &Provider, wrapped: &[u8], private: &PrivateOptions) -> Result<(), String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let key = private.key();
    let clear = [
        Zeroizing::new(key.to_vec()),
        Zeroizing::new(STANDARD_NO_PAD.encode(key).into_bytes()),
        Zeroizing::new(URL_SAFE_NO_PAD.encode(key).into_bytes()),
        Zeroizing::new(STANDARD_NO_PAD.encode(private.to_json().as_slice()).into_bytes()),
        Zeroizing::new(hex::encode(key).into_bytes()),
    ];
    let holds =
        |part: &Zeroizing<Vec<u8>>| wrapped.windows(part.len()).any(|window| window == part.as_slice());
    if clear.iter().any(holds) {
        return Err("its answer holds the layer's key in clear".into());
    }
    if provider.name != SEALPOD && provider.name != ATTESTATION_AGENT {
        return Ok(());
    }
    let packet = Packet::from_json(wrapped).map_err(|error| format!("its answer is {error}"))?;
    match provider.parameters.as_slice() {
        [uri] if provider.name == SEALPOD && packet.resource() != *uri => {
            Err(format!("it wrapped for the key {}, not for {uri}", packet.resource()))
        }
        _ => Ok(()),
    }
}

impl fmt::Debug for ProviderWrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.label())
    }
}

/// A key provider that unwraps.
pub struct ProviderUnwrap(Provider);

impl Unwrap for ProviderUnwrap {
    fn opens(&self, scheme: &Scheme) -> bool {
        *scheme == self.0.scheme()
    }

    fn name(&self) -> String {
        self.0.label()
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<PrivateOptions, UnwrapError> {
        if !self.opens(&wrapped.scheme) {
            return Err(UnwrapError::NotRecipient);
        }
        let request = Request::unwrap(&self.0.name, self.0.parameters(), wrapped.blob.clone());
        let reply = self.0.ask(Operation::Unwrap, &request).map_err(UnwrapError::Failed)?;
        let options = Reply::unwrapped(&reply).map_err(|error| UnwrapError::Failed(error.to_string()))?;
        Ok(PrivateOptions::from_json(&options)?)
    }
}

impl fmt::Debug for ProviderUnwrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let arg = |name: &str, parameters: &str| {
            Ok(ProviderArg { name: name.into(), parameters: parameters.into() })
        };
        assert_eq!("sealpod:kbs:///a/image-key/b".parse(), arg("sealpod", "kbs:///a/image-key/b"));
        assert_eq!("simple".parse(), arg("simple", "Enabled"));
        assert_eq!("simple:".parse(), arg("simple", "Enabled"));
        assert_eq!(":x".parse::<ProviderArg>(), Err(ProviderArgError));
        assert_eq!("".parse::<ProviderArg>(), Err(ProviderArgError));
    }
}
