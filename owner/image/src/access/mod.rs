//! Who may open an image, as the command line says it: recipients to encrypt for, keys to decrypt with. The
//! words are those of skopeo and ctr, so that commands can be carried over.

mod key;
mod password;
mod recipient;

use std::io;
use std::path::PathBuf;

use encrypted_image::coco::BrokerKey;
use encrypted_image::jwe::JweError;
use encrypted_image::keys::KeyError;
use encrypted_image::pkcs7::Pkcs7Error;
use thiserror::Error;

use crate::pgp::{GnupgError, PgpError};
use crate::pkcs11::{Configuration, ConfigurationError, Helper, KeyFileError, RecipientError};
use crate::provider::{ConfigError, Providers};

pub use key::{Key, NamedKey, unlocks};
pub use password::Password;
pub use recipient::{Recipient, Wraps, wraps};

/// Longest key, certificate or keyring file.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

/// What keys and recipients need of the world around.
pub struct Tools<'a> {
    /// The key of a URI `kbs:///…`, from wherever the owner keeps it; or why not.
    pub broker_key: &'a dyn Fn(&str) -> Result<BrokerKey, String>,
    /// Key providers, where any are configured.
    pub providers: Option<&'a Providers>,
    /// The program that speaks to PKCS #11 tokens.
    pub pkcs11: Helper,
    /// Which PKCS #11 modules may be loaded.
    pub modules: &'a dyn Fn() -> Result<Configuration, ConfigurationError>,
    /// The hash of RSA-OAEP for PKCS #11 recipients, by the name ocicrypt gives it.
    pub oaep_hash: Option<String>,
    /// Seconds since 1970: OpenPGP keys expire.
    pub now: u64,
}

/// Why a recipient or key can't be used.
#[derive(Debug, Error)]
pub enum AccessError {
    /// Not one of the words.
    #[error(
        "recipient '{0}' is none of jwe:PUBLIC_KEY, pkcs7:CERTIFICATE, pgp:NAME[@KEYRING], pkcs11:FILE, provider:NAME[:PARAMETERS], kbs:///REPOSITORY/image-key/TAG"
    )]
    Recipient(String),
    /// Not one of the words.
    #[error(
        "key '{0}' is none of FILE, FILE:pass=PASSWORD, FILE:file=PASSWORD_FILE, FILE:fd=NUMBER, provider:NAME[:PARAMETERS], kbs:///REPOSITORY/image-key/TAG"
    )]
    Key(String),
    /// A file that can't be read.
    #[error("{path}: reading failed: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that is no key or certificate.
    #[error("{path}: {source}")]
    KeyFile {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// A certificate beside keys that aren't its own.
    #[error("{0}: the certificate is of none of the private keys that were given; give its key with --key")]
    Certificate(PathBuf),
    /// JWE recipients.
    #[error("recipient jwe: {0}")]
    Jwe(#[from] JweError),
    /// PKCS #7 recipients.
    #[error("recipient pkcs7: {0}")]
    Pkcs7(#[from] Pkcs7Error),
    /// OpenPGP keys.
    #[error(transparent)]
    Pgp(#[from] PgpError),
    /// GnuPG's keyring.
    #[error(transparent)]
    Gnupg(#[from] GnupgError),
    /// A PKCS #11 key file.
    #[error(transparent)]
    Pkcs11(#[from] KeyFileError),
    /// A PKCS #11 recipient.
    #[error("recipient pkcs11: {0}")]
    Token(#[from] RecipientError),
    /// Which PKCS #11 modules may be used.
    #[error(transparent)]
    Modules(#[from] ConfigurationError),
    /// A key at a broker.
    #[error("{uri}: {reason}")]
    Broker {
        /// Its URI.
        uri: String,
        /// Why it isn't at hand.
        reason: String,
    },
    /// A key provider.
    #[error(transparent)]
    Provider(#[from] ConfigError),
}

fn read(path: &std::path::Path) -> Result<zeroize::Zeroizing<Vec<u8>>, AccessError> {
    use std::io::Read as _;
    let failed = |source| AccessError::Read { path: path.into(), source };
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > FILE_LIMIT {
        true => Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "longer than any key file"))),
        false => Ok(bytes),
    }
}
