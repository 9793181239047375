//! Logins that the broker has for registries.

use agent_image::{ErrorKind, ImageError};
use base64::Engine as _;

use crate::image::{GZIP, Image, Layer, Store, pinned};
use crate::registry::{Answer, Registry};
use crate::run;
use crate::sealed::{Broker, uri};

const LOGIN: &str = "kbs:///owner/registry-login/app";

fn basic() -> Answer {
    Answer::Status(401, vec![("WWW-Authenticate".into(), "Basic realm=\"x\"".into())])
}

#[test]
fn a_login_comes_from_the_broker_in_either_form() {
    let encoded = base64::engine::general_purpose::STANDARD.encode("me:sesame");
    let forms = [
        r#"{"username":"me","password":"sesame"}"#.to_owned(),
        format!(r#"{{"auths":{{"registry.test":{{"auth":"{encoded}"}}}}}}"#),
        format!(
            r#"{{"auths":{{"registry.test/team":{{"auth":"{encoded}"}},"other.test":{{"auth":"AAAA"}}}}}}"#
        ),
    ];
    for form in forms {
        run(async {
            let registry = Registry::start_tls();
            let image = Image::new(vec![Layer::file(GZIP, "a", b"x")]);
            let reference = image.serve(&registry);
            let path = format!("/v2/team/app/manifests/{}", pinned(&reference));
            let manifest = serde_json::to_vec(&image.manifest).unwrap();
            registry.answer(&path, &[basic(), Answer::Body(manifest)]);
            let mut source = registry.source();
            source.credentials = Some(uri(LOGIN));
            let broker = Broker::holding(&[(LOGIN, form.as_bytes())]);
            let store = Store::with_broker(source, broker.clone());
            store.images.pull(&reference).await.unwrap();
            assert_eq!(broker.asked(), [LOGIN]);
            let last = registry.requests().pop().unwrap();
            assert_eq!(last.authorization, Some(format!("Basic {encoded}")));
        });
    }
}

#[test]
fn without_its_login_a_registry_is_not_asked() {
    run(async {
        let registry = Registry::start_tls();
        let reference = Image::new(vec![Layer::file(GZIP, "a", b"x")]).serve(&registry);
        let mut source = registry.source();
        source.credentials = Some(uri(LOGIN));
        let broker = Broker::holding(&[]);
        let store = Store::with_broker(source, broker.clone());
        let error = store.refusal(&reference).await;
        assert!(
            matches!(error, ImageError::Credentials { .. }) && error.kind() == ErrorKind::Pull,
            "{error}"
        );
        assert!(error.to_string().contains(LOGIN), "{error}");
        for bad in [
            "",
            "sesame",
            "{}",
            r#"{"auths":{"other.test":{"auth":"bWU6c2VzYW1l"}}}"#,
            r#"{"username":"sesame"}"#,
        ] {
            broker.put(LOGIN, bad.as_bytes());
            let error = store.refusal(&reference).await;
            assert!(matches!(error, ImageError::Credentials { .. }), "{error}");
            assert!(!error.to_string().contains("sesame"), "{error}");
        }
        assert!(registry.requests().is_empty());
    });
}

#[test]
fn a_proxy_carries_and_is_not_believed() {
    run(async {
        // In the absolute form, the proxy of these tests is a registry that answers by path.
        let (registry, proxy) = (Registry::start(), Registry::start());
        let image = Image::new(vec![Layer::file(GZIP, "a", b"x")]);
        let reference = image.serve(&registry);
        let mut source = registry.source();
        source.location = "http://registry.test".into();
        let sealed: sealed_spec::Proxy =
            serde_json::from_value(serde_json::json!({"url": format!("http://{}", proxy.address)})).unwrap();
        let store = Store::behind(source, sealed);
        let at = |path: &str| format!("http://registry.test{path}");
        let manifest = serde_json::to_vec(&image.manifest).unwrap();
        let manifest_path = at(&format!("/v2/team/app/manifests/{}", pinned(&reference)));
        proxy.answer(&manifest_path, &[Answer::Body(manifest)]);
        proxy.answer(&at(&image.config_path()), &[Answer::Body(serde_json::to_vec(&image.config).unwrap())]);
        let layer = at(&image.layers[0].blob_path());
        proxy.answer(&layer, &[Answer::Body(b"something else".to_vec())]);
        let error = store.refusal(&reference).await;
        assert_eq!(error.kind(), ErrorKind::Digest, "{error}");
        proxy.answer(&layer, &[Answer::Body(image.layers[0].blob.clone())]);
        store.images.pull(&reference).await.unwrap();
        assert!(registry.requests().is_empty());
    });
}
