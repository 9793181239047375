//! Policies: what is read, what is refused by name, and which list an image gets.

use serde_json::json;

use super::*;
use crate::inline_key_files;
use crate::testing::{Cosign, Signer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

fn refused(text: &str) -> String {
    Policy::parse(text.as_bytes()).unwrap_err().to_string()
}

fn scope(policy: &Policy, reference: &str) -> String {
    policy.requirements_for(&Reference::parse(reference).unwrap()).scope().to_owned()
}

#[test]
fn the_most_specific_scope_counts() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let exact = format!("r.example:5000/team/app@{digest}");
    let scopes = [
        exact.as_str(),
        "r.example:5000/team/app:1",
        "r.example:5000/team/app",
        "r.example:5000/team",
        "r.example:5000",
        "*.example",
        "*.sub.example",
        "docker.io/library/busybox",
        "",
    ];
    let lists: serde_json::Map<_, _> =
        scopes.iter().map(|scope| ((*scope).to_owned(), json!([{"type": "reject"}]))).collect();
    let all = json!({"default": [{"type": "reject"}], "transports": {"docker": lists}});
    let policy = Policy::from_value(all.clone()).unwrap();
    for (reference, expected) in [
        (exact.as_str(), exact.as_str()),
        ("r.example:5000/team/app:1", "r.example:5000/team/app:1"),
        ("r.example:5000/team/app:2", "r.example:5000/team/app"),
        ("r.example:5000/team/app2:1", "r.example:5000/team"),
        ("r.example:5000/other:1", "r.example:5000"),
        ("r.example/team/app:1", "*.example"),
        ("r.example:5001/team/app:1", "*.example"),
        ("a.sub.example/app:1", "*.sub.example"),
        ("a.b.sub.example/app:1", "*.sub.example"),
        ("sub.example/app:1", "*.example"),
        ("busybox:1", "docker.io/library/busybox"),
        ("other:1", ""),
        ("[::1]:5000/app:1", ""),
    ] {
        assert_eq!(scope(&policy, reference), format!("transports.docker[{expected:?}]"), "{reference}");
    }
    let policy = Policy::parse(br#"{"default":[{"type":"reject"}],"transports":{"docker":{}}}"#).unwrap();
    assert_eq!(scope(&policy, "busybox:1"), "default");
}

#[test]
fn what_a_list_asks_for() {
    let key = Cosign::new().data();
    let list = |list: Value| Policy::from_value(json!({"default": list})).unwrap();
    let reference = Reference::parse("busybox:1").unwrap();
    let sigstore = json!({"type": "sigstoreSigned", "keyData": key});
    for (requirements, asks, rejects) in [
        (json!([{"type": "insecureAcceptAnything"}]), false, false),
        (json!([{"type": "reject"}]), false, true),
        (json!([{"type": "insecureAcceptAnything"}, sigstore]), true, false),
        (json!([sigstore, {"type": "reject"}]), true, true),
    ] {
        let policy = list(requirements.clone());
        let found = policy.requirements_for(&reference);
        assert_eq!((found.asks_for_signatures(), found.rejects()), (asks, rejects), "{requirements}");
    }
}

#[test]
fn each_mistake_is_named() {
    let key = Cosign::new().data();
    let list = |requirement: &str| format!(r#"{{"default":[{}]}}"#, requirement.replace("KEY", &key));
    let docker = |scope: &str| {
        format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{scope}":[{{"type":"reject"}}]}}}}}}"#
        )
    };
    for (text, part) in [
        ("[]".to_owned(), "not an object"),
        ("{}".into(), "\"default\" is missing"),
        (r#"{"default":[]}"#.into(), "at least one"),
        (r#"{"default":{}}"#.into(), "at least one"),
        (
            r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#.into(),
            "\"default\" is there twice",
        ),
        (r#"{"default":[{"type":"reject","type":"reject"}]}"#.into(), "\"type\" is there twice"),
        (r#"{"default":[{"type":"reject"}],"transport":{}}"#.into(), "\"transport\" is unknown"),
        (r#"{"default":[{"type":"reject"}],"transports":{"dockre":{}}}"#.into(), "\"dockre\" is unknown"),
        (r#"{"default":[{"type":"reject"}],"transports":{"docker":[]}}"#.into(), "not an object"),
        (list(r#"{"type":"reject","x":1}"#), "\"x\" is unknown"),
        (list(r#"{"type":"rejekt"}"#), "\"rejekt\" is unknown"),
        (list(r#"{"type":"signedBaseLayer"}"#), "\"signedBaseLayer\" is unknown"),
        (list(r#"{"type":1}"#), "\"type\" is a number"),
        (list(r#"{"keyData":"KEY"}"#), "\"type\" is missing"),
        (list(r#"{"type":"signedBy","keyData":"KEY"}"#), "\"keyType\" is missing"),
        (list(r#"{"type":"signedBy","keyType":"X509Certificates","keyData":"KEY"}"#), "use \"GPGKeys\""),
        (list(r#"{"type":"signedBy","keyType":"gpg","keyData":"KEY"}"#), "\"gpg\" is unknown"),
        (list(r#"{"type":"signedBy","keyType":"GPGKeys"}"#), "exactly one of"),
        (list(r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"KEY"}"#), "keyring"),
        (list(r#"{"type":"signedBy","keyType":"GPGKeys","keyDatas":["KEY"]}"#), "exactly one of"),
        (list(r#"{"type":"sigstoreSigned"}"#), "exactly one of"),
        (list(r#"{"type":"sigstoreSigned","keyData":"KEY","keyPath":"x"}"#), "exactly one of"),
        (list(r#"{"type":"sigstoreSigned","keyData":"%"}"#), "not standard base64"),
        (list(r#"{"type":"sigstoreSigned","keyData":"AAAA"}"#), "PEM"),
        (list(r#"{"type":"sigstoreSigned","keyDatas":[]}"#), "at least one"),
        (list(r#"{"type":"sigstoreSigned","keyData":"KEY","keyType":"GPGKeys"}"#), "\"keyType\" is unknown"),
        (list(r#"{"type":"sigstoreSigned","fulcio":{}}"#), "\"fulcio\" isn't supported"),
        (list(r#"{"type":"sigstoreSigned","pki":{}}"#), "\"pki\" isn't supported"),
        (
            list(r#"{"type":"sigstoreSigned","keyData":"KEY","rekorPublicKeyData":""}"#),
            "\"rekorPublicKeyData\" isn't",
        ),
        (
            list(r#"{"type":"sigstoreSigned","keyData":"KEY","signedIdentity":{"type":"any"}}"#),
            "\"any\" is unknown",
        ),
        (docker("busybox"), "no image has this scope"),
        (docker("https://r.example"), "no image has this scope"),
        (docker("r.example/"), "no image has this scope"),
        (docker("*.example/app"), "no image has this scope"),
        (docker("*.example:5000"), "no image has this scope"),
        (docker("a*.example"), "no image has this scope"),
        (docker("*"), "no image has this scope"),
        (docker("r.example/app:1:2"), "no image has this scope"),
        (docker("R.Example/App"), "no image has this scope"),
    ] {
        let error = refused(&text);
        assert!(error.contains(part), "{text}: {error}");
    }
    assert_eq!(Policy::parse(&vec![b' '; MAX_POLICY + 1]).unwrap_err(), PolicyError::TooLarge);
}

#[test]
fn transports_that_cant_apply_are_left_out() {
    let text = br#"{"default":[{"type":"reject"}],"transports":{
        "docker-daemon":{"":[{"type":"insecureAcceptAnything"}]},
        "dir":{"/x":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/x"}]}}}"#;
    let policy = Policy::parse(text).unwrap();
    assert_eq!(scope(&policy, "busybox:1"), "default");
    assert!(policy.key_files().is_empty());
    let inlined = inline_key_files(text, &mut |path| panic!("{path} was read")).unwrap();
    assert_eq!(inlined["transports"], json!({}));
}

#[test]
fn key_files_become_part_of_the_policy() {
    let cosign = [Cosign::new().data(), Cosign::new().data()];
    let rings = [Signer::new(1).ring(), Signer::new(2).ring()];
    let armoured = format!(
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\n{}\n=AAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
        STANDARD.encode(&rings[1])
    );
    let text = br#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/ring1","/ring2"]}],"transports":{"docker":{
        "r.example":[{"type":"sigstoreSigned","keyPath":"/cosign1"},{"type":"sigstoreSigned","keyPaths":["/cosign1","/cosign2"]}]}}}"#;
    assert_eq!(
        Policy::parse(text).unwrap().key_files(),
        ["/cosign1", "/cosign1", "/cosign2", "/ring1", "/ring2"]
    );
    let mut read = |path: &str| {
        Ok(match path {
            "/ring1" => rings[0].clone(),
            "/ring2" => armoured.clone().into_bytes(),
            "/cosign1" => STANDARD.decode(&cosign[0]).unwrap(),
            "/cosign2" => STANDARD.decode(&cosign[1]).unwrap(),
            _ => return Err("no such file".to_owned()),
        })
    };
    let inlined = inline_key_files(text, &mut read).unwrap();
    assert_eq!(inlined["default"][0]["keyData"], STANDARD.encode(rings.concat()));
    assert_eq!(inlined["transports"]["docker"]["r.example"][0]["keyData"], cosign[0]);
    assert_eq!(inlined["transports"]["docker"]["r.example"][1]["keyDatas"], json!(cosign));
    assert!(Policy::from_value(inlined).unwrap().key_files().is_empty());

    let missing = inline_key_files(text, &mut |_| Err("no such file".into())).unwrap_err();
    assert!(missing.to_string().contains("no such file"), "{missing}");
    let wrong = inline_key_files(text, &mut |_| Ok(b"not a key".to_vec())).unwrap_err();
    assert!(matches!(wrong, PolicyError::Key { .. }), "{wrong}");
}
