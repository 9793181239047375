//! The OpenPGP wrapper against the real gpg and skopeo: both ways, and every key and message that is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on says so by panicking")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use encrypted_image::{Scheme, Unwrap, Wrap};
use owner_image::pgp::{Gnupg, PgpError, PgpKeys, PgpRecipients, PublicRing, Unusable, is_secret_key_file};
use support::{layer, open, options, plain_image, run, same};

/// A key ring with a key of every kind, made once.
struct Home {
    directory: tempfile::TempDir,
    /// Only what skopeo's library can read: it loses the key before one that it can't.
    rsa: tempfile::TempDir,
}

const ANNOTATION: &str = "org.opencontainers.image.enc.keys.pgp";

fn home() -> &'static Home {
    static HOME: OnceLock<Home> = OnceLock::new();
    HOME.get_or_init(Home::make)
}

/// What gpg's batch mode wants.
fn recipe(name: &str, primary: &str, subkey: &str, password: &str) -> String {
    let mail = name.to_lowercase();
    let protection =
        if password.is_empty() { "%no-protection".into() } else { format!("Passphrase: {password}") };
    format!(
        "{primary}\n{protection}\n{subkey}\nName-Real: {name}\nName-Email: {mail}@example.org\n\
         Expire-Date: 0\n%commit\n"
    )
}

const RSA: &str = "Key-Type: RSA\nKey-Length: 2048\nKey-Usage: sign";
const RSA_SUBKEY: &str = "Subkey-Type: RSA\nSubkey-Length: 2048\nSubkey-Usage: encrypt";

impl Home {
    fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let rsa = tempfile::tempdir().unwrap();
        for directory in [&directory, &rsa] {
            std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let home = Self { directory, rsa };
        let ecc = "Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: sign";
        let ecdh = "Subkey-Type: ECDH\nSubkey-Curve: cv25519\nSubkey-Usage: encrypt";
        let nist = "Subkey-Type: ECDH\nSubkey-Curve: nistp256\nSubkey-Usage: encrypt";
        for recipe in [
            recipe("Ada", RSA, RSA_SUBKEY, ""),
            recipe("Ben", RSA, RSA_SUBKEY, "ben's secret"),
            recipe("Cleo", ecc, ecdh, ""),
            recipe("Dora", "Key-Type: RSA\nKey-Length: 2048", nist, ""),
            recipe("Signer", RSA, "", ""),
            recipe("Weak", RSA, &RSA_SUBKEY.replace("2048", "1024"), ""),
            recipe("Brief", RSA, "", ""),
            recipe("Revoked", RSA, RSA_SUBKEY, ""),
            recipe("Subless", RSA, RSA_SUBKEY, ""),
            recipe("Twin", ecc, ecdh, ""),
            recipe("Twin", ecc, ecdh, ""),
            recipe("Gamal", "Key-Type: DSA\nKey-Length: 2048", "Subkey-Type: ELG\nSubkey-Length: 2048", ""),
        ] {
            home.gpg_with(&["--gen-key"], recipe.as_bytes());
        }
        let past = recipe("Expired", RSA, RSA_SUBKEY, "").replace("Expire-Date: 0", "Expire-Date: 1d");
        home.gpg_with(&["--faked-system-time", "20200101T000000", "--gen-key"], past.as_bytes());
        home.gpg(&[
            "--passphrase",
            "",
            "--quick-add-key",
            &home.fingerprint("brief@example.org"),
            "rsa2048",
            "encr",
            "1d",
        ]);
        let revoked = home.fingerprint("revoked@example.org");
        let certificate = home.path().join(format!("openpgp-revocs.d/{revoked}.rev"));
        // gpg puts a colon before the armor, so that nobody revokes a key by mistake.
        let text = std::fs::read_to_string(certificate).unwrap().replace("\n:-----BEGIN", "\n-----BEGIN");
        home.gpg_with(&["--import"], text.as_bytes());
        let subless = home.fingerprint("subless@example.org");
        home.gpg_with(&["--command-fd", "0", "--edit-key", &subless], b"key 1\nrevkey\ny\n0\n\ny\nsave\n");
        let public = home.path().join("rsa.gpg").display().to_string();
        home.gpg(&["--output", &public, "--export", "Ada", "Ben"]);
        run(Command::new("gpg")
            .arg("--homedir")
            .arg(home.rsa.path())
            .args(["--quiet", "--batch", "--import", &public]));
        home
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.path()).args([
            "--quiet",
            "--no-tty",
            "--pinentry-mode",
            "loopback",
        ]);
        if !arguments.contains(&"--edit-key") {
            command.args(["--batch", "--yes", "--trust-model", "always"]);
        }
        command.args(arguments);
        command
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        run(&mut self.command(arguments))
    }

    fn gpg_with(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn fingerprint(&self, name: &str) -> String {
        let listing = String::from_utf8(self.gpg(&["--with-colons", "--list-keys", name])).unwrap();
        listing
            .lines()
            .find_map(|line| line.strip_prefix("fpr:::::::::"))
            .unwrap()
            .trim_end_matches(':')
            .to_owned()
    }

    fn ring(&self) -> PublicRing {
        let mut ring = PublicRing::new();
        ring.add("ring", &self.gpg(&["--export"])).unwrap();
        ring
    }

    fn secret(&self, name: &str, password: &str) -> Vec<u8> {
        self.gpg(&["--passphrase", password, "--export-secret-keys", name])
    }

    fn skopeo(&self, arguments: &[&str]) -> std::process::Output {
        support::attempt(
            Command::new("skopeo").env("GNUPGHOME", self.rsa.path()).arg("copy").arg("-q").args(arguments),
        )
    }
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn select(names: &[&str]) -> Result<PgpRecipients, PgpError> {
    PgpRecipients::select(&home().ring(), names.iter().copied(), now())
}

fn key(name: &str) -> Vec<Box<dyn Unwrap>> {
    vec![Box::new(PgpKeys::read(name, &home().secret(name, ""), None).unwrap())]
}

fn ben() -> Vec<Box<dyn Unwrap>> {
    let file = home().secret("Ben", "ben's secret");
    vec![Box::new(PgpKeys::read("ben", &file, Some(b"ben's secret")).unwrap())]
}

fn refusal(names: &[&str]) -> String {
    select(names).unwrap_err().to_string()
}

/// The wrapped key of an image that skopeo encrypted.
fn blob(image: &Path) -> Vec<u8> {
    let (_, descriptor) = layer(image);
    STANDARD.decode(descriptor["annotations"][ANNOTATION].as_str().unwrap()).unwrap()
}

/// Encrypts the same image for these names, as skopeo does it.
fn skopeo_encrypts(names: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let plain = plain_image(directory.path());
    let image = directory.path().join("encrypted");
    let destination = format!("oci:{}:v1", image.display());
    let mut arguments = Vec::new();
    let keys: Vec<String> = names.iter().map(|name| format!("pgp:{name}")).collect();
    for key in &keys {
        arguments.extend(["--encryption-key", key]);
    }
    arguments.extend([plain.as_str(), &destination]);
    let output = home().skopeo(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (directory, image)
}

#[test]
fn what_skopeo_encrypts_opens() {
    let (_directory, image) = skopeo_encrypts(&["Ada"]);
    let opened = open(Scheme::Pgp, &blob(&image), key("Ada")).unwrap();
    assert_eq!(opened.to_json().len(), 193);
    let error = open(Scheme::Pgp, &blob(&image), key("Cleo")).unwrap_err();
    assert!(error.ends_with("pgp with Cleo: not wrapped for this key"), "{error}");
}

#[test]
fn several_recipients_of_skopeo_open() {
    let (_directory, image) = skopeo_encrypts(&["Ada", "ben@example.org"]);
    let with_ada = open(Scheme::Pgp, &blob(&image), key("Ada")).unwrap();
    let with_ben = open(Scheme::Pgp, &blob(&image), ben()).unwrap();
    assert!(same(&with_ada, &with_ben));
}

#[test]
fn skopeo_opens_what_we_wrap() {
    let (directory, image) = skopeo_encrypts(&["Ben"]);
    let private = open(Scheme::Pgp, &blob(&image), ben()).unwrap();
    // For an ECDH key too: skopeo can't use that, and must pass over it.
    let ours = select(&["Cleo", "Ada"]).unwrap().wrap(&private).unwrap();
    let (manifest, _) = layer(&image);
    let text = std::fs::read_to_string(&manifest).unwrap();
    let text = text.replace(&STANDARD.encode(blob(&image)), &STANDARD.encode(ours));
    let digest = support::sha256(text.as_bytes());
    std::fs::write(manifest.with_file_name(&digest), &text).unwrap();
    let index = image.join("index.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    json["manifests"][0]["digest"] = format!("sha256:{digest}").into();
    json["manifests"][0]["size"] = text.len().into();
    std::fs::write(&index, json.to_string()).unwrap();

    let secret = |name: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, home().secret(name, "")).unwrap();
        file.display().to_string()
    };
    let source = format!("oci:{}:v1", image.display());
    let destination = format!("oci:{}:v1", directory.path().join("decrypted").display());
    let output = home().skopeo(&["--decryption-key", &secret("Ada"), &source, &destination]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (_, decrypted) = layer(&directory.path().join("decrypted"));
    let (_, plain) = layer(&directory.path().join("plain"));
    assert_eq!(decrypted["digest"], plain["digest"]);
    let elsewhere = format!("oci:{}:v1", directory.path().join("refused").display());
    let output = home().skopeo(&["--decryption-key", &secret("Dora"), &source, &elsewhere]);
    assert!(!output.status.success(), "Dora is no recipient");
}

#[test]
fn gpg_opens_what_we_wrap_and_the_other_way_round() {
    let private = options();
    for name in ["Ada", "Cleo", "Dora"] {
        let ours = select(&[name]).unwrap().wrap(&private).unwrap();
        assert_eq!(home().gpg_with(&["--decrypt"], &ours), *private.to_json(), "{name}");
        let theirs = home()
            .gpg_with(&["--compress-algo", "none", "--recipient", name, "--encrypt"], &private.to_json());
        assert!(same(&open(Scheme::Pgp, &theirs, key(name)).unwrap(), &private), "{name}");
        let hidden = ["--compress-algo", "none", "--throw-keyids", "--recipient", name, "--encrypt"];
        let hidden = home().gpg_with(&hidden, &private.to_json());
        assert!(same(&open(Scheme::Pgp, &hidden, key(name)).unwrap(), &private), "{name}, id withheld");
    }
}

#[test]
fn messages_outside_the_profile_are_refused() {
    let private = options().to_json();
    let refused = |arguments: &[&str]| {
        let message = home().gpg_with(arguments, &private);
        open(Scheme::Pgp, &message, key("Ada")).unwrap_err()
    };
    let plain = ["--compress-algo", "none", "--recipient", "Ada"];
    let with = |more: &[&str]| refused(&[&plain, more].concat());
    assert!(with(&["--local-user", "Ada", "--sign", "--encrypt"]).contains("a signature"));
    assert!(with(&["--cipher-algo", "3DES", "--encrypt"]).contains("encrypted with cipher 2: only AES"));
    assert!(with(&["--cipher-algo", "CAST5", "--encrypt"]).contains("encrypted with cipher 3: only AES"));
    assert!(with(&["--cipher-algo", "TWOFISH", "--encrypt"]).contains("encrypted with cipher 10: only AES"));
    let password = with(&["--passphrase", "x", "--encrypt", "--symmetric"]);
    assert!(password.contains("a session key under a password"), "{password}");
    assert!(refused(&["--recipient", "Ada", "--encrypt"]).contains("compressed data"));
    assert!(refused(&["--compress-algo", "none", "--store"]).contains("data in clear"));
    assert!(refused(&["--store"]).contains("has no length"));
}

#[test]
fn everybody_is_found_by_every_name() {
    let fingerprint = home().fingerprint("Ada");
    let id = &fingerprint[24..];
    let spaced =
        fingerprint.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).unwrap()).collect::<Vec<_>>();
    for name in [
        "Ada",
        "ada@example.org",
        "ADA@Example.ORG",
        "<ada@example.org>",
        "Ada <ada@example.org>",
        &fingerprint,
        &format!("0x{fingerprint}"),
        &fingerprint.to_lowercase(),
        &spaced.join(" "),
        id,
        &format!("0x{id}"),
    ] {
        let found = select(&[name]).unwrap_or_else(|error| panic!("{error}"));
        let found: Vec<_> = found.recipients().collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].fingerprint, fingerprint, "{name}");
        assert!(found[0].opens_with_ocicrypt);
    }
    let twice = select(&["Ada", &fingerprint, "Cleo"]).unwrap();
    let names: Vec<_> = twice.recipients().map(|it| (it.name.as_str(), it.opens_with_ocicrypt)).collect();
    assert_eq!(names, [("Ada", true), ("Cleo", false)], "the same key once");
    let dora = select(&["Dora"]).unwrap();
    assert!(dora.recipients().all(|it| it.opens_with_ocicrypt), "her RSA key rather than her ECDH subkey");
}

#[test]
fn names_that_find_nobody_are_refused() {
    for name in ["Nobody", "ad", "Ada <other@example.org>", "example.org", "", "da"] {
        assert!(matches!(select(&[name]), Err(PgpError::Unknown { .. })), "{name:?}");
    }
    let id = home().fingerprint("Ada");
    assert!(matches!(select(&[&format!("0x{}", &id[32..])]), Err(PgpError::ShortKeyId { .. })));
    assert!(matches!(select(&[]), Err(PgpError::NoRecipient)));
    let error = refusal(&["Twin"]);
    assert!(error.starts_with("recipient 'Twin': 2 keys have that name; give a fingerprint: "), "{error}");
    assert!(error.contains(&home().fingerprint("Twin")), "{error}");
}

#[test]
fn keys_that_must_not_be_used_are_refused_by_name() {
    let reason = |name: &str| match select(&["Ada", name]) {
        Err(PgpError::Unusable { name: named, fingerprint, reason }) => {
            assert_eq!((named.as_str(), fingerprint), (name, home().fingerprint(name)));
            reason
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(reason("Revoked"), Unusable::Revoked);
    assert_eq!(reason("Expired"), Unusable::Expired("2020-01-02".into()));
    assert_eq!(reason("Signer"), Unusable::NoEncryptionSubkey);
    assert_eq!(reason("Subless"), Unusable::SubkeysRevoked);
    assert_eq!(reason("Gamal"), Unusable::Unsupported("ElgamalEncrypt".into()));
    assert_eq!(reason("Weak"), Unusable::Weak(1024));
    let brief = |time| PgpRecipients::select(&home().ring(), ["Brief"], time).map(|_| ());
    assert!(brief(now()).is_ok());
    let error = brief(now() + 2 * 86_400).unwrap_err().to_string();
    assert!(error.contains("has only encryption subkeys that expired, the last on 20"), "{error}");
    // Valid while it lasted, and not before it was made.
    let at = |time| PgpRecipients::select(&home().ring(), ["Expired"], time).map(|_| ());
    assert!(at(1_577_880_000).is_ok(), "2020-01-01 12:00");
    assert!(at(1_577_980_000).is_err(), "2020-01-02 15:46");
    assert!(at(1_577_800_000).is_err(), "2019-12-31 13:46");
}

#[test]
fn rings_may_be_armored_and_several() {
    let mut ring = PublicRing::new();
    ring.add("one", &home().gpg(&["--armor", "--export", "Ada"])).unwrap();
    let both = [home().gpg(&["--armor", "--export", "Cleo"]), home().gpg(&["--armor", "--export", "Ben"])];
    ring.add("two", &both.concat()).unwrap();
    assert_eq!(ring.len(), 3);
    let names = ["Ada", "Cleo", "Ben"];
    assert_eq!(PgpRecipients::select(&ring, names, now()).unwrap().recipients().count(), 3);
    // The same key twice is one key; a file of private keys names their owners too.
    ring.add("again", &home().gpg(&["--export", "Ada"])).unwrap();
    ring.add("private", &home().secret("Ada", "")).unwrap();
    assert!(PgpRecipients::select(&ring, ["Ada"], now()).is_ok());
    for (bytes, error) in [
        (&b""[..], "x: holds no public key"),
        (b"hello", "x: the ASCII armor is damaged; export the key again"),
        (
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!!\n",
            "x: the ASCII armor is damaged; export the key again",
        ),
        (b"\xc6\x10short", "x: not an OpenPGP key file: the packet at byte 0 is cut short"),
    ] {
        assert_eq!(PublicRing::new().add("x", bytes).unwrap_err().to_string(), error);
    }
}

#[test]
fn the_users_own_ring_is_asked_of_gpg() {
    let gnupg = Gnupg { home: Some(home().path().to_owned()), ..Gnupg::default() };
    let mut ring = PublicRing::new();
    ring.add("gpg", &gnupg.export().unwrap()).unwrap();
    assert!(PgpRecipients::select(&ring, ["Ada"], now()).is_ok());
    let missing = Gnupg { program: "/nonexistent/gpg".into(), home: None };
    assert!(missing.export().unwrap_err().to_string().contains("install GnuPG"));
    let nowhere = Gnupg { home: Some("/proc/nonexistent".into()), ..Gnupg::default() };
    let error = nowhere.export().unwrap_err().to_string();
    assert!(error.starts_with("'gpg --export' failed: gpg: "), "{error}");
}

#[test]
fn private_keys_want_their_password() {
    let file = home().secret("Ben", "ben's secret");
    assert!(is_secret_key_file(&file));
    let read = |password: Option<&[u8]>| PgpKeys::read("ben.gpg", &file, password);
    assert_eq!(read(Some(b"ben's secret")).unwrap().fingerprints().count(), 2);
    assert!(matches!(read(Some(b"bens secret")), Err(PgpError::WrongPassword { .. })));
    assert!(matches!(read(Some(b"")), Err(PgpError::WrongPassword { .. })));
    let error = read(None).unwrap_err().to_string();
    assert!(error.contains("it is protected: give its password"), "{error}");
    let armored = home().gpg(&["--armor", "--passphrase", "ben's secret", "--export-secret-keys", "Ben"]);
    assert!(is_secret_key_file(&armored));
    assert!(PgpKeys::read("ben.asc", &armored, Some(b"ben's secret")).is_ok());
    // A password that isn't needed does no harm.
    assert!(PgpKeys::read("ada", &home().secret("Ada", ""), Some(b"x")).is_ok());
    assert!(!format!("{:?}", read(Some(b"ben's secret")).unwrap()).contains("secret"));
}

#[test]
fn files_without_a_private_key_are_refused() {
    let public = home().gpg(&["--export", "Ada"]);
    assert!(!is_secret_key_file(&public));
    assert!(!is_secret_key_file(b"-----BEGIN PRIVATE KEY-----\n"));
    assert!(!is_secret_key_file(b""));
    assert!(matches!(PgpKeys::read("x", &public, None), Err(PgpError::NoKey { .. })));
    // Only the subkeys' secrets: the primary's is elsewhere. That is all that decryption needs.
    let stub = home().gpg(&["--export-secret-subkeys", "Ada"]);
    assert!(PgpKeys::read("x", &stub, None).is_ok());
    // And the other way round: the secret is nowhere.
    let signer = home().gpg(&["--export-secret-subkeys", "Dora!"]);
    let error = PgpKeys::read("x", &signer, None).unwrap_err().to_string();
    assert!(error.contains("not in the file") || error.contains("no private encryption"), "{error}");
}
