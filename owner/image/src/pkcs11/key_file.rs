//! A key on a token as ocicrypt's YAML names it: `pkcs11: {uri: …}` and `module: {env: {…}}`.

use std::collections::BTreeMap;

use encrypted_image::pkcs11::uri::{Uri, UriError};
use serde::Deserialize;
use zeroize::Zeroizing;

/// The largest such file, in bytes.
const FILE_LIMIT: usize = 64 << 10;

/// Variables for the module.
const MAX_VARIABLES: usize = 32;

/// What a key file may set for its module: where the token is, and nothing that makes the loader, a library below the
/// module or a module that wraps others (`PKCS11SPY`, `HOME` for p11-kit, `OPENSC_CONF`'s drivers) run other code
/// than the configuration allows. A key file may be somebody else's.
const ALLOWED: [&str; 3] = ["SOFTHSM2_CONF", "SOFTHSM_CONF", "TPM2_PKCS11_STORE"];

/// A key file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Its YAML.
    #[error("{file}: not a PKCS #11 key file: {reason}")]
    Yaml {
        /// The file.
        file: String,
        /// Where and why; never a value.
        reason: String,
    },
    /// Its URI.
    #[error("{file}: {source}")]
    Uri {
        /// The file.
        file: String,
        /// What is wrong with it.
        #[source]
        source: UriError,
    },
    /// The URI names no object.
    #[error("{file}: the PKCS #11 URI names no key: add object or id")]
    NoObject {
        /// The file.
        file: String,
    },
    /// A variable that isn't known to name a token's place alone.
    #[error(
        "{file}: module.env may not set {name}, only {}: other variables can make a module run code that isn't \
         allowed; where the module needs one, set it in the environment of sealpod", ALLOWED.join(", ")
    )]
    Variable {
        /// The file.
        file: String,
        /// The variable.
        name: String,
    },
}

#[derive(Deserialize)]
struct Document {
    pkcs11: Key,
    #[serde(default)]
    module: Module,
}

#[derive(Deserialize)]
struct Key {
    uri: String,
}

#[derive(Deserialize, Default)]
struct Module {
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// One key on a token.
pub struct KeyFile {
    pub(super) file: String,
    /// With its PIN.
    pub(super) uri: Zeroizing<String>,
    pub(super) environment: BTreeMap<String, String>,
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFile")
            .field("file", &self.file)
            .field("key", &Uri::label(&self.uri))
            .finish_non_exhaustive()
    }
}

/// A YAML file of that form? A PEM or JWK file isn't.
pub fn is_key_file(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    bytes.len() <= FILE_LIMIT && text.lines().any(|line| line.trim_start().starts_with("pkcs11:"))
}

impl KeyFile {
    /// Reads the file's bytes; `file` is its name, for errors.
    ///
    /// # Errors
    /// When it isn't of that form, its URI is wrong, or it sets a variable that it may not.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, KeyFileError> {
        let named = || file.to_owned();
        let bad = |reason: &str| KeyFileError::Yaml { file: named(), reason: reason.to_owned() };
        if bytes.len() > FILE_LIMIT {
            return Err(bad("too large"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?;
        // The parser's own message would quote the line, and with it the PIN.
        let document: Document = serde_saphyr::from_str(text)
            .map_err(|_| bad("'pkcs11: {uri: …}' and optionally 'module: {env: {…}}' are expected"))?;
        let Document { pkcs11, module } = document;
        let uri = Zeroizing::new(pkcs11.uri);
        let parsed = Uri::parse(&uri).map_err(|source| KeyFileError::Uri { file: named(), source })?;
        if parsed.object.is_none() && parsed.id.is_none() {
            return Err(KeyFileError::NoObject { file: named() });
        }
        if module.env.len() > MAX_VARIABLES {
            return Err(bad("too many variables in module.env"));
        }
        for (name, value) in &module.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(bad("a variable of module.env is malformed"));
            }
            if !ALLOWED.contains(&name.as_str()) {
                return Err(KeyFileError::Variable { file: named(), name: name.clone() });
            }
        }
        Ok(Self { file: named(), uri, environment: module.env })
    }

    /// What to call the key: the file and the URI without its query.
    pub fn name(&self) -> String {
        format!("{} ({})", self.file, Uri::label(&self.uri))
    }
}
