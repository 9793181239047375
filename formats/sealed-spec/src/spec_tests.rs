//! Each rule of the plaintext, broken alone.

use super::*;
use crate::origin::host_port;
use crate::secret::Secret;

fn spec() -> SealedSpec {
    let pod = serde_json::from_value(serde_json::json!({
        "initContainers": [{ "name": "setup", "image": "registry.example:5000/team/setup" }],
        "containers": [{ "name": "web", "image": "registry.example:5000/team/web:1.2" }],
    }))
    .unwrap();
    let mut spec = SealedSpec::new(pod);
    for name in ["setup", "web"] {
        let reference = format!("registry.example:5000/team/{name}:1.2");
        spec.images.insert(name.into(), ImageRef::pinned(reference, format!("sha256:{}", "0f".repeat(32))));
    }
    spec.registries.push(RegistrySource::new("registry.example:5000", "https://10.0.2.2:5000"));
    spec.grants.exec.insert("web".into(), vec![vec!["/bin/date".into()]]);
    spec
}

fn refusal(change: impl FnOnce(&mut SealedSpec)) -> String {
    let mut spec = spec();
    change(&mut spec);
    spec.validate().unwrap_err().to_string()
}

#[test]
fn the_good_one_is_good_and_round_trips() {
    let spec = spec();
    spec.validate().unwrap();
    let json = serde_json::to_vec(&spec).unwrap();
    assert!(SealedSpec::from_json(&json).unwrap() == spec);
    assert_eq!(spec.image("web").unwrap().registry(), "registry.example:5000");
    assert_eq!(spec.image("web").unwrap().repository(), "team/web");
    assert!(spec.registry("registry.example:5000").is_some());
}

#[test]
fn grants_are_off_by_default() {
    let grants = Grants::default();
    assert_eq!(grants.logs, Logs::Off);
    assert!(grants.exec.is_empty());
    let json = r#"{"version":1,"pod":{"containers":[{"name":"a","image":"r/a"}]},"images":{"a":{"reference":"r/a","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}}}"#;
    assert!(SealedSpec::from_json(json.as_bytes()).unwrap().grants == Grants::default());
}

#[test]
fn images_match_containers() {
    assert!(refusal(|spec| drop(spec.images.remove("setup"))).contains("\"setup\" has no image digest"));
    assert!(
        refusal(|spec| {
            let image = spec.images["web"].clone();
            spec.images.insert("other".into(), image);
        })
        .contains("\"other\", which is not a container")
    );
    for (digest, _) in [
        ("sha256:00", ()),
        ("", ()),
        (&*format!("sha256:{}", "0F".repeat(32)), ()),
        (&*format!("sha512:{}", "0f".repeat(64)), ()),
    ] {
        let digest = digest.to_owned();
        assert!(
            refusal(|spec| spec.images.get_mut("web").unwrap().digest = Some(digest))
                .contains("its digest must be")
        );
    }
    for reference in [
        "",
        "registry.example",
        "registry.example/",
        "registry.example/a b",
        "registry.example/../x",
        "registry.example//x",
    ] {
        assert!(
            refusal(|spec| spec.images.get_mut("web").unwrap().reference = reference.into())
                .contains("its re"),
            "{reference}"
        );
    }
}

#[test]
fn an_image_by_tag_needs_a_policy() {
    let by_tag = |spec: &mut SealedSpec| spec.images.get_mut("web").unwrap().digest = None;
    assert!(refusal(by_tag).contains("\"web\" has no digest and there is no image policy"));
    let mut good = spec();
    by_tag(&mut good);
    good.image_policy = Some(serde_json::json!({ "default": [{ "type": "reject" }] }));
    good.validate().unwrap();
    let json = serde_json::to_vec(&good).unwrap();
    assert!(SealedSpec::from_json(&json).unwrap() == good);
    assert!(
        refusal(|spec| {
            by_tag(spec);
            spec.image_policy = Some(serde_json::json!("yes"));
        })
        .contains("must be an object")
    );
    assert!(
        refusal(|spec| spec.image_policy = Some(serde_json::json!({ "a": "b".repeat(MAX_POLICY) })))
            .contains("longer than")
    );
}

#[test]
fn image_keys_are_bounded() {
    let keys =
        |count: usize| (0..count).map(|n| format!("kbs:///acme/image-key/{n}").parse().unwrap()).collect();
    assert!(
        refusal(|spec| spec.images.get_mut("web").unwrap().keys = keys(17)).contains("more than 16 keys")
    );
    let mut good = spec();
    good.images.get_mut("web").unwrap().keys = keys(16);
    good.layer_store = LayerStore::Device;
    good.validate().unwrap();
    let json = serde_json::to_vec(&good).unwrap();
    assert!(SealedSpec::from_json(&json).unwrap() == good);
}

#[test]
fn proxies() {
    let proxy = |url: &str, except: &[&str]| {
        let mut spec = spec();
        let except = except.iter().map(|host| (*host).to_owned()).collect();
        spec.proxy = Some(Proxy { url: Secret::new(url), except });
        spec.validate().map_err(|error| error.to_string())
    };
    proxy("http://proxy.example:3128", &["registry.example:5000", ".cluster.local", "10.0.0.1"]).unwrap();
    proxy("http://me:s%40same@10.0.2.2:3128/", &[]).unwrap();
    for bad in [
        "https://p:1",
        "socks5://p:1",
        "p:3128",
        "http://",
        "http://me@p:1",
        "http://p:1/x",
        "http://a:b@c@p:1",
    ] {
        assert!(proxy(bad, &[]).unwrap_err().contains("proxy: it"), "{bad}");
    }
    assert!(proxy("http://p:1", &["http://x"]).unwrap_err().contains("its exceptions must be"));
    assert!(proxy("http://p:1", &["x"; 65]).unwrap_err().contains("more than 64"));
}

#[test]
fn registries() {
    let with = |change: fn(&mut RegistrySource)| refusal(|spec| change(&mut spec.registries[0]));
    assert!(with(|r| r.host = "https://x".into()).contains("its host must be"));
    assert!(with(|r| r.location = "10.0.2.2:5000".into()).contains("https:// or http://"));
    assert!(with(|r| r.location = "ftp://10.0.2.2".into()).contains("https:// or http://"));
    assert!(with(|r| r.location = "https://user@10.0.2.2".into()).contains("without path, user or query"));
    assert!(with(|r| r.location = "https://10.0.2.2/v2".into()).contains("without path, user or query"));
    assert!(with(|r| r.location = "https://10.0.2.2:0".into()).contains("without path, user or query"));
    assert!(with(|r| r.ca = Some("nonsense".into())).contains("must be PEM"));
    assert!(
        with(|r| {
            r.location = "http://10.0.2.2".into();
            r.ca = Some("-----BEGIN CERTIFICATE-----".into());
        })
        .contains("makes no sense")
    );
    let resource = || Some("kbs:///acme/registry/login".parse().unwrap());
    assert!(
        with(|r| {
            (r.username, r.password) = (Some("u".into()), Some(Secret::new("p")));
            r.credentials = Some("kbs:///acme/registry/login".parse().unwrap());
        })
        .contains("both a login and a resource")
    );
    assert!(
        refusal(|spec| {
            spec.registries[0].location = "http://10.0.2.2".into();
            spec.registries[0].credentials = resource();
        })
        .contains("a login over http://")
    );
    let mut good = spec();
    good.registries[0].lookaside = Some("http://signatures.example:8080/a/b-c".into());
    good.validate().unwrap();
    for bad in ["", "signatures.example", "file:///x", "https://x/../y", "https://u@x/", "https://x/?a"] {
        assert!(
            refusal(|spec| spec.registries[0].lookaside = Some(bad.into())).contains("its lookaside"),
            "{bad}"
        );
    }
    assert!(with(|r| r.mirrors = vec!["https://m.example".into(); 9]).contains("more than 8 mirrors"));
    assert!(with(|r| r.mirrors = vec!["https://m.example/v2".into()]).contains("without path"));
    assert!(with(|r| r.mirrors = vec!["http://m.example".into()]).contains("must be https:// too"));
    assert!(with(|r| r.username = Some("u".into())).contains("go together"));
    assert!(with(|r| r.password = Some(Secret::new("p"))).contains("go together"));
    assert!(
        with(|r| {
            (r.username, r.password) = (Some("u".into()), Some(Secret::new("p")));
            r.location = "http://10.0.2.2".into();
        })
        .contains("a login over http://")
    );
    assert!(
        refusal(|spec| {
            let twin = spec.registries[0].clone();
            spec.registries.push(twin);
        })
        .contains("listed twice")
    );
}

#[test]
fn grants() {
    assert!(
        refusal(|spec| drop(spec.grants.exec.insert("db".into(), vec![vec!["x".into()]])))
            .contains("no such container")
    );
    for commands in [vec![], vec![vec![]], vec![vec![String::new()]]] {
        assert!(
            refusal(|spec| drop(spec.grants.exec.insert("web".into(), commands)))
                .contains("an empty command")
        );
    }
    assert!(
        refusal(|spec| drop(spec.grants.exec.insert("web".into(), vec![vec!["a\0b".into()]])))
            .contains("NUL")
    );
}

#[test]
fn hosts_and_ports() {
    for good in
        ["localhost", "registry.example", "Registry.Example:5000", "127.0.0.1:1", "[::1]", "[fe80::1]:65535"]
    {
        assert!(host_port(good), "{good}");
    }
    for bad in [
        "", ":5000", "a:", "a:65536", "a:+1", "a b", "a/b", "[::1", "[x]", "[::1]x", "::1", "a@b", "a?b",
        "a#b",
    ] {
        assert!(!host_port(bad), "{bad}");
    }
}

#[test]
fn a_spec_sealed_before_still_opens() {
    let json = r#"{"version":1,"pod":{"containers":[{"name":"a","image":"r/a","env":[{"name":"A","value":"1"}]}],
        "volumes":[{"name":"v","emptyDir":{}}]},
        "images":{"a":{"reference":"r/a","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}},
        "registries":[],"grants":{"logs":"clear","exec":{"a":[["/bin/date"]]}}}"#;
    let spec = SealedSpec::from_json(json.as_bytes()).unwrap();
    assert_eq!(spec.grants.logs, Logs::Clear);
    assert!(spec.resources.is_empty());
}
