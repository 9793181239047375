//! What the host supplies where it is granted.

use super::*;

#[test]
fn supplied_values_are_taken_where_the_pod_asks_and_links_replace_nothing() {
    let own = json!([
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "URL", "value": "http://$(IP):$(DB_PORT)"},
        {"name": "DB_HOST", "value": "sealed"},
    ]);
    let mut case = Case::new().container("env", own).container("args", json!(["$(DB_PORT)", "$(IP)"]));
    assert!(case.refusal().contains("env IP"));
    case.supplied.values.insert("IP".into(), "$(DB_HOST)".into());
    case.supplied.values.insert("LD_PRELOAD".into(), "/evil.so".into());
    for (name, value) in [("DB_HOST", "evil"), ("DB_PORT", "5432"), ("PATH", "/evil"), ("A", "evil")] {
        case.supplied.links.insert(name.into(), value.into());
    }
    let spec = case.json();
    let env = json!([
        "PATH=/bin",
        "A=image",
        "HOSTNAME=pod-1",
        "IP=$(DB_HOST)",
        "URL=http://$(DB_HOST):5432",
        "DB_HOST=sealed",
        "DB_PORT=5432",
        "HOME=/root"
    ]);
    assert_eq!(spec["process"]["env"], env);
    assert_eq!(spec["process"]["args"], json!(["/entry", "5432", "$(DB_HOST)"]));
}

#[test]
fn volumes_of_the_host_are_read_only_and_hold_no_programs() {
    let mut case = Case::new()
        .pod(
            "volumes",
            json!([{"name": "c", "configMap": {"name": "c"}}, {"name": "f", "sealedFiles": {"files": {}}}]),
        )
        .container(
            "volumeMounts",
            json!([
                {"name": "c", "mountPath": "/c"}, {"name": "f", "mountPath": "/f"},
                {"name": "c", "mountPath": "/x", "subPath": "x"},
            ]),
        );
    let volume = |name: &str, executable| HostVolume { source: Path::new("/v").join(name), executable };
    case.host_volumes = BTreeMap::from([(0, volume("c", false)), (2, volume("x", true))]);
    case.extra_mounts = vec![ExtraMount { destination: "/token".into(), source: "/v/token".into() }];
    let mount = |spec: &Value, at: &str| {
        let mounts = spec["mounts"].as_array().unwrap().clone();
        let found = mounts.into_iter().find(|m| m["destination"] == at).unwrap();
        (found["source"].clone(), found["options"].to_string())
    };
    let spec = case.json();
    for (at, source, noexec) in [("/c", "/v/c", true), ("/x", "/v/x", false), ("/token", "/v/token", true)] {
        let (from, options) = mount(&spec, at);
        assert_eq!(from, source);
        for option in ["ro", "nosuid", "nodev"] {
            assert!(options.contains(&format!("\"{option}\"")), "{at}: {options}");
        }
        assert_eq!(options.contains("noexec"), noexec, "{at}");
    }
    assert!(mount(&spec, "/f").1.contains("\"ro\""));
    case.extra_mounts.push(ExtraMount { destination: "/c".into(), source: "/v/other".into() });
    case.refusal();
}
