//! Documents and blobs from registries that redirect, challenge, stall, crawl and break.

use std::sync::Mutex;
use std::time::Duration;

use oci_registry::{Access, AuthFile, Client, Digest, Reference, RegistryError, Settings};

use crate::server::{Reply, Server, ok, reply};
use crate::{at, blob_path, impatient, limits, manifest_path, noise, open, run, whole, with_login};

const BASIC: &str = "Basic realm=\"x\"";

#[test]
fn small_things_share_a_connection() {
    run(async {
        let server = Server::plain(|seen| match seen.path() {
            "/v2/team/app/manifests/none" => reply(404),
            path => ok(path.as_bytes()),
        });
        let repository = at(&server, limits());
        for tag in ["a", "b", "none", "c"] {
            let found = repository.tagged(tag).await;
            assert_eq!(found.is_ok(), tag != "none", "{tag}");
        }
        assert_eq!((server.requests().len(), server.connections()), (4, 1));
        // Another client has connections of its own.
        at(&server, limits()).tagged("a").await.unwrap();
        assert_eq!(server.connections(), 2);
    });
}

#[test]
fn a_connection_that_the_server_closed_is_made_again() {
    run(async {
        let server = Server::plain_closing(|_| ok("{}"));
        let limits = oci_registry::Limits { attempts: 1, ..limits() };
        let repository = at(&server, limits);
        for _ in 0..20 {
            repository.tagged("a").await.unwrap();
        }
        assert_eq!(server.requests().len(), 20);
    });
}

#[test]
fn what_a_tag_names_must_be_what_the_registry_says() {
    run(async {
        let server = Server::plain(|seen| {
            let body = if seen.path().ends_with("bent") { "other" } else { "{}" };
            ok(body).with("Docker-Content-Digest", Digest::of(b"{}").to_string())
        });
        let repository = at(&server, limits());
        assert_eq!(repository.tagged("v1").await.unwrap().digest, Digest::of(b"{}"));
        let error = repository.tagged("bent").await.unwrap_err();
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
        for bad in ["", ".x", "a/b", "a?b", &"x".repeat(129)] {
            let error = repository.tagged(bad).await.unwrap_err();
            assert!(matches!(error, RegistryError::Reference(_)), "{error}");
        }
        assert_eq!(server.requests().len(), 2);
    });
}

#[test]
fn redirects_end_and_never_leave_tls() {
    run(async {
        let server = Server::plain(|seen| reply(307).with("Location", seen.target.clone()));
        let error = at(&server, limits()).tagged("v1").await.unwrap_err();
        assert!(error.to_string().contains("more than 5 redirects"), "{error}");
        assert_eq!(server.requests().len(), 6);

        let other = Server::plain(|_| ok("{}"));
        let location = format!("{}/x", other.url());
        let server = Server::tls(move |_| reply(302).with("Location", location.clone()));
        let error = at(&server, limits()).tagged("v1").await.unwrap_err();
        assert!(error.to_string().contains("redirect from https to http"), "{error}");
        assert!(other.requests().is_empty());
    });
}

#[test]
fn a_login_goes_to_its_registry_only() {
    run(async {
        let storage = Server::plain(|_| ok("{}"));
        let elsewhere = format!("{}/x", storage.url());
        // Plain http all the way: redirects to other hosts are fine, logins are not.
        let server = Server::plain(move |_| reply(307).with("Location", elsewhere.clone()));
        let repository = at(&server, limits());
        repository.tagged("v1").await.unwrap();
        assert_eq!(storage.requests()[0].header("authorization"), None);

        let source = with_login(&server);
        let client = Client::new(Settings { sources: vec![source], ..Settings::default() });
        let error = client.repository(&crate::reference(), Access::Pull).err().unwrap();
        assert!(error.to_string().contains("login over plain http"), "{error}");
    });
}

#[test]
fn a_token_is_asked_for_no_more_than_is_done() {
    run(async {
        static REALM: Mutex<String> = Mutex::new(String::new());
        let server = Server::tls(|seen| match (seen.path(), seen.header("authorization")) {
            ("/token", _) => ok(r#"{"token":"t0k"}"#),
            (_, Some("Bearer t0k")) => ok("{}"),
            _ => {
                let realm = REALM.lock().unwrap();
                let all = r#"scope="repository:other:* repository:team/app:*""#;
                reply(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"s\",{all}"))
            }
        });
        *REALM.lock().unwrap() = format!("{}/token", server.url());
        let pull = open(
            Settings { sources: vec![with_login(&server)], limits: limits(), ..Settings::default() },
            Access::Pull,
        );
        pull.tagged("v1").await.unwrap();
        let token = "GET /token?scope=repository%3Ateam%2Fapp%3Apull&service=s";
        assert_eq!(server.lines()[1], token);
        // The token is used again.
        pull.tagged("v1").await.unwrap();
        assert_eq!(server.requests().len(), 4);
        let push = open(
            Settings { sources: vec![with_login(&server)], limits: limits(), ..Settings::default() },
            Access::Push,
        );
        push.tagged("v1").await.unwrap();
        assert_eq!(server.lines()[5], token.replace("pull", "pull%2Cpush"));

        // A realm without TLS, or one that nobody vouches for, gets nothing.
        let plain = Server::plain(|_| ok(r#"{"token":"t0k"}"#));
        let stranger = Server::tls(|_| ok(r#"{"token":"t0k"}"#));
        for (realm, want) in [
            (plain.url(), "its token service must too"),
            (stranger.url(), "trust"),
            ("ftp://x".to_owned(), "not an http or https URL"),
        ] {
            *REALM.lock().unwrap() = realm;
            let sources = vec![with_login(&server)];
            let fresh = open(Settings { sources, limits: limits(), ..Settings::default() }, Access::Pull);
            let error = fresh.tagged("v1").await.unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
        }
        assert!(plain.requests().is_empty() && stranger.requests().is_empty());
    });
}

#[test]
fn refresh_tokens_are_traded_and_access_tokens_sent() {
    run(async {
        let server = Server::tls(|seen| match (seen.path(), seen.header("authorization")) {
            ("/token", None) => ok(r#"{"access_token":"t0k"}"#),
            (_, Some("Bearer t0k")) => ok("{}"),
            _ => {
                let realm = format!("https://{}/token", seen.header("host").unwrap());
                reply(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""))
            }
        });
        for (login, requests) in [
            (oci_registry::Login::identity_token("re&fresh"), 3),
            (oci_registry::Login::registry_token("t0k"), 2),
        ] {
            let before = server.requests().len();
            let source = oci_registry::Source { login: Some(login), ..server.source() };
            open(Settings { sources: vec![source], ..Settings::default() }, Access::Pull)
                .tagged("v1")
                .await
                .unwrap();
            assert_eq!(server.requests().len() - before, requests);
        }
        let asked = &server.requests()[1];
        assert_eq!(asked.line(), "POST /token");
        let form = "grant_type=refresh_token&client_id=sealpod&refresh_token=re%26fresh&\
                    scope=repository%3Ateam%2Fapp%3Apull&service=s";
        assert_eq!(String::from_utf8_lossy(&asked.body), form);
    });
}

#[test]
fn logins_of_files_are_used_and_helpers_named() {
    run(async {
        let server = Server::tls(|seen| match seen.header("authorization") {
            Some("Basic bWU6c2VzYW1l") => ok("{}"),
            _ => reply(401).with("WWW-Authenticate", BASIC),
        });
        let file = |text: &str| vec![AuthFile::parse(text.as_bytes()).unwrap()];
        let ask = async |logins| {
            let sources = vec![server.source()];
            let settings = Settings { sources, logins, limits: limits(), ..Settings::default() };
            open(settings, Access::Pull).tagged("v1").await
        };
        let auths = |host: &str| file(&format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6c2VzYW1l"}}}}}}"#));
        let location = server.source().location;
        let host = location.trim_start_matches("https://");
        ask(auths(&format!("{host}/team"))).await.unwrap();
        // The last one is the name that was asked for; another host stands in for it, and doesn't get its login.
        for other in ["other.test", "registry.test", "registry.test/team"] {
            let error = ask(auths(other)).await.unwrap_err();
            assert_eq!(error.status(), Some(401), "{error}");
        }
        // What a helper keeps is only missed when a login is wanted.
        let helper = file(&format!(r#"{{"credHelpers":{{"{host}":"desktop"}}}}"#));
        let error = ask(helper.clone()).await.unwrap_err();
        assert!(error.to_string().contains("docker-credential-desktop"), "{error}");
        let open_to_all = Server::tls(|_| ok("{}"));
        let settings =
            Settings { sources: vec![open_to_all.source()], logins: helper, ..Settings::default() };
        open(settings, Access::Pull).tagged("v1").await.unwrap();
    });
}

#[test]
fn what_stalls_is_given_up() {
    run(async {
        let blob = noise(1000);
        let path = blob_path(&blob);
        let half = blob[..500].to_vec();
        let server = Server::plain(move |seen| match seen.path() {
            p if p == path => Reply::stall(1000, &half),
            _ => Reply::silence(),
        });
        let repository = at(&server, impatient());
        let error = repository.tagged("v1").await.unwrap_err();
        assert!(matches!(error, RegistryError::Unreachable { attempts: 3, .. }), "{error}");
        assert!(error.to_string().contains("no answer in time"), "{error}");
        let error = whole(&repository, &Digest::of(&blob), 1000).await.unwrap_err();
        assert!(error.to_string().contains("the transfer stalled"), "{error}");
        assert_eq!(server.requests().len(), 6);
    });
}

#[test]
fn what_crawls_is_given_up() {
    run(async {
        let blob = noise(100_000);
        let begin = blob[..10].to_vec();
        let server = Server::plain(move |_| Reply::stall(100_000, &begin));
        // Any wait at all is too long here, so the first look at the pace finds too few bytes.
        let limits = oci_registry::Limits { slow_window: Duration::ZERO, slow_bytes: 1000, ..limits() };
        let error = whole(&at(&server, limits), &Digest::of(&blob), 100_000).await.unwrap_err();
        assert!(error.to_string().contains("only 10 bytes came"), "{error}");
    });
}

#[test]
fn endless_bodies_end() {
    run(async {
        let server = Server::plain(|_| Reply::endless());
        let repository = at(&server, limits());
        let error = repository.tagged("v1").await.unwrap_err();
        assert!(matches!(error, RegistryError::TooLarge { limit: 65536, .. }), "{error}");
        let error = whole(&repository, &Digest::of(b""), 10_000).await.unwrap_err();
        assert!(matches!(error, RegistryError::TooLarge { limit: 10_000, .. }), "{error}");
    });
}

#[test]
fn a_blob_in_crumbs_ends() {
    run(async {
        let blob = noise(10_000);
        let served = blob.clone();
        // One byte a connection: each is progress, and there would be ten thousand of them.
        let server = Server::plain(move |seen| {
            let from =
                seen.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            match from.unwrap_or(0) {
                0 => Reply::cut(served.len(), &served[..1]),
                from => Reply::cut(served.len() - from, &served[from..=from])
                    .with("Content-Range", format!("bytes {from}-9999/10000"))
                    .status(206),
            }
        });
        let error = whole(&at(&server, limits()), &Digest::of(&blob), 10_000).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
        assert_eq!(server.requests().len(), 32);
    });
}

#[test]
fn a_transfer_goes_on_where_it_broke() {
    run(async {
        let blob = noise(60_000);
        let served = blob.clone();
        let server = Server::plain(move |seen| {
            let from =
                seen.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            let from: usize = from.unwrap_or(0);
            let end = served.len().min(from + 20_000);
            let range = format!("bytes {from}-59999/60000");
            let reply = Reply::cut(served.len() - from, &served[from..end]);
            if from == 0 { reply } else { reply.with("Content-Range", range).status(206) }
        });
        let repository = at(&server, limits());
        assert_eq!(whole(&repository, &Digest::of(&blob), 60_000).await.unwrap(), blob);
        let ranges: Vec<_> =
            server.requests().iter().map(|seen| seen.header("range").map(str::to_owned)).collect();
        assert_eq!(ranges, [None, Some("bytes=20000-".to_owned()), Some("bytes=40000-".to_owned())]);
        // Fewer bytes than the manifest says are too few, more are too many.
        let error = whole(&repository, &Digest::of(&blob), 60_001).await.unwrap_err();
        assert!(
            matches!(
                error.of_registry(),
                RegistryError::Truncated { .. }
                    | RegistryError::Status { .. }
                    | RegistryError::Unreachable { .. }
            ),
            "{error}"
        );
        let error = whole(&repository, &Digest::of(&blob), 59_999).await.unwrap_err();
        assert!(matches!(error, RegistryError::TooLarge { limit: 59_999, .. }), "{error}");
    });
}

#[test]
fn a_wrong_range_is_refused() {
    run(async {
        for range in [Some("bytes 0-99/100"), Some("bytes 51-99/100"), Some("nonsense"), None] {
            let blob = noise(100);
            let served = blob.clone();
            let server = Server::plain(move |seen| match (seen.header("range"), range) {
                (None, _) => Reply::cut(100, &served[..50]),
                (Some(_), Some(range)) => ok(&served[50..]).with("Content-Range", range).status(206),
                (Some(_), None) => ok(&served[50..]).status(206),
            });
            let error = whole(&at(&server, limits()), &Digest::of(&blob), 100).await.unwrap_err();
            assert!(error.to_string().contains("another range than byte 50"), "{error}");
            assert_eq!(server.requests().len(), 2);
        }
    });
}

#[test]
fn waiting_is_what_the_registry_asks_for_but_not_for_a_year() {
    run(async {
        let tries = Mutex::new(0);
        let server = Server::plain(move |_| {
            let mut tries = tries.lock().unwrap();
            *tries += 1;
            match *tries {
                1 => reply(503).with("Retry-After", "31536000"),
                2 => reply(429).with("Retry-After", "Wed, 21 Oct 2099 07:28:00 GMT"),
                3 => ok("{}"),
                _ => reply(429).with("Retry-After", "31536000"),
            }
        });
        let repository = at(&server, limits());
        repository.tagged("v1").await.unwrap();
        let error = repository.tagged("v1").await.unwrap_err();
        assert_eq!(error.status(), Some(429), "{error}");
        assert_eq!(server.requests().len(), 6);
    });
}

#[test]
fn what_the_registry_calls_an_error_is_told_and_nothing_else_it_says() {
    run(async {
        let server = Server::plain(|seen| {
            let code = if seen.path().ends_with("v1") { "MANIFEST_UNKNOWN" } else { "\\u001b[31mred" };
            ok(format!(r#"{{"errors":[{{"code":"{code}","message":"call me"}}]}}"#)).status(404)
        });
        let repository = at(&server, limits());
        let error = repository.tagged("v1").await.unwrap_err().to_string();
        assert!(error.contains("status 404 (MANIFEST_UNKNOWN); it is not there"), "{error}");
        let error = repository.tagged("v2").await.unwrap_err().to_string();
        assert!(error.contains("status 404; it is not there"), "{error}");
    });
}

#[test]
fn what_is_there_is_known_without_fetching_it() {
    run(async {
        let (blob, manifest) = (noise(123), b"{}");
        let (path, document) = (blob_path(&blob), manifest_path(manifest));
        let server = Server::plain(move |seen| {
            if seen.path() == path || seen.path() == document { ok(noise(123)) } else { reply(404) }
        });
        let repository = at(&server, limits());
        assert_eq!(repository.has_blob(&Digest::of(&blob)).await.unwrap(), Some(123));
        assert_eq!(repository.has_blob(&Digest::of(b"x")).await.unwrap(), None);
        assert!(repository.has_manifest(&Digest::of(manifest)).await.unwrap());
        assert!(!repository.has_manifest(&Digest::of(b"x")).await.unwrap());
        assert!(server.requests().iter().all(|seen| seen.method == "HEAD"));
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn a_dead_registry_is_named() {
    run(async {
        let mut source = oci_registry::Source::new("registry.test", "http://127.0.0.1:1");
        source.proxy = None;
        let settings = Settings { sources: vec![source], limits: limits(), ..Settings::default() };
        let error = open(settings, Access::Pull).tagged("v1").await.unwrap_err();
        assert!(error.to_string().contains("http://127.0.0.1:1: no answer after 3 attempts"), "{error}");
        // Nobody said http: it is https, for which there are no certificates here.
        let reference = Reference::parse("127.0.0.1:1/app").unwrap();
        let error = Client::new(Settings::default()).repository(&reference, Access::Pull).err().unwrap();
        assert!(error.to_string().contains("https://127.0.0.1:1: there is no CA bundle"), "{error}");
    });
}
