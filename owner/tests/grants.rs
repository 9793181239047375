//! Grants, references and sealed logs, with the built program.

#![expect(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, reason = "each test binary uses its own part")]
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use sealed_spec::log::{LogInfo, LogRecipient, LogStream, Sealer};
use sealed_spec::podspec::VolumeSource;
use sealed_spec::{Logs, SealedDocument, SealedSpec, SpecKey};
use serde_json::Value;
use support::{Fake, Owner, certificates, registry};

const POD: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata:
      labels: { app: web }
      annotations:
        team: shop
        sealpod.dev/grants: |
          exec: { web: ["/bin/date -u", ["/bin/sh", "-c", "a b"]] }
          volumes: { web: { /live: , /labels/: { max: 4Ki } } }
          downward: [status.podIP]
          resources: { web: ["kbs:///acme/secret/api-key"] }
          debug:
            count: 2
            container: { image: "registry.example:5000/busybox:v1", command: [/bin/sh], stdin: true, tty: true }
    spec:
      containers:
        - name: web
          image: registry.example:5000/busybox:v1
          stdin: true
          envFrom: [{ secretRef: { name: login } }]
          env:
            - { name: PASSWORD, valueFrom: { secretKeyRef: { name: login, key: password } } }
            - { name: API_KEY, valueFrom: { secretKeyRef: { name: vault, key: api } } }
            - { name: IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
          volumeMounts:
            - { name: login, mountPath: /login }
            - { name: live, mountPath: /live/ }
            - { name: labels, mountPath: /labels }
      volumes:
        - { name: login, secret: { secretName: login } }
        - { name: live, configMap: { name: live } }
        - { name: labels, downwardAPI: { items: [{ path: labels, fieldRef: { fieldPath: metadata.labels } }] } }
"#;

const SECRETS: &str = "
kind: Service
metadata: { name: web }
---
kind: List
items:
  - { apiVersion: v1, kind: Secret, metadata: { name: login }, stringData: { password: correct-horse } }
";

struct Setup {
    owner: Owner,
    _registry: Fake,
    registries: Vec<String>,
}

fn setup() -> Setup {
    let (owner, registry) = (Owner::new(&certificates().0, 1), registry());
    owner.write("pod.yaml", POD);
    owner.write("secrets.yaml", SECRETS);
    let here = format!("registry.example:5000=http://127.0.0.1:{}", registry.port);
    let guest = "registry.example:5000=http://10.0.2.2:5000".to_owned();
    let registries = vec!["--registry".into(), guest, "--resolve-via".into(), here];
    Setup { owner, _registry: registry, registries }
}

const FLAGS: [&str; 4] = ["--with", "secrets.yaml", "--from-broker", "vault/api=kbs:///acme/secret/api-key"];

impl Setup {
    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["seal", "pod.yaml"];
        args.extend(self.registries.iter().map(String::as_str));
        args.extend(more);
        args
    }

    fn spec(&self) -> SealedSpec {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&self.owner.read("pod-sealed.yaml")).unwrap();
        let document =
            SealedDocument::parse(objects[0]["data"]["sealed-spec.jwe"].as_str().unwrap()).unwrap();
        let file: Value = serde_json::from_str(&self.owner.read("pod-sealed.key.json")).unwrap();
        document.open(&SpecKey::from_base64url(file["key"].as_str().unwrap()).unwrap()).unwrap()
    }
}

#[test]
fn grants_come_from_the_annotation_the_flags_and_a_file() {
    let setup = setup();
    setup.owner.write("grants.yaml", "logs: sealed\nupdate: { web: { cpu: 2, memory: 1Gi } }\n");
    let mut more = FLAGS.to_vec();
    more.extend([
        "--grants",
        "grants.yaml",
        "--grant-attach",
        "web",
        "--grant-service-links",
        "--show-public",
    ]);
    more.extend(["--grant-service-account-token", "--grant-exec", "web=/bin/true"]);
    let said = setup.owner.good(&setup.args(&more));
    for line in [
        "only you can read it: 'sealpod logs'",
        "write to web's standard input",
        r#"run in web: ["/bin/sh","-c","a b"]"#,
        "limits of web up to cpu 2, memory 1Gi",
        "fills /labels of web, at most 4 KiB",
        "service account's token",
        "tells status.podIP",
        "sets variables for services",
        "2 debug containers named debugger-*: registry.example:5000/busybox:v1 @ sha256:",
        "web may ask the broker for kbs:///acme/secret/api-key",
        "by grant:",
        "container.env.valueFrom.fieldRef",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let spec = setup.spec();
    assert_eq!(spec.grants.exec["web"].len(), 3);
    assert_eq!(spec.grants.volume("web", "/labels").unwrap().max_bytes, 4096);
    assert_eq!(spec.grants.volume("web", "/live").unwrap().max_bytes, 2 << 20);
    assert!(spec.grants.debug.as_ref().unwrap().covers("debugger-abc"));
    assert!(matches!(spec.pod.volumes[0].source(), Some(VolumeSource::SealedFiles(_))));
    assert!(matches!(spec.pod.volumes[1].source(), Some(VolumeSource::ConfigMap(_))));

    let sealed = setup.owner.read("pod-sealed.yaml");
    for hidden in [
        "correct-horse",
        "PASSWORD",
        "API_KEY",
        "sealpod.dev/grants",
        "/bin/date",
        "/login",
        "busybox",
        "kbs:///acme/secret",
    ] {
        assert!(!sealed.contains(hidden), "{hidden} is in the clear");
    }
    let objects: Vec<Value> = serde_saphyr::from_multiple(&sealed).unwrap();
    let pod = &objects[1]["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], true);
    assert_eq!(pod["enableServiceLinks"], true);
    assert_eq!(pod["containers"][0]["env"].as_array().unwrap().len(), 1);
    assert_eq!(pod["volumes"].as_array().unwrap().len(), 3);
    assert_eq!(objects[1]["spec"]["template"]["metadata"]["annotations"]["team"], "shop");
    let file: Value = serde_json::from_str(&setup.owner.read("pod-sealed.key.json")).unwrap();
    assert_eq!(file["registration"]["images"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_wrong_with_grants_is_said_and_nothing_is_written() {
    let setup = setup();
    let owner = &setup.owner;
    owner.write("empty.yaml", "kind: Service\nmetadata: { name: web }\n");
    owner.write("logs.yaml", "logs: clear\n");
    owner.write("unknown.yaml", "logs: clear\nattach: [web]\nlaunch: yes\n");
    owner.write("debug.yaml", "debug: { container: { name: x, image: y } }\n");
    let broker = |uri: &'static str| vec!["--with", "secrets.yaml", "--from-broker", uri];
    let with = |more: &[&'static str]| [&FLAGS[..], more].concat();
    for (more, says) in [
        (vec![], "--with FILE"),
        (broker("vault=kbs:///acme/secret/x"), "NAME/KEY of a Secret is needed"),
        (broker("vault/api=kbs:///other/secret/x"), "not in your repository 'acme'"),
        (vec!["--with", "empty.yaml"], "empty.yaml: no Secret or ConfigMap in it"),
        (with(&["--grants", "unknown.yaml"]), "unknown.yaml:3:1: unknown field"),
        (with(&["--grants", "debug.yaml"]), "debug is granted twice"),
        (
            with(&["--grants", "logs.yaml", "--grant-logs", "sealed"]),
            "logs are granted twice and differently",
        ),
        (with(&["--grant-volume", "web:/live"]), "volume web:/live is granted twice"),
        (with(&["--grant-volume", "web:/nowhere"]), "nothing is mounted there"),
        (with(&["--grant-volume", "db:/live"]), "names container 'db', which the manifest doesn't have"),
        (with(&["--grant-exec", "db=/bin/date"]), "names container 'db', which the manifest doesn't have"),
        (with(&["--grant-attach", "db"]), "attach for \"db\": no such container"),
        (with(&["--grant-update", "db=cpu:1"]), "update_resources for \"db\": no such container"),
        (with(&["--grant-downward", "spec.secrets"]), "not a field or resource"),
        (with(&["--resource", "db=kbs:///acme/secret/x"]), "resources for \"db\": no such container"),
        (with(&["--resource", "web=kbs:///acme/secret/api-key"]), "listed twice"),
    ] {
        let error = owner.refused(&setup.args(&more));
        assert!(error.contains(says), "{more:?}: {error}");
        assert!(!owner.path("pod-sealed.yaml").exists(), "{more:?}");
    }
    owner.write(
        "pod.yaml",
        &POD.replace(
            "metadata: { name: web, namespace: shop }",
            "metadata: { name: web, annotations: { sealpod.dev/grants: '' } }",
        ),
    );
    assert!(owner.refused(&setup.args(&FLAGS)).contains("annotation sealpod.dev/grants is there twice"));
    owner.write("pod.yaml", &POD.replace("downward: [status.podIP]", "downward: []"));
    let error = owner.refused(&setup.args(&FLAGS));
    assert!(error.contains("downward for \"status.podIP\"") && error.contains("--grant-downward"), "{error}");
    owner.write("pod.yaml", &POD.replace("/live: ,", ""));
    let error = owner.refused(&setup.args(&FLAGS));
    assert!(error.contains("volumes[1].configMap: in the cluster the ConfigMap 'live'"), "{error}");
}

#[test]
fn the_example_shop_is_sealed() {
    let setup = setup();
    let example = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name);
        std::fs::read_to_string(path).unwrap().replace("registry.example/", "registry.example:5000/")
    };
    setup.owner.write("pod.yaml", &example("shop.yaml"));
    setup.owner.write("secrets.yaml", &example("shop-secrets.yaml"));
    let said = setup.owner.good(&setup.args(&["--with", "secrets.yaml"]));
    assert!(said.contains("3 debug containers named debugger-*"), "{said}");
    let spec = setup.spec();
    assert!(matches!(spec.grants.logs, Logs::Sealed { .. }));
    let Some(VolumeSource::SealedFiles(files)) = spec.pod.volumes[0].source() else { panic!("not sealed") };
    assert_eq!(files.files["password"].mode, 0o400);
}

/// The log of one run, as the guest writes it.
fn sealed_log(recipient: &LogRecipient, container: &str, text: &str) -> Vec<String> {
    let info = LogInfo {
        spec: format!("sha256:{}", "0f".repeat(32)),
        container: container.into(),
        instance: "c0ffee".into(),
        stream: LogStream::Stdout,
    };
    let mut out = Vec::new();
    let mut sealer = Sealer::new(recipient, &info, &mut out).unwrap();
    for line in text.split_inclusive('\n') {
        sealer.push(line.as_bytes(), &mut out).unwrap();
    }
    sealer.finish(&mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

/// Exit code, standard output, standard error.
fn read_logs(owner: &Owner, lines: &[String], more: &[&str]) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sealpod"))
        .args(["logs", "--identity", "id"])
        .args(more)
        .current_dir(owner.path(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn sealed_logs_are_read_and_what_happened_to_them_is_told() {
    let setup = setup();
    let owner = &setup.owner;
    assert!(owner.refused(&["logs"]).contains("has no log key"));
    setup.owner.good(&setup.args(&[&FLAGS[..], &["--grant-logs", "sealed"]].concat()));
    let Logs::Sealed { recipient } = setup.spec().grants.logs else { panic!("not sealed") };
    let log = sealed_log(&recipient, "web", "one\ntwo\nthree\nfour\n");
    // Long enough not to come up in base64 by chance.
    assert!(!log.join("").contains("three"));

    let (code, out, err) = read_logs(owner, &log, &["--whole"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "one\ntwo\nthree\nfour\n", ""));
    let (_, out, _) = read_logs(owner, &log, &["--prefix"]);
    assert!(out.starts_with("web/stdout: one\nweb/stdout: two\n"), "{out}");

    // Text of somebody else's, between the lines, is shown as that and hides nothing.
    let mut mixed = log.clone();
    mixed.insert(2, "kubelet says \u{1b}[2K hello".into());
    let (code, out, _) = read_logs(owner, &mixed, &[]);
    assert_eq!(code, Some(0));
    assert_eq!(out, "one\n[not sealed] kubelet says \u{fffd}[2K hello\ntwo\nthree\nfour\n");

    // A tail is no tampering, unless the whole log is asked for; nor is a log that goes on.
    let (code, out, err) = read_logs(owner, &log[3..], &[]);
    assert_eq!((code, out.as_str()), (Some(0), "three\nfour\n"));
    assert!(err.contains("the first 3 chunks are missing"), "{err}");
    assert_eq!(read_logs(owner, &log[3..], &["--whole"]).0, Some(2));
    let (code, _, err) = read_logs(owner, &log[..4], &[]);
    assert!(code == Some(0) && err.contains("web/stdout (run c0ffee): no end"), "{err}");
    assert_eq!(read_logs(owner, &log[..4], &["--whole"]).0, Some(2));

    let changed = |change: fn(&mut Vec<String>)| {
        let mut lines = log.clone();
        change(&mut lines);
        read_logs(owner, &lines, &[])
    };
    let (code, out, err) = changed(|lines| drop(lines.remove(2)));
    assert_eq!(
        (code, out.as_str()),
        (Some(2), "one\n[1 chunks of web/stdout are missing here]\nthree\nfour\n")
    );
    assert!(err.contains("1 chunks are missing: lines were dropped"), "{err}");
    let (code, out, err) = changed(|lines| lines.swap(2, 3));
    assert_eq!(code, Some(2));
    assert!(out.contains("[out of order] two\n") && err.contains("1 chunks are out of order"), "{out}{err}");
    let (code, out, err) = changed(|lines| lines.insert(2, lines[1].clone()));
    assert_eq!((code, out.as_str()), (Some(2), "one\ntwo\nthree\nfour\n"));
    assert!(err.contains("1 chunks came again"), "{err}");
    let (code, out, err) = changed(|lines| lines[2] = lines[2].replacen("sealpod1.", "sealpod1.A", 1));
    assert_eq!(code, Some(2));
    assert!(out.contains("one\n[does not open]\n") && err.contains("line 3:"), "{out}{err}");
    let (code, _, err) = read_logs(owner, &["nothing here".into()], &[]);
    assert!(code == Some(2) && err.contains("no sealed line in 1 lines"), "{err}");

    // Another identity can't read it, and says so.
    let other = Owner::new(&certificates().0, 1);
    std::fs::copy(owner.path("id/log.key"), other.path("id/log.key")).unwrap();
    assert_eq!(read_logs(&other, &log, &[]).0, Some(0));
    std::fs::remove_file(other.path("id/log.key")).unwrap();
    let mine = sealed_log(&sealed_spec::log::LogKey::generate().unwrap().recipient(), "web", "x\n");
    let (code, _, err) = read_logs(owner, &mine, &[]);
    assert!(code == Some(2) && err.contains("another identity's log key"), "{err}");
}
