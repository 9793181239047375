//! Docker's `config.json` and containers' `auth.json`: logins by registry, the longest match of host and path
//! first (containers-auth.json(5)). Credential helpers are programs; none is run here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::Login;

const MAX_FILE: usize = 1 << 20;
const MAX_ENTRIES: usize = 4096;
/// Names that mean Docker Hub.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// A parsed file of logins.
#[derive(Clone)]
pub struct AuthFile {
    auths: BTreeMap<String, Entry>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

/// Why a login can't be taken from a file. Nothing of its contents is quoted but names of registries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFileError {
    /// Not a file of this kind.
    #[error(
        "registry logins: {0}; write it as docker's config.json: {{\"auths\":{{\"HOST\":{{\"auth\":\"…\"}}}}}}"
    )]
    Malformed(String),
    /// An entry that can't be used.
    #[error("registry logins: the entry for {registry}: {reason}")]
    Entry {
        /// The entry's name.
        registry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The login is kept by a program.
    #[error(
        "registry logins: the login for {registry} is kept by docker-credential-{helper}, which is not run here; give a file with the login itself, as 'skopeo login --authfile FILE' writes it"
    )]
    Helper {
        /// The registry.
        registry: String,
        /// The helper's name.
        helper: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<Text>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<Text>,
    #[serde(default)]
    identitytoken: Option<Text>,
    #[serde(default)]
    registrytoken: Option<Text>,
}

/// A secret string.
#[derive(Clone)]
struct Text(Zeroizing<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl AuthFile {
    /// Reads the whole file.
    pub fn parse(bytes: &[u8]) -> Result<Self, AuthFileError> {
        if bytes.len() > MAX_FILE {
            return Err(AuthFileError::Malformed(format!("larger than {MAX_FILE} bytes")));
        }
        // serde would take a list for a struct, too.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(AuthFileError::Malformed("not a JSON object".to_owned()));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|e| malformed(&e))?;
        let auths = file.auths.unwrap_or_default();
        let helpers = file.cred_helpers.unwrap_or_default();
        if auths.len() > MAX_ENTRIES || helpers.len() > MAX_ENTRIES {
            return Err(AuthFileError::Malformed(format!("more than {MAX_ENTRIES} entries")));
        }
        let auths = auths.into_iter().map(|(name, entry)| (normal(&name), entry)).collect();
        let helpers = helpers.into_iter().map(|(name, helper)| (normal(&name), helper)).collect();
        Ok(Self { auths, helpers, store: file.creds_store.filter(|store| !store.is_empty()) })
    }

    /// The login for a repository at a registry, as image references name them.
    pub fn login(&self, host: &str, repository: &str) -> Result<Option<Login>, AuthFileError> {
        let mut name = format!("{}/{repository}", normal(host));
        loop {
            if let Some(entry) = self.auths.get(&name)
                && let Some(login) = entry.login(&name)?
            {
                return Ok(Some(login));
            }
            if let Some(helper) = self.helpers.get(&name) {
                return Err(AuthFileError::Helper { registry: name, helper: helper.clone() });
            }
            match name.rfind('/') {
                Some(slash) => name.truncate(slash),
                None => break,
            }
        }
        // Docker leaves an empty entry behind for what it gave its store.
        match &self.store {
            Some(helper) if self.auths.contains_key(&name) => {
                Err(AuthFileError::Helper { registry: name, helper: helper.clone() })
            }
            _ => Ok(None),
        }
    }
}

impl std::fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.auths.keys()).finish()
    }
}

impl Login {
    /// From a resource that holds a file of logins, or only `{"username":…,"password":…}` for the one registry
    /// that it is given to.
    pub fn from_resource(bytes: &[u8], host: &str, repository: &str) -> Result<Option<Self>, AuthFileError> {
        if bytes.len() <= MAX_FILE
            && let Ok(entry) = serde_json::from_slice::<Entry>(bytes)
            && let Some(login) = entry.login(host)?
        {
            return Ok(Some(login));
        }
        AuthFile::parse(bytes)?.login(host, repository)
    }
}

impl Entry {
    fn login(&self, registry: &str) -> Result<Option<Login>, AuthFileError> {
        let fail = |reason| AuthFileError::Entry { registry: registry.to_owned(), reason };
        let given =
            |text: &Option<Text>| text.as_ref().map(|text| text.0.clone()).filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Login::identity_token(&token)));
        }
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Login::registry_token(&token)));
        }
        if let Some(pair) = given(&self.auth) {
            let pair = STANDARD.decode(pair.as_bytes()).map_err(|_| fail("auth is not base64"))?;
            let pair = Zeroizing::new(pair);
            let pair = std::str::from_utf8(&pair).map_err(|_| fail("auth is not text"))?;
            // Docker once wrote a NUL at the end.
            let pair = pair.trim_end_matches('\0');
            let (user, password) = pair.split_once(':').ok_or_else(|| fail("auth is not user:password"))?;
            return Ok(Some(Login::password(user, password)));
        }
        match (&self.username, given(&self.password)) {
            (Some(user), Some(password)) if !user.is_empty() => Ok(Some(Login::password(user, &password))),
            (None, None) => Ok(None),
            (Some(user), None) if user.is_empty() => Ok(None),
            _ => Err(fail("username and password go together")),
        }
    }
}

/// The error must not quote the file: it holds passwords.
fn malformed(error: &serde_json::Error) -> AuthFileError {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "a value of the wrong type",
        serde_json::error::Category::Eof => "it ends too early",
        _ => "not JSON",
    };
    AuthFileError::Malformed(format!("{kind} at line {}, column {}", error.line(), error.column()))
}

/// Entries were once URLs: `https://index.docker.io/v1/`.
fn normal(name: &str) -> String {
    let bare = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://"));
    let name = match bare {
        Some(url) => url.split('/').next().unwrap_or_default(),
        None => name.trim_end_matches('/'),
    };
    let (host, path) = name.split_once('/').map_or((name, None), |(host, path)| (host, Some(path)));
    let host = if HUB.contains(&host) { HUB[0] } else { host };
    path.map_or_else(|| host.to_owned(), |path| format!("{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Kind;

    fn shown(login: Option<Login>) -> String {
        match login.map(|login| login.0) {
            None => "nobody".into(),
            Some(Kind::Password { username, password }) => format!("{username}:{}", *password),
            Some(Kind::Identity(token)) => format!("identity {}", *token),
            Some(Kind::Registry(token)) => format!("token {}", *token),
        }
    }

    #[test]
    fn the_longest_match_decides() {
        let auth = |pair: &str| STANDARD.encode(pair);
        let text = format!(
            r#"{{"auths":{{
                "r.example:5000":{{"auth":"{}"}}, "r.example:5000/team":{{"auth":"{}"}},
                "r.example:5000/team/app":{{"username":"app","password":"p:w"}},
                "https://index.docker.io/v1/":{{"auth":"{}"}},
                "tokens.example":{{"auth":"","identitytoken":"id"}}, "bearer.example":{{"registrytoken":"rt"}}
            }}, "HttpHeaders":{{"X":"y"}}}}"#,
            auth("host:1"),
            auth("team:2"),
            auth("hub:a:b")
        );
        let file = AuthFile::parse(text.as_bytes()).unwrap();
        for (host, repository, want) in [
            ("r.example:5000", "other", "host:1"),
            ("r.example:5000", "team/x/y", "team:2"),
            ("r.example:5000", "team/app", "app:p:w"),
            ("r.example:5000", "team/app2", "team:2"),
            ("r.example:5000", "teams/app", "host:1"),
            ("r.example", "team/app", "nobody"),
            ("docker.io", "library/busybox", "hub:a:b"),
            ("tokens.example", "a", "identity id"),
            ("bearer.example", "a", "token rt"),
        ] {
            assert_eq!(shown(file.login(host, repository).unwrap()), want, "{host}/{repository}");
        }
    }

    #[test]
    fn helpers_are_named_and_not_run() {
        let file = AuthFile::parse(
            br#"{"auths":{"a.example":{}, "b.example":{"auth":"dTpw"}},
                "credHelpers":{"c.example":"ecr-login"}, "credsStore":"desktop"}"#,
        )
        .unwrap();
        let error = file.login("a.example", "x").unwrap_err().to_string();
        assert!(error.contains("docker-credential-desktop") && error.contains("a.example"), "{error}");
        assert!(matches!(file.login("c.example", "x/y"), Err(AuthFileError::Helper { .. })));
        assert_eq!(shown(file.login("b.example", "x").unwrap()), "u:p");
        // What was never logged in to is nobody's.
        assert_eq!(shown(file.login("d.example", "x").unwrap()), "nobody");
    }

    #[test]
    fn a_resource_may_be_one_login_alone() {
        let one = br#"{"username":"me","password":"sesame"}"#;
        assert_eq!(shown(Login::from_resource(one, "r.example", "a").unwrap()), "me:sesame");
        let file = br#"{"auths":{"r.example":{"auth":"dTpw"}}}"#;
        assert_eq!(shown(Login::from_resource(file, "r.example", "a").unwrap()), "u:p");
        assert_eq!(shown(Login::from_resource(file, "s.example", "a").unwrap()), "nobody");
        for bad in [&br#"{"username":"me"}"#[..], b"sesame", b"[]"] {
            assert!(Login::from_resource(bad, "r.example", "a").is_err());
        }
    }

    #[test]
    fn damage_is_refused_and_not_quoted() {
        for bad in [
            "",
            "sesame",
            "[\"sesame\"]",
            r#"{"auths":{"r.example":{"auth":"sesame!"}}}"#,
            r#"{"auths":{"r.example":{"auth":"c2VzYW1l"}}}"#,
            r#"{"auths":{"r.example":{"password":"sesame"}}}"#,
            r#"{"auths":{"r.example":{"auth":["sesame"]}}}"#,
            &format!("{{\"auths\":{{}}}}{}", " ".repeat(MAX_FILE)),
        ] {
            let error = AuthFile::parse(bad.as_bytes()).and_then(|file| file.login("r.example", "a"));
            let error = error.err().unwrap().to_string();
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in r#"[\{\}\[\]":,a-z=/]{0,120}"#) {
            let _ = Login::from_resource(text.as_bytes(), "r.example", "a/b");
        }
    }
}
