//! How one registry is reached: its location, whom it is trusted by, as whom it is asked, and who may stand
//! in for it.

use hyper::Uri;
use hyper::header::HeaderValue;
use zeroize::Zeroizing;

use crate::origin::Origin;
use crate::proxy::Proxy;
use crate::{RegistryError, auth, reference};

/// How to reach one registry. One that has no source is asked over https, without a login.
#[derive(Clone, Debug)]
pub struct Source {
    /// As in image references: `registry.example:5000`.
    pub host: String,
    /// `https://host[:port]`; `http://host[:port]` where the owner says so, and then without a login.
    pub location: String,
    /// The only certificates to trust for it, PEM; none: the bundle's.
    pub ca: Option<String>,
    /// As whom to ask. It is given to this registry and its token service only.
    pub login: Option<Login>,
    /// Who else may have its content. Each is reached as the [`Source`] for its own host says.
    pub mirrors: Vec<Mirror>,
    /// Where simple signatures of its images are kept (containers-registries.d(5)):
    /// `http[s]://host[:port][/path]`. No login is sent there.
    pub lookaside: Option<String>,
    /// Through which proxy it, its token service and its storage are reached.
    pub proxy: Option<Proxy>,
}

impl Source {
    /// A source with everything else empty.
    pub fn new(host: &str, location: &str) -> Self {
        Self {
            host: host.to_owned(),
            location: location.to_owned(),
            ca: None,
            login: None,
            mirrors: Vec::new(),
            lookaside: None,
            proxy: None,
        }
    }
}

/// A server that may have a registry's content. It is asked by digest, so it can't put other content in its
/// place.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// `https://host[:port][/prefix]`; the prefix goes before the repository.
    pub location: String,
    /// Whether it is believed about tags when the registry can't be reached.
    pub tags: bool,
}

impl From<&str> for Mirror {
    fn from(location: &str) -> Self {
        Self { location: location.to_owned(), tags: false }
    }
}

/// As whom a registry is asked.
#[derive(Clone)]
pub struct Login(pub(crate) Kind);

#[derive(Clone)]
pub(crate) enum Kind {
    Password {
        username: String,
        password: Zeroizing<String>,
    },
    /// OAuth2 refresh token: the token service trades it for an access token.
    Identity(Zeroizing<String>),
    /// An access token, sent as it is.
    Registry(Zeroizing<String>),
}

impl Login {
    /// User name and password.
    pub fn password(username: &str, password: &str) -> Self {
        Self(Kind::Password { username: username.to_owned(), password: Zeroizing::new(password.to_owned()) })
    }

    /// A refresh token, docker's `identitytoken`.
    pub fn identity_token(token: &str) -> Self {
        Self(Kind::Identity(Zeroizing::new(token.to_owned())))
    }

    /// A bearer token, docker's `registrytoken`.
    pub fn registry_token(token: &str) -> Self {
        Self(Kind::Registry(Zeroizing::new(token.to_owned())))
    }

    /// `Authorization: Basic …`; `None` if this is no password.
    pub(crate) fn basic(&self) -> Result<Option<HeaderValue>, &'static str> {
        match &self.0 {
            Kind::Password { username, password } => {
                auth::basic(username, password).map(Some).ok_or("the login can't be sent in a header")
            }
            _ => Ok(None),
        }
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(…)")
    }
}

/// A location, read: origin, and what goes before the repository.
pub(crate) fn location(text: &str, prefix_allowed: bool) -> Result<(Origin, String), RegistryError> {
    let fail = |reason: &str| RegistryError::Configuration {
        registry: text.chars().take(300).collect(),
        reason: reason.to_owned(),
    };
    let uri: Uri = text.parse().map_err(|_| fail("the location is not a URL"))?;
    let origin = Origin::of(&uri).ok_or_else(|| fail("the location must be http://host or https://host"))?;
    let path = uri.path().trim_matches('/');
    if uri.query().is_some() || (!path.is_empty() && !prefix_allowed) {
        return Err(fail("the location must be scheme://host[:port] without path or query"));
    }
    if !path.is_empty() && !reference::is_repository(path) {
        return Err(fail("the location's path must be the beginning of a repository name"));
    }
    Ok((origin, path.to_owned()))
}

/// The location of a tree of files: origin and path, without a slash at its end.
pub(crate) fn base(text: &str) -> Result<(Origin, String), RegistryError> {
    let fail = |reason: &str| RegistryError::Configuration {
        registry: text.chars().take(300).collect(),
        reason: reason.to_owned(),
    };
    let uri: Uri = text.parse().map_err(|_| fail("the location is not a URL"))?;
    let origin = Origin::of(&uri).ok_or_else(|| fail("the location must be http://host or https://host"))?;
    let path = uri.path().trim_end_matches('/');
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    let fits = |part: &str| !matches!(part, "" | "." | "..") && plain(part);
    if uri.query().is_some() || !path.split('/').skip(1).all(fits) {
        return Err(fail(
            "the location must be scheme://host[:port][/path], the path of letters, digits and - . _ ~",
        ));
    }
    Ok((origin, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let (origin, prefix) = location("https://mirror.example:444/hub/x/", true).unwrap();
        assert_eq!((origin.to_string().as_str(), prefix.as_str()), ("https://mirror.example:444", "hub/x"));
        location("https://registry.example/", false).unwrap();
        for bad in
            ["https://r.example/x", "https://r.example?x", "ftp://r.example", "r.example", "", "https://u@r"]
        {
            assert!(location(bad, false).is_err(), "{bad}");
        }
        for bad in ["https://r.example/X", "https://r.example/a/../b", "https://r.example/a%2f"] {
            assert!(location(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn bases() {
        let read = |text| base(text).map(|(origin, path)| format!("{origin} {path}")).ok();
        assert_eq!(read("http://s.example/sig/store/").unwrap(), "http://s.example /sig/store");
        assert_eq!(read("https://s.example").unwrap(), "https://s.example ");
        for bad in [
            "https://s.example/a?b",
            "https://s.example/../x",
            "https://s.example//x",
            "https://s.example/%2e",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_login_is_not_printed() {
        let mut source = Source::new("r.example", "https://r.example");
        source.login = Some(Login::password("me", "sesame"));
        assert!(!format!("{source:?}").contains("sesame"));
    }
}
