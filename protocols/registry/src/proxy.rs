//! HTTP proxies: `CONNECT` for TLS (RFC 9110 section 9.3.6), the absolute form for plain http. What a proxy
//! says is bounded; what goes through it is checked as if there were none.

use std::net::IpAddr;

use hyper::Uri;
use hyper::header::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

use crate::auth;
use crate::origin::Origin;

/// Head of a proxy's answer to CONNECT.
const MAX_ANSWER: usize = 8 << 10;
const DEFAULT_PORT: u16 = 80;

/// A proxy.
#[derive(Clone)]
pub struct Proxy {
    host: String,
    port: u16,
    /// `host:port`, for people.
    authority: String,
    authorization: Option<HeaderValue>,
}

/// Text that names no proxy that can be used. The text may hold a password, so it isn't quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("proxy: {0}; write it as http://[user:password@]host[:port]")]
pub struct ProxyError(&'static str);

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`, user and password percent-encoded.
    pub fn parse(text: &str) -> Result<Self, ProxyError> {
        let uri: Uri = text.parse().map_err(|_| ProxyError("not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(ProxyError("only http proxies are known"));
        }
        let authority = uri.authority().ok_or(ProxyError("it names no host"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(ProxyError("it has a path or a query"));
        }
        let authorization = match authority.as_str().rsplit_once('@') {
            None => None,
            Some((login, _)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                let decode = |text| decoded(text).ok_or(ProxyError("its login is not percent-encoded text"));
                let login = auth::basic(&decode(user)?, &decode(password)?);
                Some(login.ok_or(ProxyError("its login can't be sent in a header"))?)
            }
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(ProxyError("it names no host"));
        }
        let port = authority.port_u16().unwrap_or(DEFAULT_PORT);
        let authority = Origin { tls: false, host: host.clone(), port }.host_and_port();
        Ok(Self { host, port, authority, authorization })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Makes the stream one to `origin`.
    pub(crate) async fn tunnel<S>(&self, stream: &mut S, origin: &Origin) -> Result<(), String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let fail = |reason: &str| format!("proxy {}: {reason}", self.authority);
        let target = origin.host_and_port();
        let mut request =
            Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes());
        if let Some(login) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(login.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await.map_err(|e| fail(&e.to_string()))?;
        let mut answer = Vec::with_capacity(1024);
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= MAX_ANSWER {
                return Err(fail("the head of its answer is too long"));
            }
            // A byte at a time: what follows the head is the origin's.
            let byte = stream.read_u8().await.map_err(|e| fail(&format!("CONNECT: {e}")))?;
            answer.push(byte);
        }
        let status = answer
            .strip_prefix(b"HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok());
        match status {
            Some(200..=299) => Ok(()),
            Some(407) => Err(fail("it wants a login; write it as http://user:password@host:port")),
            Some(status) => Err(fail(&format!("it refused to connect to {target} with status {status}"))),
            None => Err(fail("its answer is not HTTP/1")),
        }
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({})", self.authority)
    }
}

/// Which proxy is for which server, where no source says it.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Vec<Exception>,
    /// Whether this machine itself is reached without one, without being listed.
    never_local: bool,
}

#[derive(Clone, Debug)]
enum Exception {
    All,
    Domain { name: String, itself: bool, below: bool, port: Option<u16> },
    Network { address: IpAddr, prefix: u32 },
}

impl Proxies {
    /// One proxy for everything but `except`: `host`, `host:port`, `.domain`, addresses and networks.
    pub fn new<'a>(proxy: Proxy, except: impl IntoIterator<Item = &'a str>) -> Self {
        let except = except.into_iter().map(|part| Exception::read(part, false)).collect();
        Self { http: Some(proxy.clone()), https: Some(proxy), except, never_local: false }
    }

    /// As `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (or in lower case) say. For programs of their user,
    /// never for the guest, whose environment is the host's.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let read = |name: &str| {
            let text = variable(&name.to_ascii_lowercase()).or_else(|| variable(name)).unwrap_or_default();
            // Written without a scheme as often as not.
            let text = if text.contains("://") { text } else { format!("http://{text}") };
            if text == "http://" { Ok(None) } else { Proxy::parse(&text).map(Some) }
        };
        let except = variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default();
        // As everyone reads it: a name covers what is below it.
        let parts = except.split([',', ' ']).map(str::trim).filter(|part| !part.is_empty());
        let except = parts.map(|part| Exception::read(part, true)).collect();
        Ok(Self { http: read("HTTP_PROXY")?, https: read("HTTPS_PROXY")?, except, never_local: true })
    }

    /// The proxy for a server, if any.
    pub(crate) fn of(&self, origin: &Origin) -> Option<&Proxy> {
        let proxy = if origin.tls { self.https.as_ref() } else { self.http.as_ref() }?;
        let address = origin.host.parse::<IpAddr>().ok();
        let own = origin.host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let excepted = (own && self.never_local)
            || self.except.iter().any(|exception| exception.covers(origin, address));
        (!excepted).then_some(proxy)
    }
}

impl Exception {
    /// One part of `NO_PROXY`. With `deep` a name covers what is below it, too.
    fn read(part: &str, deep: bool) -> Self {
        if part == "*" {
            return Self::All;
        }
        let (host, prefix) = match part.split_once('/') {
            Some((host, prefix)) => (host, prefix.parse().ok()),
            None => (part, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse::<IpAddr>() {
            let all = if address.is_ipv4() { 32 } else { 128 };
            return Self::Network { address, prefix: prefix.unwrap_or(all).min(all) };
        }
        let (name, port) = match part.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok()),
            None => (part, None),
        };
        let below = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
        let name = below.unwrap_or(name).to_ascii_lowercase();
        Self::Domain { name, itself: below.is_none(), below: deep || below.is_some(), port }
    }

    fn covers(&self, origin: &Origin, address: Option<IpAddr>) -> bool {
        match self {
            Self::All => true,
            Self::Domain { name, itself, below, port } => {
                let is_below =
                    origin.host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                port.is_none_or(|port| port == origin.port)
                    && ((*below && is_below) || (*itself && origin.host == *name))
            }
            Self::Network { address: network, prefix } => {
                address.is_some_and(|address| network_of(address, *prefix) == network_of(*network, *prefix))
            }
        }
    }
}

/// The first `prefix` bits, and which family they are of.
fn network_of(address: IpAddr, prefix: u32) -> (bool, u128) {
    let (bits, all) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    (address.is_ipv4(), bits.checked_shr(all - prefix.min(all)).unwrap_or(0))
}

fn decoded(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read() {
        let proxy = Proxy::parse("http://proxy.example:3128").unwrap();
        assert_eq!((proxy.authority(), proxy.authorization()), ("proxy.example:3128", None));
        let proxy = Proxy::parse("http://me:p%40ss%3a@[::1]/").unwrap();
        assert_eq!(proxy.authority(), "[::1]:80");
        assert_eq!(proxy.authorization().unwrap(), &auth::basic("me", "p@ss:").unwrap());
        assert!(!format!("{proxy:?}").contains("ss"));
        for bad in
            ["", "proxy", "https://p", "socks5://p", "http://", "http://u:sesame%zz@p", "http://u:sesame@p/x"]
        {
            let error = Proxy::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("sesame"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_environment_is_read_as_others_read_it() {
        let variables = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://upper.example:1".to_owned()),
            "https_proxy" => Some("lower.example:2".to_owned()),
            "no_proxy" => {
                Some("example.com, .below.example,10.0.0.0/8,other.example:5000,fd00::/8".to_owned())
            }
            _ => None,
        };
        let proxies = Proxies::from_environment(variables).unwrap();
        let of = |url: &str| proxies.of(&Origin::of(&url.parse().unwrap()).unwrap()).map(Proxy::authority);
        assert_eq!(of("https://registry.example"), Some("lower.example:2"));
        for direct in [
            "http://registry.example",
            "https://example.com",
            "https://r.example.com",
            "https://r.below.example",
            "https://10.1.2.3",
            "https://other.example:5000",
            "https://[fd12::1]",
            "https://localhost",
            "https://127.0.0.1",
        ] {
            assert_eq!(of(direct), None, "{direct}");
        }
        for proxied in [
            "https://below.example",
            "https://notexample.com",
            "https://11.1.2.3",
            "https://other.example",
            "https://[fe80::1]",
        ] {
            assert_eq!(of(proxied), Some("lower.example:2"), "{proxied}");
        }
        let all = Proxies::from_environment(|name| match name {
            "HTTP_PROXY" => Some("p.example".into()),
            "NO_PROXY" => Some("*".into()),
            _ => None,
        });
        assert!(all.unwrap().of(&Origin::of(&"http://r.example".parse().unwrap()).unwrap()).is_none());
    }

    #[test]
    fn a_given_proxy_is_left_out_only_where_it_is_said() {
        let proxies =
            Proxies::new(Proxy::parse("http://p.example").unwrap(), ["r.example:5000", ".in.example"]);
        let of = |url: &str| proxies.of(&Origin::of(&url.parse().unwrap()).unwrap()).is_some();
        assert!(!of("https://r.example:5000") && !of("http://r.in.example"));
        for proxied in
            ["https://r.example", "https://x.r.example:5000", "http://in.example", "http://127.0.0.1"]
        {
            assert!(of(proxied), "{proxied}");
        }
    }

    async fn tunnel(answer: &[u8]) -> (Result<(), String>, String) {
        let (mut near, mut far) = tokio::io::duplex(64 << 10);
        far.write_all(answer).await.unwrap();
        let proxy = Proxy::parse("http://me:sesame@proxy.example:3128").unwrap();
        let origin = Origin::of(&"https://registry.example".parse().unwrap()).unwrap();
        let result = proxy.tunnel(&mut near, &origin).await;
        drop(near);
        let mut asked = String::new();
        far.read_to_string(&mut asked).await.unwrap();
        (result, asked)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_by_name() {
        let (result, asked) = tunnel(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n").await;
        result.unwrap();
        let login = "Proxy-Authorization: Basic bWU6c2VzYW1l\r\n";
        let host = "registry.example:443";
        assert_eq!(asked, format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{login}\r\n"));
    }

    #[tokio::test]
    async fn refusals_of_a_proxy() {
        for (answer, want) in [
            (&b"HTTP/1.1 407 x\r\n\r\n"[..], "it wants a login"),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", "with status 403"),
            (b"HTTP/1.1 302 x\r\nLocation: http://e\r\n\r\n", "with status 302"),
            (b"SSH-2.0-x\r\n\r\n", "is not HTTP/1"),
            (&[b'a'; 10_000], "too long"),
        ] {
            let error = tunnel(answer).await.0.unwrap_err();
            assert!(error.contains(want) && !error.contains("sesame"), "{error}");
        }
    }
}
