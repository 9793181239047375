//! Images that are sealed by tag: what the tag means counts only if the image policy's signatures say so, and nothing
//! but its manifest is fetched before.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use agent_image::{Digest, ErrorKind, ImageError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use sealed_spec::ImageRef;
use serde_json::{Value, json};

use crate::image::{GZIP, Image, Layer, Store, blob_path, descriptor, manifest_path};
use crate::registry::{Answer, Registry};
use crate::run;
use crate::sealed::{Broker, KEY, broker_key, uri};

const REPOSITORY: &str = "registry.test/team/app";
const TAG: &str = "/v2/team/app/manifests/1";

struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
    }

    /// The policy's list for images of the registry.
    fn required(&self) -> Value {
        let mut der = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
        der.extend_from_slice(self.0.public_key().as_ref());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        json!([{
            "type": "sigstoreSigned",
            "keyData": STANDARD.encode(pem),
            "signedIdentity": {"type": "matchRepository"}
        }])
    }

    /// Puts a signature that says `digest` and `reference` beside the image with the digest `beside`.
    fn sign(&self, registry: &Registry, beside: &Digest, digest: &Digest, reference: &str) {
        let payload = payload("cosign container image signature", digest, reference);
        let signature = self.0.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
        let mut layer = descriptor("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes());
        layer["annotations"] = json!({"dev.cosignproject.cosign/signature": STANDARD.encode(signature)});
        let config = descriptor("application/vnd.oci.image.config.v1+json", b"{}");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
        registry.answer(&blob_path(&Digest::of(payload.as_bytes())), &[Answer::Body(payload.into())]);
        let tag = beside.to_string().replace(':', "-");
        registry.answer(&format!("/v2/team/app/manifests/{tag}.sig"), &[Answer::Body(manifest.into())]);
    }
}

fn payload(kind: &str, digest: &Digest, reference: &str) -> String {
    json!({
        "critical": {
            "type": kind,
            "image": {"docker-manifest-digest": digest.to_string()},
            "identity": {"docker-reference": reference}
        },
        "optional": {}
    })
    .to_string()
}

fn by_tag() -> ImageRef {
    ImageRef { digest: None, ..ImageRef::pinned(format!("{REPOSITORY}:1"), "") }
}

/// A store whose policy has this list for the registry's images.
fn store(registry: &Registry, list: &Value) -> Store {
    let source = registry.source();
    policed(list, |settings| settings.registries = vec![source])
}

fn policed(list: &Value, set: impl FnOnce(&mut agent_image::Settings)) -> Store {
    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {"registry.test": list}}});
    Store::of(|settings| {
        settings.image_policy = Some(policy);
        set(settings);
    })
}

/// Serves an image under the tag, and under its digest, which is returned.
fn serve(registry: &Registry, content: &[u8]) -> Digest {
    let image = Image::new(vec![Layer::file(GZIP, "a", content)]);
    let digest: Digest = image.serve(registry).digest.unwrap().parse().unwrap();
    let manifest = serde_json::to_vec(&image.manifest).unwrap();
    assert_eq!(digest, Digest::of(&manifest));
    registry.answer(TAG, &[Answer::Body(manifest)]);
    digest
}

/// Why the tag was refused; nothing of the image may have been fetched.
fn refused(registry: &Registry, store: &Store, digest: &Digest) -> String {
    let error = run(store.refusal(&by_tag()));
    assert!(matches!(error, ImageError::Signature(_)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Signature);
    assert_eq!(registry.count(&manifest_path(digest)), 0);
    assert_eq!(store.layers(), 0);
    error.to_string()
}

#[test]
fn a_signed_tag_is_pulled_by_its_digest() {
    let (registry, signer) = (Registry::start(), Signer::new());
    let digest = serve(&registry, b"signed");
    signer.sign(&registry, &digest, &digest, REPOSITORY);
    let store = store(&registry, &signer.required());
    run(async {
        let pulled = store.images.pull(&by_tag()).await.unwrap();
        assert_eq!(pulled.digest(), &digest);
        assert_eq!(registry.count(&manifest_path(&digest)), 1);
        // The tag moves: this store stays with what it has.
        let moved = serve(&registry, b"moved");
        signer.sign(&registry, &moved, &moved, REPOSITORY);
        assert_eq!(store.images.pull(&by_tag()).await.unwrap().digest(), &digest);
        assert_eq!(registry.count(TAG), 1);
    });
}

#[test]
fn a_signed_tag_with_keys_is_an_encrypted_image() {
    let (registry, signer) = (Registry::start(), Signer::new());
    let by_tag = ImageRef { keys: vec![uri(KEY)], ..by_tag() };
    let list = signer.required();
    let store = || {
        policed(&list, |settings| {
            settings.registries = vec![registry.source()];
            settings.resources = Broker::holding(&[(KEY, &[1; 32])]);
        })
    };
    let plain = serve(&registry, b"signed");
    signer.sign(&registry, &plain, &plain, REPOSITORY);
    let refusing = store();
    let error = run(refusing.refusal(&by_tag));
    assert!(error.to_string().contains("names keys for this tag"), "{error}");
    assert_eq!((error.kind(), refusing.layers()), (ErrorKind::Config, 0));

    let image = Image::new(vec![Layer::file(GZIP, "a", b"signed").encrypted(&[broker_key(KEY, 1)])]);
    let digest: Digest = image.serve(&registry).digest.unwrap().parse().unwrap();
    registry.answer(TAG, &[Answer::Body(serde_json::to_vec(&image.manifest).unwrap())]);
    signer.sign(&registry, &digest, &digest, REPOSITORY);
    assert_eq!(run(store().images.pull(&by_tag)).unwrap().digest(), &digest);
}

#[test]
fn tags_that_nobody_vouches_for() {
    let (registry, signer) = (Registry::start(), Signer::new());
    let digest = serve(&registry, b"signed");
    let store = store(&registry, &signer.required());
    assert!(refused(&registry, &store, &digest).contains("the registry has none"));

    Signer::new().sign(&registry, &digest, &digest, REPOSITORY);
    assert!(refused(&registry, &store, &digest).contains("no key of the policy"));

    signer.sign(&registry, &digest, &digest, "registry.test/team/other");
    assert!(refused(&registry, &store, &digest).contains("registry.test/team/other"));

    // The signature of what the tag meant before, put beside what it means now.
    let moved = serve(&registry, b"moved");
    signer.sign(&registry, &moved, &digest, REPOSITORY);
    assert!(refused(&registry, &store, &moved).contains(&digest.to_string()));

    // Nothing of this outlasts a good signature.
    signer.sign(&registry, &moved, &moved, REPOSITORY);
    assert_eq!(run(store.images.pull(&by_tag())).unwrap().digest(), &moved);
}

#[test]
fn policies_that_ask_for_nothing() {
    let registry = Registry::start();
    let digest = serve(&registry, b"anything");
    for (list, part) in [
        (json!([{"type": "insecureAcceptAnything"}]), "asks for no signature"),
        (json!([{"type": "reject"}]), "rejects it"),
    ] {
        assert!(refused(&registry, &store(&registry, &list), &digest).contains(part), "{list}");
    }
    let source = registry.source();
    let none = Store::of(|settings| settings.registries = vec![source]);
    assert!(refused(&registry, &none, &digest).contains("no image policy"));
    assert_eq!(registry.count(TAG), 0, "the tag was looked up for nothing");
}

#[test]
fn simple_signing_through_a_lookaside() {
    let home = tempfile::Builder::new().prefix("pgp").tempdir().unwrap();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    gpg(home.path(), &["--quick-gen-key", "signer@example", "ed25519", "sign", "never"]);
    let ring = STANDARD.encode(gpg(home.path(), &["--export"]));
    let list = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyData": ring}]);

    let registry = Registry::start();
    let digest = serve(&registry, b"signed");
    let path = home.path().join("payload");
    let sign = |reference: &str| {
        std::fs::write(&path, payload("atomic container signature", &digest, reference)).unwrap();
        gpg(home.path(), &["--sign", "--output", "-", path.to_str().unwrap()])
    };
    let mut source = registry.source();
    source.lookaside = Some(format!("http://{}/store", registry.address));
    let store = policed(&list, |settings| settings.registries = vec![source]);
    let signatures = format!("/store/team/app@{}/signature-", digest.to_string().replace(':', "="));
    assert!(refused(&registry, &store, &digest).contains("the registry has none"));
    registry.answer(&format!("{signatures}1"), &[Answer::Body(sign("registry.test/team/app:2"))]);
    let other_tag = refused(&registry, &store, &digest);
    assert!(other_tag.contains("registry.test/team/app:2"), "{other_tag}");
    // The second is good.
    registry.answer(&format!("{signatures}2"), &[Answer::Body(sign("registry.test/team/app:1"))]);
    assert_eq!(run(store.images.pull(&by_tag())).unwrap().digest(), &digest);
    let _ = Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "all"]).output();
}

fn gpg(home: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("gpg");
    command
        .arg("--homedir")
        .arg(home)
        .args(["--batch", "--quiet", "--yes", "--passphrase", ""])
        .args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
