//! The broker's configuration: one strict TOML file, read whole before anything starts.
//!
//! Unknown keys are refused, relative paths are taken from the file's own directory, and there is no
//! default for anything that decides trust.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use verifier::TeeKind;

/// The repository of the operator's own resources, for stock clients. No owner can have it.
pub const COMPAT_REPOSITORY: &str = "compat";

/// Longest configuration file, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("configuration {path} can't be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is longer than any real configuration.
    #[error("configuration {path} is longer than {MAX_BYTES} bytes")]
    Length {
        /// The file.
        path: PathBuf,
    },
    /// The file isn't the TOML that this broker knows.
    #[error("configuration {path} is not valid")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why; boxed because it carries the offending line.
        source: Box<toml::de::Error>,
    },
    /// A value is outside what makes sense.
    #[error("configuration {path}: {key} {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key as written.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one and prints it.
    pub listen: SocketAddr,
    /// State directory: database, keys, the broker's own CA.
    pub state: PathBuf,
    /// DNS names and IP addresses that the server certificate is for.
    pub server_names: Vec<String>,
    /// Trust beyond AMD's roots, which are built in.
    #[serde(default)]
    pub trust: Trust,
    /// Where AMD's certificates and revocation lists come from.
    #[serde(default)]
    pub collateral: Collateral,
    /// What attestation tokens say about their issuer.
    #[serde(default)]
    pub token: Token,
    /// Resources for stock clients of the key broker protocol.
    #[serde(default)]
    pub compat: Compat,
    /// Bounds on what strangers may use.
    #[serde(default)]
    pub limits: Limits,
}

/// AMD's certificates and revocation lists: a cache, and whom to ask for what isn't in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Collateral {
    /// Cache directory; `collateral` in the state directory without it.
    pub cache: Option<PathBuf>,
    /// Base URLs of key distribution services, asked in this order. None: the cache alone.
    pub kds: Vec<String>,
    /// CA file for them; the system's CAs without it.
    pub ca: Option<PathBuf>,
    /// May a URL be `http://`, as a mirror's in the same site?
    pub allow_plain_http: bool,
    /// Seconds that an attestation waits for a fetch.
    pub wait_seconds: u64,
}

impl Default for Collateral {
    fn default() -> Self {
        Self { cache: None, kds: Vec::new(), ca: None, allow_plain_http: false, wait_seconds: 10 }
    }
}

impl Collateral {
    /// How long an attestation waits for a fetch: never so long that its own request ends unanswered.
    #[must_use]
    pub fn wait(&self, limits: &Limits) -> Duration {
        Duration::from_secs(self.wait_seconds).min(Duration::from_secs(limits.request_seconds) / 4 * 3)
    }
}

/// Trust anchors that the operator adds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// PEM files with the ARK of an emulated AMD-SP. For tests and demonstrations only.
    #[serde(default)]
    pub emulated_roots: Vec<PathBuf>,
    /// PEM files with the public keys of software TPMs, as the emulated ultravisor has one. For tests and
    /// demonstrations only.
    #[serde(default)]
    pub emulated_tpm_keys: Vec<PathBuf>,
    /// Files with ARK and ASK of an emulated SEV or SEV-ES platform, in AMD's form. For tests and demonstrations only.
    #[serde(default)]
    pub emulated_sev_arks: Vec<PathBuf>,
    /// Accept sample evidence, which anybody can make. It gets nothing but resources of the compat repository.
    #[serde(default)]
    pub sample: bool,
    /// Other brokers whose tokens stand for evidence.
    #[serde(default)]
    pub passport: Vec<Passport>,
}

/// Another broker whose tokens stand for evidence.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passport {
    /// `iss` of its tokens.
    pub issuer: String,
    /// What they must name in `aud`: this broker.
    pub audience: String,
    /// Its keys: a JWK set, or one public key as PEM.
    pub keys: PathBuf,
    /// Kinds of evidence, as policies name them, that it is trusted for.
    pub tee: Vec<String>,
}

/// What attestation tokens say about their issuer.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// `iss`, and the first of `aud`. Without it, `https://` and the first server name.
    pub issuer: Option<String>,
    /// Others in `aud`: who may take this broker's tokens.
    #[serde(default)]
    pub audiences: Vec<String>,
}

/// Who gets the resources of the compat repository.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compat {
    /// Kinds of evidence, as policies name them, and `sample`. Never PEF: any owner can enrol machines of their own.
    #[serde(default)]
    pub tee: Vec<String>,
    /// PEM files of public keys (Ed25519, P-256) whose tokens may write resources over the protocol.
    #[serde(default)]
    pub admin_keys: Vec<PathBuf>,
}

/// Bounds on connections, sessions, bodies and time.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address (a whole host's guests share their relay's address).
    pub connections_per_address: usize,
    /// Seconds for a TLS handshake, and again for a request's header.
    pub handshake_seconds: u64,
    /// Seconds for one request, from its header to its answer.
    pub request_seconds: u64,
    /// Seconds that a connection may live.
    pub connection_seconds: u64,
    /// Attestation sessions at once.
    pub sessions: usize,
    /// Attestation sessions at once from one address.
    pub sessions_per_address: usize,
    /// Seconds that a session, its nonce and its token live.
    pub session_seconds: u64,
    /// Bytes of an `/attest` body (evidence and initdata).
    pub attest_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_address: 128,
            handshake_seconds: 10,
            request_seconds: 30,
            connection_seconds: 600,
            sessions: 4096,
            sessions_per_address: 1024,
            session_seconds: 300,
            attest_bytes: 512 * 1024,
        }
    }
}

impl Limits {
    /// How long a session, its nonce and its token live.
    #[must_use]
    pub fn session_lifetime(&self) -> Duration {
        Duration::from_secs(self.session_seconds)
    }
}

impl Config {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file and the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > MAX_BYTES {
            return Err(ConfigError::Length { path: path.to_owned() });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text, path)
    }

    /// Checks `text`, as if read from `path`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file and the key.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        let base = path.parent().unwrap_or(Path::new(""));
        config.state = base.join(&config.state);
        let Trust { emulated_roots, emulated_tpm_keys, emulated_sev_arks, .. } = &mut config.trust;
        for root in emulated_roots.iter_mut().chain(emulated_tpm_keys).chain(emulated_sev_arks) {
            *root = base.join(&*root);
        }
        for path in config.collateral.cache.iter_mut().chain(&mut config.collateral.ca) {
            *path = base.join(&*path);
        }
        for key in &mut config.compat.admin_keys {
            *key = base.join(&*key);
        }
        for passport in &mut config.trust.passport {
            passport.keys = base.join(&passport.keys);
        }
        config.check().map_err(|(key, problem)| ConfigError::Value {
            path: path.to_owned(),
            key,
            problem,
        })?;
        Ok(config)
    }

    /// The name that this broker has in tokens.
    #[must_use]
    pub fn issuer(&self) -> String {
        let first = || format!("https://{}", self.server_names.first().map_or("", String::as_str));
        self.token.issuer.clone().unwrap_or_else(first)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        for kind in &self.compat.tee {
            let problem = match TeeKind::from_name(kind) {
                None => "which is no kind of evidence",
                Some(TeeKind::Pef | TeeKind::PefEmulated) => {
                    "which any owner can make with machines of their own: take it out"
                }
                Some(_) => continue,
            };
            return Err(("compat.tee", format!("names {kind:?}, {problem}")));
        }
        let mut issuers: Vec<_> = self.trust.passport.iter().map(|passport| &passport.issuer).collect();
        issuers.sort();
        issuers.dedup();
        if issuers.len() != self.trust.passport.len() {
            return Err(("trust.passport.issuer", "is there twice; give one entry all its keys".into()));
        }
        for Passport { issuer, audience, tee, .. } in &self.trust.passport {
            if issuer.is_empty() || audience.is_empty() || *issuer == self.issuer() {
                return Err((
                    "trust.passport",
                    "needs an issuer that is another broker, and an audience".into(),
                ));
            }
            if tee.is_empty() || tee.iter().any(|kind| kind != "snp" && kind != "snp-emulated") {
                return Err(("trust.passport.tee", "must name 'snp' or 'snp-emulated'".into()));
            }
        }
        if self.compat.tee.iter().any(|kind| kind == "sample") && !self.trust.sample {
            return Err(("compat.tee", "names 'sample', which trust.sample doesn't accept".into()));
        }
        if self.compat.admin_keys.len() > 8 {
            return Err(("compat.admin_keys", "must name at most 8 files".into()));
        }
        let names = self.token.audiences.iter().chain(&self.token.issuer);
        if self.token.audiences.len() > 16 || names.clone().any(|name| name.is_empty() || name.len() > 256) {
            return Err(("token", "needs names of 1 to 256 bytes, and at most 16 audiences".into()));
        }
        if self.server_names.is_empty() || self.server_names.len() > 32 {
            return Err((
                "server_names",
                "needs 1 to 32 DNS names or IP addresses that guests connect to".into(),
            ));
        }
        for name in &self.server_names {
            if rustls::pki_types::ServerName::try_from(name.as_str()).is_err() {
                return Err(("server_names", format!("{name:?} is neither a DNS name nor an IP address")));
            }
        }
        let limits = &self.limits;
        let bounds: [(&'static str, u64, u64, u64); 10] = [
            ("collateral.wait_seconds", self.collateral.wait_seconds, 1, 300),
            ("limits.connections", limits.connections as u64, 1, 65_536),
            ("limits.connections_per_address", limits.connections_per_address as u64, 1, 65_536),
            ("limits.handshake_seconds", limits.handshake_seconds, 1, 300),
            ("limits.request_seconds", limits.request_seconds, 1, 300),
            ("limits.connection_seconds", limits.connection_seconds, 1, 86_400),
            ("limits.sessions", limits.sessions as u64, 1, 1_000_000),
            ("limits.sessions_per_address", limits.sessions_per_address as u64, 1, 1_000_000),
            ("limits.session_seconds", limits.session_seconds, 1, 3_600),
            ("limits.attest_bytes", limits.attest_bytes as u64, 16 * 1024, 8 * 1024 * 1024),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err((key, format!("is {value}; it must be between {least} and {most}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
