//! The owner's way, with the built program: identity, sealing, pushing, retiring, auditing.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use protocols::audit::{AuditKey, Checkpoint, Head, Record};
use protocols::broker::{PolicyRequest, RegistrationRequest, ResourceRequest, RetirementRequest};
use protocols::owner::{OwnerPublicKey, PolicyStatement, Registration, Resource, Retirement};
use protocols::rcar::KbsError;
use protocols::refusal::{Code, Refusal};
use sealed_spec::initdata::{ANNOTATION, Initdata, annotation};
use sealed_spec::{Logs, SealedDocument, SpecKey};
use serde_json::{Value, json};
use support::{Fake, MANIFEST, Owner, certificates, example_pod, registry, reply};

/// A broker that accepts everything and keeps an audit log.
fn broker() -> (String, Fake, Arc<Mutex<Vec<Record>>>, AuditKey) {
    let (ca, tls) = certificates();
    let key = AuditKey::generate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    key.save(&dir.path().join("audit.key")).unwrap();
    let twin = AuditKey::load(&dir.path().join("audit.key")).unwrap();
    let log: Arc<Mutex<Vec<Record>>> = Arc::default();
    let records = log.clone();
    let fake = Fake::start(Some(tls), move |seen| {
        if seen.line == "GET /sealpod/v1/health" {
            return reply(200, r#"{"status":"ok","version":"9.9","trust":["amd","EMULATED ARK 00ff"]}"#);
        }
        let mut records = records.lock().unwrap();
        let head = records.last().map_or_else(Head::default, Record::head);
        records.push(Record::after(&head, "2026-11-21T23:00:00Z", "test", &*seen.line, json!({})).unwrap());
        let checkpoint = Checkpoint::sign(&records.last().unwrap().head(), &key);
        reply(200, serde_json::to_vec(&json!({ "checkpoint": checkpoint })).unwrap())
    });
    (ca, fake, log, twin)
}

/// An owner with the example pod sealed against a registry on loopback.
fn sealed(ca: &str, port: u16, more: &[&str]) -> (Owner, Fake) {
    let (owner, registry) = (Owner::new(ca, port), registry());
    owner.write("pod.yaml", &example_pod("registry.example:5000"));
    let here = format!("registry.example:5000=http://127.0.0.1:{}", registry.port);
    let guest = "registry.example:5000=http://10.0.2.2:5000";
    let mut args = vec!["seal", "pod.yaml", "--registry", guest, "--resolve-via", &here];
    args.extend(more);
    owner.good(&args);
    (owner, registry)
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

#[test]
fn the_whole_way() {
    let (ca, broker, log, _) = broker();
    let other = "other.example=https://other.example,credentials=kbs:///acme/registry/login,mirror=https://mirror.example/";
    let grants = ["--grant-logs", "clear", "--grant-exec", "billing=/bin/date -u", "--registry", other];
    let proxy = ["--proxy", "http://proxy.example:3128", "--proxy-except", ".cluster.local"];
    let (owner, registry) = sealed(&ca, broker.port, &[&grants[..], &proxy[..]].concat());
    assert_eq!(registry.requests().len(), 1, "three containers, one image, one look-up");

    // What goes to the cluster.
    let objects = documents(&owner.read("pod-sealed.yaml"));
    let [config_map, pod] = &objects[..] else { panic!("{} objects", objects.len()) };
    let text = owner.read("pod-sealed.yaml");
    for secret in [
        "correct horse",
        "DATABASE_PASSWORD",
        "Truffles",
        "busybox",
        "registry.example",
        "runAsUser",
        "/desk",
    ] {
        assert!(!text.contains(secret), "{secret} is in the clear");
    }
    assert_eq!(config_map["metadata"]["namespace"], "shop");
    assert_eq!(pod["spec"]["volumes"][0]["configMap"]["name"], config_map["metadata"]["name"]);
    let annotation = pod["metadata"]["annotations"][ANNOTATION].as_str().unwrap();
    let initdata = annotation::decode(annotation).unwrap();
    let launched_with = protocols::name::sha256(&initdata);
    let initdata = Initdata::parse(&initdata).unwrap();
    let document = SealedDocument::parse(config_map["data"]["sealed-spec.jwe"].as_str().unwrap()).unwrap();
    assert_eq!(initdata.config.sealed_spec, document.digest());
    assert_eq!(initdata.config.broker.ca, owner.ca);

    // What goes to the broker.
    let mode = std::fs::metadata(owner.path("pod-sealed.key.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let file: Value = serde_json::from_str(&owner.read("pod-sealed.key.json")).unwrap();
    let key = SpecKey::from_base64url(file["key"].as_str().unwrap()).unwrap();
    let spec = document.open(&key).unwrap();
    assert_eq!(spec.grants.logs, Logs::Clear);
    assert_eq!(spec.grants.exec["billing"], [["/bin/date", "-u"]]);
    assert_eq!(spec.registries[0].location, "http://10.0.2.2:5000");
    assert_eq!(spec.registries[1].credentials.as_ref().unwrap().as_str(), "kbs:///acme/registry/login");
    assert_eq!(spec.registries[1].mirrors, ["https://mirror.example"]);
    let proxy = spec.proxy.as_ref().unwrap();
    assert_eq!(
        (proxy.url.expose(), &proxy.except[..]),
        ("http://proxy.example:3128", &[".cluster.local".to_owned()][..])
    );
    assert_eq!(
        spec.images["prices"].digest.as_deref(),
        Some(protocols::name::sha256(MANIFEST.as_bytes()).as_str())
    );
    assert_eq!(spec.images["prices"].reference, "registry.example:5000/busybox:v1");

    owner.write("measure.json", &measurement("snp-emulated"));
    owner.write("api.key", "a secret\n");
    let resource = ["--resource", "api.key=kbs:///acme/secret/api-1"];
    let push = ["push", "pod-sealed.key.json", "--measurement", "measure.json", resource[0], resource[1]];
    let said = owner.good(&push);
    assert!(said.contains("resource kbs:///acme/secret/api-1 (9 bytes, sha256:"), "{said}");
    assert!(said.contains("EMULATED evidence is allowed"), "{said}");
    owner.good(&["retire", "--lineage", "shop.orders", "--revision", "1"]);

    let requests = broker.requests();
    let lines: Vec<_> = requests.iter().map(|seen| seen.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "POST /sealpod/v1/resources",
            "POST /sealpod/v1/registrations",
            "POST /sealpod/v1/policies",
            "POST /sealpod/v1/retirements"
        ]
    );
    let public = public_key(&owner);
    let request: ResourceRequest = serde_json::from_slice(&requests[0].body).unwrap();
    let resource = public.verify::<Resource>(&request.resource).unwrap();
    assert_eq!(
        (resource.lineage.as_deref(), resource.uri.as_str()),
        (Some("shop.orders"), "kbs:///acme/secret/api-1")
    );
    assert_eq!(resource.sha256, protocols::name::sha256(b"a secret\n"));
    assert_eq!(request.content.as_str(), "YSBzZWNyZXQK");
    let request: RegistrationRequest = serde_json::from_slice(&requests[1].body).unwrap();
    let registration = public.verify::<Registration>(&request.registration).unwrap();
    assert_eq!(registration.spec_digest, document.digest().to_string());
    assert_eq!(registration.key_sha256, protocols::name::sha256(key.as_bytes()));
    assert_eq!(registration.init_data.as_deref(), Some(launched_with.as_str()));
    assert_eq!((registration.lineage.as_str(), registration.revision), ("shop.orders", 1));
    assert_eq!((registration.workload_kind.as_str(), registration.workload_name.as_str()), ("Pod", "orders"));
    let request: PolicyRequest = serde_json::from_slice(&requests[2].body).unwrap();
    let policy = public.verify::<PolicyStatement>(&request.policy).unwrap();
    assert_eq!(policy.policy.launch_digest[0].digest, "ab".repeat(48));
    let request: RetirementRequest = serde_json::from_slice(&requests[3].body).unwrap();
    assert_eq!(public.verify::<Retirement>(&request.retirement).unwrap().revision, 1);

    // Every push left a checkpoint; the log has to fit them.
    let export = |records: &[Record]| {
        let lines: Vec<_> =
            records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect();
        owner.write("audit.jsonl", &lines.concat());
    };
    let records = log.lock().unwrap().clone();
    export(&records);
    assert!(
        owner
            .good(&["audit", "verify", "audit.jsonl"])
            .contains("4 checkpoints fit, 4 of them from your own")
    );
    export(&records[..2]);
    assert!(owner.refused(&["audit", "verify", "audit.jsonl"]).contains("it was truncated"));
    let mut changed = records.clone();
    changed[0].subject = "something else".into();
    export(&changed);
    assert!(owner.refused(&["audit", "verify", "audit.jsonl"]).contains("record 1 was changed"));
}

#[test]
fn resources_are_signed_for_a_lineage() {
    let (ca, broker, _, _) = broker();
    let owner = Owner::new(&ca, broker.port);
    owner.write("api.key", "a secret");
    owner.write("initdata.toml", "version = \"0.1.0\"\n");
    let put = |uri: &'static str| {
        vec!["resource", "api.key", uri, "--lineage", "shop.web", "--initdata", "initdata.toml"]
    };
    let said = owner.good(&put("kbs:///acme/secret/api-1"));
    assert!(said.contains("for guests of lineage 'shop.web'") && said.contains("it never changes"), "{said}");
    let requests = broker.requests();
    let request: ResourceRequest = serde_json::from_slice(&requests[0].body).unwrap();
    let resource = public_key(&owner).verify::<Resource>(&request.resource).unwrap();
    assert_eq!(resource.init_data, [protocols::name::sha256(b"version = \"0.1.0\"\n")]);

    assert!(owner.refused(&put("kbs:///other/secret/x")).contains("not in your repository 'acme'"));
    assert!(owner.refused(&put("kbs:///acme/sealed-spec/x")).contains("type that holds keys"));
    owner.write("api.key", &"x".repeat(256 * 1024 + 1));
    assert!(owner.refused(&put("kbs:///acme/secret/big")).contains("longer than 262144 bytes"));
    assert_eq!(broker.requests().len(), 1, "nothing else was sent");
}

fn public_key(owner: &Owner) -> OwnerPublicKey {
    protocols::owner::OwnerKey::load(&owner.path("id/owner.key")).unwrap().public()
}

fn measurement(tee: &str) -> String {
    json!({
        "name": "guest-1",
        "tee": tee,
        "launch_digest": "ab".repeat(48),
        "measured": { "firmware": "", "kernel": "", "initrd": "", "append": "", "vcpus": 1, "cpu_model": "EPYC-Milan" },
    })
    .to_string()
}

#[test]
fn resealing_is_another_revision_with_another_key() {
    let (owner, registry) = sealed(&certificates().0, 1, &[]);
    let first = (owner.read("pod-sealed.yaml"), owner.read("pod-sealed.key.json"));
    let here = format!("registry.example:5000=http://127.0.0.1:{}", registry.port);
    let said = owner.good(&["seal", "pod.yaml", "--registry", &here, "--inline", "--show-public"]);
    assert!(said.contains("revision 2"), "{said}");
    assert!(said.contains("container.resources.limits") && said.contains("host reads"), "{said}");
    assert!(!said.contains("correct horse"), "{said}");
    assert_ne!(owner.read("pod-sealed.key.json"), first.1);
    // Inline: no ConfigMap, the document is in the initdata.
    let objects = documents(&owner.read("pod-sealed.yaml"));
    let [pod] = &objects[..] else { panic!("{} objects", objects.len()) };
    assert!(pod["spec"].get("volumes").is_none());
    let annotation = pod["metadata"]["annotations"][ANNOTATION].as_str().unwrap();
    assert!(Initdata::parse(&annotation::decode(annotation).unwrap()).unwrap().document.is_some());
}

#[test]
fn bad_manifests_are_refused_with_their_place() {
    let owner = Owner::new(&certificates().0, 1);
    let seal = |text: &str| {
        owner.write("pod.yaml", text);
        let error = owner.refused(&["seal", "pod.yaml"]);
        assert!(!owner.path("pod-sealed.yaml").exists() && !owner.path("pod-sealed.key.json").exists());
        error
    };
    let pod = example_pod("127.0.0.1:1");
    let error = seal(&pod.replacen("    - name: prices", "   - name: prices\n  x: [", 1));
    let place: Vec<_> = error.split(':').take(4).collect();
    assert!(
        error.contains("pod.yaml:")
            && place[2].trim().parse::<u32>().is_ok()
            && place[3].trim().parse::<u32>().is_ok(),
        "{error}"
    );
    assert!(
        seal(&pod.replacen("kind: Pod", "kind: Service", 1))
            .contains("Service can't be sealed; these can: Pod")
    );
    let error =
        seal(&pod.replacen("  restartPolicy: Never", "  restartPolicy: Never\n  hostNetwork: true", 1));
    assert!(error.contains("spec.hostNetwork: not supported"), "{error}");
    assert!(seal(&format!("{pod}---\n{pod}")).contains("2 objects"));
    assert!(
        seal(&pod.replacen("busybox:v1", "Busybox:v1", 1)).contains("container 'prices': image reference")
    );
    assert!(owner.refused(&["seal", "missing.yaml"]).contains("missing.yaml: opening failed"));
}

#[test]
fn registries_are_held_to_their_word() {
    let owner = Owner::new(&certificates().0, 1);
    let seal = |registry: &Fake, tag: &str, more: &str| {
        let host = format!("127.0.0.1:{}", registry.port);
        owner.write("pod.yaml", &example_pod(&host).replace(":v1", tag));
        let option = format!("{host}=http://{host}{more}");
        owner.refused(&["seal", "pod.yaml", "--registry", &option])
    };
    assert!(seal(&registry(), ":2.0", "").contains("has no such image or tag"));
    let wrong = format!("@sha256:{}", "00".repeat(32));
    let any = Fake::start(None, |_| reply(200, MANIFEST));
    assert!(seal(&any, &wrong, "").contains("doesn't match its digest"));
    let lying = Fake::start(None, |_| {
        (200, vec![("docker-content-digest", format!("sha256:{}", "00".repeat(32)))], MANIFEST.into())
    });
    assert!(seal(&lying, ":v1", "").contains("doesn't match its digest"));
    let foreign = r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:00","platform":{"os":"linux","architecture":"s390x"}}]}"#;
    assert!(
        seal(&Fake::start(None, move |_| reply(200, foreign)), ":v1", "").contains("no linux/amd64 image")
    );
    assert!(
        seal(&Fake::start(None, |_| reply(200, vec![b' '; 5 << 20])), ":v1", "")
            .contains("larger than 4194304")
    );
    let locked =
        Fake::start(None, |_| (401, vec![("www-authenticate", "Basic realm=\"x\"".into())], Vec::new()));
    assert!(seal(&locked, ":v1", "").contains("wants a login"));

    // Plain http only where it is said; and a dead registry is named.
    let registry = registry();
    let host = format!("127.0.0.1:{}", registry.port);
    owner.write("pod.yaml", &example_pod(&host));
    let error = owner.refused(&["seal", "pod.yaml"]);
    assert!(error.contains(&format!("https://{host}")), "{error}");
    assert!(registry.requests().is_empty());
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    owner.write("pod.yaml", &example_pod(&dead));
    let error = owner.refused(&["seal", "pod.yaml", "--registry", &format!("{dead}=http://{dead}")]);
    assert!(error.contains(&format!("no connection to {dead}")), "{error}");
}

#[test]
fn registry_logins_and_passing_trouble() {
    let owner = Owner::new(&certificates().0, 1);
    owner.write("password", "hunter2\n");
    let tries = Mutex::new(0);
    let (ca, tls) = certificates();
    owner.write("registry-ca.pem", &ca);
    let registry = Fake::start(Some(tls), move |seen| {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        match (&seen.authorization, seen.line.as_str()) {
            _ if *tries == 1 => reply(503, "busy"),
            (Some(login), line)
                if line.starts_with("GET /token?scope=repository%3Abusybox%3Apull&service=me") =>
            {
                assert_eq!(login, "Basic dXNlcjpodW50ZXIy");
                reply(200, r#"{"token":"t0k3n"}"#)
            }
            (Some(bearer), _) if bearer == "Bearer t0k3n" => reply(200, MANIFEST),
            _ => {
                let host = seen_host();
                (
                    401,
                    vec![(
                        "www-authenticate",
                        format!("Bearer realm=\"https://{host}/token\",service=\"me\""),
                    )],
                    Vec::new(),
                )
            }
        }
    });
    *HOST.lock().unwrap() = format!("127.0.0.1:{}", registry.port);
    let host = seen_host();
    owner.write("pod.yaml", &example_pod(&host));
    // A password never leaves in clear, neither from the guest nor from here.
    let login = "ca=registry-ca.pem,user=user,password-file=password";
    let clear = format!("{host}=http://{host},user=user,password-file=password");
    assert!(owner.refused(&["seal", "pod.yaml", "--registry", &clear]).contains("login over http://"));
    let option = format!("{host}=https://{host},{login}");
    let locked = Fake::start(None, |seen| {
        assert_eq!(seen.authorization, None);
        (401, vec![("www-authenticate", "Basic realm=\"x\"".into())], Vec::new())
    });
    let via = format!("{host}=http://127.0.0.1:{}", locked.port);
    let without_ca = format!("{host}=https://{host},user=user,password-file=password");
    let error = owner.refused(&["seal", "pod.yaml", "--registry", &without_ca, "--resolve-via", &via]);
    assert!(error.contains("login over plain http"), "{error}");
    assert!(locked.requests().is_empty());
    owner.good(&["seal", "pod.yaml", "--registry", &option]);
    let file: Value = serde_json::from_str(&owner.read("pod-sealed.key.json")).unwrap();
    let key = SpecKey::from_base64url(file["key"].as_str().unwrap()).unwrap();
    let objects = documents(&owner.read("pod-sealed.yaml"));
    let spec = sealed_spec::open(objects[0]["data"]["sealed-spec.jwe"].as_str().unwrap(), &key).unwrap();
    assert_eq!(spec.registries[0].password.as_ref().unwrap().expose(), "hunter2");
}

static HOST: Mutex<String> = Mutex::new(String::new());

fn seen_host() -> String {
    HOST.lock().unwrap().clone()
}

#[test]
fn the_brokers_refusal_is_passed_on() {
    let (ca, tls) = certificates();
    let line = Refusal::new(Code::VersionExists, "revision 1 of lineage 'shop.orders' exists").to_string();
    let body = serde_json::to_vec(&KbsError::new("Sealpod", line)).unwrap();
    let broker = Fake::start(Some(tls), move |_| reply(401, body.clone()));
    let (owner, _registry) = sealed(&ca, broker.port, &[]);
    let error = owner.refused(&["push", "pod-sealed.key.json"]);
    assert!(
        error.contains("sealpod[VERSION_EXISTS]: revision 1")
            && error.contains("sealpod explain VERSION_EXISTS"),
        "{error}"
    );
    assert!(!owner.path("id/checkpoints.jsonl").exists());
}

#[test]
fn another_broker_is_refused() {
    let (_, tls) = certificates();
    let imposter = Fake::start(Some(tls), |_| reply(200, "{}"));
    let (owner, _registry) = sealed(&certificates().0, imposter.port, &[]);
    let error = owner.refused(&["push", "pod-sealed.key.json"]);
    assert!(
        error.contains("certificate refused") && error.contains("not the broker that this identity pins"),
        "{error}"
    );
    assert!(imposter.requests().is_empty(), "nothing was said to it");
}

#[test]
fn pushes_that_would_go_wrong_send_nothing() {
    let (ca, broker, _, _) = broker();
    let (owner, _registry) = sealed(&ca, broker.port, &[]);
    owner.write("measure.json", &measurement("snp"));
    let push = |more: &[&str]| owner.refused(&[&["push", "pod-sealed.key.json"], more].concat());
    assert!(push(&["--measurement", "measure.json"]).contains("--minimum-tcb is needed for hardware"));
    owner.write("measure.json", "{}");
    assert!(push(&["--measurement", "measure.json"]).contains("not what 'sealpod measure' writes"));
    owner.write("policy.toml", "minimum_revision = 1\ntee = []\n");
    assert!(push(&["--policy", "policy.toml"]).contains("policy.toml"));
    let file = owner.read("pod-sealed.key.json");
    owner.write("pod-sealed.key.json", &file.replacen("\"acme\"", "\"evil\"", 1));
    assert!(push(&[]).contains("was sealed for repository 'evil'"));
    owner.write("pod-sealed.key.json", "{\"key\":\"s3cr3t\"");
    let error = push(&[]);
    assert!(error.contains("not a key file") && !error.contains("s3cr3t"), "{error}");
    std::fs::set_permissions(owner.path("pod-sealed.key.json"), PermissionsExt::from_mode(0o640)).unwrap();
    assert!(push(&[]).contains("can be read by others"));
    std::fs::set_permissions(owner.path("pod-sealed.key.json"), PermissionsExt::from_mode(0o600)).unwrap();
    // Whatever an edited identity says, a key doesn't leave in clear or to an unpinned server.
    owner.write("pod-sealed.key.json", &file);
    let identity = owner.read("id/identity.toml");
    let clear = Fake::start(None, |_| reply(200, "{}"));
    let elsewhere = format!("broker_url = \"http://127.0.0.1:{}\"", clear.port);
    let pinned = format!("broker_url = \"https://127.0.0.1:{}\"", broker.port);
    owner.write("id/identity.toml", &identity.replacen(&pinned, &elsewhere, 1));
    assert!(push(&[]).contains("must be https://"));
    assert!(clear.requests().is_empty());
    owner.write("id/identity.toml", &identity.replacen("BEGIN CERTIFICATE", "BEGIN NOTHING", 1));
    assert!(push(&[]).contains("must hold PEM certificates"));
    assert!(broker.requests().is_empty());
}

#[test]
fn a_policy_for_hardware_names_its_tcb() {
    let (ca, broker, _, _) = broker();
    let (owner, _registry) = sealed(&ca, broker.port, &[]);
    owner.write("measure.json", &measurement("snp"));
    owner.good(&[
        "push",
        "pod-sealed.key.json",
        "--measurement",
        "measure.json",
        "--minimum-tcb",
        "milan=3,0,8,115",
        "--save-policy",
        "policy.toml",
    ]);
    assert!(owner.read("policy.toml").contains("microcode = 115"));
    owner.good(&["push", "pod-sealed.key.json", "--policy", "policy.toml"]);
    let serials: Vec<u64> = broker
        .requests()
        .iter()
        .filter(|seen| seen.line.ends_with("policies"))
        .map(|seen| {
            let request: PolicyRequest = serde_json::from_slice(&seen.body).unwrap();
            public_key(&owner).verify::<PolicyStatement>(&request.policy).unwrap().serial
        })
        .collect();
    assert!(serials[0] < serials[1], "{serials:?}");
}

#[test]
fn a_policy_brings_no_ended_revision_back_unasked() {
    let (ca, broker, _, _) = broker();
    let (owner, _registry) = sealed(&ca, broker.port, &[]);
    owner.write("measure.json", &measurement("snp-emulated"));
    let push = |more: &[&str]| {
        owner.good(&[&["push", "pod-sealed.key.json", "--measurement", "measure.json"], more].concat());
        let seen = broker.requests().pop().unwrap();
        let request: PolicyRequest = serde_json::from_slice(&seen.body).unwrap();
        public_key(&owner).verify::<PolicyStatement>(&request.policy).unwrap().policy.minimum_revision
    };
    assert_eq!(push(&[]), 1);
    assert_eq!(push(&["--minimum-revision", "3"]), 3);
    assert_eq!(push(&[]), 3);
    assert_eq!(push(&["--minimum-revision", "2"]), 2);
    assert_eq!(push(&[]), 2);
}

#[test]
fn identities_are_made_once_and_kept_private() {
    let owner = Owner::new(&certificates().0, 1);
    let mode = |name| std::fs::metadata(owner.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("id"), mode("id/owner.key")), (0o700, 0o600));
    let init = |more: &[&str]| {
        owner.refused(&[&["init", "--repository", "acme", "--broker-ca", "ca.pem"], more].concat())
    };
    assert!(init(&["--broker", "https://127.0.0.1:1"]).contains("has an identity already"));
    assert!(init(&["--broker", "http://127.0.0.1:1"]).contains("must be https://"));
    owner.write("ca.pem", "nonsense");
    assert!(init(&["--broker", "https://127.0.0.1:1"]).contains("no usable certificate"));
    assert!(
        owner
            .refused(&["init", "--repository", "Acme", "--broker", "x", "--broker-ca", "y"])
            .contains("repository")
    );
    std::fs::set_permissions(owner.path("id/owner.key"), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(
        owner.refused(&["retire", "--lineage", "web", "--revision", "1"]).contains("can be read by others")
    );
    std::fs::remove_dir_all(owner.path("id")).unwrap();
    assert!(
        owner
            .refused(&["retire", "--lineage", "web", "--revision", "1"])
            .contains("make one with 'sealpod init'")
    );
}

#[test]
fn doctor_says_what_to_do() {
    let (ca, broker, _, _) = broker();
    let owner = Owner::new(&ca, broker.port);
    let said = owner.good(&["doctor"]);
    assert!(said.contains("answers over the pinned certificate, version 9.9"), "{said}");
    assert!(said.contains("trusts EMULATED ARK 00ff: for tests"), "{said}");
    drop(broker);
    let outcome = owner.run(&["doctor", "--guest", "missing.toml"]);
    assert!(!outcome.good);
    assert!(outcome.out.contains("FAIL  broker") && outcome.out.contains("FAIL  guest"), "{}", outcome.out);
}

#[test]
fn codes_are_explained() {
    let owner = Owner::new(&certificates().0, 1);
    let all = owner.good(&["explain"]);
    for code in Code::ALL {
        assert!(all.contains(code.name()));
        assert!(owner.good(&["explain", code.name()]).contains(code.title()));
    }
    assert!(owner.good(&["explain", "rpc error: sealpod[EXEC_DENIED]: exec of sh"]).contains("EXEC_DENIED"));
    assert!(owner.refused(&["explain", "NOPE"]).contains("run 'sealpod explain' without a code"));
}

#[test]
fn a_log_without_own_checkpoints_says_so() {
    let (ca, _broker, _, key) = broker();
    let owner = Owner::new(&ca, 1);
    let record = Record::after(&Head::default(), "2026-11-21T23:00:00Z", "x", "y", json!({})).unwrap();
    let checkpoint = json!({ "checkpoint": Checkpoint::sign(&record.head(), &key) });
    owner.write("log", &format!("{}\n{checkpoint}\n", serde_json::to_string(&record).unwrap()));
    assert!(owner.good(&["audit", "verify", "log"]).contains("only its own word"));
    owner.good(&["audit", "verify", "log", "--key", &key.public().to_string()]);
    let other = AuditKey::generate().expect("a key").public().to_string();
    assert!(owner.refused(&["audit", "verify", "log", "--key", &other]).contains("another broker's log"));
    owner.write("log", "{}\n");
    assert!(owner.refused(&["audit", "verify", "log"]).contains("log:1: neither a record nor a checkpoint"));
}
