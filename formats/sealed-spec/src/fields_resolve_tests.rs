//! References: sealed where their object is given, left to the host where it is granted, else refused.

use serde_json::{Value, json};

use super::*;
use crate::podspec::VolumeSource;

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "web", "namespace": "shop", "annotations": { "a": "b", "sealpod.dev/grants": "logs: sealed" } },
        "spec": {
            "shareProcessNamespace": true,
            "os": { "name": "linux" },
            "initContainers": [{
                "name": "proxy",
                "image": "r/proxy",
                "restartPolicy": "Always",
                "readinessProbe": { "exec": { "command": ["sealed-ready"] } },
                "lifecycle": { "preStop": { "exec": { "command": ["sealed-stop"] } } },
            }],
            "containers": [{
                "name": "web",
                "image": "r/web",
                "envFrom": [{ "configMapRef": { "name": "settings" } }, { "prefix": "P_", "secretRef": { "name": "login" } }],
                "env": [
                    { "name": "USER", "value": "bob" },
                    { "name": "HOME_OF", "value": "home-$(USER)" },
                    { "name": "PASSWORD", "valueFrom": { "secretKeyRef": { "name": "login", "key": "password" } } },
                    { "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "colour" } } },
                    { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                    { "name": "MAYBE", "valueFrom": { "secretKeyRef": { "name": "login", "key": "none", "optional": true } } },
                ],
                "lifecycle": { "stopSignal": "SIGUSR1" },
                "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": "NotRequired" }],
                "volumeMounts": [
                    { "name": "scratch", "mountPath": "/scratch", "subPathExpr": "$(HOME_OF)/x" },
                    { "name": "login", "mountPath": "/login", "subPath": "password" },
                    { "name": "all", "mountPath": "/all" },
                    { "name": "live", "mountPath": "/live", "readOnly": true },
                ],
            }],
            "volumes": [
                { "name": "scratch", "emptyDir": {} },
                { "name": "login", "secret": { "secretName": "login", "defaultMode": 256 } },
                { "name": "all", "projected": { "sources": [
                    { "secret": { "name": "login", "items": [{ "key": "password", "path": "in/here", "mode": 384 }] } },
                    { "configMap": { "name": "settings" } },
                ] } },
                { "name": "live", "configMap": { "name": "live" } },
            ],
        },
    })
}

fn login() -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "login", "namespace": "shop" },
        "data": { "password": "b2xk", "token": "c2VhbGVkLXRva2Vu\n" }, "stringData": { "password": "sealed-$(USER)-$" } })
}

fn settings() -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" }, "data": { "colour": "sealed-red" } })
}

fn sources() -> Sources {
    let mut sources = Sources::default();
    assert!(sources.objects.add(&login()).unwrap());
    assert!(sources.objects.add(&settings()).unwrap());
    assert!(!sources.objects.add(&json!({ "kind": "Service", "metadata": { "name": "web" } })).unwrap());
    sources.host_mounts.insert(("web".into(), "/live".into()));
    sources
}

fn refusal(change: impl FnOnce(&mut Value, &mut Sources)) -> FieldError {
    let (mut pod, mut sources) = (pod(), sources());
    change(&mut pod, &mut sources);
    match split_with(pod, &sources) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}

#[test]
fn references_are_sealed() {
    let split = split_with(pod(), &sources()).unwrap();
    let container = &split.pod.containers[0];
    let env: Vec<_> = container.env.iter().map(|v| (v.name.as_str(), v.value.expose())).collect();
    assert_eq!(
        env,
        [
            ("USER", "bob"),
            ("HOME_OF", "home-$(USER)"),
            // Doubled: expansion gives back what the Secret has.
            ("PASSWORD", "sealed-$$(USER)-$$"),
            ("COLOUR", "sealed-red"),
            ("IP", ""),
            ("P_password", "sealed-$$(USER)-$$"),
            ("P_token", "sealed-token"),
            ("colour", "sealed-red"),
        ]
    );
    assert_eq!(container.volume_mounts[0].sub_path.as_deref(), Some("home-bob/x"));
    let files = |index: usize| {
        let Some(VolumeSource::SealedFiles(files)) = split.pod.volumes[index].source() else {
            panic!("{index}")
        };
        files
            .files
            .iter()
            .map(|(path, file)| (path.clone(), file.bytes().unwrap().to_vec(), file.mode))
            .collect::<Vec<_>>()
    };
    let password = b"sealed-$(USER)-$".to_vec();
    assert_eq!(
        files(1),
        [("password".into(), password.clone(), 0o400), ("token".into(), b"sealed-token".to_vec(), 0o400)]
    );
    assert_eq!(
        files(2),
        [("colour".into(), b"sealed-red".to_vec(), 0o644), ("in/here".into(), password, 0o600)]
    );
    assert!(matches!(split.pod.volumes[3].source(), Some(VolumeSource::ConfigMap(_))));
}

#[test]
fn outside_is_what_kubelet_needs_and_nothing_else() {
    let mut sources = sources();
    (sources.service_account_token, sources.service_links) = (true, true);
    let split = split_with(pod(), &sources).unwrap();
    let image = json!(PLACEHOLDER_IMAGE);
    assert_eq!(split.public["metadata"]["annotations"], json!({ "a": "b" }));
    assert_eq!(
        split.public["spec"],
        json!({
            "shareProcessNamespace": true,
            "os": { "name": "linux" },
            "automountServiceAccountToken": true,
            "enableServiceLinks": true,
            "initContainers": [{
                "name": "proxy",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "restartPolicy": "Always",
                "readinessProbe": { "exec": { "command": ["/sealpod", "probe", "proxy/readiness"] } },
                "lifecycle": { "preStop": { "exec": { "command": ["/sealpod", "probe", "proxy/preStop"] } } },
            }],
            "containers": [{
                "name": "web",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "env": [{ "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }],
                "lifecycle": { "stopSignal": "SIGUSR1" },
                "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": "NotRequired" }],
                "volumeMounts": [{ "name": "live", "mountPath": "/live", "readOnly": true }],
            }],
            "volumes": [{ "name": "live", "configMap": { "name": "live" } }],
        })
    );
    assert_eq!(split.pod.automount_service_account_token, Some(true));
    let rows: Vec<_> = split.rows.iter().map(|row| row.path).collect();
    for path in [
        "container.env.valueFrom.secretKeyRef",
        "container.envFrom.prefix",
        "pod.volumes.configMap",
        "container.volumeMounts.subPathExpr",
    ] {
        assert!(rows.contains(&path), "{path}");
    }
    let published = split.publish(&Publication {
        annotation: "",
        config_map: Some("doc"),
        runtime_class: None,
        placeholder_image: None,
    });
    let names =
        |list: &Value| list.as_array().unwrap().iter().map(|item| item["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&published["spec"]["volumes"]), ["live", SPEC_VOLUME]);
    assert_eq!(names(&published["spec"]["containers"][0]["volumeMounts"]), ["live", SPEC_VOLUME]);
    assert_eq!(names(&published["spec"]["initContainers"][0]["volumeMounts"]), [SPEC_VOLUME]);
}

#[test]
fn a_key_may_come_from_the_broker() {
    let mut sources = sources();
    sources.objects.from_broker("login", "password", "kbs:///acme/secret/password".parse().unwrap());
    let split = split_with(pod(), &sources).unwrap();
    let variable = split.pod.containers[0].env.iter().find(|variable| variable.name == "PASSWORD").unwrap();
    let resource = variable.value_from.as_ref().unwrap().resource.as_ref().unwrap();
    assert_eq!(resource.as_str(), "kbs:///acme/secret/password");
    assert!(!split.public.to_string().contains("PASSWORD"));
}

#[test]
fn what_leads_nowhere_is_refused_with_the_next_step() {
    let without = |kind: &'static str| {
        move |_: &mut Value, sources: &mut Sources| {
            sources.objects = Objects::default();
            sources.objects.add(&if kind == "Secret" { settings() } else { login() }).unwrap();
        }
    };
    let error = refusal(without("Secret"));
    assert_eq!(error.path, "spec.containers[0].env[2].valueFrom.secretKeyRef");
    assert!(error.problem.contains("--with FILE") && error.problem.contains("--from-broker"), "{error}");
    let error = refusal(without("ConfigMap"));
    assert_eq!(error.path, "spec.containers[0].env[3].valueFrom.configMapKeyRef");
    assert!(error.problem.contains("--with FILE") && !error.problem.contains("--from-broker"), "{error}");

    let error = refusal(|_, sources| sources.host_mounts.clear());
    assert_eq!(error.path, "spec.volumes[3].configMap");
    assert!(error.problem.contains("'live' is the host's to read and write"), "{error}");
    let error = refusal(|_, sources| drop(sources.objects.add(&login())));
    assert!(error.problem.contains("given twice"), "{error}");
    let error = refusal(|pod, _| pod["metadata"]["namespace"] = "bank".into());
    assert!(error.problem.contains("the Secret 'login' is the host's"), "{error}");
}

/// Where in the pod, the bad value, where the error is, and what it says.
#[test]
fn each_broken_reference_is_refused_by_path() {
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        (
            "/containers/0/env/2/valueFrom/secretKeyRef/key",
            json!("no"),
            "spec.containers[0].env[2].valueFrom.secretKeyRef",
            "has no key 'no'",
        ),
        (
            "/containers/0/env/2/valueFrom/secretKeyRef/key",
            json!(""),
            "spec.containers[0].env[2].valueFrom.secretKeyRef.key",
            "text is needed",
        ),
        (
            "/containers/0/env/2/valueFrom/secretKeyRef/optional",
            json!("x"),
            "spec.containers[0].env[2].valueFrom.secretKeyRef.optional",
            "true or false",
        ),
        (
            "/containers/0/env/2/valueFrom/secretKeyRef/more",
            json!(1),
            "spec.containers[0].env[2].valueFrom.secretKeyRef.more",
            "doesn't know",
        ),
        (
            "/containers/0/env/2/value",
            json!("x"),
            "spec.containers[0].env[2].valueFrom",
            "one valueFrom source",
        ),
        (
            "/containers/0/env/2/valueFrom/resource",
            json!("kbs:///a/b/c"),
            "spec.containers[0].env[2].valueFrom.resource",
            "doesn't know",
        ),
        (
            "/containers/0/env/4/valueFrom/fieldRef/fieldPath",
            json!("spec.x"),
            "spec.containers[0].env[4].valueFrom.fieldRef.fieldPath",
            "a field that variables can have",
        ),
        (
            "/containers/0/env/4/valueFrom/fieldRef/fieldPath",
            json!("limits.cpu"),
            "spec.containers[0].env[4].valueFrom.fieldRef.fieldPath",
            "a field that variables can have",
        ),
        (
            "/containers/0/env/4/valueFrom",
            json!({ "resourceFieldRef": { "resource": "status.podIP" } }),
            "spec.containers[0].env[4].valueFrom.resourceFieldRef.resource",
            "limits.cpu",
        ),
        ("/containers/0/envFrom/0", json!({}), "spec.containers[0].envFrom[0]", "exactly one"),
        (
            "/containers/0/envFrom/0/surprise",
            json!(1),
            "spec.containers[0].envFrom[0].surprise",
            "doesn't know",
        ),
        (
            "/containers/0/envFrom/0/configMapRef/name",
            json!("no"),
            "spec.containers[0].envFrom[0].configMapRef",
            "--with FILE",
        ),
        (
            "/containers/0/envFrom/0/configMapRef/key",
            json!("no"),
            "spec.containers[0].envFrom[0].configMapRef.key",
            "doesn't know",
        ),
        (
            "/containers/0/volumeMounts/0/subPathExpr",
            json!("$(NONE)"),
            "spec.containers[0].volumeMounts[0].subPathExpr",
            "a sealed value",
        ),
        (
            "/containers/0/volumeMounts/0/subPathExpr",
            json!("$(IP)"),
            "spec.containers[0].volumeMounts[0].subPathExpr",
            "a sealed value",
        ),
        (
            "/containers/0/volumeMounts/0/subPathExpr",
            json!("../$(USER)"),
            "spec.containers[0].volumeMounts[0].subPath",
            "relative path",
        ),
        (
            "/containers/0/volumeMounts/0/subPath",
            json!("x"),
            "spec.containers[0].volumeMounts[0].subPathExpr",
            "exclude each other",
        ),
        (
            "/containers/0/volumeMounts/0/mountPath",
            json!("/sealpod/spec"),
            "spec.containers[0].volumeMounts[0].mountPath",
            "sealed document",
        ),
        (
            "/containers/0/volumeMounts/3/subPath",
            json!("x"),
            "spec.containers[0].volumeMounts[3].subPath",
            "mounted whole",
        ),
        (
            "/containers/0/lifecycle/stopSignal",
            json!("TERM"),
            "spec.containers[0].lifecycle.stopSignal",
            "a signal's name",
        ),
        (
            "/containers/0/lifecycle/stopSignal",
            json!("SIGRTMIN+16"),
            "spec.containers[0].lifecycle.stopSignal",
            "a signal's name",
        ),
        (
            "/containers/0/resizePolicy/0/resourceName",
            json!("disk"),
            "spec.containers[0].resizePolicy[0]",
            "cpu or memory",
        ),
        ("/os", Value::Null, "spec.containers[0].lifecycle.stopSignal", "spec.os.name"),
        ("/volumes/0/name", json!("sealpod-spec"), "spec.volumes[0].name", "the sealed document"),
        ("/volumes/0/sealedFiles", json!({ "files": {} }), "spec.volumes[0].sealedFiles", "doesn't know"),
        ("/volumes/0/configMap", json!({ "name": "settings" }), "spec.volumes[0]", "exactly one of emptyDir"),
        (
            "/volumes/1/secret/defaultMode",
            json!(0o1777),
            "spec.volumes[1].sealedFiles.files.password",
            "permission bits",
        ),
        (
            "/volumes/1/secret/items",
            json!([{ "key": "no", "path": "x" }]),
            "spec.volumes[1].secret.items[0]",
            "has no key 'no'",
        ),
        (
            "/volumes/1/secret/items",
            json!([{ "key": "token", "path": "../x" }]),
            "spec.volumes[1].sealedFiles.files.../x",
            "relative path",
        ),
        (
            "/volumes/1/secret/items",
            json!([{ "key": "token", "path": "..data" }]),
            "spec.volumes[1].sealedFiles.files...data",
            "relative path",
        ),
        (
            "/volumes/1/secret/items",
            json!([{ "key": "token", "path": "x" }, { "key": "token", "path": "x" }]),
            "spec.volumes[1].secret.items[1]",
            "the same path",
        ),
        (
            "/volumes/1/secret/items",
            json!([{ "key": "token", "path": "x" }, { "key": "token", "path": "x/y" }]),
            "spec.volumes[1].sealedFiles.files.x/y",
            "the name of its directory",
        ),
        ("/volumes/1/secret/surprise", json!(1), "spec.volumes[1].secret.surprise", "unknown field"),
        (
            "/volumes/2/projected/sources/1/configMap/name",
            json!("no"),
            "spec.volumes[2].projected.sources[1].configMap",
            "--with FILE",
        ),
        (
            "/volumes/2/projected/sources/0/secret/items/0/path",
            json!("colour"),
            "spec.volumes[2].projected.sources[1].configMap",
            "has a file 'colour' too",
        ),
        (
            "/volumes/2/projected/sources/0",
            json!({ "serviceAccountToken": { "path": "t" } }),
            "spec.volumes[2].projected.sources[0]",
            "--grant-volume",
        ),
        (
            "/volumes/2/projected/sources/0",
            json!({ "clusterTrustBundle": {} }),
            "spec.volumes[2].projected.sources[0].clusterTrustBundle",
            "unknown field",
        ),
        (
            "/volumes/2",
            json!({ "name": "all", "downwardAPI": { "items": [] } }),
            "spec.volumes[2].downwardAPI",
            "--grant-volume",
        ),
        ("/volumes/3/configMap/name", json!("../x"), "spec.volumes[3].configMap.name", "DNS name"),
        (
            "/volumes/3/configMap/defaultMode",
            json!(0o4777),
            "spec.volumes[3].configMap.defaultMode",
            "permission bits",
        ),
        (
            "/volumes/3/configMap/items",
            json!([{ "key": "a b", "path": "x" }]),
            "spec.volumes[3].configMap.items[0].key",
            "are allowed",
        ),
        (
            "/volumes/3/configMap/items",
            json!([{ "key": "a", "path": "/x" }]),
            "spec.volumes[3].configMap.items[0].path",
            "relative path",
        ),
        (
            "/volumes/3/configMap/items",
            json!([{ "key": "a", "path": "x", "mode": 0o7777 }]),
            "spec.volumes[3].configMap.items[0].mode",
            "permission bits",
        ),
    ];
    for (pointer, value, path, says) in cases {
        let error = refusal(|pod, _| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = pod["spec"].pointer_mut(parent).unwrap();
            match key.parse::<usize>() {
                Ok(index) => parent[index] = value.clone(),
                Err(_) => parent[key] = value.clone(),
            }
        });
        assert!(error.path == path && error.problem.contains(says), "{pointer} = {value}: {error}");
    }
}

/// The kinds that only the host fills: each rule, broken alone.
#[test]
fn granted_volumes_are_checked_too() {
    let token = |token: Value| json!({ "projected": { "sources": [{ "serviceAccountToken": token }] } });
    let field = |item: Value| json!({ "downwardAPI": { "items": [item] } });
    let both = json!({ "path": "x", "fieldRef": { "fieldPath": "metadata.name" }, "resourceFieldRef": { "resource": "limits.cpu" } });
    for (mut source, path) in [
        (token(json!({ "path": "../t" })), ".projected.sources[0].serviceAccountToken.path"),
        (
            token(json!({ "path": "t", "expirationSeconds": 599 })),
            ".projected.sources[0].serviceAccountToken.expirationSeconds",
        ),
        (json!({ "projected": { "sources": [] } }), ".projected.sources"),
        (json!({ "projected": { "sources": [{}] } }), ".projected.sources[0]"),
        (
            json!({ "projected": { "sources": [{ "secret": { "name": "A" } }] } }),
            ".projected.sources[0].secret.name",
        ),
        (json!({ "secret": { "secretName": "" } }), ".secret.secretName"),
        (field(json!({ "path": "x" })), ".downwardAPI.items[0]"),
        (field(both), ".downwardAPI.items[0]"),
        (
            field(json!({ "path": "x", "fieldRef": { "fieldPath": "spec" } })),
            ".downwardAPI.items[0].fieldRef.fieldPath",
        ),
        (
            field(json!({ "path": "x", "resourceFieldRef": { "resource": "cpu" } })),
            ".downwardAPI.items[0].resourceFieldRef.resource",
        ),
        (
            field(json!({ "path": "..", "fieldRef": { "fieldPath": "metadata.labels" } })),
            ".downwardAPI.items[0].path",
        ),
    ] {
        let error = refusal(|pod, _| {
            source["name"] = "live".into();
            pod["spec"]["volumes"][3] = source;
        });
        assert_eq!(error.path, format!("spec.volumes[3]{path}"), "{error}");
    }
}

#[test]
fn objects_are_read_as_kubernetes_reads_them() {
    let mut objects = Objects::default();
    for (object, path) in [
        (json!({ "kind": "Secret" }), "metadata.name"),
        (json!({ "kind": "Secret", "metadata": { "name": "A" } }), "metadata.name"),
        (json!({ "kind": "Secret", "metadata": { "name": "a", "namespace": "b.c" } }), "metadata.namespace"),
        (json!({ "kind": "Secret", "metadata": { "name": "a" }, "data": [] }), "data"),
        (json!({ "kind": "Secret", "metadata": { "name": "a" }, "data": { "k": "not base64" } }), "data.k"),
        (json!({ "kind": "Secret", "metadata": { "name": "a" }, "data": { "k/": "" } }), "data.k/"),
        (json!({ "kind": "Secret", "metadata": { "name": "a" }, "data": { "..": "" } }), "data..."),
        (json!({ "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": 1 } }), "data.k"),
        (
            json!({ "kind": "ConfigMap", "metadata": { "name": "a" }, "binaryData": { "k": "?" } }),
            "binaryData.k",
        ),
    ] {
        assert_eq!(objects.add(&object).unwrap_err().path, path);
    }
    let binary = json!({ "kind": "ConfigMap", "metadata": { "name": "settings" }, "binaryData": { "colour": "/w==" } });
    let error = refusal(|_, sources| {
        sources.objects = Objects::default();
        sources.objects.add(&login()).unwrap();
        sources.objects.add(&binary).unwrap();
    });
    assert!(error.problem.contains("not UTF-8"), "{error}");
    assert_eq!(format!("{objects:?}"), "Objects { count: 0, .. }");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
    #[test]
    fn referenced_values_survive_expansion_and_stay_inside(value in "[a-z$()]{0,40}") {
        let value = format!("zqSealed{value}");
        let mut sources = sources();
        sources.objects = Objects::default();
        let mut secret = login();
        secret["stringData"]["password"] = value.clone().into();
        sources.objects.add(&secret).unwrap();
        sources.objects.add(&settings()).unwrap();
        let split = split_with(pod(), &sources).unwrap();
        let variable = split.pod.containers[0].env.iter().find(|variable| variable.name == "PASSWORD").unwrap();
        proptest::prop_assert_eq!(crate::podspec::expand(variable.value.expose(), |_| Some("no")), value);
        proptest::prop_assert!(!split.public.to_string().contains("zqSealed"));
    }
}
