//! Where the relay listens and where it forwards to, as written on the command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Where guests connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// A vsock port on any of the host's context ids.
    Vsock(u32),
    /// A unix socket: what a vhost-user vsock device maps the guest's port to.
    Unix(PathBuf),
}

/// The broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broker {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// An address that can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// Neither form.
    #[error("'{0}' is not 'vsock:PORT' or 'unix:PATH'")]
    Listen(String),
    /// Not a host and a port.
    #[error("'{0}' is not HOST:PORT (IPv6 addresses in brackets)")]
    Broker(String),
}

impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Listen(text.to_owned());
        match text.split_once(':').ok_or_else(wrong)? {
            // 0xffffffff is VMADDR_PORT_ANY: the guest wouldn't find it.
            ("vsock", port) => {
                port.parse().ok().filter(|port| *port != u32::MAX).map(Self::Vsock).ok_or_else(wrong)
            }
            ("unix", path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock(port) => write!(f, "vsock:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Broker {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Broker(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if bare.is_empty() || bare.contains(['/', '@', ' ']) {
            return Err(wrong());
        }
        Ok(Self { host: bare.to_owned(), port })
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_round_trip() {
        for text in ["vsock:4050", "unix:/run/sealpod/relay.sock", "unix:a:b"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["broker.example:8443", "127.0.0.1:1", "[::1]:8443"] {
            assert_eq!(text.parse::<Broker>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in
            ["", "vsock", "vsock:", "vsock:-1", "vsock:4294967295", "vsock:2:4050", "unix:", "tcp:1", "4050"]
        {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
        for text in [
            "",
            "broker",
            "broker:",
            ":1",
            "broker:0",
            "broker:65536",
            "::1:8443",
            "[::1:1",
            "https://b:1",
            "a@b:1",
        ] {
            assert!(text.parse::<Broker>().is_err(), "{text}");
        }
    }
}
