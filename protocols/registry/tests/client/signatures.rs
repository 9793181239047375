//! Signatures: found where they are kept, bounded, and never believed here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_registry::{Access, Digest, RegistryError, Settings, Signature, Source};
use serde_json::{Value, json};

use crate::server::{Server, ok, reply};
use crate::{at, limits, open, run, with_login};

fn image() -> Digest {
    Digest::of(b"image")
}

fn layer(payload: &[u8], signature: &str) -> Value {
    json!({
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": Digest::of(payload).to_string(), "size": payload.len(),
        "annotations": {"dev.cosignproject.cosign/signature": signature},
    })
}

/// A registry with a cosign manifest of these layers, and these payloads.
fn cosign(layers: &[Value], payloads: &'static [&'static [u8]]) -> Server {
    let manifest = json!({"schemaVersion": 2, "layers": layers}).to_string();
    let tag = format!("/v2/team/app/manifests/sha256-{}.sig", image().hex());
    Server::plain(move |seen| {
        let payload = payloads.iter().find(|payload| seen.path() == crate::blob_path(payload));
        match payload {
            Some(payload) => ok(*payload),
            None if seen.path() == tag => ok(manifest.clone()),
            None => reply(404),
        }
    })
}

#[test]
fn cosign_keeps_them_beside_the_image() {
    run(async {
        let other = json!({"mediaType": "text/x", "digest": Digest::of(b"x").to_string(), "size": 1});
        let mut unsigned = layer(b"two", "");
        unsigned["annotations"] = json!({});
        let server = cosign(&[layer(b"one", "c2ln"), other, unsigned], &[b"one", b"two"]);
        let found = at(&server, limits()).cosign_signatures(&image()).await.unwrap();
        assert_eq!(found, [Signature::Cosign { payload: b"one".into(), signature: "c2ln".into() }]);
        let nothing = Server::plain(|_| reply(404));
        assert!(at(&nothing, limits()).signatures(&image()).await.unwrap().is_empty());
    });
}

#[test]
fn what_cosign_never_writes_is_refused() {
    run(async {
        let mut long = layer(b"one", "c2ln");
        long["size"] = json!(4);
        let mut huge = layer(b"one", "c2ln");
        huge["size"] = json!(1 << 20);
        for (layers, want) in [
            (vec![long], "its size is not the one in its manifest"),
            (vec![huge], "larger than 65536"),
            (vec![layer(b"missing", "c2ln")], "status 404"),
            (vec![layer(b"one", "c2ln"); 65], "more than 64"),
            (vec![json!({"digest": "sha256:../..", "size": 1})], "signature manifest: not the JSON"),
        ] {
            let server = cosign(&layers, &[b"one"]);
            let error = at(&server, limits()).cosign_signatures(&image()).await.unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
        }
        let bent = Server::plain(|seen| {
            if seen.path().contains("/blobs/") {
                ok("two")
            } else {
                ok(json!({"layers": [layer(b"one", "c2ln")]}).to_string())
            }
        });
        let error = at(&bent, limits()).cosign_signatures(&image()).await.unwrap_err();
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    });
}

#[test]
fn the_registrys_extension_is_asked_only_where_it_is() {
    run(async {
        let extension = format!("/extensions/v2/team/app/signatures/{}", image());
        let entry = |kind: &str, content: &str| json!({"version": 2, "type": kind, "content": content});
        for (supports, entries, want) in [
            (true, json!([entry("atomic", "c2ln"), entry("other", "eA==")]), Ok(1)),
            (true, json!([]), Ok(0)),
            (false, json!([entry("atomic", "c2ln")]), Ok(0)),
            (true, json!([entry("atomic", "c2l")]), Err("not base64")),
            (true, json!(vec![entry("atomic", "c2ln"); 65]), Err("more than 64")),
            (true, json!([entry("atomic", &STANDARD.encode([0; 200 << 10]))]), Err("larger than")),
        ] {
            let (path, body) = (extension.clone(), json!({"signatures": entries}).to_string());
            let server = Server::plain(move |seen| match seen.path() {
                "/v2/" if supports => reply(200).with("X-Registry-Supports-Signatures", "1"),
                "/v2/" => reply(200),
                asked if asked == path => ok(body.clone()),
                _ => reply(404),
            });
            let limits = oci_registry::Limits { document_bytes: 1 << 20, ..limits() };
            let found = at(&server, limits).simple_signatures(&image()).await;
            assert_eq!(server.lines().contains(&format!("GET {extension}")), supports);
            match want {
                Ok(count) => assert_eq!(found.unwrap(), vec![Signature::Simple(b"sig".into()); count]),
                Err(want) => {
                    let error = found.unwrap_err().to_string();
                    assert!(error.contains(want), "{error}");
                }
            }
        }
    });
}

#[test]
fn a_lookaside_server_is_asked_until_there_are_no_more() {
    run(async {
        let below = format!("/keep/team/app@sha256={}/signature-", image().hex());
        let prefix = below.clone();
        let keeper = Server::plain(move |seen| match seen.path().strip_prefix(&prefix) {
            Some(number @ ("1" | "2")) => ok(format!("sig {number}")),
            _ => reply(404),
        });
        let registry = Server::tls(|seen| match seen.header("authorization") {
            None => reply(401).with("WWW-Authenticate", "Basic realm=\"x\""),
            Some(_) => reply(404),
        });
        let lookaside = |url: String| {
            let source = Source { lookaside: Some(url), ..with_login(&registry) };
            open(Settings { sources: vec![source], limits: limits(), ..Settings::default() }, Access::Pull)
        };
        let repository = lookaside(format!("{}/keep/", keeper.url()));
        let found = repository.simple_signatures(&image()).await.unwrap();
        assert_eq!(found, [Signature::Simple(b"sig 1".into()), Signature::Simple(b"sig 2".into())]);
        let lines: Vec<_> = (1..=3).map(|number| format!("GET {below}{number}")).collect();
        assert_eq!(keeper.lines(), lines);
        assert!(keeper.requests().iter().all(|seen| seen.header("authorization").is_none()));

        // Without end: bounded. Too large: refused. Not to be used: said, but only to who asks for signatures.
        let endless = Server::plain(|_| ok("sig"));
        assert_eq!(lookaside(endless.url()).simple_signatures(&image()).await.unwrap().len(), 32);
        let large = Server::plain(|_| ok(vec![0; 200 << 10]));
        let error = lookaside(large.url()).simple_signatures(&image()).await.unwrap_err();
        assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
        let repository = lookaside("ftp://x".into());
        let error = repository.tagged("v1").await.unwrap_err();
        assert_eq!(error.status(), Some(404), "{error}");
        let error = repository.simple_signatures(&image()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Configuration { .. }), "{error}");
    });
}

fn referrer(name: &str, kind: &str) -> Value {
    json!({"mediaType": "m", "digest": Digest::of(name.as_bytes()).to_string(), "size": 1, "artifactType": kind})
}

#[test]
fn referrers_come_by_api_or_by_tag() {
    run(async {
        let api = format!("/v2/team/app/referrers/{}", image());
        let tag = format!("/v2/team/app/manifests/sha256-{}", image().hex());
        let pages = Server::plain(move |seen| {
            let page = |names: &[Value]| ok(json!({"manifests": names}).to_string());
            if seen.path() != api {
                return reply(404);
            }
            match seen.target.split_once('?') {
                None => page(&[referrer("a", "x"), referrer("b", "y")])
                    .with("Link", format!("<{api}?page=2>; rel=\"next\"")),
                Some(_) => page(&[referrer("c", "x")]).with("Link", "<http://127.0.0.1:1/>; rel=\"next\""),
            }
        });
        let repository = at(&pages, limits());
        assert_eq!(repository.referrers(&image(), None).await.unwrap().len(), 3);
        let found = repository.referrers(&image(), Some("x")).await.unwrap();
        let digests: Vec<_> = found.iter().map(|found| found.digest).collect();
        assert_eq!(digests, [Digest::of(b"a"), Digest::of(b"c")]);

        let tagged = Server::plain(move |seen| match seen.path() {
            path if path == tag => ok(json!({"manifests": [referrer("a", "x")]}).to_string()),
            _ => reply(404),
        });
        assert_eq!(at(&tagged, limits()).referrers(&image(), None).await.unwrap().len(), 1);
        let none = Server::plain(|_| reply(404));
        assert!(at(&none, limits()).referrers(&image(), None).await.unwrap().is_empty());

        let many = Server::plain(|seen| {
            let body = json!({"manifests": [referrer("a", "x")]}).to_string();
            ok(body).with("Link", format!("<{}>; rel=\"next\"", seen.target))
        });
        let error = at(&many, limits()).referrers(&image(), None).await.unwrap_err();
        assert!(error.to_string().contains("more than 256"), "{error}");
        assert_eq!(many.requests().len(), 8);
    });
}
