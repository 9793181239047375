//! The split: what is public is what the table says, and no field gets lost.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::WorkloadKind;

fn manifest() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "web", "namespace": "shop", "labels": { "app": "web" }, "creationTimestamp": null },
        "spec": pod(),
    })
}

fn pod() -> Value {
    json!({
        "restartPolicy": "Never",
        "hostname": "web",
        "dnsPolicy": "None",
        "dnsConfig": { "nameservers": ["10.9.9.9"] },
        "hostAliases": [{ "ip": "10.9.9.8", "hostnames": ["sealed-host"] }],
        "nodeSelector": { "zone": "eu" },
        "tolerations": [{ "operator": "Exists" }],
        "securityContext": { "runAsUser": 4242, "seccompProfile": { "type": "RuntimeDefault" } },
        "volumes": [{ "name": "sealed-volume", "emptyDir": {} }],
        "initContainers": [{ "name": "setup", "image": "sealed.example/setup:1", "command": ["sealed-setup"] }],
        "containers": [{
            "name": "web",
            "image": "sealed.example/web:1",
            "imagePullPolicy": "Always",
            "command": ["sealed-web"],
            "args": ["--sealed-flag"],
            "workingDir": "/sealed-dir",
            "env": [{ "name": "SEALED_NAME", "value": "sealed-value" }],
            "ports": [{ "containerPort": 8080 }],
            "resources": { "limits": { "memory": "64Mi" } },
            "volumeMounts": [{ "name": "sealed-volume", "mountPath": "/sealed-mount" }],
            "livenessProbe": { "exec": { "command": ["sealed-alive"] }, "periodSeconds": 7 },
            "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080 } },
            "startupProbe": { "tcpSocket": { "port": "http" } },
            "lifecycle": {
                "postStart": { "exec": { "command": ["sealed-hook"] } },
                "preStop": { "sleep": { "seconds": 3 } },
            },
            "securityContext": { "readOnlyRootFilesystem": true },
            "terminationMessagePath": "/sealed-last-words",
            "tty": true,
        }],
    })
}

fn workload(kind: &str) -> Value {
    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": pod() });
    let (version, spec) = match kind {
        "Job" => ("batch/v1", json!({ "backoffLimit": 2, "template": template })),
        "CronJob" => (
            "batch/v1",
            json!({ "schedule": "* * * * *", "jobTemplate": { "spec": { "template": template } } }),
        ),
        _ => ("apps/v1", json!({ "selector": { "matchLabels": { "app": "web" } }, "template": template })),
    };
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "web" }, "spec": spec })
}

fn refusal(change: impl FnOnce(&mut Value)) -> FieldError {
    let mut manifest = manifest();
    change(&mut manifest);
    match split(manifest) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}

#[test]
fn the_public_pod_is_exactly_this() {
    let split = split(manifest()).unwrap();
    assert_eq!(
        split.public,
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "web", "namespace": "shop", "labels": { "app": "web" } },
            "spec": {
                "restartPolicy": "Never",
                "hostname": "web",
                "dnsPolicy": "Default",
                "nodeSelector": { "zone": "eu" },
                "tolerations": [{ "operator": "Exists" }],
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "initContainers": [{ "name": "setup", "image": PLACEHOLDER_IMAGE, "imagePullPolicy": "IfNotPresent" }],
                "containers": [{
                    "name": "web",
                    "image": PLACEHOLDER_IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [{ "containerPort": 8080 }],
                    "resources": { "limits": { "memory": "64Mi" } },
                    "livenessProbe": { "exec": { "command": ["/sealpod", "probe", "web/liveness"] }, "periodSeconds": 7 },
                    "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080 } },
                    "startupProbe": { "tcpSocket": { "port": "http" } },
                    "lifecycle": {
                        "postStart": { "exec": { "command": ["/sealpod", "probe", "web/postStart"] } },
                        "preStop": { "sleep": { "seconds": 3 } },
                    },
                    "tty": true,
                }],
            },
        })
    );
    assert_eq!(split.namespace.as_deref(), Some("shop"));
    assert_eq!(split.pod.containers[0].env[0].value.expose(), "sealed-value");
    assert_eq!(split.pod.containers[0].termination_message_path.as_deref(), Some("/sealed-last-words"));
}

#[test]
fn every_kind_is_split() {
    for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"] {
        let split = split(workload(kind)).unwrap();
        assert_eq!(split.workload.kind.as_str(), kind);
        let text = split.public.to_string();
        assert!(!text.contains("sealed-") && !text.contains("SEALED"), "{kind}: {text}");
        assert!(text.contains("web/liveness"), "{kind}");
        assert!(split.pod == super::split(manifest()).unwrap().pod, "{kind}");
    }
}

#[test]
fn other_kinds_are_refused_by_name() {
    let error = refusal(|m| m["kind"] = "ReplicationController".into());
    assert!(
        error
            .to_string()
            .starts_with("kind: ReplicationController can't be sealed; these can: Pod, Deployment")
    );
    assert!(refusal(|m| m["apiVersion"] = "v2".into()).to_string().contains("v1 is needed for a Pod"));
    assert!(
        refusal(|m| drop(m.as_object_mut().unwrap().remove("kind")))
            .to_string()
            .contains("not a Kubernetes manifest")
    );
    assert!(refusal(|m| *m = json!([])).to_string().contains("a Kubernetes object is needed"));
}

#[test]
fn fields_are_refused_by_path() {
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("/spec/containers/0/surprise", json!(1), "spec.containers[0].surprise", "doesn't know this field"),
        (
            "/spec/containers/0/livenessProbe/surprise",
            json!(1),
            "spec.containers[0].livenessProbe.surprise",
            "doesn't know",
        ),
        (
            "/spec/containers/0/ports/0/surprise",
            json!(1),
            "spec.containers[0].ports[0].surprise",
            "unknown field `surprise`",
        ),
        (
            "/spec/containers/0/envFrom",
            json!([{ "secretRef": { "name": "s" } }]),
            "spec.containers[0].envFrom[0].secretRef",
            "give its manifest with --with FILE",
        ),
        (
            "/spec/containers/0/env/0/valueFrom",
            json!({ "fileKeyRef": { "key": "a" } }),
            "spec.containers[0].env[0].valueFrom.fileKeyRef",
            "not supported yet",
        ),
        (
            "/spec/initContainers/0/restartPolicy",
            json!("OnFailure"),
            "spec.initContainers[0].restartPolicy",
            "unknown variant",
        ),
        (
            "/spec/containers/0/restartPolicy",
            json!("Always"),
            "spec.containers[0].restartPolicy",
            "only init containers",
        ),
        (
            "/spec/volumes/0",
            json!({ "name": "s", "secret": { "secretName": "x" } }),
            "spec.volumes[0].secret",
            "give its manifest with --with FILE",
        ),
        (
            "/spec/volumes/0",
            json!({ "name": "s", "hostPath": { "path": "/" } }),
            "spec.volumes[0].hostPath",
            "the host's storage, in clear",
        ),
        (
            "/spec/volumes/0",
            json!({ "name": "s", "flocker": { "x": 1 } }),
            "spec.volumes[0].flocker",
            "doesn't know",
        ),
        ("/spec/hostNetwork", json!(true), "spec.hostNetwork", "no host namespace"),
        (
            "/spec/ephemeralContainers",
            json!([{ "name": "debug" }]),
            "spec.ephemeralContainers",
            "--grant-debug",
        ),
        (
            "/spec/securityContext/seccompProfile/localhostProfile",
            json!("p.json"),
            "spec.securityContext.seccompProfile.localhostProfile",
            "use RuntimeDefault",
        ),
        ("/spec/containers/0/command", json!("sh"), "spec.containers[0].command", "invalid type"),
        (
            "/spec/containers/0/volumeMounts/0/name",
            json!("nope"),
            "spec.containers[0].volumeMounts[0].name",
            "no volume",
        ),
        ("/spec/containers", json!({}), "spec.containers", "a list is needed"),
        (
            "/spec/containers/0/livenessProbe",
            json!([]),
            "spec.containers[0].livenessProbe",
            "a mapping is needed",
        ),
        ("/metadata/name", json!("../x"), "metadata.name", "DNS name"),
        ("/metadata/namespace", json!("a.b"), "metadata.namespace", "DNS label"),
        ("/metadata/generateName", json!("web-"), "metadata.generateName", "use metadata.name"),
        ("/metadata/uid", json!("1"), "metadata.uid", "written by the API server"),
        ("/metadata/managedFields", json!([{}]), "metadata.managedFields", "written by the API server"),
        ("/metadata/annotations", json!("text"), "metadata.annotations", "a mapping is needed"),
        ("/metadata/annotations", json!({ "a": 1 }), "metadata.annotations.a", "text is needed"),
        (
            "/metadata/annotations",
            json!({ "kubectl.kubernetes.io/last-applied-configuration": "{}" }),
            "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration",
            "whole manifest in clear",
        ),
        (
            "/metadata/annotations",
            json!({ "io.katacontainers.config.hypervisor.cc_init_data": "x" }),
            "metadata.annotations.io.katacontainers.config.hypervisor.cc_init_data",
            "sealed already",
        ),
        ("/status", json!({ "phase": "Running" }), "status", "written by the API server"),
    ];
    for (pointer, value, path, problem) in cases {
        let error = refusal(|manifest| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = manifest.pointer_mut(parent).unwrap();
            match key.parse::<usize>() {
                Ok(index) => parent[index] = value.clone(),
                Err(_) => parent[key] = value.clone(),
            }
        });
        assert_eq!(error.path, path, "{pointer}: {error}");
        assert!(error.problem.contains(problem), "{pointer}: {error}");
    }
}

#[test]
fn what_means_nothing_is_accepted() {
    let mut plain = manifest();
    plain["status"] = json!({});
    plain["spec"]["hostNetwork"] = false.into();
    plain["spec"]["containers"][0]["envFrom"] = json!([]);
    plain["spec"]["containers"][0]["stdin"] = Value::Null;
    let expected = split(manifest()).unwrap();
    let split = split(plain).unwrap();
    assert_eq!(split.public, expected.public);
    assert!(split.pod == expected.pod);
}

#[test]
fn placeholders_lead_back() {
    let pod = split(manifest()).unwrap().pod;
    let argv = |place: &str| vec!["/sealpod".to_owned(), "probe".to_owned(), place.to_owned()];
    assert_eq!(
        placeholder_command(&pod, &argv("web/liveness")).unwrap(),
        ("web".into(), vec!["sealed-alive".into()])
    );
    assert_eq!(placeholder_command(&pod, &argv("web/postStart")).unwrap().1, ["sealed-hook"]);
    for place in [
        "web/readiness",
        "web/preStop",
        "web/startup",
        "web/other",
        "setup/liveness",
        "db/liveness",
        "web",
        "",
        "web/liveness/",
    ] {
        assert!(placeholder_command(&pod, &argv(place)).is_none(), "{place}");
    }
    let mut more = argv("web/liveness");
    more.push("x".into());
    assert!(placeholder_command(&pod, &more).is_none());
    assert!(placeholder_command(&pod, &more[..2]).is_none());
    assert!(placeholder_command(&pod, &["sh".into(), "probe".into(), "web/liveness".into()]).is_none());
}

#[test]
fn publishing_adds_annotation_and_document() {
    for kind in ["Pod", "Deployment", "CronJob"] {
        let manifest = if kind == "Pod" { manifest() } else { workload(kind) };
        let split = split(manifest).unwrap();
        let publication = Publication {
            annotation: "QUJD",
            config_map: Some("web-sealed"),
            runtime_class: Some("kata-snp"),
            placeholder_image: Some("registry.example/placeholder:1"),
        };
        let published = split.publish(&publication);
        let template = match kind {
            "Pod" => &published,
            "CronJob" => &published["spec"]["jobTemplate"]["spec"]["template"],
            _ => &published["spec"]["template"],
        };
        assert_eq!(template["metadata"]["annotations"][crate::initdata::ANNOTATION], "QUJD");
        let spec = &template["spec"];
        assert_eq!(spec["runtimeClassName"], "kata-snp");
        assert_eq!(spec["volumes"], json!([{ "name": SPEC_VOLUME, "configMap": { "name": "web-sealed" } }]));
        for list in ["initContainers", "containers"] {
            assert_eq!(spec[list][0]["volumeMounts"][0]["mountPath"], SPEC_MOUNT);
            assert_eq!(spec[list][0]["image"], "registry.example/placeholder:1");
        }
    }
}

#[test]
fn the_table_is_in_order() {
    let paths: BTreeSet<&str> = TABLE.iter().map(|row| row.path).collect();
    assert_eq!(paths.len(), TABLE.len(), "a path twice");
    let mut known: BTreeSet<&str> = split::DESCENTS.iter().map(|(_, scope, _)| *scope).collect();
    known.extend(["manifest", "pod"].iter().chain(&[
        "Deployment",
        "ReplicaSet",
        "StatefulSet",
        "DaemonSet",
        "CronJob",
    ]));
    for row in TABLE {
        assert!(!row.reason.is_empty() && !row.reason.ends_with('.'), "{}", row.path);
        let scope =
            known.iter().any(|scope| row.path.strip_prefix(scope).is_some_and(|rest| rest.starts_with('.')));
        assert!(scope, "{}: no field leads there", row.path);
    }
    for kind in ["Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"] {
        assert_eq!(serde_json::from_value::<WorkloadKind>(kind.into()).unwrap().as_str(), kind);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("name"),
        Just("image"),
        Just("env"),
        Just("value"),
        Just("containers"),
        Just("exec"),
        Just("command"),
        Just("livenessProbe"),
        Just("lifecycle"),
        Just("postStart"),
        Just("securityContext"),
        Just("volumes"),
        Just("metadata"),
        Just("annotations"),
        Just("resources"),
        Just("limits"),
        Just("emptyDir"),
        Just("x"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z]{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone().prop_map(String::from), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_manifests_never_panic(value in any_json(), inside in any::<bool>()) {
        let mut whole = manifest();
        if inside {
            whole["spec"] = value;
        } else {
            whole["spec"]["containers"][0] = value;
        }
        if let Ok(split) = split(whole) {
            let publication = Publication { annotation: "", config_map: Some("c"), runtime_class: None, placeholder_image: None };
            split.publish(&publication);
        }
    }

    #[test]
    fn sealed_text_never_shows_outside(secret in "[a-zA-Z0-9]{12,40}") {
        let secret = format!("zq{secret}");
        let mut manifest = manifest();
        let container = &mut manifest["spec"]["containers"][0];
        container["image"] = format!("{secret}/x").into();
        container["command"] = json!([secret]);
        container["args"] = json!([secret]);
        container["env"] = json!([{ "name": secret, "value": secret }]);
        container["workingDir"] = format!("/{secret}").into();
        container["livenessProbe"]["exec"]["command"] = json!([secret]);
        container["lifecycle"]["postStart"]["exec"]["command"] = json!([secret]);
        let split = split(manifest).unwrap();
        let sealed = serde_json::to_string(&split.pod).unwrap();
        prop_assert_eq!(sealed.matches(&secret).count(), 8);
        let public = split.public.to_string();
        prop_assert!(!public.contains(&secret));
    }
}
