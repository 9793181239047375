//! OCI image layer encryption as ocicrypt writes it: media types, annotations, the cipher, key wrappers.
//! Pure data: no I/O. Nothing here trusts a byte that a registry sent.
//!
//! [`layer`] says of a descriptor whether its layer is encrypted; [`annotation`] reads what the registry holds,
//! [`options`] what it means, [`wrap`] opens the wrapped keys with a [`wrap::Keyring`], and [`cipher`] with
//! [`authenticate`] decrypts. Only an [`authenticate::Authenticated`] lets a decrypted layer be published.
//! Wrappers: [`jwe`], [`pkcs7`], [`coco`]; [`pkcs11`] and [`keyprovider`] are messages for programs that hold the key.

#[cfg(test)]
extern crate self as encrypted_image; // what tests/ and unit tests share says so
#[cfg(test)]
#[path = "../tests/peers/mod.rs"]
mod peers;

pub mod annotation;
pub mod authenticate;
pub mod cipher;
pub mod coco;
mod encoding;
pub mod jwe;
pub mod keyprovider;
pub mod keys;
pub mod layer;
pub mod media_type;
pub mod options;
pub mod pkcs11;
pub mod pkcs7;
pub mod wrap;

pub use annotation::{EncryptedLayer, FormatError, Scheme, WrappedKey};
pub use authenticate::{Authenticated, DigestCheck, MacCheck, Staged};
pub use cipher::{CipherError, Decryptor, Encryptor, Keystream, Mac};
pub use layer::{Layer, LayerError};
pub use media_type::{Compression, Family, LayerMediaType};
pub use options::{OptionsError, PrivateOptions, PublicOptions, Warning};
pub use wrap::{Keyring, NotAuthorised, Unwrap, UnwrapError, Wrap, WrapError};
