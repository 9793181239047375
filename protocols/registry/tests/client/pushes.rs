//! Pushing to registries that break off, forget, lie about offsets and digests, and point elsewhere.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use oci_registry::{Access, Content, Digest, FileContent, Pushed, RegistryError, Repository, Settings};

use crate::server::{Reply, Seen, Server, ok, reply};
use crate::{blob_path, limits, noise, open, pushing, run, with_login};

const UPLOADS: &str = "/v2/team/app/blobs/uploads/";

/// A registry that takes one blob in pieces, as the rules are.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Vec<u8>>>);

impl Store {
    fn answer(&self, seen: &Seen) -> Reply {
        let mut bytes = self.0.lock().unwrap();
        let here = |reply: Reply, length: usize| {
            let reply = reply.with("Location", "/upload/1?state=x");
            reply.with("Range", format!("0-{}", length.saturating_sub(1)))
        };
        match (seen.method.as_str(), seen.path()) {
            ("POST", UPLOADS) => here(reply(202), 0),
            ("PATCH", "/upload/1") => {
                bytes.extend_from_slice(&seen.body);
                here(reply(202), bytes.len())
            }
            ("GET", "/upload/1") => here(reply(204), bytes.len()),
            ("PUT", "/upload/1") => {
                bytes.extend_from_slice(&seen.body);
                reply(201).with("Docker-Content-Digest", Digest::of(&bytes).to_string())
            }
            _ => reply(404),
        }
    }

    fn holds(&self, blob: &[u8]) -> bool {
        *self.0.lock().unwrap() == blob
    }
}

async fn push(repository: &Repository, blob: &[u8]) -> Result<Pushed, RegistryError> {
    let content = Bytes::copy_from_slice(blob);
    repository.push_blob(&Digest::of(blob), blob.len() as u64, &content, &[], &|_| ()).await
}

fn methods(server: &Server) -> Vec<String> {
    server.requests().into_iter().map(|seen| seen.method).collect()
}

#[test]
fn a_blob_is_sent_once_and_only_if_it_is_missing() {
    run(async {
        let (blob, store) = (noise(700_000), Store::default());
        let kept = store.clone();
        let server = Server::plain(move |seen| kept.answer(seen));
        let repository = pushing(&server, limits());
        let told = Mutex::new(Vec::new());
        let content = Bytes::from(blob.clone());
        let progress = |sent| told.lock().unwrap().push(sent);
        let pushed =
            repository.push_blob(&Digest::of(&blob), 700_000, &content, &[], &progress).await.unwrap();
        assert_eq!(pushed, Pushed::Uploaded);
        assert!(store.holds(&blob));
        assert_eq!(methods(&server), ["HEAD", "POST", "PATCH", "PUT"]);
        let put = &server.requests()[3];
        let digest = Digest::of(&blob).to_string().replace(':', "%3A");
        assert_eq!(put.target, format!("/upload/1?state=x&digest={digest}"));
        assert_eq!(server.requests()[2].header("content-range"), None);
        let told = told.into_inner().unwrap();
        assert!(told.is_sorted() && told.last() == Some(&700_000), "{told:?}");

        let server = Server::plain(|_| ok("x"));
        assert_eq!(push(&pushing(&server, limits()), &blob).await.unwrap(), Pushed::Existed);
        assert_eq!(methods(&server), ["HEAD"]);
        let (store, server) = {
            let store = Store::default();
            let kept = store.clone();
            (store, Server::plain(move |seen| kept.answer(seen)))
        };
        push(&pushing(&server, limits()), b"").await.unwrap();
        assert!(store.holds(b""));
    });
}

#[test]
fn an_upload_goes_on_where_it_broke() {
    run(async {
        let (blob, store, broken) = (noise(900_000), Store::default(), Mutex::new(false));
        let kept = store.clone();
        let server = Server::plain(move |seen| {
            let mut broken = broken.lock().unwrap();
            if seen.method == "PATCH" && !*broken {
                *broken = true;
                kept.0.lock().unwrap().extend_from_slice(&seen.body[..300_000]);
                return Reply::hang_up();
            }
            kept.answer(seen)
        });
        push(&pushing(&server, limits()), &blob).await.unwrap();
        assert!(store.holds(&blob));
        assert_eq!(methods(&server), ["HEAD", "POST", "PATCH", "HEAD", "GET", "PATCH", "PUT"]);
        let rest = &server.requests()[5];
        assert_eq!(rest.header("content-range"), Some("300000-899999"));
        assert_eq!(rest.body.len(), 600_000);
    });
}

#[test]
fn a_session_that_is_gone_is_begun_anew() {
    run(async {
        let (blob, store, broken) = (noise(1000), Store::default(), Mutex::new(false));
        let kept = store.clone();
        let server = Server::plain(move |seen| {
            let mut broken = broken.lock().unwrap();
            match seen.method.as_str() {
                "PATCH" if !*broken => {
                    *broken = true;
                    reply(500)
                }
                "GET" => reply(404),
                _ => kept.answer(seen),
            }
        });
        push(&pushing(&server, limits()), &blob).await.unwrap();
        assert!(store.holds(&blob));
        assert_eq!(methods(&server), ["HEAD", "POST", "PATCH", "HEAD", "GET", "POST", "PATCH", "PUT"]);
    });
}

#[test]
fn an_answer_that_is_lost_is_not_a_blob_that_is_lost() {
    run(async {
        let blob = noise(1000);
        let (store, done) = (Store::default(), Mutex::new(false));
        let server = Server::plain(move |seen| {
            let mut done = done.lock().unwrap();
            match seen.method.as_str() {
                "PUT" => {
                    *done = true;
                    Reply::hang_up()
                }
                "HEAD" if *done => ok("x"),
                _ => store.answer(seen),
            }
        });
        assert_eq!(push(&pushing(&server, limits()), &blob).await.unwrap(), Pushed::Uploaded);
        assert_eq!(methods(&server), ["HEAD", "POST", "PATCH", "PUT", "HEAD"]);
    });
}

#[test]
fn attempts_to_push_are_bounded() {
    run(async {
        let server = Server::plain(|seen| match seen.method.as_str() {
            "POST" => reply(202).with("Location", "/upload/1"),
            "PATCH" => reply(429).with("Retry-After", "31536000"),
            _ => reply(404),
        });
        let error = push(&pushing(&server, limits()), &noise(10)).await.unwrap_err();
        assert_eq!(error.status(), Some(429), "{error}");
        assert_eq!(methods(&server).iter().filter(|method| *method == "PATCH").count(), 3);
        // What won't change is not tried again.
        let server = Server::plain(|seen| if seen.method == "POST" { reply(403) } else { reply(404) });
        let error = push(&pushing(&server, limits()), &noise(10)).await.unwrap_err();
        assert_eq!(error.status(), Some(403), "{error}");
        assert_eq!(methods(&server), ["HEAD", "POST"]);
    });
}

#[test]
fn nothing_is_sent_to_another_place() {
    run(async {
        let other = Server::plain(|_| reply(201));
        for (status, location, want) in [
            (202, Some(format!("{}/upload/1", other.url())), "is another server"),
            (202, Some("https://registry.invalid/x".to_owned()), "is another server"),
            (202, Some("//other/x".to_owned()), "upload location"),
            (202, Some("file:///x".to_owned()), "upload location"),
            (202, None, "upload location"),
            (307, Some(format!("{}/upload/1", other.url())), "follow no redirect"),
        ] {
            let server = Server::plain(move |seen| match (seen.method.as_str(), &location) {
                ("POST", Some(location)) => reply(status).with("Location", location.clone()),
                ("POST", None) => reply(status),
                _ => reply(404),
            });
            let error = push(&pushing(&server, limits()), &noise(10)).await.unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
            assert_eq!(methods(&server), ["HEAD", "POST"]);
        }
        // Nor later, nor down from TLS.
        let elsewhere = format!("{}/upload/2", other.url());
        let server = Server::plain(move |seen| match seen.method.as_str() {
            "POST" => reply(202).with("Location", "/upload/1"),
            "PATCH" => reply(202).with("Location", elsewhere.clone()),
            _ => reply(404),
        });
        let error = push(&pushing(&server, limits()), &noise(10)).await.unwrap_err();
        assert!(error.to_string().contains("is another server"), "{error}");
        let server = Server::tls(|seen| match seen.method.as_str() {
            "POST" => {
                reply(202).with("Location", format!("http://{}/upload/1", seen.header("host").unwrap()))
            }
            _ => reply(404),
        });
        let error = push(&pushing(&server, limits()), &noise(10)).await.unwrap_err();
        assert!(error.to_string().contains("from https to http"), "{error}");
        assert!(other.requests().is_empty());
    });
}

#[test]
fn offsets_are_held_to_what_was_sent() {
    run(async {
        for (range, patches) in [("0-9999", 1), ("0-0", 1), ("0-499", 2)] {
            let server = Server::plain(move |seen| match seen.method.as_str() {
                "POST" => reply(202).with("Location", "/upload/1"),
                "PATCH" => reply(202).with("Location", "/upload/1").with("Range", range),
                _ => reply(404),
            });
            let error = push(&pushing(&server, limits()), &noise(1000)).await.unwrap_err();
            assert!(error.to_string().contains("it says to have"), "{error}");
            assert_eq!(methods(&server).iter().filter(|method| *method == "PATCH").count(), patches);
        }
    });
}

#[test]
fn what_is_stored_must_have_the_digest() {
    run(async {
        let server = Server::plain(|seen| match seen.method.as_str() {
            "POST" => reply(202).with("Location", "/upload/1"),
            "PATCH" => reply(202).with("Location", "/upload/1"),
            "PUT" => reply(201).with("Docker-Content-Digest", Digest::of(b"other").to_string()),
            _ => reply(404),
        });
        let repository = pushing(&server, limits());
        let error = push(&repository, &noise(10)).await.unwrap_err();
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
        let error = repository.push_manifest(b"{}", "application/x", Some("v1")).await.unwrap_err();
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    });
}

#[test]
fn manifests_are_put_by_tag_or_digest() {
    run(async {
        let server = Server::plain(|seen| match seen.method.as_str() {
            "PUT" => reply(201).with("Docker-Content-Digest", Digest::of(&seen.body).to_string()),
            _ => reply(404),
        });
        let repository = pushing(&server, limits());
        let digest = repository.push_manifest(b"{}", "application/x", Some("v1")).await.unwrap();
        assert_eq!(digest, Digest::of(b"{}"));
        repository.push_manifest(b"{}", "application/x", None).await.unwrap();
        let lines =
            ["PUT /v2/team/app/manifests/v1".to_owned(), format!("PUT /v2/team/app/manifests/{digest}")];
        assert_eq!(server.lines(), lines);
        assert_eq!(server.requests()[0].header("content-type"), Some("application/x"));
        for (media_type, tag) in [("application/x", Some("a/../b")), ("a\r\nb: c", None)] {
            repository.push_manifest(b"{}", media_type, tag).await.unwrap_err();
        }
        assert_eq!(server.requests().len(), 2);
    });
}

#[test]
fn a_blob_of_another_repository_is_mounted_if_it_can_be() {
    run(async {
        let (blob, store) = (noise(1000), Store::default());
        let digest = Digest::of(&blob);
        let kept = store.clone();
        let server = Server::plain(move |seen| {
            let mounted = reply(201).with("Docker-Content-Digest", digest.to_string());
            match seen.target.split_once('?') {
                Some((UPLOADS, query)) if query.ends_with("from=has") => mounted,
                Some((UPLOADS, query)) if query.ends_with("from=no") => reply(403),
                _ => kept.answer(seen),
            }
        });
        let repository = pushing(&server, limits());
        let content = Bytes::from(blob.clone());
        let mount = async |from: &[&str]| {
            repository.push_blob(&Digest::of(&blob), 1000, &content, from, &|_| ()).await.unwrap()
        };
        assert_eq!(mount(&["team/app", "Bad Name", "no", "has", "never"]).await, Pushed::Mounted);
        let query = format!("?mount={}&from=", Digest::of(&blob).to_string().replace(':', "%3A"));
        let want = [format!("POST {UPLOADS}{query}no"), format!("POST {UPLOADS}{query}has")];
        assert_eq!(server.lines()[1..], want);
        // A session comes instead: it is used.
        assert_eq!(mount(&["without"]).await, Pushed::Uploaded);
        assert_eq!(methods(&server)[4..], ["POST", "PATCH", "PUT"]);
        assert!(store.holds(&blob));
    });
}

#[test]
fn registries_without_pieces_get_the_whole() {
    run(async {
        let (blob, store) = (noise(700_000), Store::default());
        let kept = store.clone();
        let server =
            Server::plain(move |seen| if seen.method == "PATCH" { reply(405) } else { kept.answer(seen) });
        push(&pushing(&server, limits()), &blob).await.unwrap();
        assert!(store.holds(&blob));
        assert_eq!(methods(&server), ["HEAD", "POST", "PATCH", "PUT"]);
    });
}

#[test]
fn registries_that_take_small_pieces_get_small_pieces() {
    run(async {
        let (blob, store) = (noise(20 << 20), Store::default());
        let kept = store.clone();
        let server = Server::plain(
            move |seen| {
                if seen.body.len() > 10 << 20 { reply(413) } else { kept.answer(seen) }
            },
        );
        push(&pushing(&server, limits()), &blob).await.unwrap();
        assert!(store.holds(&blob));
        let ranges: Vec<_> = server
            .requests()
            .iter()
            .filter_map(|seen| seen.header("content-range").map(str::to_owned))
            .collect();
        assert_eq!(ranges, ["0-8388607", "8388608-16777215", "16777216-20971519"]);
    });
}

#[test]
fn a_token_that_runs_out_under_an_upload_is_renewed() {
    run(async {
        let (blob, store) = (noise(1000), Store::default());
        let (kept, serial) = (store.clone(), Mutex::new(0));
        let server = Server::tls(move |seen| {
            let mut serial = serial.lock().unwrap();
            let current = format!("Bearer t{serial}");
            match (seen.path(), seen.header("authorization")) {
                ("/token", _) => {
                    *serial += 1;
                    ok(format!(r#"{{"token":"t{serial}"}}"#))
                }
                (_, Some(token)) if token == current && (seen.method != "PATCH" || *serial > 1) => {
                    kept.answer(seen)
                }
                _ => {
                    let realm = format!("https://{}/token", seen.header("host").unwrap());
                    reply(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
                }
            }
        });
        let sources = vec![with_login(&server)];
        let repository = open(Settings { sources, limits: limits(), ..Settings::default() }, Access::Push);
        push(&repository, &blob).await.unwrap();
        assert!(store.holds(&blob));
        assert!(server.lines()[1].contains("scope=repository%3Ateam%2Fapp%3Apull%2Cpush"));
    });
}

struct Unreadable;

impl Content for Unreadable {
    fn open(&self, _: u64) -> io::Result<Box<dyn io::Read + Send>> {
        Err(io::Error::other("the disk is gone"))
    }
}

#[test]
fn what_cannot_be_read_is_said_and_not_tried_again() {
    run(async {
        let blob = noise(1000);
        let digest = Digest::of(&blob);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blob");
        std::fs::write(&path, &blob).unwrap();
        for (content, size, want) in [
            (&Unreadable as &dyn Content, 1000, "the disk is gone"),
            (&FileContent(directory.path().join("missing")), 1000, "No such file"),
            (&FileContent(path.clone()), 1001, "ended 1 bytes too early"),
            (&FileContent(path.clone()), 999, "longer than its size"),
        ] {
            let store = Store::default();
            let server = Server::plain(move |seen| store.answer(seen));
            let repository = pushing(&server, limits());
            let error = repository.push_blob(&digest, size, content, &[], &|_| ()).await.unwrap_err();
            assert!(matches!(error, RegistryError::Content { .. }), "{error}");
            assert!(error.to_string().contains(want), "{error}");
            assert!(!methods(&server).contains(&"PUT".to_owned()));
        }
        let store = Store::default();
        let kept = store.clone();
        let server = Server::plain(move |seen| kept.answer(seen));
        let pushed =
            pushing(&server, limits()).push_blob(&digest, 1000, &FileContent(path), &[], &|_| ()).await;
        assert_eq!(pushed.unwrap(), Pushed::Uploaded);
        assert!(store.holds(&blob));
    });
}

#[test]
fn a_registry_that_takes_nothing_is_given_up() {
    run(async {
        let server = Server::plain(|seen| match seen.method.as_str() {
            "POST" => Reply::silence(),
            _ => reply(404),
        });
        let limits = oci_registry::Limits { idle_timeout: std::time::Duration::from_millis(10), ..limits() };
        let error = push(&pushing(&server, limits), &noise(10)).await.unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
        assert!(!server.lines().iter().any(|line| line.contains(&blob_path(b""))));
    });
}
