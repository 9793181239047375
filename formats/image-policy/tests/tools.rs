//! Signatures that the tools in the field make: `skopeo standalone-sign` with keys of GnuPG, and `openssl` in
//! cosign's place.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image_policy::{
    Permitted, Policy, Reference, Refusal, SignatureError, SignatureInput, inline_key_files, verify,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const IMAGE: &str = "registry.example:5000/team/app:1.2";
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;
const DAY: u64 = 86_400;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: run scripts/setup"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A home of GnuPG with an agent of its own.
struct Gnupg(TempDir);

impl Gnupg {
    fn new() -> Self {
        let home = tempfile::Builder::new().prefix("pgp").tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self(home)
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        run(command
            .arg("--homedir")
            .arg(self.0.path())
            .args(["--batch", "--quiet", "--yes", "--passphrase", ""])
            .args(arguments))
    }

    /// Makes a key and returns its fingerprint.
    fn key(&self, algorithm: &str, usage: &str, expire: &str) -> String {
        let name = format!("{algorithm} <{algorithm}@example>");
        self.gpg(&["--quick-gen-key", &name, algorithm, usage, expire]);
        let listed = String::from_utf8(self.gpg(&["--list-keys", "--with-colons", &name])).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    fn ring(&self) -> Vec<u8> {
        self.gpg(&["--export"])
    }

    /// `skopeo standalone-sign`.
    fn sign(&self, image: &str, key: &str) -> Vec<u8> {
        let (manifest, signature) = (self.0.path().join("manifest"), self.0.path().join("signature"));
        fs::write(&manifest, MANIFEST).unwrap();
        let mut command = Command::new("skopeo");
        command.arg("standalone-sign").arg(&manifest).args([image, key, "--output"]).arg(&signature);
        run(command.env("GNUPGHOME", self.0.path()));
        fs::read(signature).unwrap()
    }
}

impl Drop for Gnupg {
    fn drop(&mut self) {
        let mut command = Command::new("gpgconf");
        let _ = command.arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).output();
    }
}

fn digest() -> String {
    format!("sha256:{}", hex::encode(ring::digest::digest(&ring::digest::SHA256, MANIFEST)))
}

fn signed_by(ring: &[u8]) -> Value {
    json!({"default": [{"type": "reject"}], "transports": {"docker": {"registry.example:5000": [
        {"type": "signedBy", "keyType": "GPGKeys", "keyData": STANDARD.encode(ring)}
    ]}}})
}

fn check(policy: &Value, signature: SignatureInput, now: u64) -> Result<Permitted, Refusal> {
    let policy = Policy::from_value(policy.clone()).unwrap();
    let image = Reference::parse(IMAGE).unwrap();
    let requirements = policy.requirements_for(&image);
    assert!(requirements.asks_for_signatures());
    verify(&requirements, &image, &digest(), &[signature], now)
}

fn reason(result: Result<Permitted, Refusal>) -> SignatureError {
    match result {
        Err(Refusal::NoneAccepted { mut reasons, .. }) => reasons.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn skopeos_signatures_by_each_algorithm() {
    let gnupg = Gnupg::new();
    for algorithm in ["rsa2048", "rsa3072", "ed25519", "nistp256", "nistp384"] {
        let key = gnupg.key(algorithm, "sign", "never");
        let signature = gnupg.sign(IMAGE, &key);
        let permitted = check(&signed_by(&gnupg.ring()), SignatureInput::Simple(signature.clone()), now());
        assert_eq!(permitted.unwrap().digest(), digest(), "{algorithm}");
        let armoured = signed_by(&gnupg.gpg(&["--export", "--armor", &key]));
        assert!(check(&armoured, SignatureInput::Simple(signature), now()).is_ok(), "{algorithm}");
    }
    // Other curves and sizes are named when the policy is read.
    let other = Gnupg::new();
    for algorithm in ["rsa1024", "nistp521", "brainpoolP256r1", "dsa2048"] {
        let key = other.key(algorithm, "sign", "never");
        let refused = Policy::from_value(signed_by(&other.gpg(&["--export", &key])));
        assert!(refused.unwrap_err().to_string().contains("key"), "{algorithm}");
    }
}

#[test]
fn a_subkeys_signature() {
    let gnupg = Gnupg::new();
    let primary = gnupg.key("ed25519", "cert", "never");
    gnupg.gpg(&["--quick-add-key", &primary, "rsa2048", "sign", "never"]);
    gnupg.gpg(&["--quick-add-key", &primary, "rsa2048", "encr", "never"]);
    let signature = gnupg.sign(IMAGE, &primary);
    assert!(check(&signed_by(&gnupg.ring()), SignatureInput::Simple(signature), now()).is_ok());
}

#[test]
fn what_is_refused_of_skopeos_signatures() {
    let (gnupg, other) = (Gnupg::new(), Gnupg::new());
    let key = gnupg.key("ed25519", "sign", "2d");
    let policy = signed_by(&gnupg.ring());
    let good = gnupg.sign(IMAGE, &key);
    assert!(check(&policy, SignatureInput::Simple(good.clone()), now()).is_ok());

    let stranger = other.key("ed25519", "sign", "never");
    let by_stranger = SignatureInput::Simple(other.sign(IMAGE, &stranger));
    assert!(matches!(reason(check(&policy, by_stranger, now())), SignatureError::OtherKey { .. }));
    let renamed = SignatureInput::Simple(gnupg.sign("registry.example:5000/team/app:1.3", &key));
    assert!(matches!(reason(check(&policy, renamed, now())), SignatureError::OtherReference { .. }));
    let expired = reason(check(&policy, SignatureInput::Simple(good.clone()), now() + 3 * DAY));
    assert!(matches!(expired, SignatureError::KeyUnusable { .. }), "{expired}");
    let early = reason(check(&policy, SignatureInput::Simple(good.clone()), now() - DAY));
    assert!(matches!(early, SignatureError::KeyUnusable { .. } | SignatureError::Future), "{early}");

    let revocation = fs::read_to_string(gnupg.0.path().join(format!("openpgp-revocs.d/{key}.rev"))).unwrap();
    let file = gnupg.0.path().join("revocation");
    fs::write(&file, revocation.replace(":-----BEGIN", "-----BEGIN")).unwrap();
    gnupg.gpg(&["--import", file.to_str().unwrap()]);
    let revoked = reason(check(&signed_by(&gnupg.ring()), SignatureInput::Simple(good), now()));
    assert!(
        matches!(&revoked, SignatureError::KeyUnusable { reason, .. } if reason == "was revoked"),
        "{revoked}"
    );
}

#[test]
fn messages_of_gnupg_that_are_no_image_signatures() {
    let gnupg = Gnupg::new();
    gnupg.key("ed25519", "sign", "never");
    let policy = signed_by(&gnupg.ring());
    let file = gnupg.0.path().join("payload");
    let payload = format!(
        r#"{{"critical":{{"type":"atomic container signature","image":{{"docker-manifest-digest":"{}"}},"identity":{{"docker-reference":"{IMAGE}"}}}},"optional":{{}}}}"#,
        digest()
    );
    fs::write(&file, payload).unwrap();
    let path = file.to_str().unwrap();
    let sign = |arguments: &[&str]| {
        SignatureInput::Simple(gnupg.gpg(&[arguments, &["--output", "-", path]].concat()))
    };
    for compression in ["zip", "zlib", "none"] {
        assert!(
            check(&policy, sign(&["--compress-algo", compression, "--sign"]), now()).is_ok(),
            "{compression}"
        );
    }
    for arguments in [
        &["--compress-algo", "bzip2", "--sign"][..],
        &["--digest-algo", "SHA1", "--sign"],
        &["--digest-algo", "SHA224", "--sign"],
        &["--detach-sign"],
        &["--textmode", "--sign"],
        &["--clear-sign"],
        &["--armor", "--sign"],
        &["--store"],
        &["--faked-system-time", "20380101T000000", "--sign"],
    ] {
        assert!(check(&policy, sign(arguments), now()).is_err(), "{arguments:?}");
    }
}

/// Keys and signatures of `openssl`, as cosign makes them.
struct Openssl(TempDir);

impl Openssl {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        run(Command::new("openssl").args(arguments).current_dir(self.0.path()))
    }

    /// A policy that names the key's file.
    fn policy(&self, file: &Path) -> Value {
        let text = json!({"default": [{"type": "reject"}], "transports": {"docker": {"registry.example:5000/team": [
            {"type": "sigstoreSigned", "keyPath": file, "signedIdentity": {"type": "matchRepository"}}
        ]}}});
        let mut read = |path: &str| fs::read(path).map_err(|e| e.to_string());
        inline_key_files(text.to_string().as_bytes(), &mut read).unwrap()
    }
}

fn cosign_payload() -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"registry.example:5000/team/app"}},"image":{{"docker-manifest-digest":"{}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        digest()
    )
}

#[test]
fn cosigns_signatures_by_each_algorithm() {
    let tool = Openssl::new();
    fs::write(tool.path("payload"), cosign_payload()).unwrap();
    for (name, make) in [
        ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..]),
        ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]),
        ("ed25519", &["-algorithm", "ED25519"]),
    ] {
        let key = format!("{name}.pem");
        tool.openssl(&[&["genpkey", "-out", &key][..], make].concat());
        let public = tool.openssl(&["pkey", "-in", &key, "-pubout"]);
        fs::write(tool.path("key.pub"), public).unwrap();
        let policy = tool.policy(&tool.path("key.pub"));
        let signature = if name == "ed25519" {
            tool.openssl(&["pkeyutl", "-sign", "-inkey", &key, "-rawin", "-in", "payload"])
        } else {
            tool.openssl(&["dgst", "-sha256", "-sign", &key, "payload"])
        };
        let input = |payload: String, signature: &[u8]| SignatureInput::Cosign {
            payload: payload.into_bytes(),
            signature: STANDARD.encode(signature),
        };
        let permitted = check(&policy, input(cosign_payload(), &signature), now());
        assert_eq!(permitted.unwrap().digest(), digest(), "{name}");
        let tampered = cosign_payload().replace("null", "{}");
        assert!(check(&policy, input(tampered, &signature), now()).is_err(), "{name}");
        if name == "rsa" {
            // The older spelling of an RSA key, and another hash than cosign's.
            let public = tool.openssl(&["rsa", "-in", &key, "-RSAPublicKey_out"]);
            fs::write(tool.path("key.pub"), public).unwrap();
            let policy = tool.policy(&tool.path("key.pub"));
            assert!(check(&policy, input(cosign_payload(), &signature), now()).is_ok());
            let signature = tool.openssl(&["dgst", "-sha512", "-sign", &key, "payload"]);
            assert!(check(&policy, input(cosign_payload(), &signature), now()).is_err());
        }
    }
}

#[test]
fn keys_that_cosign_wouldnt_take_either() {
    let tool = Openssl::new();
    tool.openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem"]);
    tool.openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "small.pem"]);
    tool.openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:secp256k1",
        "-out",
        "curve.pem",
    ]);
    tool.openssl(&["req", "-x509", "-key", "key.pem", "-subj", "/CN=x", "-out", "crt.pem"]);
    let public = |name: &str| tool.openssl(&["pkey", "-in", name, "-pubout"]);
    let good = public("key.pem");
    let read = |data: &[u8]| {
        Policy::from_value(json!({"default": [{"type": "sigstoreSigned", "keyData": STANDARD.encode(data)}]}))
    };
    assert!(read(&good).is_ok());
    for (what, data) in [
        ("a private key", fs::read(tool.path("key.pem")).unwrap()),
        ("a certificate", fs::read(tool.path("crt.pem")).unwrap()),
        ("a small key", public("small.pem")),
        ("another curve", public("curve.pem")),
        ("two keys", [good.clone(), good.clone()].concat()),
        ("DER", tool.openssl(&["pkey", "-in", "key.pem", "-pubout", "-outform", "DER"])),
        ("nothing", vec![]),
        ("half", good[..good.len() / 2].to_vec()),
    ] {
        assert!(read(&data).is_err(), "{what}");
    }
}
