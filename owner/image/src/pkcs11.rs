//! The `pkcs11` key wrapper: RSA-OAEP over the private options, with keys on tokens. Public keys from PEM are used
//! here; a token is only touched by the program `sealpod-pkcs11`, which loads the vendor's library.

mod configuration;
mod helper;
mod key_file;
mod keys;
mod recipients;
#[cfg(test)]
mod tests;

pub use configuration::{Configuration, ConfigurationError};
pub use encrypted_image::pkcs11::OaepHash;
pub use helper::{Helper, HelperError};
pub use key_file::{KeyFile, KeyFileError, is_key_file};
pub use keys::Pkcs11Keys;
pub use recipients::{Pkcs11Recipients, RecipientError};
