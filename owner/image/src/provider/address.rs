//! Addresses of gRPC key providers: `host:port` as in ocicrypt's configuration, `unix:PATH` as gRPC writes
//! sockets, and the schemes that other readers of that file put before them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// This machine, by name; never looked up (RFC 6761 section 6.3).
pub(super) const LOCALHOST: &str = "localhost";

/// Where a provider listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host name or IP address, without brackets.
    Tcp {
        /// Name or address.
        host: String,
        /// 1 and up; 0 is for listening only.
        port: u16,
    },
    /// A socket on this machine.
    Unix(PathBuf),
}

/// An address of no known form.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("address '{0}' is neither HOST:PORT nor unix:PATH")]
pub struct AddressError(String);

impl Address {
    /// Whether what is sent there stays on this machine, whatever name servers say.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == LOCALHOST || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = || AddressError(text.chars().take(200).collect());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(refuse()) };
        }
        let schemes = ["dns:///", "passthrough:///", "http://", "tcp://"];
        let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let (host, port) = rest.rsplit_once(':').ok_or_else(refuse)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').filter(|inner| inner.contains(':')).ok_or_else(refuse)?,
            None => host,
        };
        let bracketed = host.len() + 2 + port.len() < rest.len();
        let plain =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_') || b == b':' && bracketed;
        if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
            return Err(refuse());
        }
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or_else(refuse)?;
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |host: &str, port| Ok(Address::Tcp { host: host.into(), port });
        for (text, address) in [
            ("localhost:50051", tcp("localhost", 50051)),
            ("127.0.0.1:1", tcp("127.0.0.1", 1)),
            ("[::1]:65535", tcp("::1", 65535)),
            ("dns:///kms.example:443", tcp("kms.example", 443)),
            ("http://127.0.0.1:1", tcp("127.0.0.1", 1)),
            ("tcp://127.0.0.1:1", tcp("127.0.0.1", 1)),
            ("unix:/run/x.sock", Ok(Address::Unix("/run/x.sock".into()))),
            ("unix:///run/x.sock", Ok(Address::Unix("/run/x.sock".into()))),
        ] {
            assert_eq!(text.parse::<Address>(), address, "{text}");
        }
        for bad in [
            "",
            "host",
            "host:",
            ":1",
            "host:65536",
            "host:+1",
            "::1:5",
            "[host]:1",
            "[::1:5",
            "a/b:1",
            "a b:1",
            "user@host:1",
            "https://host:1",
            "unix:",
            "unix:x",
            "unix://host/x",
            "host:1/x",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
