//! Each grant, broken alone; and what the pod needs a grant for.

use serde_json::{Value, json};

use super::*;
use crate::podspec::PodSpec;
use crate::spec::{SealedSpec, SpecError};

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn spec() -> Value {
    let image = json!({ "reference": "r/a", "digest": DIGEST });
    json!({
        "version": 1,
        "pod": {
            "initContainers": [
                { "name": "setup", "image": "r/a" },
                { "name": "proxy", "image": "r/a", "restartPolicy": "Always", "startupProbe": { "exec": { "command": ["x"] } } },
            ],
            "containers": [
                {
                    "name": "web",
                    "image": "r/a",
                    "stdin": true,
                    "tty": true,
                    "env": [
                        { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                        { "name": "CPUS", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
                        { "name": "KEY", "valueFrom": { "resource": "kbs:///acme/secret/key" } },
                    ],
                    "resources": { "limits": { "cpu": 1, "memory": "64Mi" } },
                    "volumeMounts": [
                        { "name": "config", "mountPath": "/etc/config/" },
                        { "name": "own", "mountPath": "/own" },
                    ],
                },
                { "name": "db", "image": "r/a" },
            ],
            "volumes": [
                { "name": "config", "configMap": { "name": "config" } },
                { "name": "own", "sealedFiles": { "files": { "a/b": { "data": "eHg=", "mode": 256 } } } },
            ],
            "automountServiceAccountToken": true,
            "enableServiceLinks": true,
        },
        "images": { "setup": image, "proxy": image, "web": image, "db": image },
        "grants": {
            "logs": { "sealed": { "recipient": String::from(crate::log::LogKey::generate().unwrap().recipient()) } },
            "attach": ["web"],
            "exec": { "db": [["/bin/date"]] },
            "update_resources": { "web": { "cpu": "2", "memory": "128Mi" }, "db": { "cpu": "1" } },
            "volumes": { "web": { "/etc/config": { "kind": "configMap", "max_bytes": 4096 } } },
            "service_account_token": true,
            "downward": ["status.podIP", "limits.cpu", "metadata.labels['app']"],
            "service_links": true,
            "debug": {
                "names": "debugger-*",
                "count": 2,
                "image": image,
                "container": { "name": "debug", "image": "r/a", "command": ["/bin/sh"], "stdin": true, "tty": true },
            },
        },
        "resources": { "web": ["kbs:///acme/secret/key"] },
    })
}

fn parse(value: &Value) -> Result<SealedSpec, SpecError> {
    SealedSpec::from_json(value.to_string().as_bytes())
}

#[test]
fn the_good_one_is_good_and_round_trips() {
    let spec = parse(&spec()).unwrap();
    let again = serde_json::to_vec(&spec).unwrap();
    assert!(SealedSpec::from_json(&again).unwrap() == spec);
    assert!(spec.grants.volume("web", "/etc/config/").is_some_and(|grant| !grant.executable));
    assert!(spec.grants.volume("web", "/etc").is_none());
    assert!(spec.grants.volume("db", "/etc/config").is_none());
    let key = "kbs:///acme/secret/key".parse().unwrap();
    assert!(spec.may_ask("web", &key) && !spec.may_ask("db", &key));
    assert!(spec.pod.is_sidecar("proxy") && !spec.pod.is_sidecar("setup") && !spec.pod.is_sidecar("web"));
    assert_eq!(format!("{:?}", spec.grants), "Grants { .. }");
}

/// Where in the specification, the bad value (null: nothing), and what the error says.
#[test]
fn each_rule_refuses() {
    let many: Vec<_> = (0..65).map(|n| format!("kbs:///acme/secret/k{n}")).collect();
    let many_items: Value = vec![json!({ "key": "k", "path": "p" }); 1025].into();
    let many_files: serde_json::Map<_, _> =
        (0..1025).map(|n| (format!("f{n}"), json!({ "data": "", "mode": 0 }))).collect();
    let many_files = Value::Object(many_files);
    let debug = |field: &str| format!("/grants/debug/container/{field}");
    let cases: Vec<(String, Value, &str)> = vec![
        ("/grants/attach".into(), json!(["no"]), "attach for \"no\": no such container"),
        ("/grants/attach".into(), json!(["db"]), "attach for \"db\": the container has no stdin"),
        ("/grants/exec/no".into(), json!([["x"]]), "exec for \"no\": no such container"),
        ("/grants/exec/db".into(), json!([[]]), "an empty command"),
        ("/grants/exec/db".into(), json!(vec![json!(["x"]); 257]), "at most 256 commands"),
        ("/grants/update_resources/no".into(), json!({ "cpu": 1 }), "no such container"),
        ("/grants/update_resources/web".into(), json!({}), "cpu, memory or both"),
        ("/grants/update_resources/web/cpu".into(), json!("999m"), "must not be below its limit"),
        ("/grants/update_resources/web/memory".into(), json!("63Mi"), "must not be below its limit"),
        ("/grants/update_resources/db/cpu".into(), json!("0"), "must not be below its limit"),
        ("/grants/update_resources/db/disk".into(), json!("1"), "grants.update_resources.db"),
        ("/grants/volumes/no".into(), json!({}), "volumes for \"no\": no such container"),
        ("/grants/volumes/web/~1x".into(), json!({ "kind": "configMap", "max_bytes": 1 }), "no volumeMount"),
        (
            "/grants/volumes/web/~1own".into(),
            json!({ "kind": "configMap", "max_bytes": 1 }),
            "the guest's own and needs no grant",
        ),
        (
            "/grants/volumes/web".into(),
            json!({ "/etc/config/": { "kind": "configMap", "max_bytes": 1 } }),
            "must not end with a slash",
        ),
        ("/grants/volumes/web/~1etc~1config/kind".into(), json!("secret"), "is of another kind"),
        ("/grants/volumes/web/~1etc~1config/kind".into(), json!("hostPath"), "grants.volumes.web"),
        ("/grants/volumes/web/~1etc~1config/max_bytes".into(), json!(0), "1 byte to 64 MiB"),
        ("/grants/volumes/web/~1etc~1config/max_bytes".into(), json!((64 << 20) + 1), "1 byte to 64 MiB"),
        ("/grants/volumes".into(), Value::Null, "give the Secret or ConfigMap with --with FILE"),
        ("/grants/service_account_token".into(), json!(false), "--grant-service-account-token"),
        ("/pod/automountServiceAccountToken".into(), json!(false), "--grant-service-account-token"),
        ("/grants/service_links".into(), json!(false), "--grant-service-links"),
        ("/pod/enableServiceLinks".into(), json!(false), "--grant-service-links"),
        (
            "/pod/containers/0/volumeMounts/1/mountPath".into(),
            json!(SERVICE_ACCOUNT_MOUNT),
            "the API server mounts the token there",
        ),
        (
            "/grants/downward".into(),
            json!(["limits.cpu"]),
            "downward for \"status.podIP\": its value would be",
        ),
        (
            "/grants/downward".into(),
            json!(["status.podIP"]),
            "downward for \"limits.cpu\": its value would be",
        ),
        ("/grants/downward/0".into(), json!("spec.containers"), "not a field or resource"),
        ("/grants/downward/0".into(), json!("metadata.labels['a b']"), "not a field or resource"),
        ("/grants/ports".into(), json!([80]), "doesn't filter ports yet"),
        ("/grants/ports".into(), json!([65536]), "grants.ports"),
        ("/grants/debug/names".into(), json!("*"), "its names must be"),
        ("/grants/debug/names".into(), json!("a*b"), "its names must be"),
        ("/grants/debug/names".into(), json!("A"), "its names must be"),
        ("/grants/debug/names".into(), json!("we*"), "a container of the pod has such a name"),
        ("/grants/debug/names".into(), json!("db"), "a container of the pod has such a name"),
        ("/grants/debug/count".into(), json!(0), "1 to 64"),
        ("/grants/debug/count".into(), json!(65), "1 to 64"),
        ("/grants/debug/image/digest".into(), json!("sha256:0"), "its digest must be"),
        ("/grants/debug/image/digest".into(), json!(null), "its image must be named by digest"),
        (debug("volumeMounts"), json!([{ "name": "own", "mountPath": "/x" }]), "has no volumeMounts"),
        (debug("ports"), json!([{ "containerPort": 1 }]), "has no volumeMounts, ports"),
        (debug("resources"), json!({}), "resources"),
        (debug("lifecycle"), json!({}), "lifecycle"),
        (debug("restartPolicy"), json!("Always"), "restartPolicy"),
        (debug("command"), json!(["a\0"]), "breaks a rule"),
        (
            debug("env"),
            json!([{ "name": "N", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }]),
            "downward for \"spec.nodeName\"",
        ),
        (
            "/pod/containers/0/env/2/value".into(),
            json!("x"),
            "containers[0].env[2].valueFrom: value and valueFrom exclude",
        ),
        (
            "/pod/containers/0/env/2/valueFrom".into(),
            json!({}),
            "containers[0].env[2].valueFrom: exactly one",
        ),
        (
            "/pod/containers/0/env/2/valueFrom/fieldRef".into(),
            json!({ "fieldPath": "status.podIP" }),
            "containers[0].env[2].valueFrom: exactly one",
        ),
        (
            "/pod/containers/0/env/0/valueFrom/fieldRef/apiVersion".into(),
            json!("v2"),
            "containers[0].env[0].valueFrom.fieldRef",
        ),
        ("/pod/volumes/1/sealedFiles/files/a~1b/data".into(), json!("?"), "base64 is needed"),
        ("/pod/volumes/1/sealedFiles/files/a~1b/mode".into(), json!(0o1000), "permission bits"),
        (
            "/pod/volumes/1/sealedFiles/files/a".into(),
            json!({ "data": "", "mode": 0 }),
            "the name of its directory",
        ),
        ("/pod/volumes/1/emptyDir".into(), json!({}), "volumes[1]: exactly one"),
        ("/pod/volumes/0/configMap/items".into(), many_items, "at most 1024 items"),
        ("/pod/volumes/1/sealedFiles/files".into(), many_files, "at most 1024 files"),
        ("/pod/initContainers/1/restartPolicy".into(), Value::Null, "initContainers[1].startupProbe"),
        ("/pod/initContainers/0/lifecycle".into(), json!({}), "initContainers[0].lifecycle"),
        ("/grants/logs".into(), json!("loud"), "grants.logs"),
        ("/grants/logs".into(), json!({ "sealed": { "recipient": "p256:x" } }), "grants.logs"),
        ("/grants/logs".into(), json!({ "sealed": {} }), "grants.logs"),
        ("/grants/surprise".into(), json!(1), "grants"),
        (
            "/resources/no".into(),
            json!(["kbs:///acme/secret/key"]),
            "resources for \"no\": no such container",
        ),
        ("/resources/web".into(), json!([]), "an empty list"),
        ("/resources/web".into(), json!(many), "at most 64"),
        ("/resources/web".into(), json!(["kbs:///acme/sealed-spec/x.r1.00000000"]), "for the agent alone"),
        (
            "/resources/web".into(),
            json!(["kbs:///acme/secret/key", "kbs:///acme/secret/key"]),
            "is listed twice",
        ),
        ("/resources/web".into(), json!(["kbs://host/acme/secret/key"]), "resources.web"),
        ("/resources/web".into(), json!(["kbs:///acme/secret"]), "resources.web"),
    ];
    for (pointer, value, says) in cases {
        let mut changed = spec();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = changed.pointer_mut(parent).unwrap();
        let key = key.replace("~1", "/");
        match (parent, value.clone()) {
            (Value::Array(list), value) => list[key.parse::<usize>().unwrap()] = value,
            (parent, Value::Null) => drop(parent.as_object_mut().unwrap().remove(&key)),
            (parent, value) => parent[key] = value,
        }
        let error = parse(&changed).expect_err(&pointer).to_string();
        assert!(error.contains(says), "{pointer} = {value}: {error}");
    }
}

#[test]
fn bounds_of_all_volumes_together() {
    let mut changed = spec();
    let mounts: Vec<_> = (0..5).map(|n| json!({ "name": "config", "mountPath": format!("/m{n}") })).collect();
    changed["pod"]["containers"][0]["volumeMounts"] = mounts.into();
    let grant = json!({ "kind": "configMap", "max_bytes": 64 << 20 });
    for n in 0..5 {
        changed["grants"]["volumes"]["web"][format!("/m{n}")] = grant.clone();
    }
    changed["grants"]["volumes"]["web"].as_object_mut().unwrap().remove("/etc/config");
    assert!(parse(&changed).unwrap_err().to_string().contains("must not exceed 256 MiB"));
    changed["grants"]["volumes"]["web"]["/m0"]["max_bytes"] = 1.into();
    changed["grants"]["volumes"]["web"]["/m1"]["max_bytes"] = 1.into();
    parse(&changed).unwrap();
}

#[test]
fn each_kind_of_volume_is_granted_by_its_own_name() {
    let token = json!({ "sources": [{ "serviceAccountToken": { "path": "t", "audience": "vault", "expirationSeconds": 600 } }] });
    let labels = json!({ "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] });
    for (kind, source) in [
        ("configMap", json!({ "name": "a" })),
        ("secret", json!({ "secretName": "a" })),
        ("projected", token),
        ("downwardAPI", labels),
    ] {
        let mut changed = spec();
        changed["pod"]["volumes"][0] = json!({ "name": "config", kind: source });
        changed["grants"]["volumes"]["web"]["/etc/config"]["kind"] = kind.into();
        parse(&changed).unwrap();
    }
}

#[test]
fn debug_containers_get_the_name_that_the_host_picked() {
    let spec = parse(&spec()).unwrap();
    let debug = spec.grants.debug.as_ref().unwrap();
    let container = debug.container("debugger-x7k2p").unwrap();
    assert_eq!((container.name.as_str(), container.command[0].as_str()), ("debugger-x7k2p", "/bin/sh"));
    for name in ["debugger-", "debugger", "web", "", "debugger-/x", "debugger-X"] {
        assert!(debug.container(name).is_none(), "{name}");
    }
    let exact = DebugGrant { names: "probe".into(), ..debug.clone() };
    assert!(exact.covers("probe") && !exact.covers("probe-1") && !exact.covers("prob"));
}

#[test]
fn service_links_are_kubelets_names_only() {
    for name in [
        "REDIS_SERVICE_HOST",
        "REDIS_SERVICE_PORT",
        "REDIS_SERVICE_PORT_HTTP_2",
        "REDIS_PORT",
        "REDIS_PORT_6379_TCP",
        "REDIS_PORT_6379_TCP_PROTO",
        "REDIS_PORT_6379_TCP_PORT",
        "REDIS_PORT_6379_TCP_ADDR",
        "MY_PORT_AUTHORITY_PORT_53_UDP_ADDR",
        "KUBERNETES_SERVICE_PORT_HTTPS",
    ] {
        assert!(is_service_link(name), "{name}");
    }
    for name in [
        "",
        "PATH",
        "LD_PRELOAD",
        "_PORT",
        "_SERVICE_HOST",
        "redis_SERVICE_HOST",
        "REDIS_SERVICE_HOST_X",
        "REDIS_PORT_0_TCP",
        "REDIS_PORT_70000_TCP",
        "REDIS_PORT_6379_HTTP",
        "REDIS_PORT_6379_TCP_X",
        "REDIS_PORT_6379_TCP_ADDR_X",
        "REDIS_PORT_+1_TCP",
        "1_PORT",
        "LD_PORT=x",
    ] {
        assert!(!is_service_link(name), "{name}");
    }
}

#[test]
fn an_empty_pod_needs_and_has_no_grants() {
    let pod: PodSpec =
        serde_json::from_value(json!({ "containers": [{ "name": "a", "image": "r/a" }] })).unwrap();
    Grants::default().check(&pod).unwrap();
    assert_eq!(serde_json::to_value(Grants::default()).unwrap(), json!({ "logs": "off" }));
}
