//! Registry authentication: the `WWW-Authenticate` challenge (RFC 9110 section 11) and the token answer
//! of the distribution token protocol.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::{Method, Uri};
use zeroize::Zeroizing;

use crate::body::Outgoing;

/// How this client calls itself towards token services.
const CLIENT_ID: &str = "sealpod";

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from this realm.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// Reads one challenge; other schemes and malformed text give `None`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (name, value) in parameters(rest)? {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }
}

/// `name=value` or `name="value"` pairs, separated by commas.
fn parameters(mut text: &str) -> Option<Vec<(&str, String)>> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        if text.is_empty() {
            return Some(found);
        }
        let (name, rest) = text.split_once('=')?;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            loop {
                match characters.next()? {
                    (at, '"') => {
                        text = &quoted[at + 1..];
                        break;
                    }
                    (_, '\\') => value.push(characters.next()?.1),
                    (_, other) => value.push(other),
                }
            }
            found.push((name.trim(), value));
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            found.push((name.trim(), rest[..end].trim().to_owned()));
            text = &rest[end..];
        }
        if found.len() > 16 {
            return None;
        }
    }
}

/// A request to a token service: GET with the query, or POST with a form that holds the refresh token.
pub(crate) struct TokenRequest {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) body: Outgoing,
}

impl TokenRequest {
    /// The realm's own query is kept.
    pub(crate) fn new(realm: &Uri, scopes: Vec<String>, service: Option<String>) -> Self {
        let mut target = realm.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let mut first = !target.contains('?');
        let scopes = scopes.into_iter().map(|scope| ("scope", scope));
        for (name, value) in scopes.chain(service.map(|service| ("service", service))) {
            target.push(if first { '?' } else { '&' });
            first = false;
            target.push_str(&format!("{name}={}", query_value(&value)));
        }
        Self { method: Method::GET, target, body: Outgoing::Empty }
    }

    /// Makes it an OAuth2 request (distribution "Token authentication: OAuth2").
    pub(crate) fn refresh(&mut self, token: &str) {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let form = Zeroizing::new(format!(
            "grant_type=refresh_token&client_id={CLIENT_ID}&refresh_token={}&{}",
            query_value(token),
            // Several scopes are one parameter here.
            query.replacen("&scope=", "%20", usize::MAX)
        ));
        self.body = Outgoing::Whole(Bytes::copy_from_slice(form.as_bytes()));
        self.target = path.to_owned();
        self.method = Method::POST;
    }
}

/// `application/x-www-form-urlencoded` text for a query value.
pub(crate) fn query_value(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            // Writing to a string can't fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

/// `Authorization: Basic …`, marked so that it isn't printed.
pub(crate) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let pair = Zeroizing::new(format!("{username}:{password}"));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    sensitive(&text)
}

/// `Authorization: Bearer …` from the token service's JSON answer.
pub(crate) fn bearer(answer: &[u8]) -> Option<HeaderValue> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    bearer_header(&Zeroizing::new(answer.token.or(answer.access_token)?))
}

/// `Authorization: Bearer …`
pub(crate) fn bearer_header(token: &str) -> Option<HeaderValue> {
    sensitive(&Zeroizing::new(format!("Bearer {token}")))
}

/// `None` for text that can't be a header, such as a token with a line break in it.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_challenges() {
        let text =
            r#"Bearer realm="https://auth.example/token",service="reg \"x\"",scope="repository:a/b:pull""#;
        assert_eq!(
            Challenge::parse(text),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("reg \"x\"".into()),
                scope: Some("repository:a/b:pull".into()),
            })
        );
        assert_eq!(Challenge::parse("Basic realm=x"), Some(Challenge::Basic));
        for bad in ["", "Digest realm=x", "Bearer", "Bearer realm=\"open", "Bearer x", "Bearer realm=\"a\\"] {
            assert_eq!(Challenge::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_that_breaks_the_header_is_no_token() {
        assert!(bearer(br#"{"token":"abc.def"}"#).is_some());
        assert!(bearer(br#"{"access_token":"abc"}"#).is_some());
        assert!(bearer(br#"{"token":"a\r\nX-Evil: 1"}"#).is_none());
        assert!(bearer(b"{}").is_none());
        assert!(bearer(b"not json").is_none());
    }

    #[test]
    fn query_values_are_escaped() {
        assert_eq!(query_value("repository:a/b:pull&x"), "repository%3Aa%2Fb%3Apull%26x");
    }

    proptest::proptest! {
        #[test]
        fn any_challenge_text_is_survived(text in ".{0,200}") {
            let _ = Challenge::parse(&text);
        }
    }
}
