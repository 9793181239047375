//! Each rule of a pod, broken alone.

use serde_json::{Value, json};

use super::*;

fn pod() -> Value {
    json!({
        "initContainers": [{ "name": "setup", "image": "r/setup", "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
        "containers": [{
            "name": "web",
            "image": "r/web",
            "command": ["/web"],
            "workingDir": "/",
            "env": [{ "name": "A", "value": "1" }, { "name": "EMPTY" }],
            "ports": [{ "containerPort": 8080, "name": "http", "protocol": "TCP", "hostIP": "127.0.0.1" }],
            "resources": { "limits": { "cpu": 1, "memory": "64Mi" }, "requests": { "cpu": "500m" } },
            "volumeMounts": [{ "name": "data", "mountPath": "/data", "subPath": "a/b", "readOnly": true }],
            "livenessProbe": { "exec": { "command": ["/alive"] }, "periodSeconds": 5 },
            "lifecycle": { "preStop": { "sleep": { "seconds": 1 } } },
            "securityContext": { "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] } },
        }],
        "volumes": [{ "name": "data", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }],
        "hostname": "web-0",
        "hostAliases": [{ "ip": "10.1.2.3", "hostnames": ["db.shop"] }],
        "dnsPolicy": "None",
        "dnsConfig": { "nameservers": ["10.0.0.10"], "searches": ["shop.svc."], "options": [{ "name": "ndots", "value": "5" }] },
        "securityContext": { "fsGroup": 1000, "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }] },
        "os": { "name": "linux" },
    })
}

fn check(change: impl FnOnce(&mut Value)) -> Result<(), PodError> {
    let mut pod = pod();
    change(&mut pod);
    serde_json::from_value::<PodSpec>(pod).unwrap().validate()
}

#[test]
fn the_good_one_is_good() {
    check(|_| ()).unwrap();
}

/// Path of the value to change, the bad value, and the path that the error names.
#[test]
fn each_rule_refuses() {
    let long = "x".repeat(64);
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/containers", json!([]), "containers"),
        ("/containers/0/name", json!("Web"), "containers[0].name"),
        ("/containers/0/name", json!(long), "containers[0].name"),
        ("/containers/0/name", json!("setup"), "containers[0].name"),
        ("/containers/0/image", json!(""), "containers[0].image"),
        ("/containers/0/command/0", json!("a\0"), "containers[0].command[0]"),
        ("/containers/0/workingDir", json!("relative"), "containers[0].workingDir"),
        ("/containers/0/workingDir", json!("/a/../b"), "containers[0].workingDir"),
        ("/containers/0/terminationMessagePath", json!("/"), "containers[0].terminationMessagePath"),
        ("/containers/0/env/0/name", json!("A=B"), "containers[0].env[0].name"),
        ("/containers/0/env/0/name", json!(""), "containers[0].env[0].name"),
        ("/containers/0/env/0/value", json!("a\0"), "containers[0].env[0].value"),
        ("/containers/0/ports/0/containerPort", json!(0), "containers[0].ports[0].containerPort"),
        ("/containers/0/ports/0/protocol", json!("ICMP"), "containers[0].ports[0].protocol"),
        ("/containers/0/ports/0/hostIP", json!("localhost"), "containers[0].ports[0].hostIP"),
        ("/containers/0/resources/limits/gpu", json!(1), "containers[0].resources.limits.gpu"),
        ("/containers/0/resources/requests/cpu", json!(2), "containers[0].resources.requests.cpu"),
        ("/containers/0/volumeMounts/0/name", json!("other"), "containers[0].volumeMounts[0].name"),
        ("/containers/0/volumeMounts/0/mountPath", json!("/"), "containers[0].volumeMounts[0].mountPath"),
        ("/containers/0/volumeMounts/0/mountPath", json!("data"), "containers[0].volumeMounts[0].mountPath"),
        (
            "/containers/0/volumeMounts/0/mountPath",
            json!("/a/../etc"),
            "containers[0].volumeMounts[0].mountPath",
        ),
        ("/containers/0/volumeMounts/0/mountPath", json!("/a:b"), "containers[0].volumeMounts[0].mountPath"),
        ("/containers/0/volumeMounts/0/subPath", json!("../x"), "containers[0].volumeMounts[0].subPath"),
        ("/containers/0/volumeMounts/0/subPath", json!("/x"), "containers[0].volumeMounts[0].subPath"),
        (
            "/containers/0/volumeMounts",
            json!([{ "name": "data", "mountPath": "/data" }, { "name": "data", "mountPath": "/data/" }]),
            "containers[0].volumeMounts[1].mountPath",
        ),
        ("/containers/0/livenessProbe", json!({}), "containers[0].livenessProbe"),
        ("/containers/0/livenessProbe/exec/command", json!([]), "containers[0].livenessProbe.exec.command"),
        ("/containers/0/livenessProbe/tcpSocket", json!({ "port": 1 }), "containers[0].livenessProbe"),
        ("/containers/0/lifecycle/preStop", json!({}), "containers[0].lifecycle.preStop"),
        (
            "/containers/0/securityContext/capabilities/add/0",
            json!("CAP_SYS_ADMIN"),
            "containers[0].securityContext.capabilities.add[0]",
        ),
        (
            "/initContainers/0/livenessProbe",
            json!({ "exec": { "command": ["x"] } }),
            "initContainers[0].livenessProbe",
        ),
        ("/initContainers/0/lifecycle", json!({}), "initContainers[0].lifecycle"),
        ("/volumes/0/name", json!("Data"), "volumes[0].name"),
        ("/volumes/0", json!({ "name": "data" }), "volumes[0]"),
        ("/volumes/1", json!({ "name": "data", "emptyDir": {} }), "volumes[1].name"),
        ("/hostname", json!("a.b"), "hostname"),
        ("/subdomain", json!("-a"), "subdomain"),
        ("/hostAliases/0/ip", json!("10.1.2"), "hostAliases[0].ip"),
        ("/hostAliases/0/hostnames/0", json!("a b"), "hostAliases[0].hostnames[0]"),
        ("/dnsConfig/nameservers", json!([]), "dnsConfig.nameservers"),
        ("/dnsConfig/nameservers/0", json!("ns.example"), "dnsConfig.nameservers[0]"),
        ("/dnsConfig/searches/0", json!("a\nnameserver 6.6.6.6"), "dnsConfig.searches[0]"),
        ("/dnsConfig/options/0/name", json!("a b"), "dnsConfig.options[0]"),
        ("/securityContext/sysctls/0/name", json!("../x"), "securityContext.sysctls[0].name"),
        ("/securityContext/sysctls/0/value", json!("1\n2"), "securityContext.sysctls[0].value"),
        ("/os/name", json!("windows"), "os.name"),
    ];
    for (pointer, value, path) in cases {
        let error = check(|pod| put(pod, pointer, value.clone())).expect_err(pointer);
        assert_eq!(error.path, path, "{pointer} = {value}: {}", error.rule);
    }
}

fn put(pod: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = pod.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) if key.parse::<usize>().unwrap() == list.len() => list.push(value),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        _ => parent[key] = value,
    }
}

#[test]
fn too_many_containers() {
    let many: Vec<Value> = (0..64).map(|n| json!({ "name": format!("c{n}"), "image": "r/c" })).collect();
    let error = check(|pod| pod["containers"] = many.into()).unwrap_err();
    assert!(error.rule.contains("at most 64"));
}

#[test]
fn unknown_fields_are_refused_everywhere() {
    for pointer in [
        "",
        "/containers/0",
        "/containers/0/env/0",
        "/containers/0/livenessProbe",
        "/volumes/0",
        "/securityContext",
        "/dnsConfig",
        "/volumes/0/emptyDir",
    ] {
        let mut pod = pod();
        pod.pointer_mut(pointer).unwrap()["surprise"] = json!(1);
        let error = serde_json::from_value::<PodSpec>(pod).unwrap_err().to_string();
        assert!(error.contains("unknown field `surprise`"), "{pointer}: {error}");
    }
}
