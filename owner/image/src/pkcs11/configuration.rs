//! Which PKCS #11 libraries may be loaded: ocicrypt's configuration file, of which only the `pkcs11` part is used.
//! Nothing is loaded from a place that it does not allow, whatever a URI says.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use encrypted_image::pkcs11::token::Modules;
use encrypted_image::pkcs11::uri::plain_absolute;
use serde::Deserialize;

/// The largest configuration file, in bytes.
const FILE_LIMIT: u64 = 64 << 10;

/// Directories and files in it.
const MAX_PATHS: usize = 64;

/// Where distributions keep their modules: allowed when no configuration says otherwise.
const DEFAULT_DIRECTORIES: [&str; 5] = [
    "/usr/lib64/pkcs11/",         // Fedora, RHEL, openSUSE
    "/usr/lib/pkcs11/",           // Fedora, Arch
    "/usr/local/lib/pkcs11/",     // built by hand
    "/usr/lib/softhsm/",          // Debian's SoftHSM
    "/usr/lib/x86_64-linux-gnu/", // Debian: opensc-pkcs11.so, p11-kit-proxy.so
];

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file can't be read.
    #[error("{}: can't be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Its YAML.
    #[error("{path}: not a configuration for PKCS #11 modules: {reason}")]
    Yaml {
        /// The file.
        path: String,
        /// Where and why.
        reason: String,
    },
    /// A path in it.
    #[error("{path}: '{entry}' must be an absolute path without '.' and '..'")]
    Path {
        /// The file.
        path: String,
        /// What it says.
        entry: String,
    },
}

#[derive(Deserialize, Default)]
struct File {
    #[serde(default)]
    pkcs11: Section,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Section {
    #[serde(default)]
    module_directories: Vec<String>,
    #[serde(default)]
    allowed_module_paths: Vec<String>,
}

/// Which libraries may be loaded, and where they are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration(pub(super) Modules);

impl Default for Configuration {
    /// The directories where distributions keep their modules.
    fn default() -> Self {
        let directories: Vec<String> = DEFAULT_DIRECTORIES.map(str::to_owned).to_vec();
        Self(Modules { allowed: directories.clone(), directories })
    }
}

impl Configuration {
    /// Reads the text of a file; `path` is its name, for errors. A file without `allowed-module-paths` allows what
    /// is in its `module-directories`, not everything.
    ///
    /// # Errors
    /// When it isn't YAML of that form, or a path isn't absolute.
    pub fn parse(path: &str, text: &str) -> Result<Self, ConfigurationError> {
        let bad = |reason: String| ConfigurationError::Yaml { path: path.to_owned(), reason };
        let File { pkcs11 } = serde_saphyr::from_str(text).map_err(|error| bad(error.to_string()))?;
        let Section { module_directories: mut directories, allowed_module_paths: mut allowed } = pkcs11;
        if directories.len() > MAX_PATHS || allowed.len() > MAX_PATHS {
            return Err(bad(format!("more than {MAX_PATHS} paths")));
        }
        for entry in directories.iter().chain(&allowed) {
            if !plain_absolute(entry) {
                return Err(ConfigurationError::Path { path: path.to_owned(), entry: entry.clone() });
            }
        }
        for directory in directories.iter_mut().filter(|directory| !directory.ends_with('/')) {
            directory.push('/');
        }
        if allowed.is_empty() {
            allowed.clone_from(&directories);
        }
        Ok(Self(Modules { directories, allowed }))
    }

    /// What ocicrypt would use: `$OCICRYPT_CONFIG` (`internal` for the defaults), then
    /// `$XDG_CONFIG_HOME/ocicrypt.conf`, `$HOME/.config/ocicrypt.conf`, `/etc/ocicrypt.conf`, then the defaults.
    /// A file that is there and wrong is an error; so is one that `$OCICRYPT_CONFIG` names and that isn't there.
    ///
    /// # Errors
    /// When a file can't be read or used.
    pub fn load(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigurationError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        if let Some(named) = variable("OCICRYPT_CONFIG") {
            if named == "internal" {
                return Ok(Self::default());
            }
            return Self::read(Path::new(&named));
        }
        let places = [
            variable("XDG_CONFIG_HOME").map(|home| Path::new(&home).join("ocicrypt.conf")),
            variable("HOME").map(|home| Path::new(&home).join(".config/ocicrypt.conf")),
            Some("/etc/ocicrypt.conf".into()),
        ];
        for path in places.into_iter().flatten() {
            match Self::read(&path) {
                Err(ConfigurationError::Read { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        Ok(Self::default())
    }

    fn read(path: &Path) -> Result<Self, ConfigurationError> {
        let failed = |source| ConfigurationError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = String::new();
        file.take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(failed)?;
        let name = path.display().to_string();
        if text.len() as u64 > FILE_LIMIT {
            return Err(ConfigurationError::Yaml {
                path: name,
                reason: format!("more than {FILE_LIMIT} bytes"),
            });
        }
        Self::parse(&name, &text)
    }
}
