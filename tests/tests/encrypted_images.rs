//! Encrypted and signed images in a VM: keys come from the broker, and what the registry changes is refused.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocols::refusal::{Code, Refusal};
use sealpod_tests::attempt::Stage;
use sealpod_tests::cosign::Signer;
use sealpod_tests::image::{Blobs, manifest_of};
use sealpod_tests::owner::Owner;
use sealpod_tests::process::Finished;
use sealpod_tests::registry::HOST;
use sealpod_tests::world::World;
use serde_json::Value;
use support::in_vm;

const ENCRYPTION_KEY: &str = "kbs:///acme/image-key/layers";
const NAME: &str = "secret";

/// A world with an owner, before anything is sealed.
struct Preparation {
    world: World,
    owner: Owner,
}

impl Preparation {
    fn new() -> Self {
        let world = World::start(&mut |_| {}).unwrap();
        let owner = world.enrolled_owner("acme").unwrap();
        Self { world, owner }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.directory().join(name)
    }

    /// `sealpod image …`
    fn image(&self, arguments: &[&str]) {
        let mut command = self.owner.command("image");
        Finished::of(command.args(arguments)).unwrap().success("sealpod image").unwrap();
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let finished = Finished::of(command.args(arguments).current_dir(self.world.directory()));
        finished.unwrap().success("openssl").unwrap();
    }

    /// An RSA key, of which the owner keeps the private half for the broker.
    fn private_key(&self, uri: &str) -> PathBuf {
        let name = uri.rsplit('/').next().unwrap();
        let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
        self.openssl(&["genrsa", "-out", &private, "2048"]);
        self.openssl(&["rsa", "-in", &private, "-pubout", "-out", &public]);
        self.image(&["key", "import", uri, self.path(&private).to_str().unwrap()]);
        self.path(&public)
    }

    /// The test image, encrypted by skopeo into a layout.
    fn skopeo_encrypts(&self, public: &Path, layout: &Path) {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy", "--encryption-key"]);
        command.arg(format!("jwe:{}", public.display()));
        command.arg(format!("oci:{}:v1", self.world.registry().layout("busybox").display()));
        command.arg(format!("oci:{}:v1", layout.display()));
        Finished::of(&mut command).unwrap().success("skopeo copy").unwrap();
    }

    /// The test image, encrypted for a key that the broker will have, and pushed. The layout.
    fn pushed(&self) -> PathBuf {
        let layout = self.path("encrypted");
        self.skopeo_encrypts(&self.private_key(ENCRYPTION_KEY), &layout);
        self.world.registry().push_layout(&layout, NAME, "v1").unwrap();
        layout
    }

    fn sealed(self, arguments: &[&str]) -> Stage {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/encrypted.yaml");
        let all = [&["--grant-logs", "clear"], arguments].concat();
        Stage::set_by(self.owner, self.world, &manifest, &all, &[]).unwrap()
    }

    fn sealed_with_key(self) -> Stage {
        self.sealed(&["--image-key", &format!("main={ENCRYPTION_KEY}")])
    }
}

fn first_layer(layout: &Path) -> Value {
    manifest_of(layout).unwrap().0["layers"][0].clone()
}

fn runs(stage: &Stage) {
    let mut command = stage.owner.run(&stage.sealed, &stage.guest, &stage.world.relay_socket());
    let finished = Finished::of(command.arg("--state").arg(stage.state())).unwrap();
    let line = "opened in the guest: hello from the image";
    assert!(finished.stdout.contains(line), "{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.status.code(), Some(3), "{}", finished.stderr);
}

async fn refused(stage: &Stage, code: Code) -> Refusal {
    let refusal = stage.honest_host().unwrap().refusal(&stage.state()).await.unwrap();
    assert_eq!(refusal.code, code, "{refusal}");
    refusal
}

#[test]
fn an_image_that_skopeo_encrypted_runs_with_the_brokers_key() {
    let _vm = in_vm();
    let preparation = Preparation::new();
    let layout = preparation.pushed();
    assert!(first_layer(&layout)["mediaType"].as_str().unwrap().ends_with("+encrypted"));
    let stage = preparation.sealed_with_key();
    runs(&stage);

    let log = stage.world.directory().join("audit.jsonl");
    stage.world.broker().export_audit(&log).unwrap();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains(ENCRYPTION_KEY), "the key's release is not in the audit log:\n{text}");
}

#[test]
fn an_image_that_we_encrypted_for_a_key_of_the_broker_runs() {
    let _vm = in_vm();
    let preparation = Preparation::new();
    preparation.image(&["key", "new", ENCRYPTION_KEY]);
    let registry = preparation.world.registry();
    let (address, layout) = (registry.address().to_string(), registry.layout("busybox"));
    let reached = format!("{address}={}", registry.location());
    let (from, to) = (format!("oci:{}:v1", layout.display()), format!("docker://{address}/{NAME}:v1"));
    preparation.image(&[
        "encrypt",
        "--quiet",
        &from,
        &to,
        "--registry",
        &reached,
        "--recipient",
        ENCRYPTION_KEY,
    ]);
    runs(&preparation.sealed_with_key());
}

#[tokio::test]
async fn a_key_that_the_sealed_spec_doesnt_name() {
    let _vm = in_vm();
    let preparation = Preparation::new();
    preparation.pushed();
    // The broker has the right key, and gives this guest another one.
    let other = "kbs:///acme/image-key/other";
    preparation.private_key(other);
    preparation.image(&["key", "push", ENCRYPTION_KEY]);
    let stage = preparation.sealed(&["--image-key", &format!("main={other}")]);
    let refusal = refused(&stage, Code::ImageKey).await;
    assert!(refusal.detail.contains("other"), "the key that was tried is missing: {refusal}");
}

#[tokio::test]
async fn one_bit_of_an_encrypted_layer_at_the_registry() {
    let _vm = in_vm();
    let preparation = Preparation::new();
    let layout = preparation.pushed();
    let stage = preparation.sealed_with_key();
    stage.world.registry().flip_a_bit(first_layer(&layout)["digest"].as_str().unwrap()).unwrap();
    refused(&stage, Code::ImageDigest).await;
}

#[tokio::test]
async fn one_bit_of_a_layer_under_a_manifest_that_says_so() {
    let _vm = in_vm();
    let preparation = Preparation::new();
    // Whoever made the image changed the ciphertext and every digest of it; the authentication code is the old one.
    let layout = preparation.pushed();
    let (mut manifest, _) = manifest_of(&layout).unwrap();
    let digest = manifest["layers"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let mut bytes = fs::read(layout.join("blobs/sha256").join(digest)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let blobs = Blobs::below(&layout).unwrap();
    let changed = blobs.add(manifest["layers"][0]["mediaType"].as_str().unwrap(), &bytes).unwrap();
    manifest["layers"][0]["digest"] = changed["digest"].clone();
    blobs.finish(&manifest).unwrap();
    preparation.world.registry().push_layout(&layout, NAME, "v1").unwrap();
    let refusal = refused(&preparation.sealed_with_key(), Code::ImageDigest).await;
    // What it should have been would help whoever changes it.
    assert!(!refusal.detail.contains("exp hmac"), "{refusal}");
}

#[tokio::test]
async fn the_annotation_of_another_encryption() {
    let _vm = in_vm();
    let preparation = Preparation::new();
    let layout = preparation.pushed();
    let again = preparation.path("again");
    preparation.skopeo_encrypts(&preparation.path("layers.pub"), &again);
    let (mut manifest, _) = manifest_of(&layout).unwrap();
    let name = "org.opencontainers.image.enc.pubopts";
    let theirs = first_layer(&again)["annotations"][name].clone();
    assert_ne!(manifest["layers"][0]["annotations"][name], theirs);
    manifest["layers"][0]["annotations"][name] = theirs;
    Blobs::below(&layout).unwrap().finish(&manifest).unwrap();
    preparation.world.registry().push_layout(&layout, NAME, "v1").unwrap();
    refused(&preparation.sealed_with_key(), Code::ImageDigest).await;
}

/// The plain test image under a tag that the policy wants signed.
fn by_tag(preparation: &Preparation) -> (Signer, String, [String; 4]) {
    let registry = preparation.world.registry();
    let layout = registry.layout("busybox");
    registry.push_layout(&layout, NAME, "v1").unwrap();
    let signer = Signer::new(&preparation.path("signer")).unwrap();
    let policy = signer.policy(HOST).unwrap().to_str().unwrap().to_owned();
    let arguments = ["--image-policy".to_owned(), policy, "--by-tag".to_owned(), "main".to_owned()];
    (signer, manifest_of(&layout).unwrap().1, arguments)
}

fn sealed_by_tag(preparation: Preparation, arguments: &[String; 4]) -> Stage {
    preparation.sealed(&arguments.each_ref().map(String::as_str))
}

#[test]
fn a_signed_tag_runs() {
    let _vm = in_vm();
    let preparation = Preparation::new();
    let (signer, digest, arguments) = by_tag(&preparation);
    signer.sign(preparation.world.registry(), NAME, &format!("{HOST}/{NAME}"), &digest).unwrap();
    runs(&sealed_by_tag(preparation, &arguments));
}

#[tokio::test]
async fn an_unsigned_tag() {
    let _vm = in_vm();
    let preparation = Preparation::new();
    let (_, _, arguments) = by_tag(&preparation);
    refused(&sealed_by_tag(preparation, &arguments), Code::ImageSignature).await;
}

#[tokio::test]
async fn a_tag_that_moved_after_it_was_signed() {
    let _vm = in_vm();
    let preparation = Preparation::new();
    let (signer, digest, arguments) = by_tag(&preparation);
    let registry = preparation.world.registry();
    signer.sign(registry, NAME, &format!("{HOST}/{NAME}"), &digest).unwrap();
    // Another image under the same tag, with the other one's signature beside it.
    let other = preparation.path("other");
    sealpod_tests::image::write_layout(
        &other,
        &sealpod_tests::image::Extra { ballast: b"moved", ..Default::default() },
    )
    .unwrap();
    registry.push_layout(&other, NAME, "v1").unwrap();
    let moved = manifest_of(&other).unwrap().1;
    let signature = signer.layout();
    registry.push_layout(&signature, NAME, &format!("{}.sig", moved.replace(':', "-"))).unwrap();
    let refusal = refused(&sealed_by_tag(preparation, &arguments), Code::ImageSignature).await;
    assert!(refusal.detail.contains(&digest), "the digest that was signed is missing: {refusal}");
}
