//! The PKCS #11 wrapper against SoftHSM2 and openssl: both ways, and every key, token, module and blob that is
//! refused. The program that loads the module must be there: `cargo xtask pkcs11`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on says so by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use encrypted_image::{PrivateOptions, Scheme, Unwrap, Wrap};
use owner_image::pkcs11::{
    Configuration, Helper, KeyFile, KeyFileError, OaepHash, Pkcs11Keys, Pkcs11Recipients, RecipientError,
    is_key_file,
};
use support::{open, options, run, same};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "271828";

/// One SoftHSM with two tokens, made once: `first` has the keys `two` (RSA-2048) and `three` (RSA-3072) and twice
/// `twin`, `second` has `other`.
struct Tokens {
    directory: tempfile::TempDir,
}

fn tokens() -> &'static Tokens {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    TOKENS.get_or_init(Tokens::make)
}

impl Tokens {
    fn make() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("tokens")).unwrap();
        let text = format!("directories.tokendir = {}\n", directory.path().join("tokens").display());
        std::fs::write(directory.path().join("softhsm2.conf"), text).unwrap();
        let tokens = Self { directory };
        for label in ["first", "second", "third"] {
            let with = ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "31415926"];
            run(Command::new("softhsm2-util").env("SOFTHSM2_CONF", tokens.configuration()).args(with));
        }
        for (token, label, id, bits) in [
            ("first", "two", "01", 2048),
            ("first", "three", "02", 3072),
            ("first", "twin", "03", 2048),
            ("first", "twin", "04", 2048),
            ("second", "other", "05", 2048),
        ] {
            let kind = format!("rsa:{bits}");
            let with = ["--keypairgen", "--key-type", &kind, "--label", label, "--id", id, "--usage-decrypt"];
            tokens.tool(token, &with);
        }
        tokens
    }

    fn configuration(&self) -> PathBuf {
        self.directory.path().join("softhsm2.conf")
    }

    fn tool(&self, token: &str, arguments: &[&str]) -> Vec<u8> {
        run(Command::new("pkcs11-tool")
            .env("SOFTHSM2_CONF", self.configuration())
            .args(["--module", MODULE, "--token-label", token, "--login", "--pin", PIN])
            .args(arguments))
    }

    /// The public key as PEM.
    fn public(&self, token: &str, label: &str) -> Vec<u8> {
        let der = self.directory.path().join(format!("{token}-{label}.der"));
        let file = der.display().to_string();
        self.tool(token, &["--read-object", "--type", "pubkey", "--label", label, "--output-file", &file]);
        run(Command::new("openssl").args(["pkey", "-pubin", "-inform", "DER", "-in", &file]))
    }

    /// A key file as ocicrypt's users write it.
    fn yaml(&self, uri: &str) -> String {
        format!(
            "pkcs11:\n  uri: {uri}\nmodule:\n  env:\n    SOFTHSM2_CONF: {}\n",
            self.configuration().display()
        )
    }

    fn file(&self, uri: &str) -> KeyFile {
        KeyFile::parse("key.yaml", self.yaml(uri).as_bytes()).unwrap()
    }
}

/// Where the build put it: beside the release build of sealpod.
fn helper() -> Helper {
    let tests = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let program = tests.join("release/sealpod-pkcs11");
    assert!(program.is_file(), "{} is missing: run 'cargo xtask pkcs11'", program.display());
    Helper::at(program)
}

fn uri(rest: &str) -> String {
    format!("pkcs11:{rest}?module-name=softhsm2&pin-value={PIN}")
}

fn keys_of(file: KeyFile) -> Vec<Box<dyn Unwrap>> {
    vec![Box::new(Pkcs11Keys::new(file, helper(), Configuration::default()))]
}

fn keys(uri: &str) -> Vec<Box<dyn Unwrap>> {
    keys_of(tokens().file(uri))
}

fn recipients(hash: OaepHash) -> Pkcs11Recipients {
    Pkcs11Recipients::new(hash, helper(), Configuration::default())
}

/// Wrapped by software, from PEM.
fn wrapped(private: &PrivateOptions, keys: &[(&str, &str)]) -> Vec<u8> {
    let mut recipients = recipients(OaepHash::Sha1);
    for (token, label) in keys {
        recipients.add_public_key(label, &tokens().public(token, label)).unwrap();
    }
    recipients.wrap(private).unwrap()
}

fn refused(uri: &str, blob: &[u8]) -> String {
    let error = open(Scheme::Pkcs11, blob, keys(uri)).unwrap_err();
    assert!(!error.contains(PIN) && !error.contains("pin-value="), "{error}");
    error
}

#[test]
fn what_software_wraps_the_token_opens() {
    let private = options();
    let blob = wrapped(&private, &[("first", "two")]);
    for uri in [
        uri("token=first;object=two"),
        uri("token=first;id=%01"),
        uri("token=first;object=two;id=%01;type=private"),
        uri("token=first;manufacturer=SoftHSM%20project;object=two"),
        format!("pkcs11:token=first;object=two?module-path={MODULE}&pin-value={PIN}"),
        format!(
            "pkcs11:token=first;object=two?module-path=/usr/lib/softhsm/&module-name=libsofthsm2&pin-value={PIN}"
        ),
    ] {
        let opened = open(Scheme::Pkcs11, &blob, keys(&uri)).unwrap_or_else(|error| panic!("{uri}: {error}"));
        assert!(same(&opened, &private), "{uri}");
    }
    let json: serde_json::Value = serde_json::from_slice(&blob).unwrap();
    assert_eq!((&json["version"], &json["recipients"][0]["hash"]), (&0.into(), &"sha1".into()));
}

#[test]
fn what_the_token_wraps_the_token_opens() {
    let private = options();
    let mut to = recipients(OaepHash::Sha1);
    to.add_token(tokens().file(&uri("token=first;object=three"))).unwrap();
    // The public key may be read without a PIN.
    to.add_token(tokens().file("pkcs11:token=second;object=other?module-name=softhsm2")).unwrap();
    let blob = to.wrap(&private).unwrap();
    for uri in [uri("token=first;object=three"), uri("token=second;object=other")] {
        assert!(same(&open(Scheme::Pkcs11, &blob, keys(&uri)).unwrap(), &private), "{uri}");
    }
    assert!(refused(&uri("token=first;object=two"), &blob).ends_with("not wrapped for this key"));
}

#[test]
fn every_recipient_opens_and_nobody_else() {
    let private = options();
    let blob = wrapped(&private, &[("second", "other"), ("first", "two"), ("first", "three")]);
    for uri in
        [uri("token=second;object=other"), uri("token=first;object=two"), uri("token=first;object=three")]
    {
        assert!(same(&open(Scheme::Pkcs11, &blob, keys(&uri)).unwrap(), &private), "{uri}");
    }
    assert!(refused(&uri("token=first;id=%03"), &blob).ends_with("not wrapped for this key"));
}

#[test]
fn what_openssl_wraps_opens() {
    let private = options();
    let scene = tempfile::tempdir().unwrap();
    let (key, text) = (scene.path().join("key.pem"), scene.path().join("text"));
    std::fs::write(&key, tokens().public("first", "two")).unwrap();
    std::fs::write(&text, &*private.to_json()).unwrap();
    let encrypted = run(Command::new("openssl")
        .args([
            "pkeyutl",
            "-encrypt",
            "-pubin",
            "-pkeyopt",
            "rsa_padding_mode:oaep",
            "-pkeyopt",
            "rsa_oaep_md:sha1",
        ])
        .arg("-inkey")
        .arg(&key)
        .arg("-in")
        .arg(&text));
    // Old writers leave the hash out: that is SHA-1.
    let blob =
        format!(r#"{{"version":0,"recipients":[{{"version":0,"blob":"{}"}}]}}"#, STANDARD.encode(encrypted));
    let opened = open(Scheme::Pkcs11, blob.as_bytes(), keys(&uri("token=first;object=two"))).unwrap();
    assert!(same(&opened, &private));
}

#[test]
fn openssl_opens_what_we_wrap() {
    let private = options();
    let scene = tempfile::tempdir().unwrap();
    let (key, share) = (scene.path().join("key.pem"), scene.path().join("share"));
    let bits = "rsa_keygen_bits:3072";
    run(Command::new("openssl").args(["genpkey", "-algorithm", "RSA", "-pkeyopt", bits, "-out"]).arg(&key));
    let public = run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key));
    for (hash, name) in [(OaepHash::Sha1, "sha1"), (OaepHash::Sha256, "sha256")] {
        let mut to = recipients(hash);
        to.add_public_key("key.pem", &public).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&to.wrap(&private).unwrap()).unwrap();
        assert_eq!(json["recipients"][0]["hash"], name);
        std::fs::write(&share, STANDARD.decode(json["recipients"][0]["blob"].as_str().unwrap()).unwrap())
            .unwrap();
        let digest = format!("rsa_oaep_md:{name}");
        let opened = run(Command::new("openssl")
            .args(["pkeyutl", "-decrypt", "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", &digest])
            .arg("-inkey")
            .arg(&key)
            .arg("-in")
            .arg(&share));
        assert_eq!(opened, *private.to_json(), "{name}");
    }
}

#[test]
fn sha256_needs_a_longer_key() {
    let private = options();
    let mut to = recipients(OaepHash::Sha256);
    to.add_public_key("two.pem", &tokens().public("first", "two")).unwrap();
    assert_eq!(
        to.wrap(&private).unwrap_err().to_string(),
        "recipient two.pem: 193 bytes do not fit an RSA key of 2048 bits with OAEP sha256: use a longer key or sha1"
    );
    let mut to = recipients(OaepHash::Sha256);
    to.add_token(tokens().file(&uri("token=first;object=two"))).unwrap();
    let error = to.wrap(&private).unwrap_err().to_string();
    assert!(error.contains("193 bytes do not fit an RSA key of 2048 bits with OAEP sha256"), "{error}");
    // SoftHSM has no OAEP with SHA-256: its refusal is told as it is.
    let mut to = recipients(OaepHash::Sha256);
    to.add_token(tokens().file(&uri("token=first;object=three"))).unwrap();
    let error = to.wrap(&private).unwrap_err().to_string();
    assert!(error.contains("the token refused: "), "{error}");
    let named = |name| Pkcs11Recipients::hash_named(name).map_err(|error| error.to_string());
    assert_eq!(named(None), Ok(OaepHash::Sha1));
    assert_eq!(named(Some("")), Ok(OaepHash::Sha1));
    assert_eq!(named(Some("SHA256")), Ok(OaepHash::Sha256));
    assert_eq!(named(Some("md5")), Err("OAEP hash 'md5': sha1 and sha256 are known".into()));
}

#[test]
fn the_pin_may_be_in_a_file() {
    let private = options();
    let blob = wrapped(&private, &[("first", "two")]);
    let scene = tempfile::tempdir().unwrap();
    let file = scene.path().join("pin");
    let of =
        |source: String| format!("pkcs11:token=first;object=two?module-name=softhsm2&pin-source={source}");
    for contents in [PIN.to_owned(), format!("{PIN}\n"), format!("{PIN}\r\n")] {
        std::fs::write(&file, contents).unwrap();
        for source in [file.display().to_string(), format!("file://{}", file.display())] {
            assert!(same(&open(Scheme::Pkcs11, &blob, keys(&of(source))).unwrap(), &private));
        }
    }
    let error = refused(&of("/nonexistent/pin".into()), &blob);
    assert!(error.contains("the PIN file can't be read: /nonexistent/pin: No such file"), "{error}");
    std::fs::write(&file, [b'1'; 2000]).unwrap();
    assert!(refused(&of(file.display().to_string()), &blob).contains("longer than 1024 bytes"));
    std::fs::write(&file, format!("{PIN}0")).unwrap();
    assert!(refused(&of(file.display().to_string()), &blob).ends_with("the PIN is wrong"));
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let blob = wrapped(&options(), &[("first", "two")]);
    let scene = tempfile::tempdir().unwrap();
    let asked = scene.path().join("asked");
    let program = scene.path().join("sealpod-pkcs11");
    // Counts how often the token is asked.
    let script = format!(
        "#!/bin/sh\necho >>{}\ncat >/dev/null\nprintf '{{\"refused\":\"wrong_pin\"}}'\n",
        asked.display()
    );
    std::fs::write(&program, script).unwrap();
    run(Command::new("chmod").arg("755").arg(&program));
    let key = Pkcs11Keys::new(
        tokens().file(&uri("token=first;object=two")),
        Helper::at(program),
        Configuration::default(),
    );
    let layer = support::wrapped(Scheme::Pkcs11, &blob);
    for _ in 0..10 {
        assert_eq!(key.unwrap(&layer).unwrap_err().to_string(), "the PIN is wrong");
    }
    assert_eq!(std::fs::read_to_string(asked).unwrap().lines().count(), 1, "ten layers lock no token");
}

#[test]
fn keys_and_tokens_that_are_not_there() {
    let blob = wrapped(&options(), &[("first", "two")]);
    let with = |rest: &str| refused(&uri(rest), &blob);
    let of = |text: String| refused(&text, &blob);
    assert!(with("token=first;object=absent").ends_with("the token has no private RSA key of that name"));
    assert!(with("token=first;object=two;id=%02").ends_with("the token has no private RSA key of that name"));
    assert!(
        with("token=first;object=twin")
            .ends_with("2 keys of the token have that name: add the id to the PKCS #11 URI")
    );
    assert!(with("token=absent;object=two").ends_with("no token in any slot matches the PKCS #11 URI"));
    assert!(
        with("token=first;serial=0;object=two").ends_with("no token in any slot matches the PKCS #11 URI")
    );
    assert!(with("slot-id=4294967000;object=two").ends_with("no token in any slot matches the PKCS #11 URI"));
    assert!(
        with("object=two").contains("3 tokens match the PKCS #11 URI: name one by its serial or slot-id")
    );
    assert!(
        with("token=first;library-version=9.9;object=two")
            .contains("it is not the library that the PKCS #11 URI describes")
    );
    let wrong = "pkcs11:token=first;object=two?module-name=softhsm2&pin-value=000000";
    assert!(of(wrong.into()).ends_with("the PIN is wrong"));
    let none = "pkcs11:token=first;object=two?module-name=softhsm2";
    assert!(
        of(none.into()).ends_with("the token wants a PIN: add pin-value or pin-source to the PKCS #11 URI")
    );
    let mut to = recipients(OaepHash::Sha1);
    to.add_token(tokens().file(&uri("token=first;object=absent"))).unwrap();
    let error = to.wrap(&options()).unwrap_err().to_string();
    assert!(error.ends_with("the token has no public RSA key of that name"), "{error}");
}

#[test]
fn no_module_from_elsewhere() {
    let blob = wrapped(&options(), &[("first", "two")]);
    let scene = tempfile::tempdir().unwrap();
    let (source, module, mark) =
        (scene.path().join("m.c"), scene.path().join("libsofthsm2.so"), scene.path().join("loaded"));
    let code = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) void f(void) {{ open(\"{}\", O_CREAT|O_WRONLY, 0600); }}\n",
        mark.display()
    );
    std::fs::write(&source, code).unwrap();
    run(Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&module).arg(&source));
    let here = scene.path().display();
    for query in [
        format!("module-path={here}/libsofthsm2.so"),
        format!("module-path={here}&module-name=softhsm2"),
        format!("module-path={here}/&module-name=libsofthsm2"),
    ] {
        let error = refused(&format!("pkcs11:token=first;object=two?{query}&pin-value={PIN}"), &blob);
        assert!(error.contains("is not in a place that the configuration allows"), "{error}");
    }
    // Only listed, not allowed; and the other way round.
    let by_name = tokens().file(&uri("token=first;object=two"));
    let listed =
        format!("pkcs11:\n  module-directories: [{here}]\n  allowed-module-paths: [/usr/lib/softhsm/]\n");
    let listed = Configuration::parse("c", &listed).unwrap();
    let key: Vec<Box<dyn Unwrap>> = vec![Box::new(Pkcs11Keys::new(by_name, helper(), listed))];
    let error = open(Scheme::Pkcs11, &blob, key).unwrap_err();
    assert!(error.contains("is not in a place that the configuration allows"), "{error}");
    // Other ways to the same code are closed too: the loader's, and those of modules that wrap modules.
    for name in [
        "LD_PRELOAD",
        "GLIBC_TUNABLES",
        "PKCS11SPY",
        "OPENSC_CONF",
        "OPENSSL_CONF",
        "HOME",
        "XDG_CONFIG_HOME",
    ] {
        let yaml = format!(
            "pkcs11: {{uri: 'pkcs11:object=k'}}\nmodule: {{env: {{{name}: '{}'}}}}\n",
            module.display()
        );
        let error = KeyFile::parse("key.yaml", yaml.as_bytes()).unwrap_err();
        assert!(matches!(&error, KeyFileError::Variable { name: named, .. } if named == name), "{error}");
    }
    assert!(!mark.exists(), "nothing of it ever ran");
    // Where it is allowed, it is loaded: so the mark would have told.
    let allowed = Configuration::parse("c", &format!("pkcs11: {{module-directories: [{here}]}}")).unwrap();
    let by_name = tokens().file(&uri("token=first;object=two"));
    let key: Vec<Box<dyn Unwrap>> = vec![Box::new(Pkcs11Keys::new(by_name, helper(), allowed))];
    let error = open(Scheme::Pkcs11, &blob, key).unwrap_err();
    assert!(error.contains("can't be used"), "{error}");
    assert!(mark.exists());
}

#[test]
fn hostile_blobs() {
    let blob = wrapped(&options(), &[("first", "two")]);
    let mut json: serde_json::Value = serde_json::from_slice(&blob).unwrap();
    let share = STANDARD.decode(json["recipients"][0]["blob"].as_str().unwrap()).unwrap();
    let two = uri("token=first;object=two");
    let mut with = |share: &[u8]| {
        json["recipients"][0]["blob"] = STANDARD.encode(share).into();
        refused(&two, json.to_string().as_bytes())
    };
    let mut changed = share.clone();
    changed[100] ^= 1;
    for share in [changed.as_slice(), &share[1..], &[0xff; 256], &[0; 256], &[1], &[7; 100_000]] {
        assert!(with(share).ends_with("not wrapped for this key"), "{} bytes", share.len());
    }
    for blob in ["", "{}", "[]", r#"{"version":1,"recipients":[]}"#, r#"{"version":0,"recipients":[]}"#] {
        assert!(refused(&two, blob.as_bytes()).contains("pkcs11"), "{blob}");
    }
    // Opened, and not private options: somebody else's letter under this key.
    let scene = tempfile::tempdir().unwrap();
    let (key, text) = (scene.path().join("key"), scene.path().join("text"));
    std::fs::write(&key, tokens().public("first", "two")).unwrap();
    std::fs::write(&text, "{\"symkey\":\"\"}").unwrap();
    let encrypted = run(Command::new("openssl")
        .args(["pkeyutl", "-encrypt", "-pubin", "-pkeyopt", "rsa_padding_mode:oaep", "-inkey"])
        .arg(&key)
        .arg("-in")
        .arg(&text));
    assert!(with(&encrypted).contains("opened, but refused"));
}

#[test]
fn the_program_must_be_there_and_answer() {
    let blob = wrapped(&options(), &[("first", "two")]);
    let ask = |program: &str| {
        let file = tokens().file(&uri("token=first;object=two"));
        let key = Pkcs11Keys::new(file, Helper::at(program), Configuration::default());
        open(Scheme::Pkcs11, &blob, vec![Box::new(key)]).unwrap_err()
    };
    let error = ask("/nonexistent/sealpod-pkcs11");
    assert!(
        error.contains("sealpod-pkcs11 is needed for keys on PKCS #11 tokens and is not at /nonexistent"),
        "{error}"
    );
    assert!(error.contains("$SEALPOD_PKCS11"), "{error}");
    assert!(ask("/bin/true").contains("/bin/true gave no answer: exit status: 0"));
    assert!(ask("/bin/false").contains("/bin/false gave no answer: exit status: 1"));
    assert!(ask("/bin/cat").contains("/bin/cat gave no answer"), "an echo is no answer");
    assert!(ask("/etc/passwd").contains("/etc/passwd: starting it failed: Permission denied"));
    let found = Helper::find(None, Path::new("/opt/bin/sealpod"));
    assert_eq!(format!("{found:?}"), format!("{:?}", Helper::at("/opt/bin/sealpod-pkcs11")));
    let named = Helper::find(Some(Path::new("/x/y")), Path::new("/opt/bin/sealpod"));
    assert_eq!(format!("{named:?}"), format!("{:?}", Helper::at("/x/y")));
}

#[test]
fn recipients_that_can_not_be_used() {
    let scene = tempfile::tempdir().unwrap();
    let key = scene.path().join("key.pem");
    let public = |arguments: &[&str]| {
        run(Command::new("openssl").arg("genpkey").args(arguments).arg("-out").arg(&key));
        run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key))
    };
    let mut to = recipients(OaepHash::Sha1);
    let short = public(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    assert!(matches!(to.add_public_key("k", &short), Err(RecipientError::Key { .. })));
    let elliptic = public(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    assert!(matches!(to.add_public_key("k", &elliptic), Err(RecipientError::NotRsa { .. })));
    assert!(matches!(to.add_public_key("k", b"hello"), Err(RecipientError::Key { .. })));
    assert!(to.wrap(&options()).unwrap_err().to_string().contains("no recipient given"));
}

#[test]
fn key_files_and_configurations() {
    let file = tokens().yaml(&uri("token=first;object=two"));
    assert!(is_key_file(file.as_bytes()));
    assert!(!is_key_file(b"-----BEGIN PUBLIC KEY-----\n") && !is_key_file(b"\xff"));
    let parse = |text: &str| KeyFile::parse("k.yaml", text.as_bytes()).unwrap_err().to_string();
    assert!(
        parse("pkcs11: {uri: 'pkcs11:token=x'}").ends_with("the PKCS #11 URI names no key: add object or id")
    );
    assert!(parse("pkcs11: {uri: 'pkcs11:objekt=x'}").contains("'objekt' is no path attribute"));
    let leaky = parse("pkcs11: {uri: {a: 'pkcs11:object=k?pin-value=31337'}}");
    assert!(leaky.contains("not a PKCS #11 key file") && !leaky.contains("31337"), "{leaky}");
    let key = tokens().file(&uri("token=first;object=two"));
    assert!(!format!("{key:?}").contains(PIN));
    assert_eq!(key.name(), "key.yaml (pkcs11:token=first;object=two)");

    let configuration = |text: &str| Configuration::parse("c", text).map_err(|error| error.to_string());
    let both = configuration("pkcs11: {module-directories: [/a, /b/], allowed-module-paths: [/b/, /c/d.so]}")
        .unwrap();
    let shown = format!("{both:?}");
    assert!(shown.contains(r#"directories: ["/a/", "/b/"], allowed: ["/b/", "/c/d.so"]"#), "{shown}");
    let one = format!("{:?}", configuration("pkcs11: {module-directories: [/a]}").unwrap());
    assert!(one.contains(r#"directories: ["/a/"], allowed: ["/a/"]"#), "{one}");
    assert!(
        configuration("pkcs11: {allowed-module-paths: [../x]}")
            .unwrap_err()
            .contains("'../x' must be an absolute path")
    );
    assert!(configuration("pkcs11: 7").unwrap_err().contains("not a configuration"));

    let scene = tempfile::tempdir().unwrap();
    std::fs::write(scene.path().join("ocicrypt.conf"), "pkcs11: {module-directories: [/xdg]}").unwrap();
    std::fs::write(scene.path().join("named"), "pkcs11: {module-directories: [/named]}").unwrap();
    let load = |set: &[(&str, &Path)]| {
        let variable = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Configuration::load(variable).map(|it| format!("{it:?}")).map_err(|error| error.to_string())
    };
    assert!(load(&[("XDG_CONFIG_HOME", scene.path())]).unwrap().contains("/xdg/"));
    let named = scene.path().join("named");
    assert!(
        load(&[("OCICRYPT_CONFIG", &named), ("XDG_CONFIG_HOME", scene.path())]).unwrap().contains("/named/")
    );
    let internal =
        load(&[("OCICRYPT_CONFIG", Path::new("internal")), ("XDG_CONFIG_HOME", scene.path())]).unwrap();
    assert_eq!(internal, format!("{:?}", Configuration::default()));
    let absent = scene.path().join("absent");
    assert!(load(&[("OCICRYPT_CONFIG", &absent)]).unwrap_err().contains("can't be read"));
    std::fs::write(&absent, "pkcs11: [").unwrap();
    assert!(load(&[("OCICRYPT_CONFIG", &absent)]).unwrap_err().contains("not a configuration"));
}
