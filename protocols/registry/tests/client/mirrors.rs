//! Mirrors: asked first, by digest only, and never believed.

use std::sync::{Arc, Mutex};

use oci_registry::{Access, Digest, Login, Mirror, RegistryError, Repository, Settings, Source};

use crate::server::{Reply, Server, ok, reply};
use crate::{blob_path, limits, noise, open, run, whole};

/// The registry with mirrors, each of which is known by a source of its own.
fn mirrored(registry: Source, mirrors: &[&Server]) -> Repository {
    let mut registry = registry;
    registry.mirrors = mirrors.iter().map(|mirror| mirror.url().as_str().into()).collect();
    let mut sources = vec![registry];
    for mirror in mirrors {
        sources.push(Source { ca: mirror.ca.clone(), ..Source::new(&mirror.address, &mirror.url()) });
    }
    open(Settings { sources, limits: limits(), ..Settings::default() }, Access::Pull)
}

fn serving(blob: &[u8]) -> Server {
    let blob = blob.to_vec();
    Server::plain(move |_| ok(blob.clone()))
}

#[test]
fn a_mirror_spares_the_registry() {
    run(async {
        let blob = noise(5000);
        let (registry, mirror) = (serving(&blob), serving(&blob));
        let repository = mirrored(registry.source(), &[&mirror]);
        let digest = Digest::of(&blob);
        assert_eq!(whole(&repository, &digest, 5000).await.unwrap(), blob);
        repository.manifest(&digest).await.unwrap();
        repository.small_blob(&digest, "config").await.unwrap();
        assert_eq!((registry.requests().len(), mirror.requests().len()), (0, 3));
    });
}

#[test]
fn other_bytes_are_refused_and_their_mirror_is_not_asked_again() {
    run(async {
        let blob = noise(5000);
        let digest = Digest::of(&blob);
        let mut bent = blob.clone();
        bent[4000] ^= 1;
        for fetch in 0..3 {
            let (registry, liar, honest) = (serving(&blob), serving(&bent), serving(&blob));
            let repository = mirrored(registry.source(), &[&liar, &honest]);
            let fetched = match fetch {
                0 => whole(&repository, &digest, 5000).await.unwrap(),
                1 => repository.manifest(&digest).await.unwrap().bytes,
                _ => repository.small_blob(&digest, "config").await.unwrap(),
            };
            assert_eq!(fetched, blob);
            repository.manifest(&digest).await.unwrap();
            assert_eq!((liar.requests().len(), honest.requests().len()), (1, 2), "{fetch}");
            assert!(registry.requests().is_empty());
        }
    });
}

#[test]
fn the_registrys_own_wrong_bytes_are_final() {
    run(async {
        let blob = noise(5000);
        let (registry, mirror) = (serving(&noise(5001)[1..]), serving(&noise(5001)[1..]));
        let repository = mirrored(registry.source(), &[&mirror]);
        let error = whole(&repository, &Digest::of(&blob), 5000).await.unwrap_err();
        assert!(matches!(error.of_registry(), RegistryError::DigestMismatch { .. }), "{error}");
        assert!(error.to_string().contains(&mirror.url()), "{error}");
        assert_eq!((registry.requests().len(), mirror.requests().len()), (1, 1));
        let error = repository.manifest(&Digest::of(&blob)).await.unwrap_err();
        assert!(matches!(error.of_registry(), RegistryError::DigestMismatch { .. }), "{error}");
    });
}

#[test]
fn a_mirror_that_breaks_is_replaced_in_the_middle() {
    run(async {
        let blob = noise(5000);
        let (first, rest) = (blob.clone(), blob.clone());
        let mirror = Server::plain(move |seen| match seen.header("range") {
            None => Reply::cut(5000, &first[..2000]),
            Some(_) => reply(500),
        });
        let registry = Server::plain(move |seen| match seen.header("range") {
            Some("bytes=2000-") => {
                ok(&rest[2000..]).with("Content-Range", "bytes 2000-4999/5000").status(206)
            }
            _ => reply(400),
        });
        let repository = mirrored(registry.source(), &[&mirror]);
        assert_eq!(whole(&repository, &Digest::of(&blob), 5000).await.unwrap(), blob);
        assert_eq!((registry.requests().len(), mirror.requests().len()), (1, 2));
    });
}

#[test]
fn half_from_a_liar_is_dropped_with_its_other_half() {
    run(async {
        let blob = noise(5000);
        let (mut bent, good) = (blob.clone(), blob.clone());
        bent[0] ^= 1;
        let mirror = Server::plain(move |seen| match seen.header("range") {
            None => Reply::cut(5000, &bent[..2000]),
            Some(_) => reply(404),
        });
        let registry = Server::plain(move |seen| match seen.header("range") {
            Some(_) => ok(&good[2000..]).with("Content-Range", "bytes 2000-4999/5000").status(206),
            None => ok(good.clone()),
        });
        let repository = mirrored(registry.source(), &[&mirror]);
        assert_eq!(whole(&repository, &Digest::of(&blob), 5000).await.unwrap(), blob);
        let asked: Vec<bool> =
            registry.requests().iter().map(|seen| seen.header("range").is_some()).collect();
        assert_eq!(asked, [true, false]);
    });
}

#[test]
fn a_dead_mirror_costs_one_attempt() {
    run(async {
        let blob = noise(5000);
        let registry = serving(&blob);
        let broken = Server::plain(|_| Reply::hang_up());
        let repository = mirrored(registry.source(), &[&broken]);
        for _ in 0..3 {
            repository.manifest(&Digest::of(&blob)).await.unwrap();
        }
        assert_eq!((registry.requests().len(), broken.requests().len()), (3, 1));
    });
}

#[test]
fn a_mirror_never_says_what_a_tag_means() {
    run(async {
        let (registry, mirror) = (Server::plain(|_| Reply::hang_up()), serving(b"{}"));
        let repository = mirrored(registry.source(), &[&mirror]);
        repository.tagged("v1").await.unwrap_err();
        assert!(mirror.requests().is_empty());

        // Unless its owner says that it may, and the registry says nothing.
        let mut source = registry.source();
        source.mirrors = vec![Mirror { location: mirror.url(), tags: true }];
        let believing = |source: Source| {
            open(Settings { sources: vec![source], limits: limits(), ..Settings::default() }, Access::Pull)
        };
        assert_eq!(believing(source.clone()).tagged("v1").await.unwrap().bytes, b"{}");
        let denying = Server::plain(|_| reply(404));
        source.location = denying.url();
        let error = believing(source).tagged("v1").await.unwrap_err();
        assert_eq!(error.status(), Some(404), "{error}");
        assert_eq!(mirror.requests().len(), 1);
    });
}

#[test]
fn a_mirror_sees_its_own_login_only() {
    run(async {
        let blob = noise(100);
        let seen: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
        let log = seen.clone();
        let challenging = move |request: &crate::server::Seen| {
            log.lock().unwrap().push(request.header("authorization").map(str::to_owned));
            reply(401).with("WWW-Authenticate", "Basic realm=\"x\"")
        };
        let mirror = Server::tls(challenging);
        let served = blob.clone();
        let registry = Server::tls(move |seen| match seen.header("authorization") {
            Some("Basic bWU6c2VzYW1l") => ok(served.clone()),
            _ => reply(401).with("WWW-Authenticate", "Basic realm=\"x\""),
        });
        let source = Source { login: Some(Login::password("me", "sesame")), ..registry.source() };
        let repository = mirrored(source.clone(), &[&mirror]);
        assert_eq!(repository.manifest(&Digest::of(&blob)).await.unwrap().bytes, blob);
        assert_eq!(*seen.lock().unwrap(), [None]);

        seen.lock().unwrap().clear();
        let own = Source {
            ca: mirror.ca.clone(),
            login: Some(Login::password("guest", "other")),
            ..Source::new(&mirror.address, &mirror.url())
        };
        let source = Source { mirrors: vec![mirror.url().as_str().into()], ..source };
        let settings = Settings { sources: vec![source, own], limits: limits(), ..Settings::default() };
        open(settings, Access::Pull).manifest(&Digest::of(&blob)).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [None, Some("Basic Z3Vlc3Q6b3RoZXI=".to_owned())]);
    });
}

#[test]
fn a_mirror_may_keep_it_below_a_prefix() {
    run(async {
        let blob = noise(100);
        let (registry, mirror) = (Server::plain(|_| reply(404)), serving(&blob));
        let mut source = registry.source();
        source.mirrors = vec![format!("{}/hub", mirror.url()).as_str().into()];
        let settings = Settings { sources: vec![source], limits: limits(), ..Settings::default() };
        let repository = open(settings, Access::Pull);
        repository.small_blob(&Digest::of(&blob), "config").await.unwrap();
        let below = blob_path(&blob).replace("/team/", "/hub/team/");
        assert_eq!(mirror.lines(), [format!("GET {below}")]);
    });
}
