//! Where images come from: registries, their mirrors, and the proxy on the way.

use serde::{Deserialize, Serialize};

use crate::names::KbsUri;
use crate::secret::{Secret, silent_debug};

const MAX_MIRRORS: usize = 8;
const MAX_EXCEPTIONS: usize = 64;

/// How to reach one registry from inside the guest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySource {
    /// As in image references: `registry.example:5000`.
    pub host: String,
    /// `https://host[:port]`, or `http://host[:port]` if the owner says so.
    pub location: String,
    /// The only certificates to trust for it, PEM; none = the guest's public CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// User name for pulling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Its password or token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Instead of the two: a resource at the broker, a docker auth configuration or
    /// `{"username": …, "password": …}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<KbsUri>,
    /// Other places of the same content, asked first, by digest only: `https://host[:port]` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// Where simple signatures of this registry's images are kept, as in containers-registries.d(5):
    /// `http[s]://host[:port][/path]`. What is there is believed only as far as its signatures go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookaside: Option<String>,
}

/// A forward proxy (RFC 9110 section 9.3.6): it carries bytes and is trusted with nothing but its own login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proxy {
    /// `http://[user:password@]host:port`.
    pub url: Secret,
    /// Hosts that are reached without it: `host`, `host:port` or `.domain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

silent_debug!(RegistrySource, Proxy);

impl RegistrySource {
    /// A registry by its usual name, at `location`, asked anonymously.
    pub fn new(host: impl Into<String>, location: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            location: location.into(),
            ca: None,
            username: None,
            password: None,
            credentials: None,
            mirrors: Vec::new(),
            lookaside: None,
        }
    }

    /// Whether the owner allows plain http to it.
    pub fn plain_http(&self) -> bool {
        self.location.starts_with("http://")
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if !host_port(&self.host) {
            return Err("its host must be host[:port] as in image references");
        }
        location(&self.location)?;
        if self.mirrors.len() > MAX_MIRRORS {
            return Err("it has more than 8 mirrors");
        }
        for mirror in &self.mirrors {
            location(mirror)?;
            if mirror.starts_with("http://") && !self.plain_http() {
                return Err("a mirror of an https:// registry must be https:// too");
            }
        }
        if let Some(lookaside) = &self.lookaside {
            self::lookaside(lookaside)?;
        }
        if self.credentials.is_some() && self.username.is_some() {
            return Err("it has both a login and a resource that holds one");
        }
        if self.credentials.is_some() && self.plain_http() {
            return Err("a login over http:// would be read by whoever is on the way; use https://");
        }
        if let Some(ca) = &self.ca {
            if self.plain_http() {
                return Err("a CA makes no sense with an http:// location");
            }
            if !ca.contains("-----BEGIN CERTIFICATE-----") || ca.len() > 64 * 1024 {
                return Err("its ca must be PEM certificates, at most 64 KiB");
            }
        }
        if self.password.is_some() != self.username.is_some() {
            return Err("user name and password go together");
        }
        if self.password.is_some() && self.plain_http() {
            return Err("a login over http:// would be read by whoever is on the way; use https://");
        }
        Ok(())
    }
}

impl Proxy {
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let url = self.url.expose();
        let Some(rest) = url.strip_prefix("http://") else {
            return Err("it must be http://[user:password@]host:port");
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (login, authority) = match authority.rsplit_once('@') {
            Some((login, authority)) => (Some(login), authority),
            None => (None, authority),
        };
        if url.len() > 1024 || !url.bytes().all(|b| b.is_ascii_graphic()) || !host_port(authority) {
            return Err("it must be http://[user:password@]host:port");
        }
        if login.is_some_and(|login| !login.contains(':') || login.contains(['/', '@'])) {
            return Err("its login must be user:password, percent-encoded where needed");
        }
        if self.except.len() > MAX_EXCEPTIONS {
            return Err("it has more than 64 exceptions");
        }
        let known = |host: &String| host_port(host.strip_prefix('.').unwrap_or(host));
        if !self.except.iter().all(known) {
            return Err("its exceptions must be host, host:port or .domain");
        }
        Ok(())
    }
}

/// `scheme://host[:port][/path]`, the path in plain segments.
fn lookaside(url: &str) -> Result<(), &'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    let climbs = path.split('/').any(|part| matches!(part, "." | ".."));
    if url.len() > 1024 || !host_port(authority) || !path.bytes().all(plain) || climbs {
        return Err("its lookaside must be http[s]://host[:port][/path]");
    }
    Ok(())
}

/// `scheme://host[:port]` without anything after it.
fn location(url: &str) -> Result<(), &'static str> {
    match url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) {
        None => Err("its location must be an https:// or http:// URL"),
        Some(authority) if !host_port(authority) => {
            Err("its location must be scheme://host[:port] without path, user or query")
        }
        Some(_) => Ok(()),
    }
}

/// `host[:port]`: a DNS name, an IPv4 address or a bracketed IPv6 address, and a port from 1.
pub(crate) fn host_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host_is_good = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        crate::names::dns_subdomain(&host.to_ascii_lowercase())
    };
    let port_is_good = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    host_is_good && port_is_good
}
