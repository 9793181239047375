//! The wrapper's settings: one small strict TOML file. Relative paths are taken from the file's own directory.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::broker::{Connect, Url};
use crate::qmp;

/// Where the settings are, unless [`VARIABLE`] says otherwise.
pub const DEFAULT: &str = "/etc/sealpod/relay.toml";
/// Names the file.
pub const VARIABLE: &str = "SEALPOD_RELAY_CONFIG";
const MAX_BYTES: u64 = 64 * 1024;
/// Longest time-out in seconds.
const LONGEST: u64 = 3600;

/// Why settings can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file can't be read.
    #[error("{path} can't be read; write one like deploy/kata/relay.toml, or name one in ${VARIABLE}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is longer than any real one.
    #[error("{path} is longer than {MAX_BYTES} bytes; is it the right file?")]
    Long {
        /// The file.
        path: PathBuf,
    },
    /// Not the TOML that the wrapper knows.
    #[error("{path}: {detail}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        detail: String,
    },
    /// A value makes no sense.
    #[error("{path}: {key} {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// The settings, checked, with paths resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The real QEMU, and words that come before the caller's.
    pub qemu: Vec<String>,
    /// The broker's URL.
    pub broker: Url,
    /// The broker's CA certificates, PEM.
    pub broker_ca: String,
    /// Where to connect, if not to the URL's host and port.
    pub connect: Option<Connect>,
    /// SEV-ES; none: what a guest policy on the command line says, else SEV.
    pub es: Option<bool>,
    /// A file with [`Capabilities`](qmp::Capabilities), instead of asking QEMU.
    pub platform: Option<PathBuf>,
    /// Instead of the platform's own.
    pub cbitpos: Option<u32>,
    /// Instead of the platform's own.
    pub reduced_phys_bits: Option<u32>,
    /// For private directories of launches.
    pub runtime_dir: PathBuf,
    /// Time-outs.
    pub seconds: Seconds,
}

/// Time-outs in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seconds {
    /// For asking QEMU about the platform.
    pub probe: u64,
    /// For QEMU to set the guest up: memory is pinned and encrypted.
    pub start: u64,
    /// For QEMU's answer to a command after that.
    pub qmp: u64,
    /// For connecting to the broker.
    pub connect: u64,
    /// For the broker's answer.
    pub broker: u64,
}

impl Default for Seconds {
    fn default() -> Self {
        Self { probe: 30, start: 120, qmp: 30, connect: 10, broker: 30 }
    }
}

impl Seconds {
    /// For the monitor of a guest that starts.
    pub(crate) fn of_launch(&self) -> qmp::Patience {
        qmp::Patience { start: Duration::from_secs(self.start), answer: Duration::from_secs(self.qmp) }
    }

    /// For the monitor of a QEMU without a guest.
    pub(crate) fn of_probe(&self) -> qmp::Patience {
        qmp::Patience { start: Duration::from_secs(self.probe), answer: Duration::from_secs(self.qmp) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    qemu: Program,
    broker: String,
    broker_ca: PathBuf,
    connect: Option<String>,
    es: Option<bool>,
    platform: Option<PathBuf>,
    cbitpos: Option<u32>,
    reduced_phys_bits: Option<u32>,
    #[serde(default = "runtime_dir")]
    runtime_dir: PathBuf,
    #[serde(default)]
    seconds: Seconds,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Program {
    Path(String),
    Words(Vec<String>),
}

fn runtime_dir() -> PathBuf {
    PathBuf::from("/run/sealpod/sev")
}

impl Config {
    /// Where the settings are.
    #[must_use]
    pub fn path() -> PathBuf {
        std::env::var_os(VARIABLE)
            .filter(|path| !path.is_empty())
            .map_or_else(|| DEFAULT.into(), PathBuf::from)
    }

    /// Reads and checks the settings.
    ///
    /// # Errors
    /// [`ConfigError`] that names the file and the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(&read(path)?).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            detail: error.to_string().trim_end().to_owned(),
        })?;
        let wrong = |key, problem: &str| {
            Err(ConfigError::Value { path: path.to_owned(), key, problem: problem.to_owned() })
        };
        let directory = path.parent().unwrap_or(Path::new(""));
        let qemu = match file.qemu {
            Program::Path(program) => vec![program],
            Program::Words(words) => words,
        };
        match qemu.first() {
            Some(program) if program.is_empty() => return wrong("qemu", "is empty"),
            Some(program) if is_this_program(Path::new(program)) => {
                return wrong("qemu", "names this wrapper; it must be the real QEMU");
            }
            Some(_) => {}
            None => {
                return wrong("qemu", "is empty; it is QEMU's path, and words that go before the caller's");
            }
        }
        let Ok(broker) = file.broker.parse() else {
            return wrong("broker", "must be https://host[:port] without path, user or query");
        };
        let Ok(connect) = file.connect.as_deref().map(str::parse).transpose() else {
            return wrong("connect", "must be HOST:PORT or unix:PATH");
        };
        let seconds = file.seconds;
        let all = [seconds.probe, seconds.start, seconds.qmp, seconds.connect, seconds.broker];
        if all.iter().any(|seconds| !(1..=LONGEST).contains(seconds)) {
            return wrong("seconds", "must be from 1 to 3600");
        }
        Ok(Self {
            qemu,
            broker,
            broker_ca: read(&directory.join(&file.broker_ca))?,
            connect,
            es: file.es,
            platform: file.platform.map(|path| directory.join(path)),
            cbitpos: file.cbitpos,
            reduced_phys_bits: file.reduced_phys_bits,
            runtime_dir: directory.join(file.runtime_dir),
            seconds,
        })
    }
}

/// A small text file, bounded.
pub(crate) fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(ConfigError::Long { path: path.to_owned() });
    }
    Ok(text)
}

/// The wrapper that starts itself as QEMU would do so for ever.
fn is_this_program(path: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    path.is_absolute() && id(path).is_some_and(|id_of| Some(id_of) == id(Path::new("/proc/self/exe")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "qemu = '/usr/bin/qemu-system-x86_64'\nbroker = 'https://broker.example:8443'\n\
                        broker_ca = 'ca.pem'\n";

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), "the ca").unwrap();
        fs::write(dir.path().join("relay.toml"), text).unwrap();
        Config::load(&dir.path().join("relay.toml"))
    }

    #[test]
    fn a_small_file_is_enough() {
        let config = load(GOOD).unwrap();
        assert_eq!(config.qemu, ["/usr/bin/qemu-system-x86_64"]);
        assert_eq!(config.broker_ca, "the ca");
        assert_eq!(config.runtime_dir, Path::new("/run/sealpod/sev"));
        assert_eq!(config.seconds, Seconds::default());
        let more =
            "connect = 'unix:/run/relay.sock'\nes = true\nseconds = { start = 300 }\nruntime_dir = 'r'\n";
        let config = load(&(GOOD.to_owned() + more)).unwrap();
        assert_eq!(config.connect, Some(Connect::Unix("/run/relay.sock".into())));
        assert_eq!((config.es, config.seconds.start, config.seconds.qmp), (Some(true), 300, 30));
        assert!(config.runtime_dir.is_absolute() && config.runtime_dir.ends_with("r"));
    }

    #[test]
    fn each_mistake_is_named() {
        let own = format!("'{}'", std::env::current_exe().unwrap().display());
        for (from, to, named) in [
            ("broker_ca", "broker_cert", "broker_cert"),
            ("'ca.pem'", "'no.pem'", "no.pem"),
            ("https://broker.example:8443", "http://broker.example:8443", "https://"),
            ("https://broker.example:8443", "https://broker.example/kbs", "https://"),
            ("'/usr/bin/qemu-system-x86_64'", "[]", "qemu"),
            ("'/usr/bin/qemu-system-x86_64'", own.as_str(), "real QEMU"),
            ("'ca.pem'", "'ca.pem'\nconnect = 'vsock:1'", "connect"),
            ("'ca.pem'", "'ca.pem'\nseconds = { qmp = 0 }", "seconds"),
            ("'ca.pem'", "'ca.pem'\nseconds = { qpm = 1 }", "qpm"),
        ] {
            assert!(GOOD.contains(from));
            let error = load(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(named), "{to}: {error}");
        }
        let long = GOOD.to_owned() + &"#".repeat(MAX_BYTES as usize);
        assert!(matches!(load(&long), Err(ConfigError::Long { .. })));
    }
}
