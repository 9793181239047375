//! The way to the registry: retries, redirects, authentication, TLS. The host is on it all along.

use agent_image::{Digest, ErrorKind, ImageError, ImageStore, RegistryError, Settings};
use base64::Engine as _;

use crate::image::{GZIP, Image, Layer, Store, limits, named, pinned};
use crate::registry::{Answer, Registry};
use crate::run;

fn good() -> Image {
    Image::new(vec![Layer::file(GZIP, "a", &[9; 20_000])])
}

fn redirect(to: &str) -> Answer {
    Answer::Status(307, vec![("Location".into(), to.into())])
}

#[test]
fn a_transfer_that_breaks_is_tried_again() {
    run(async {
        let registry = Registry::start();
        let image = good();
        let reference = image.serve(&registry);
        let path = image.layers[0].blob_path();
        let blob = image.layers[0].blob.clone();
        registry
            .answer(&path, &[Answer::Cut(blob.clone(), 40), Answer::Status(503, vec![]), Answer::Body(blob)]);
        let store = Store::new(registry.source());
        store.images.pull(&reference).await.unwrap();
        assert_eq!(registry.count(&path), 3);
        store.settled().await;
    });
}

/// As large as it gets: random bytes don't compress.
fn large() -> Image {
    let mut state = 1u32;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(60_000)
    .collect();
    Image::new(vec![Layer::file(GZIP, "a", &bytes)])
}

#[test]
fn a_broken_transfer_goes_on_where_it_broke_as_long_as_bytes_come() {
    run(async {
        let registry = Registry::start();
        let image = large();
        let reference = image.serve(&registry);
        let (path, blob) = (image.layers[0].blob_path(), image.layers[0].blob.clone());
        // Many more breaks than attempts.
        registry.answer(&path, &[Answer::Ranged(blob.clone(), 5_000)]);
        let store = Store::new(registry.source());
        store.images.pull(&reference).await.unwrap();
        let asked: Vec<_> =
            registry.requests().into_iter().filter(|r| r.path == path).map(|r| r.range).collect();
        assert_eq!(asked.len(), blob.len().div_ceil(5_000));
        assert_eq!(asked[..2], [None, Some("bytes=5000-".to_owned())]);
        store.settled().await;
    });
}

#[test]
fn a_tag_leads_to_the_digest_that_it_has_now() {
    run(async {
        let registry = Registry::start();
        let reference = good().serve(&registry);
        let manifest = serde_json::to_vec(&good().manifest).unwrap();
        registry.answer("/v2/team/app/manifests/v1", &[Answer::Body(manifest)]);
        let store = Store::new(registry.source());
        let resolved = store.images.resolve("registry.test/team/app:v1").await.unwrap();
        assert_eq!(resolved.digest, reference.digest);
        let by_digest = format!("registry.test/team/app@{}", pinned(&reference));
        assert_eq!(store.images.resolve(&by_digest).await.unwrap().digest, reference.digest);
        for bad in
            ["registry.test/team/app:v2", "registry.test/team/app@sha256:00", "registry.test/team/app:a b"]
        {
            store.images.resolve(bad).await.unwrap_err();
        }
    });
}

#[test]
fn a_registry_without_ranges_sends_it_again() {
    run(async {
        let registry = Registry::start();
        let image = large();
        let reference = image.serve(&registry);
        let (path, blob) = (image.layers[0].blob_path(), image.layers[0].blob.clone());
        registry.answer(&path, &[Answer::Cut(blob.clone(), 50_000), Answer::Body(blob)]);
        Store::new(registry.source()).images.pull(&reference).await.unwrap();
    });
}

#[test]
fn another_range_than_the_rest_is_refused() {
    run(async {
        let registry = Registry::start();
        let image = large();
        let reference = image.serve(&registry);
        let (path, blob) = (image.layers[0].blob_path(), image.layers[0].blob.clone());
        registry.answer(&path, &[Answer::Cut(blob.clone(), 50_000), Answer::WrongRange(blob.clone())]);
        let error = Store::new(registry.source()).refusal(&reference).await;
        assert!(error.to_string().contains("another range"), "{error}");
        // A rest that belongs to something else has the wrong digest.
        let mut other = blob.clone();
        *other.last_mut().unwrap() ^= 1;
        registry.answer(&path, &[Answer::Cut(blob, 50_000), Answer::Ranged(other, usize::MAX)]);
        let error = Store::new(registry.source()).refusal(&reference).await;
        assert_eq!(error.kind(), ErrorKind::Digest, "{error}");
    });
}

#[test]
fn attempts_are_bounded() {
    run(async {
        let registry = Registry::start();
        let image = good();
        let reference = image.serve(&registry);
        let path = image.layers[0].blob_path();
        registry.answer(&path, &[Answer::Cut(image.layers[0].blob.clone(), 40)]);
        let error = Store::new(registry.source()).refusal(&reference).await;
        assert!(
            matches!(error, ImageError::Registry(RegistryError::Unreachable { attempts: 3, .. })),
            "{error}"
        );
        assert!(error.to_string().contains(&registry.address), "{error}");
        assert_eq!(registry.count(&path), 3);

        registry.answer(&path, &[Answer::Status(503, vec![])]);
        let error = Store::new(registry.source()).refusal(&reference).await;
        assert!(matches!(error, ImageError::Registry(RegistryError::Status { status: 503, .. })), "{error}");
        assert_eq!(registry.count(&path), 6);
    });
}

#[test]
fn what_will_not_change_is_not_tried_again() {
    run(async {
        let registry = Registry::start();
        let error = Store::new(registry.source()).refusal(&named(&Digest::of(b"missing"))).await;
        assert!(matches!(error, ImageError::Registry(RegistryError::Status { status: 404, .. })), "{error}");
        assert_eq!(registry.requests().len(), 1);
    });
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    run(async {
        let registry = Registry::start();
        let mut source = registry.source();
        source.location = "http://127.0.0.1:1".into();
        let error = Store::new(source).refusal(&named(&Digest::of(b""))).await;
        assert_eq!(error.kind(), ErrorKind::Pull);
        assert!(error.to_string().contains("http://127.0.0.1:1: no answer after 3 attempts"), "{error}");
    });
}

#[test]
fn a_redirect_is_followed_and_its_bytes_checked() {
    run(async {
        let (registry, storage) = (Registry::start(), Registry::start());
        let image = good();
        let reference = image.serve(&registry);
        let path = image.layers[0].blob_path();
        registry.answer(&path, &[redirect(&format!("http://{}/blob?sig=1", storage.address))]);
        storage.answer("/blob", &[Answer::Body(image.layers[0].blob.clone())]);
        Store::new(registry.source()).images.pull(&reference).await.unwrap();
        assert_eq!(storage.requests()[0].path, "/blob?sig=1");

        storage.answer("/blob", &[Answer::Body(vec![0; image.layers[0].blob.len()])]);
        let error = Store::new(registry.source()).refusal(&reference).await;
        assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    });
}

#[test]
fn redirects_are_bounded() {
    run(async {
        let registry = Registry::start();
        let image = good();
        let reference = image.serve(&registry);
        let path = image.layers[0].blob_path();
        registry.answer(&path, &[redirect(&path)]);
        let error = Store::new(registry.source()).refusal(&reference).await;
        assert!(error.to_string().contains("more than 5 redirects"), "{error}");
        assert_eq!(registry.count(&path), 6);
        for bad in ["", "file:///etc/passwd", "//other", "http://"] {
            registry.answer(&path, &[redirect(bad)]);
            let error = Store::new(registry.source()).refusal(&reference).await;
            assert!(error.to_string().contains("redirect to"), "{bad}: {error}");
        }
    });
}

#[test]
fn plain_http_only_where_the_owner_said_so() {
    run(async {
        let registry = Registry::start();
        let image = good();
        let mut reference = image.serve(&registry);
        // No source for this host: https, and nothing crosses in clear.
        reference.reference = format!("{}/team/app:1", registry.address);
        let error = Store::new(registry.source()).refusal(&reference).await;
        assert!(error.to_string().contains("CA bundle"), "{error}");
        let mut source = registry.source();
        source.location = format!("https://{}", registry.address);
        source.ca = Registry::start_tls().ca.clone();
        reference.reference = "registry.test/team/app:1".into();
        let error = Store::new(source).refusal(&reference).await;
        assert!(matches!(error, ImageError::Registry(RegistryError::Unreachable { .. })), "{error}");
        assert_eq!(registry.count("/v2/"), 0);
    });
}

#[test]
fn a_sealed_certificate_is_the_only_one() {
    run(async {
        let registry = Registry::start_tls();
        let reference = good().serve(&registry);
        Store::new(registry.source()).images.pull(&reference).await.unwrap();

        let mut source = registry.source();
        source.ca = Registry::start_tls().ca.clone();
        let before = registry.requests().len();
        let error = Store::new(source.clone()).refusal(&reference).await;
        assert!(error.to_string().contains("TLS handshake"), "{error}");
        assert_eq!(registry.requests().len(), before);

        source.ca = Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into());
        let error = Store::new(source).refusal(&reference).await;
        assert!(error.to_string().contains("the pinned registry certificate"), "{error}");
    });
}

#[test]
fn the_bundle_serves_registries_without_a_certificate() {
    run(async {
        let registry = Registry::start_tls();
        let reference = good().serve(&registry);
        let mut source = registry.source();
        source.ca = None;
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("ca.crt");
        let pull = async |bundle: &std::path::Path| {
            let root = tempfile::tempdir().unwrap();
            let bundle = Some(bundle.to_owned());
            let store = ImageStore::new(Settings {
                registries: vec![source.clone()],
                ca_bundle: bundle,
                limits: limits(),
                ..Settings::new(root.path().to_owned())
            })
            .unwrap();
            store.pull(&reference).await.map(drop)
        };
        let error = pull(&bundle).await.unwrap_err();
        assert!(error.to_string().contains("ca.crt"), "{error}");
        std::fs::write(&bundle, registry.ca.as_deref().unwrap()).unwrap();
        pull(&bundle).await.unwrap();
    });
}

#[test]
fn a_token_is_fetched_with_the_credentials_and_used() {
    run(async {
        let registry = Registry::start_tls();
        let image = good();
        let reference = image.serve(&registry);
        let manifest = serde_json::to_vec(&image.manifest).unwrap();
        let challenge =
            format!(r#"Bearer realm="https://{}/token?x=1",service="the registry""#, registry.address);
        let path = format!("/v2/team/app/manifests/{}", pinned(&reference));
        registry.answer(
            &path,
            &[Answer::Status(401, vec![("WWW-Authenticate".into(), challenge)]), Answer::Body(manifest)],
        );
        registry.answer("/token", &[Answer::Body(br#"{"token":"t0k"}"#.to_vec())]);
        Store::new(registry.source_with_login()).images.pull(&reference).await.unwrap();

        let requests = registry.requests();
        let token = requests.iter().find(|r| r.path.starts_with("/token")).unwrap();
        assert_eq!(token.path, "/token?x=1&scope=repository%3Ateam%2Fapp%3Apull&service=the%20registry");
        let login = base64::engine::general_purpose::STANDARD.encode("me:sesame");
        assert_eq!(token.authorization, Some(format!("Basic {login}")));
        assert_eq!(requests[0].authorization, None);
        assert_eq!(requests.last().unwrap().authorization.as_deref(), Some("Bearer t0k"));
    });
}

#[test]
fn credentials_stay_with_their_registry() {
    run(async {
        let (registry, storage) = (Registry::start_tls(), Registry::start());
        let image = good();
        let reference = image.serve(&registry);
        let path = image.layers[0].blob_path();
        let manifest = serde_json::to_vec(&image.manifest).unwrap();
        let basic = Answer::Status(401, vec![("WWW-Authenticate".into(), "Basic realm=\"x\"".into())]);
        let manifest_path = format!("/v2/team/app/manifests/{}", pinned(&reference));
        registry.answer(&manifest_path, &[basic, Answer::Body(manifest)]);
        // Down to plain HTTP: refused before anything is sent.
        registry.answer(&path, &[redirect(&format!("http://{}/blob", storage.address))]);
        let error = Store::new(registry.source_with_login()).refusal(&reference).await;
        assert!(error.to_string().contains("redirect from https to http"), "{error}");
        assert_eq!(storage.count("/blob"), 0);

        // A token service without TLS gets no credentials either.
        let challenge = format!("Bearer realm=\"http://{}/token\"", storage.address);
        registry.answer(&manifest_path, &[Answer::Status(401, vec![("WWW-Authenticate".into(), challenge)])]);
        let error = Store::new(registry.source_with_login()).refusal(&reference).await;
        assert!(error.to_string().contains("must too"), "{error}");
        assert_eq!(storage.count("/token"), 0);

        // And a sealed source that would send them in clear is refused.
        let mut source = registry.source_with_login();
        source.location = format!("http://{}", storage.address);
        source.ca = None;
        let error = Store::new(source).refusal(&reference).await;
        assert!(error.to_string().contains("login over plain http"), "{error}");
    });
}

#[test]
fn a_redirect_carries_no_credentials() {
    run(async {
        let (registry, storage) = (Registry::start_tls(), Registry::start_tls());
        let image = good();
        let reference = image.serve(&registry);
        let manifest = serde_json::to_vec(&image.manifest).unwrap();
        let basic = Answer::Status(401, vec![("WWW-Authenticate".into(), "Basic realm=\"x\"".into())]);
        registry.answer(
            &format!("/v2/team/app/manifests/{}", pinned(&reference)),
            &[basic, Answer::Body(manifest)],
        );
        registry
            .answer(&image.layers[0].blob_path(), &[redirect(&format!("https://{}/blob", storage.address))]);
        storage.answer("/blob", &[Answer::Body(image.layers[0].blob.clone())]);
        let root = tempfile::tempdir().unwrap();
        let bundle = root.path().join("ca.crt");
        std::fs::write(&bundle, storage.ca.as_deref().unwrap()).unwrap();
        let sources = vec![registry.source_with_login()];
        let store = ImageStore::new(Settings {
            registries: sources,
            ca_bundle: Some(bundle),
            limits: limits(),
            ..Settings::new(root.path().join("images"))
        })
        .unwrap();
        store.pull(&reference).await.unwrap();
        assert!(registry.requests().iter().any(|r| r.authorization.is_some()));
        assert_eq!(storage.requests()[0].authorization, None);
    });
}

#[test]
fn a_registry_that_asks_again_is_believed() {
    run(async {
        let registry = Registry::start_tls();
        let reference = good().serve(&registry);
        let path = format!("/v2/team/app/manifests/{}", pinned(&reference));
        let basic = Answer::Status(401, vec![("WWW-Authenticate".into(), "Basic realm=\"x\"".into())]);
        registry.answer(&path, &[basic]);
        let error = Store::new(registry.source_with_login()).refusal(&reference).await;
        assert!(matches!(error, ImageError::Registry(RegistryError::Status { status: 401, .. })), "{error}");
        assert_eq!(registry.count(&path), 2);
    });
}
