//! Scheme, host and port of a server: what decides who may see a login.

use hyper::Uri;
use hyper::http::uri::Scheme;

/// Scheme, host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    /// TLS or plain.
    pub(crate) tls: bool,
    /// Host name in lower case, or address without brackets.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
}

impl Origin {
    /// From an absolute `http` or `https` URI.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None => default_port(tls),
        };
        Some(Self { tls, host, port })
    }

    /// `host:port` as CONNECT wants it (RFC 9110 section 9.3.6).
    pub(crate) fn host_and_port(&self) -> String {
        let (open, close) = self.brackets();
        format!("{open}{}{close}:{}", self.host, self.port)
    }

    /// `host[:port]` as the Host header wants it.
    pub(crate) fn authority(&self) -> String {
        let (open, close) = self.brackets();
        if self.port == default_port(self.tls) {
            format!("{open}{}{close}", self.host)
        } else {
            self.host_and_port()
        }
    }

    fn brackets(&self) -> (&'static str, &'static str) {
        if self.host.contains(':') { ("[", "]") } else { ("", "") }
    }

    /// Where a `Location` leads: a path at the same place, or an absolute URL, but never from TLS to plain.
    pub(crate) fn redirected(&self, location: &str) -> Result<(Self, String), &'static str> {
        let uri: Uri = location.parse().map_err(|_| "redirect to a malformed location")?;
        let target = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok((self.clone(), target));
        }
        let origin = Self::of(&uri).ok_or("redirect to something that isn't an http or https URL")?;
        if self.tls && !origin.tls {
            return Err("redirect from https to http");
        }
        Ok((origin, target))
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn redirects_never_lose_tls() {
        let registry = origin("https://registry.example");
        let (to, target) = registry.redirected("https://cdn.example:444/x?sig=1").unwrap();
        assert_eq!((to.to_string().as_str(), target.as_str()), ("https://cdn.example:444", "/x?sig=1"));
        let (to, target) = registry.redirected("/other").unwrap();
        assert_eq!((to, target.as_str()), (registry.clone(), "/other"));
        for bad in
            ["http://cdn.example/x", "//cdn.example/x", "", "ftp://x/", "file:///etc/passwd", "https://a@b/"]
        {
            assert!(registry.redirected(bad).is_err(), "{bad}");
        }
        assert!(origin("http://r.example").redirected("https://cdn.example/").is_ok());
    }

    #[test]
    fn the_same_place_is_one_origin() {
        assert_eq!(origin("https://Registry.Example"), origin("https://registry.example:443/v2/"));
        assert_ne!(origin("https://registry.example"), origin("https://registry.example:444"));
        assert_eq!(origin("https://[::1]").host_and_port(), "[::1]:443");
        assert_eq!(origin("http://[::1]:80").to_string(), "http://[::1]");
    }
}
