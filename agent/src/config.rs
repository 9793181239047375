//! What the runtime configured: parameters of the kernel command line (`agent.*`), or the TOML file that
//! the stock agent reads, with the stock names and units.
//!
//! In a sealed VM only what can't weaken it has an effect; the rest is named in a record.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// The one parameter that is ours.
const UNSEALED: &str = "sealpod.unsealed";
/// Longest time-out that a parameter can set.
const MAX_SECONDS: u64 = 24 * 60 * 60;
/// Largest pipe that a container's stream gets.
const MAX_PIPE: u32 = 16 * 1024 * 1024;

/// Where the agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A vsock port of the guest, for the host alone.
    Vsock(u32),
    /// A unix socket: an agent that runs outside a VM.
    Unix(PathBuf),
}

/// The configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A plain Kata agent.
    pub unsealed: bool,
    /// Where calls come from.
    pub address: Address,
    /// How much of the log leaves the guest.
    pub level: slog::Level,
    /// The vsock port on which the log is handed out.
    pub log_port: Option<u32>,
    /// How long a hot-plugged device may take to appear.
    pub hotplug: Duration,
    /// How long a pull may take when the caller sets no deadline.
    pub image_pull: Duration,
    /// How long one question to a resource service may take.
    pub resource: Duration,
    /// Bytes of a container's pipes; 0 for the kernel's choice.
    pub pipe_size: u32,
    /// A TOML file of the initrd that says the rest.
    pub file: Option<PathBuf>,
    /// For pulls on the plain path.
    pub https_proxy: Option<String>,
    /// Hosts that the proxy isn't for.
    pub no_proxy: Option<String>,
    /// Parameters for an agent that this one doesn't know, or that have no effect in it.
    pub ignored: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            unsealed: false,
            address: Address::Vsock(protocols::ports::AGENT),
            level: slog::Level::Info,
            log_port: None,
            hotplug: Duration::from_secs(3),
            image_pull: Duration::from_secs(1200),
            resource: Duration::from_secs(50),
            pipe_size: 0,
            file: None,
            https_proxy: None,
            no_proxy: None,
            ignored: Vec::new(),
        }
    }
}

/// A configuration that can't be used. Never replaced by defaults.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value of the wrong form.
    #[error("{name}: '{value}' is not {expected}")]
    Value {
        /// The parameter or key.
        name: String,
        /// What it was set to.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// Not the TOML that the stock agent reads.
    #[error("the configuration file: {0}")]
    File(String),
}

/// The stock agent's file, as far as it means something here.
#[derive(Deserialize)]
struct File {
    unsealed: Option<String>,
    server_addr: Option<String>,
    log_level: Option<String>,
    log_vport: Option<u32>,
    hotplug_timeout: Option<u64>,
    image_pull_timeout: Option<u64>,
    cdh_api_timeout: Option<u64>,
    container_pipe_size: Option<u32>,
    https_proxy: Option<String>,
    no_proxy: Option<String>,
    #[serde(flatten)]
    others: std::collections::BTreeMap<String, toml::Value>,
}

impl Config {
    /// Reads a kernel command line. A value of the wrong form is an error: a measured command line that
    /// doesn't say what was meant should not boot.
    pub fn from_command_line(line: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for word in line.split_ascii_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            if name == UNSEALED {
                config.unsealed = allowed(name, value)?;
            } else if let Some(key) = name.strip_prefix("agent.")
                && !config.set(key, name, value)?
            {
                config.ignored.push(name.to_owned());
            }
        }
        Ok(config)
    }

    /// Reads the stock agent's TOML file.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|e| ConfigError::File(e.message().to_owned()))?;
        let mut config = Self::default();
        if let Some(value) = &file.unsealed {
            config.unsealed = allowed("unsealed", value)?;
        }
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        for (key, value) in [
            ("server_addr", file.server_addr),
            ("log", file.log_level),
            ("log_vport", number(file.log_vport.map(u64::from))),
            ("hotplug_timeout", number(file.hotplug_timeout)),
            ("image_pull_timeout", number(file.image_pull_timeout)),
            ("cdh_api_timeout", number(file.cdh_api_timeout)),
            ("container_pipe_size", number(file.container_pipe_size.map(u64::from))),
            ("https_proxy", file.https_proxy),
            ("no_proxy", file.no_proxy),
        ] {
            if let Some(value) = value {
                config.set(key, key, &value)?;
            }
        }
        config.ignored = file.others.into_keys().collect();
        Ok(config)
    }

    /// Sets one value; false if there is no such key.
    fn set(&mut self, key: &str, name: &str, value: &str) -> Result<bool, ConfigError> {
        let wrong =
            |expected| ConfigError::Value { name: name.to_owned(), value: value.to_owned(), expected };
        let seconds = || match value.parse::<u64>() {
            Ok(seconds @ 1..=MAX_SECONDS) => Ok(Duration::from_secs(seconds)),
            _ => Err(wrong("a number of seconds from 1 to 86400")),
        };
        match key {
            "server_addr" => {
                self.address = address(value).ok_or_else(|| wrong("vsock://-1:PORT or unix://PATH"))?;
            }
            "log" => self.level = level(value).ok_or_else(|| wrong("a log level (trace … critical)"))?,
            "log_vport" => match value.parse() {
                Ok(0) => self.log_port = None,
                Ok(port) => self.log_port = Some(port),
                Err(_) => return Err(wrong("a vsock port")),
            },
            "hotplug_timeout" => self.hotplug = seconds()?,
            "image_pull_timeout" => self.image_pull = seconds()?,
            "cdh_api_timeout" => self.resource = seconds()?,
            "container_pipe_size" => match value.parse() {
                Ok(size @ 0..=MAX_PIPE) => self.pipe_size = size,
                _ => return Err(wrong("a number of bytes up to 16777216")),
            },
            "config_file" => self.file = Some(PathBuf::from(value)),
            "https_proxy" => self.https_proxy = Some(value.to_owned()),
            "no_proxy" => self.no_proxy = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// With another address than the file's.
    pub fn with_address(mut self, value: &str) -> Result<Self, ConfigError> {
        self.set("server_addr", "server_addr", value)?;
        Ok(self)
    }

    /// What has no effect in a sealed VM although it is known: the host decides neither where calls come
    /// from nor by which way images do.
    pub fn sealed(mut self) -> Self {
        let defaults = Self::default();
        for (name, differs) in [
            ("agent.server_addr", self.address != defaults.address),
            ("agent.config_file", self.file.is_some()),
            ("agent.https_proxy", self.https_proxy.is_some()),
            ("agent.no_proxy", self.no_proxy.is_some()),
        ] {
            if differs {
                self.ignored.push(name.to_owned());
            }
        }
        Self { address: defaults.address, file: None, https_proxy: None, no_proxy: None, ..self }
    }
}

fn allowed(name: &str, value: &str) -> Result<bool, ConfigError> {
    match value {
        "allow" => Ok(true),
        _ => Err(ConfigError::Value { name: name.to_owned(), value: value.to_owned(), expected: "'allow'" }),
    }
}

fn address(value: &str) -> Option<Address> {
    if let Some(path) = value.strip_prefix("unix://") {
        return path.starts_with('/').then(|| Address::Unix(path.into()));
    }
    // The stock agent's form; the agent listens on whatever context id the guest has.
    let (cid, port) = value.strip_prefix("vsock://")?.split_once(':')?;
    let any = cid == "-1" || cid.parse::<u32>() == Ok(u32::MAX);
    any.then(|| port.parse().ok().map(Address::Vsock))?
}

fn level(value: &str) -> Option<slog::Level> {
    match value {
        "warn" => Some(slog::Level::Warning),
        "fatal" => Some(slog::Level::Critical),
        _ => value.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_command_line_is_read_and_the_unknown_named() {
        let line = "console=ttyS0 agent.log=debug agent.debug_console agent.debug_console_vport=1026 \
                    agent.log_vport=1025 agent.hotplug_timeout=10 agent.container_pipe_size=65536 \
                    agent.server_addr=vsock://-1:1024 cgroup_no_v1=all agentx.y=1 quiet";
        let config = Config::from_command_line(line).unwrap();
        assert_eq!(config.level, slog::Level::Debug);
        assert_eq!(config.log_port, Some(1025));
        assert_eq!(config.hotplug, Duration::from_secs(10));
        assert_eq!(config.pipe_size, 65536);
        assert_eq!(config.address, Address::Vsock(1024));
        assert_eq!(config.ignored, ["agent.debug_console", "agent.debug_console_vport"]);
        assert!(!config.unsealed);
    }

    #[test]
    fn only_the_exact_word_unseals() {
        assert!(Config::from_command_line("sealpod.unsealed=allow").unwrap().unsealed);
        for line in ["sealpod.unsealed", "sealpod.unsealed=1", "sealpod.unsealed=Allow", "sealpod.unsealed="]
        {
            assert!(Config::from_command_line(line).is_err(), "{line}");
        }
        for line in ["agent.sealpod.unsealed=allow", "xsealpod.unsealed=allow", "sealpod.unsealedx=allow", ""]
        {
            assert!(!Config::from_command_line(line).unwrap().unsealed, "{line}");
        }
    }

    #[test]
    fn values_of_the_wrong_form_are_errors() {
        for word in [
            "agent.log=loud",
            "agent.log_vport=port",
            "agent.hotplug_timeout=0",
            "agent.hotplug_timeout=1000000",
            "agent.container_pipe_size=-1",
            "agent.container_pipe_size=99999999",
            "agent.server_addr=tcp://1.2.3.4:5",
            "agent.server_addr=vsock://3:1024",
            "agent.server_addr=unix://relative",
        ] {
            let error = Config::from_command_line(word).unwrap_err().to_string();
            assert!(error.starts_with(word.split('=').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn the_stock_agents_file_is_read() {
        let config = Config::from_toml(
            "unsealed = 'allow'\nserver_addr = 'unix:///run/agent.sock'\nlog_level = 'warn'\ndev_mode = true\n\
             container_pipe_size = 2097\n",
        )
        .unwrap();
        assert!(config.unsealed);
        assert_eq!(config.address, Address::Unix("/run/agent.sock".into()));
        assert_eq!(config.level, slog::Level::Warning);
        assert_eq!(config.ignored, ["dev_mode"]);
        assert!(Config::from_toml("log_level = 3").is_err());
        assert!(Config::from_toml("server_addr = ").is_err());
    }

    #[test]
    fn a_sealed_vm_takes_no_address_and_no_proxy_from_the_command_line() {
        let line =
            "agent.server_addr=unix:///x agent.https_proxy=http://evil agent.no_proxy=a agent.log=debug";
        let config = Config::from_command_line(line).unwrap().sealed();
        assert_eq!(config.address, Address::Vsock(1024));
        assert_eq!((config.https_proxy, config.no_proxy), (None, None));
        assert_eq!(config.ignored, ["agent.server_addr", "agent.https_proxy", "agent.no_proxy"]);
    }
}
