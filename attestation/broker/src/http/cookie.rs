//! How a request names its session: the protocol's cookie, tried first, or a bearer token.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use protocols::rcar::SESSION_COOKIE;

use crate::challenge::SessionId;

/// The session that the cookie names. Two cookies of the name are none: a proxy or a script added one.
pub(crate) fn session(headers: &HeaderMap) -> Option<SessionId> {
    let mut found = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == SESSION_COOKIE);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => SessionId::parse(value),
        _ => None,
    }
}

/// The bearer token.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn cookies(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (COOKIE, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let id = "00112233445566778899aabbccddeeff";
        let headers = cookies(&["a=b; kbs-session-id=00112233445566778899aabbccddeeff; c=d"]);
        assert_eq!(session(&headers).unwrap().reveal(), id);
    }

    #[test]
    fn two_sessions_are_none() {
        let one = "kbs-session-id=00112233445566778899aabbccddeeff";
        assert!(session(&cookies(&[one, one])).is_none());
        assert!(session(&cookies(&["xkbs-session-id=00112233445566778899aabbccddeeff"])).is_none());
        assert!(session(&cookies(&["kbs-session-id=../../etc"])).is_none());
    }

    #[test]
    fn a_bearer_token_is_found() {
        let headers: HeaderMap =
            [(AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"))].into_iter().collect();
        assert_eq!(bearer(&headers), Some("a.b.c"));
        let headers: HeaderMap =
            [(AUTHORIZATION, HeaderValue::from_static("Basic abc"))].into_iter().collect();
        assert_eq!(bearer(&headers), None);
    }
}
