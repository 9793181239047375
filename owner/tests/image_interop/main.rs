//! Encrypted images between this program and skopeo, both ways, for each wrapper that skopeo has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bench;

use bench::{Access, Bench, EC, PGP, PKCS7, RSA, Registry};

/// Who an image is for, and the name of the test's layouts.
const TOGETHER: [(&str, &[Access]); 6] = [
    ("rsa", &[RSA]),
    ("ec", &[EC]),
    ("pkcs7", &[PKCS7]),
    ("pgp", &[PGP]),
    ("two-of-a-kind", &[RSA, EC]),
    ("all-kinds", &[RSA, EC, PKCS7, PGP]),
];

fn each<'a>(option: &'a str, values: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    values.into_iter().flat_map(|value| [option, value]).collect()
}

fn recipients(accesses: &[Access]) -> impl Iterator<Item = &'static str> {
    accesses.iter().map(|access| access.recipient)
}

fn skopeo_encrypts(bench: &Bench, accesses: &[Access], more: &[&str], from: &str, to: &str) {
    bench.skopeo_good(&[&each("--encryption-key", recipients(accesses)), more].concat(), from, to);
}

fn sealpod_encrypts(bench: &Bench, accesses: &[Access], more: &[&str], from: &str, to: &str) {
    let recipients = each("--recipient", recipients(accesses));
    bench.sealpod_good(&[&["encrypt", "--quiet", from, to][..], &recipients, more].concat());
}

fn sealpod_decrypts(bench: &Bench, access: &Access, more: &[&str], from: &str, to: &str) {
    let keys = each("--key", access.sealpod.iter().copied());
    bench.sealpod_good(&[&["decrypt", "--quiet", from, to][..], &keys, more].concat());
}

fn skopeo_decrypts(bench: &Bench, access: &Access, more: &[&str], from: &str, to: &str) {
    bench.skopeo_good(&[&each("--decryption-key", access.skopeo.iter().copied()), more].concat(), from, to);
}

#[test]
fn skopeo_encrypts_and_we_decrypt() {
    let bench = Bench::new();
    for (name, accesses) in TOGETHER {
        let encrypted = format!("oci:{name}:v1");
        skopeo_encrypts(&bench, accesses, &[], "oci:plain:v1", &encrypted);
        bench.is_encrypted(name, "plain", &[], name);
        for access in accesses {
            sealpod_decrypts(&bench, access, &[], &encrypted, "oci:opened:v1");
            bench.is_plain("opened", "plain", &format!("{name} by {}", access.recipient));
        }
        let refused = bench.sealpod_refuses(&["decrypt", &encrypted, "oci:refused:v1", "--key", "other.pem"]);
        assert!(refused.contains("layer"), "{refused}");
    }
}

#[test]
fn we_encrypt_and_skopeo_decrypts() {
    let bench = Bench::new();
    for (name, accesses) in TOGETHER {
        let encrypted = format!("oci:{name}:v1");
        sealpod_encrypts(&bench, accesses, &[], "oci:plain:v1", &encrypted);
        bench.is_encrypted(name, "plain", &[], name);
        for access in accesses {
            skopeo_decrypts(&bench, access, &[], &encrypted, "oci:opened:v1");
            bench.is_plain("opened", "plain", &format!("{name} by {}", access.recipient));
        }
        let refused = bench.skopeo(&["--decryption-key", "other.pem"], &encrypted, "oci:refused:v1");
        assert!(!refused.status.success(), "{name}");
    }
}

#[test]
fn one_layer_alone() {
    let bench = Bench::new();
    skopeo_encrypts(&bench, &[RSA], &["--encrypt-layer=-1"], "oci:plain:v1", "oci:theirs:v1");
    bench.is_encrypted("theirs", "plain", &[2], "skopeo's last layer");
    sealpod_decrypts(&bench, &RSA, &[], "oci:theirs:v1", "oci:opened:v1");
    bench.is_plain("opened", "plain", "skopeo's last layer");
    for (option, layer) in [("-1", 2), ("0", 0), ("1", 1)] {
        let encrypted = format!("oci:ours{layer}:v1");
        sealpod_encrypts(&bench, &[EC], &["--layer", option], "oci:plain:v1", &encrypted);
        bench.is_encrypted(&format!("ours{layer}"), "plain", &[layer], option);
        skopeo_decrypts(&bench, &EC, &[], &encrypted, "oci:opened:v1");
        bench.is_plain("opened", "plain", option);
    }
    // Theirs encrypts another layer then, or none.
    for layer in ["3", "-4"] {
        bench.sealpod_refuses(&[
            "encrypt",
            "oci:plain:v1",
            "oci:none:v1",
            "-r",
            "jwe:rsa.pub",
            "--layer",
            layer,
        ]);
        assert!(!bench.path("none").join("index.json").exists());
    }
}

#[test]
fn both_platforms_of_an_index() {
    let bench = Bench::new();
    skopeo_encrypts(&bench, &[RSA, PKCS7], &["--all"], "oci:multi:v1", "oci:theirs:v1");
    bench.is_encrypted("theirs", "multi", &[], "skopeo's index");
    for access in [RSA, PKCS7] {
        sealpod_decrypts(&bench, &access, &[], "oci:theirs:v1", "oci:opened:v1");
        bench.is_plain("opened", "multi", access.recipient);
    }
    sealpod_encrypts(&bench, &[EC, PGP], &[], "oci:multi:v1", "oci:ours:v1");
    bench.is_encrypted("ours", "multi", &[], "our index");
    for access in [EC, PGP] {
        skopeo_decrypts(&bench, &access, &["--all"], "oci:ours:v1", "oci:opened:v1");
        bench.is_plain("opened", "multi", access.recipient);
    }
}

#[test]
fn through_a_registry() {
    let bench = Bench::new();
    let registry = Registry::start(&bench);
    let address = registry.address.to_string();
    let reached = format!("{address}=http://{address}");
    let reached = ["--registry", reached.as_str()];
    let image = |name: &str| registry.image(name);

    skopeo_encrypts(&bench, &[RSA, PGP], &["--all"], "oci:multi:v1", &image("theirs"));
    sealpod_decrypts(&bench, &PGP, &reached, &image("theirs"), "oci:opened:v1");
    bench.is_plain("opened", "multi", "theirs from a registry");

    sealpod_encrypts(&bench, &[EC, PKCS7], &reached, "oci:multi:v1", &image("ours"));
    skopeo_decrypts(&bench, &PKCS7, &["--all"], &image("ours"), "oci:opened:v1");
    bench.is_plain("opened", "multi", "ours from a registry");

    // Within the registry, and with a recipient added there: layers keep their digests.
    bench.skopeo_good(&["--all"], "oci:multi:v1", &image("plain"));
    sealpod_encrypts(&bench, &[RSA], &reached, &image("plain"), &image("inside"));
    bench.skopeo_good(&["--all"], &image("inside"), "oci:before:v1");
    let add = [
        "recipients",
        "add",
        "--quiet",
        &image("inside"),
        "--key",
        "rsa.pem",
        "-r",
        "jwe:ec.pub",
        "-r",
        "pkcs7:cms.crt",
    ];
    bench.sealpod_good(&[&add[..], &reached].concat());
    bench.skopeo_good(&["--all"], &image("inside"), "oci:after:v1");
    assert_eq!(bench.contents("before"), bench.contents("after"));
    for access in [RSA, EC, PKCS7] {
        skopeo_decrypts(&bench, &access, &["--all"], &image("inside"), "oci:opened:v1");
        bench.is_plain("opened", "multi", access.recipient);
    }
}

#[test]
fn recipients_change_and_skopeo_follows() {
    let bench = Bench::new();
    skopeo_encrypts(&bench, &[RSA], &[], "oci:plain:v1", "oci:image:v1");
    let before = bench.contents("image");
    let add = ["recipients", "add", "--quiet", "oci:image:v1", "--key", "rsa.pem"];
    bench.sealpod_good(&[&add[..], &["-r", "pgp:layers@example", "-r", "jwe:ec.pub"]].concat());
    assert_eq!(bench.contents("image"), before, "layers keep their digests");
    for access in [RSA, EC, PGP] {
        skopeo_decrypts(&bench, &access, &[], "oci:image:v1", "oci:opened:v1");
        bench.is_plain("opened", "plain", access.recipient);
    }
    bench.sealpod_good(&["recipients", "remove", "--quiet", "oci:image:v1", "--scheme", "pgp"]);
    assert_eq!(bench.contents("image"), before, "layers keep their digests");
    let refused = bench.skopeo(&["--decryption-key", "secret.gpg"], "oci:image:v1", "oci:refused:v1");
    assert!(!refused.status.success());
    skopeo_decrypts(&bench, &RSA, &[], "oci:image:v1", "oci:opened:v1");
    bench.is_plain("opened", "plain", "after one was removed");

    bench.sealpod_good(&["rotate", "--quiet", "oci:image:v1", "--key", "rsa.pem", "-r", "jwe:ec.pub"]);
    assert_ne!(bench.contents("image"), before, "new keys make new layers");
    let refused = bench.skopeo(&["--decryption-key", "rsa.pem"], "oci:image:v1", "oci:refused:v1");
    assert!(!refused.status.success());
    skopeo_decrypts(&bench, &EC, &[], "oci:image:v1", "oci:opened:v1");
    bench.is_plain("opened", "plain", "after rotation");
}

#[test]
fn what_skopeo_lets_pass_is_refused() {
    let bench = Bench::new();
    skopeo_encrypts(&bench, &[RSA], &[], "oci:plain:v1", "oci:image:v1");
    // Without a key, skopeo copies what is still encrypted and says that all is well.
    bench.skopeo_good(&[], "oci:image:v1", "oci:copied:v1");
    bench.sealpod_refuses(&["decrypt", "oci:image:v1", "oci:none:v1"]);
    // It encrypts what is encrypted without doing anything.
    bench.skopeo_good(&["--encryption-key", "jwe:ec.pub"], "oci:image:v1", "oci:unchanged:v1");
    assert_eq!(bench.contents("unchanged"), bench.contents("image"));
    bench.sealpod_refuses(&["encrypt", "oci:image:v1", "oci:none:v1", "-r", "jwe:ec.pub"]);
    bench.sealpod_refuses(&["encrypt", "oci:plain:v1", "oci:none:v1"]);
    assert!(!bench.path("none").join("index.json").exists());
}
