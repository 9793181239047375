//! `sealpod keyprovider` as encrypting tools run it, and what other providers are sent.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::support::Owner;
use super::{layout, resources, world};

const RECIPIENT: &str = "provider:sealpod:kbs:///acme/image-key/web";

fn configure(owner: &Owner, providers: &Value) {
    owner.write("providers.json", &json!({ "key-providers": providers }).to_string());
}

/// This program as a command in the configuration.
fn as_command(owner: &Owner, more: &[&str]) -> Value {
    let identity = owner.path("id").display().to_string();
    let args = [&["--identity", &identity, "keyprovider"], more].concat();
    json!({ "sealpod": { "cmd": { "path": env!("CARGO_BIN_EXE_sealpod"), "args": args } } })
}

/// Encrypts, decrypts by the provider and by the key itself, and compares.
fn there_and_back(owner: &Owner) {
    layout::write(&owner.path("plain"));
    let config = ["--keyprovider-config", "providers.json"];
    owner.good(
        &[&["image", "encrypt", "oci:plain:v1", "oci:secret:v1", "--recipient", RECIPIENT], &config[..]]
            .concat(),
    );
    let (plain, _) = layout::layers(&owner.path("plain"));
    let (secret, annotations) = layout::layers(&owner.path("secret"));
    assert!(plain.iter().all(|digest| !secret.contains(digest)));
    let annotation = annotations["org.opencontainers.image.enc.keys.provider.sealpod"].as_str().unwrap();
    assert!(!annotation.is_empty());
    owner.good(
        &[&["image", "decrypt", "oci:secret:v1", "oci:one:v1", "--key", "provider:sealpod"], &config[..]]
            .concat(),
    );
    owner.good(&["image", "decrypt", "oci:secret:v1", "oci:two:v1", "--key", "kbs:///acme/image-key/web"]);
    for opened in ["one", "two"] {
        assert_eq!(layout::layers(&owner.path(opened)).0, plain, "{opened}");
    }
}

#[test]
fn as_a_command() {
    let (owner, _broker) = world();
    owner.good(&["image", "key", "new", "web"]);
    configure(&owner, &as_command(&owner, &[]));
    there_and_back(&owner);
}

#[test]
fn without_a_provider_it_is_the_key_in_the_store() {
    let (owner, _broker) = world();
    owner.good(&["image", "key", "new", "web"]);
    let (entry, log) = spy(&owner);
    configure(&owner, &json!({ "spy": entry }));
    layout::write(&owner.path("plain"));
    for (made, config) in [("one", &[][..]), ("two", &["--keyprovider-config", "providers.json"])] {
        let to = format!("oci:{made}:v1");
        owner.good(&[&["image", "encrypt", "oci:plain:v1", &to, "--recipient", RECIPIENT], config].concat());
        owner.good(&["image", "check", &to, "--key", "kbs:///acme/image-key/web"]);
    }
    assert!(!log.exists());
}

#[test]
fn a_missing_key_is_named_or_made() {
    let (owner, broker) = world();
    layout::write(&owner.path("plain"));
    let encrypt = ["image", "encrypt", "oci:plain:v1", "oci:secret:v1", "--recipient", RECIPIENT];
    let encrypt = [&encrypt[..], &["--keyprovider-config", "providers.json"]].concat();
    configure(&owner, &as_command(&owner, &[]));
    let error = owner.refused(&encrypt);
    assert!(error.contains("sealpod image key new kbs:///acme/image-key/web"), "{error}");
    assert!(!owner.path("secret/index.json").exists());

    configure(&owner, &as_command(&owner, &["--create"]));
    owner.good(&encrypt);
    // One key for both layers, at the broker once.
    let pushed = resources(&owner, &broker);
    assert_eq!(pushed.len(), 1);
    assert_eq!(pushed[0].0.uri, "kbs:///acme/image-key/web");
    assert_eq!(
        pushed[0].0.sha256,
        protocols::name::sha256(&std::fs::read(owner.path("id/image-keys/web")).unwrap())
    );
}

#[test]
fn without_a_request_it_says_what_it_is_for() {
    let (owner, _broker) = world();
    let error = owner.refused(&["keyprovider"]);
    assert!(error.contains("key provider's message"), "{error}");
    let error = owner.refused(&["keyprovider", "--listen", "0.0.0.0:0"]);
    assert!(error.contains("--tls-cert"), "{error}");
    assert!(owner.refused(&["keyprovider", "--name", "other"]).contains("attestation-agent"));
}

/// A service until it is dropped, and its standard output, which stays open.
struct Service {
    child: Child,
    _output: BufReader<ChildStdout>,
}

impl Service {
    /// Starts, and gives the address that it says it listens on.
    fn start(owner: &Owner, args: &[&str]) -> (Self, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealpod"))
            .args(["--identity", &owner.path("id").display().to_string(), "keyprovider", "--listen"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").unwrap().to_owned();
        (Self { child, _output: output }, address)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn as_a_service() {
    let (owner, _broker) = world();
    owner.good(&["image", "key", "new", "web"]);
    let socket = format!("unix:{}", owner.path("provider.sock").display());
    for listen in ["127.0.0.1:0", socket.as_str()] {
        let (_service, address) = Service::start(&owner, &[listen]);
        configure(&owner, &json!({ "sealpod": { "grpc": address } }));
        for made in ["secret", "one", "two"] {
            let _ = std::fs::remove_dir_all(owner.path(made));
        }
        there_and_back(&owner);
    }
}

#[test]
fn as_a_service_over_tls() {
    let (owner, _broker) = world();
    owner.good(&["image", "key", "new", "web"]);
    let pairs = Pairs::write(&owner);
    let (_service, address) = Service::start(
        &owner,
        &["127.0.0.1:0", "--tls-cert", &pairs.0, "--tls-key", &pairs.1, "--client-ca", &pairs.2],
    );
    let tls = json!({ "root-ca-file": pairs.2, "cert-file": pairs.0, "key-file": pairs.1 });
    configure(&owner, &json!({ "sealpod": { "grpc": address, "grpc-tls": tls } }));
    there_and_back(&owner);
}

/// Certificate, key and CA in files; one pair serves both sides.
struct Pairs(String, String, String);

impl Pairs {
    fn write(owner: &Owner) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        owner.write("tls-ca.pem", &ca.self_signed(&ca_key).unwrap().pem());
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        owner.write("tls.pem", &leaf.signed_by(&key, &issuer).unwrap().pem());
        owner.write("tls.key", &key.serialize_pem());
        let path = |name| owner.path(name).display().to_string();
        Self(path("tls.pem"), path("tls.key"), path("tls-ca.pem"))
    }
}

/// A provider that keeps each request, and answers with a wrapped key that nothing opens.
fn spy(owner: &Owner) -> (Value, PathBuf) {
    let log = owner.path("asked");
    owner.write("reply.json", r#"{"keywrapresults":{"annotation":"bm90aGluZw=="}}"#);
    let script = format!("cat >>{}; echo >>{0}; cat {}", log.display(), owner.path("reply.json").display());
    (json!({ "cmd": { "path": "/bin/sh", "args": ["-c", script] } }), log)
}

fn openssl(directory: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_provider_is_sent_its_own_parameters_and_nothing_else() {
    let (owner, _broker) = world();
    owner.good(&["image", "key", "new", "web"]);
    layout::write(&owner.path("plain"));
    let home = owner.path("");
    for name in ["recipient", "stranger"] {
        let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
        let kind = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        openssl(
            &home,
            &[&kind[..], &["-aes-256-cbc", "-pass", "pass:correct-horse", "-out", &private]].concat(),
        );
        openssl(
            &home,
            &["pkey", "-in", &private, "-passin", "pass:correct-horse", "-pubout", "-out", &public],
        );
    }
    let (entry, log) = spy(&owner);
    let mut providers = as_command(&owner, &[]);
    providers["spy"] = entry;
    configure(&owner, &providers);
    let config = ["--keyprovider-config", "providers.json"];
    let encrypt = ["image", "encrypt", "oci:plain:v1", "oci:secret:v1"];
    let recipients = ["-r", "provider:spy:mine", "-r", "jwe:recipient.pub", "-r", RECIPIENT];
    owner.good(&[&encrypt[..], &recipients, &config].concat());
    let decrypt = |key: &str| {
        let decrypt = ["image", "decrypt", "oci:secret:v1", "oci:opened:v1"];
        let keys = ["--key", key, "--key", "provider:spy:also-mine"];
        owner.run(&[&decrypt[..], &keys, &config].concat())
    };
    // A key that doesn't fit, so that the provider is asked as well.
    assert!(!decrypt("stranger.pem:correct-horse").good);
    assert!(decrypt("recipient.pem:correct-horse").good);

    let asked = std::fs::read_to_string(log).unwrap();
    let requests: Vec<Value> = asked.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(requests.iter().any(|request| request["op"] == "keywrap"));
    assert!(requests.iter().any(|request| request["op"] == "keyunwrap"));
    for request in &requests {
        let wrap = &request["keywrapparams"]["ec"];
        let parameters = if request["op"] == "keywrap" { wrap } else { &request["keyunwrapparams"]["dc"] };
        let names: Vec<_> = parameters["Parameters"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["spy"], "{request}");
        assert!(wrap["DecryptConfig"]["Parameters"].as_object().is_none_or(|others| others.is_empty()));
    }
    // Not in some other place or spelling either.
    let base64 =
        |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, bytes);
    let files = ["recipient.pem", "recipient.pub", "stranger.pem"].map(|name| owner.read(name));
    for secret in files.into_iter().chain(["correct-horse".into(), "image-key/web".into()]) {
        let secret = secret.lines().nth(1).map_or(secret.clone(), str::to_owned);
        // Encoded at each of the three offsets, without the ends that neighbours change.
        let forms = (0..3).map(|offset| {
            let padded = [&vec![b' '; offset][..], secret.as_bytes()].concat();
            base64(&padded).chars().skip(4).take(8).collect::<String>()
        });
        for form in forms.chain([secret.clone()]) {
            assert!(!asked.contains(&form), "{form}");
        }
    }
}

#[test]
fn requests_in_both_spellings_by_hand() {
    let (owner, _broker) = world();
    owner.good(&["image", "key", "new", "web"]);
    let options = br#"{"symkey":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","digest":"sha256:0303030303030303030303030303030303030303030303030303030303030303","cipheroptions":{"nonce":"AgICAgICAgICAgICAgICAg=="}}"#;
    let ask = |request: &Value| -> Value {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealpod"))
            .args(["--identity", &owner.path("id").display().to_string(), "keyprovider"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
        serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
    };
    let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let parameters = json!({ "sealpod": [base64(b"kbs:///acme/image-key/web")] });
    for payload in [json!(base64(options)), json!(options.to_vec())] {
        let ec = json!({ "Parameters": parameters, "DecryptConfig": { "Parameters": {} } });
        let reply = ask(&json!({ "op": "keywrap", "keywrapparams": { "ec": ec, "optsdata": payload } }));
        let annotation: Vec<u8> =
            serde_json::from_value(reply["keywrapresults"]["annotation"].clone()).unwrap();
        for annotation in [json!(base64(&annotation)), json!(annotation)] {
            let dc = json!({ "Parameters": {} });
            let reply =
                ask(&json!({ "op": "keyunwrap", "keyunwrapparams": { "dc": dc, "annotation": annotation } }));
            let opened: Vec<u8> =
                serde_json::from_value(reply["keyunwrapresults"]["optsdata"].clone()).unwrap();
            assert_eq!(
                serde_json::from_slice::<Value>(&opened).unwrap(),
                serde_json::from_slice::<Value>(options).unwrap()
            );
        }
    }
}
