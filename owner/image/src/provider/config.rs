//! The file that names key providers: `OCICRYPT_KEYPROVIDER_CONFIG`, as ocicrypt (`cmd`, `grpc`, `grpc-tls`) and
//! the confidential containers' readers (`ttrpc`) have it:
//! `{"key-providers":{"NAME":{"cmd":{"path":"/usr/bin/x","args":[]}}}}`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use super::address::{Address, AddressError};

/// The environment variable that names the file.
pub const VARIABLE: &str = "OCICRYPT_KEYPROVIDER_CONFIG";
/// Longest configuration, in bytes.
const LIMIT: u64 = 256 * 1024;
/// Names that ocicrypt itself gives parameters: a provider of such a name would be handed keys as its own.
const TAKEN: [&str; 13] = [
    "pubkeys",
    "privkeys",
    "privkeys-passwords",
    "x509s",
    "gpg-recipients",
    "gpg-pubkeyringfile",
    "gpg-privatekeys",
    "gpg-privatekeys-passwords",
    "pkcs11-config",
    "pkcs11-pubkeys",
    "pkcs11-yamls",
    "dummy",
    "",
];

/// Why there are no key providers.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("key provider configuration {path}: reading failed: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Longer than any configuration.
    #[error("key provider configuration {path}: longer than {LIMIT} bytes; is it the right file?")]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// Not the JSON that is needed.
    #[error("key provider configuration {path}: {source}")]
    Json {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// An entry that can't be used.
    #[error("key provider configuration {path}: provider '{name}' {problem}")]
    Provider {
        /// Which file.
        path: PathBuf,
        /// Which entry.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No such entry.
    #[error(
        "key provider '{name}' is not in {path}, which has {present}; add it there, or take one of those"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
        /// What is there.
        present: String,
    },
    /// No file was named.
    #[error("key provider '{0}' is not known: name a configuration with --keyprovider-config or {VARIABLE}")]
    None(String),
}

/// How a provider is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// One JSON on its standard input, one on its standard output.
    Command(Command),
    /// gRPC, in clear or over TLS.
    Grpc(Address, Option<GrpcTls>),
    /// ttrpc over a unix socket: `unix://…`.
    Ttrpc(String),
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Command {
    pub(super) path: PathBuf,
    #[serde(default, deserialize_with = "absent_or_null")]
    pub(super) args: Vec<String>,
    /// Variables of this program's environment that it needs beside those that all get; ours.
    #[serde(default)]
    pub(super) env: Vec<String>,
}

/// TLS of a gRPC provider, in ocicrypt's spelling.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct GrpcTls {
    /// CA certificates, PEM; without it the system's count.
    #[serde(default)]
    pub(super) root_ca_file: Option<PathBuf>,
    /// The client's certificates, PEM, its own first.
    #[serde(default)]
    pub(super) cert_file: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(default)]
    pub(super) key_file: Option<PathBuf>,
    /// What the certificate has to be for, if not the address's host.
    #[serde(default)]
    pub(super) server_name: Option<String>,
    #[serde(default)]
    insecure_skip_verify: bool,
}

/// Go writes an absent list as null.
fn absent_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "key-providers")]
    key_providers: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    cmd: Option<Command>,
    grpc: Option<String>,
    #[serde(rename = "grpc-tls")]
    grpc_tls: Option<GrpcTls>,
    ttrpc: Option<String>,
    native: Option<serde::de::IgnoredAny>,
}

/// The key providers of one configuration.
#[derive(Clone, Debug)]
pub struct Providers {
    path: PathBuf,
    transports: BTreeMap<String, Transport>,
}

impl Providers {
    /// Reads a configuration. That a file isn't there is an error: a missing provider must not mean that
    /// nothing is encrypted for it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        let mut text = Vec::new();
        File::open(path).map_err(read)?.take(LIMIT + 1).read_to_end(&mut text).map_err(read)?;
        if text.len() as u64 > LIMIT {
            return Err(ConfigError::TooLong { path: path.into() });
        }
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self, ConfigError> {
        let document: Document =
            serde_json::from_slice(text).map_err(|source| ConfigError::Json { path: path.into(), source })?;
        let mut transports = BTreeMap::new();
        for (name, entry) in document.key_providers {
            let transport = transport(&name, entry).map_err(|problem| ConfigError::Provider {
                path: path.into(),
                name: name.clone(),
                problem,
            })?;
            transports.insert(name, transport);
        }
        Ok(Self { path: path.into(), transports })
    }

    /// Whether there is a provider of that name.
    pub fn has(&self, name: &str) -> bool {
        self.transports.contains_key(name)
    }

    pub(super) fn transport(&self, name: &str) -> Result<Transport, ConfigError> {
        self.transports.get(name).cloned().ok_or_else(|| {
            let names: Vec<_> = self.transports.keys().map(|name| format!("'{name}'")).collect();
            ConfigError::Unknown {
                name: name.to_owned(),
                path: self.path.clone(),
                present: if names.is_empty() { "none".into() } else { names.join(", ") },
            }
        })
    }
}

fn transport(name: &str, entry: Entry) -> Result<Transport, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if TAKEN.contains(&name) || name.len() > 64 || !name.bytes().all(plain) {
        return Err(
            "can't have this name: letters, digits, '-', '_' and '.' of no other meaning are needed".into()
        );
    }
    if entry.native.is_some() {
        return Err("is 'native', which only runs inside its own program; give cmd, grpc or ttrpc".into());
    }
    // Of two ways ocicrypt silently takes the command; here it is said which one is meant.
    match (entry.cmd, entry.grpc.filter(|text| !text.is_empty()), entry.ttrpc.filter(|text| !text.is_empty()))
    {
        (Some(command), None, None) if entry.grpc_tls.is_none() => check_command(command),
        (None, Some(address), None) => {
            let address = address.parse().map_err(|error: AddressError| error.to_string())?;
            let tls = entry.grpc_tls.map(check_tls).transpose()?;
            if tls.is_some() && !matches!(address, Address::Tcp { .. }) {
                return Err("has grpc-tls for a unix socket; leave it out".into());
            }
            if tls.is_none() && !address.is_local() {
                return Err(format!(
                    "is at {address} without grpc-tls: layers' keys would cross the network in clear; give grpc-tls, or \
                     reach it by loopback or unix:PATH"
                ));
            }
            Ok(Transport::Grpc(address, tls))
        }
        (None, None, Some(address)) if entry.grpc_tls.is_none() => match address.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') && path.len() > 1 => Ok(Transport::Ttrpc(address)),
            _ => Err("has a ttrpc address that is not unix:///PATH".into()),
        },
        (None, None, None) => Err("has neither cmd, grpc nor ttrpc".into()),
        _ => Err("needs exactly one of cmd, grpc (with or without grpc-tls) and ttrpc".into()),
    }
}

fn check_command(command: Command) -> Result<Transport, String> {
    if !command.path.is_absolute() {
        return Err(format!(
            "has the command '{}'; the whole path is needed, so that it is always the same program",
            command.path.display()
        ));
    }
    Ok(Transport::Command(command))
}

fn check_tls(tls: GrpcTls) -> Result<GrpcTls, String> {
    if tls.insecure_skip_verify {
        return Err("has insecure-skip-verify, with which keys go to whoever answers; give its CA as \
                    root-ca-file instead"
            .into());
    }
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        return Err("has one of cert-file and key-file; a client certificate needs both".into());
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(entry: &str) -> Result<Transport, String> {
        let text = format!(r#"{{"key-providers":{{"acme":{entry}}}}}"#);
        let providers =
            Providers::parse(Path::new("c.json"), text.as_bytes()).map_err(|error| error.to_string())?;
        providers.transport("acme").map_err(|error| error.to_string())
    }

    #[test]
    fn each_way_is_read() {
        let command = |args: &[&str]| {
            let args = args.iter().map(|&arg| arg.to_owned()).collect();
            Ok(Transport::Command(Command { path: "/bin/x".into(), args, env: Vec::new() }))
        };
        assert_eq!(parse(r#"{"cmd":{"path":"/bin/x","args":["a","b"]}}"#), command(&["a", "b"]));
        assert_eq!(parse(r#"{"cmd":{"path":"/bin/x"}}"#), command(&[]));
        assert_eq!(parse(r#"{"cmd":{"path":"/bin/x","args":null},"grpc":""}"#), command(&[]));
        let grpc = |entry: &str| match parse(entry) {
            Ok(Transport::Grpc(address, tls)) => (address, tls.is_some()),
            other => panic!("{other:?}"),
        };
        let tcp = |host: &str| Address::Tcp { host: host.into(), port: 5 };
        for host in ["localhost", "127.0.0.1", "127.1.2.3"] {
            assert_eq!(grpc(&format!(r#"{{"grpc":"{host}:5"}}"#)), (tcp(host), false));
        }
        assert_eq!(grpc(r#"{"grpc":"[::1]:5"}"#), (tcp("::1"), false));
        let tls = r#"{"grpc":"kms.example:5","grpc-tls":{"server-name":"k","insecure-skip-verify":false,
            "cert-file":"c","key-file":"k","root-ca-file":"r"}}"#;
        assert_eq!(grpc(tls), (tcp("kms.example"), true));
        let ttrpc = "unix:///run/confidential-containers/attestation-agent/keyprovider.sock";
        assert_eq!(parse(&format!(r#"{{"ttrpc":"{ttrpc}"}}"#)), Ok(Transport::Ttrpc(ttrpc.into())));
    }

    #[test]
    fn entries_that_are_not_clear_are_refused() {
        for (entry, part) in [
            ("{}", "neither cmd"),
            (r#"{"path":"/bin/x","args":[]}"#, "neither cmd"),
            (r#"{"cmd":{"path":"/bin/x"},"grpc":"a:1"}"#, "exactly one"),
            (r#"{"cmd":{"path":"/bin/x"},"grpc-tls":{}}"#, "exactly one"),
            (r#"{"cmd":{"path":"x"}}"#, "the whole path"),
            (r#"{"grpc":"nowhere"}"#, "HOST:PORT"),
            (r#"{"grpc":"a:1","grpc-tls":{"insecure-skip-verify":true}}"#, "insecure-skip-verify"),
            (r#"{"grpc":"a:1","grpc-tls":{"cert-file":"c"}}"#, "needs both"),
            (r#"{"grpc":"kms.example:1"}"#, "in clear"),
            (r#"{"grpc":"192.0.2.1:1"}"#, "in clear"),
            (r#"{"grpc":"[2001:db8::1]:1"}"#, "in clear"),
            (r#"{"grpc":"0.0.0.0:1"}"#, "in clear"),
            (r#"{"grpc":"localhost.example:1"}"#, "in clear"),
            (r#"{"grpc":"a:1","grpc-tls":{"ca":"c"}}"#, "unknown field"),
            (r#"{"grpc":"unix:/run/x","grpc-tls":{}}"#, "unix socket"),
            (r#"{"ttrpc":"vsock://2:1"}"#, "unix:///PATH"),
            (r#"{"ttrpc":"unix://"}"#, "unix:///PATH"),
            (r#"{"native":"attestation-agent"}"#, "native"),
        ] {
            let error = parse(entry).unwrap_err();
            assert!(error.contains(part), "{entry}: {error}");
        }
    }

    #[test]
    fn a_provider_cannot_have_the_name_of_other_recipients_parameters() {
        for name in ["privkeys", "pubkeys", "gpg-privatekeys-passwords", "", "a b", "a/b"] {
            let text = format!(r#"{{"key-providers":{{"{name}":{{"cmd":{{"path":"/x"}}}}}}}}"#);
            let error = Providers::parse(Path::new("c.json"), text.as_bytes()).unwrap_err();
            assert!(matches!(error, ConfigError::Provider { .. }), "{name}: {error}");
        }
    }

    #[test]
    fn files_that_are_no_configuration_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("providers.json");
        assert!(matches!(Providers::load(&path), Err(ConfigError::Read { .. })));
        for text in ["", "[]", "{}", r#"{"key-providers":[]}"#, r#"{"key-providers":{}} x"#] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Providers::load(&path), Err(ConfigError::Json { .. })), "{text}");
        }
        std::fs::write(&path, vec![b' '; LIMIT as usize + 1]).unwrap();
        assert!(matches!(Providers::load(&path), Err(ConfigError::TooLong { .. })));
        std::fs::write(&path, r#"{"key-providers":{"a":{"grpc":"[::1]:1"}}}"#).unwrap();
        let error = Providers::load(&path).unwrap().transport("b").unwrap_err();
        assert!(error.to_string().contains("which has 'a'"), "{error}");
    }
}
