//! Images that stay named by tag, with the built program: only under a policy that asks for signatures.

#![expect(clippy::unwrap_used, reason = "a test")]

// Its other half is for the tests of seal_and_push.
#[allow(dead_code, unused_imports, reason = "shared with other tests")]
mod support;

use std::process::Command;

use sealed_spec::{SealedDocument, SealedSpec, SpecKey};
use serde_json::{Value, json};
use support::{Fake, Owner, certificates, example_pod, registry};

/// An owner with the example pod, a cosign key, and the registry that the other images are looked up in.
fn owner() -> (Owner, Fake) {
    let (owner, registry) = (Owner::new(&certificates().0, 1), registry());
    owner.write("pod.yaml", &example_pod("registry.example:5000"));
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (key, public) = (owner.path("key.pem"), owner.path("key.pub"));
    let (key, public) = (key.to_str().unwrap(), public.to_str().unwrap());
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key]);
    openssl(&["pkey", "-in", key, "-pubout", "-out", public]);
    (owner, registry)
}

fn seal(registry: &Fake, more: &[&str]) -> Vec<String> {
    let here = format!("registry.example:5000=http://127.0.0.1:{}", registry.port);
    let guest = "registry.example:5000=http://10.0.2.2:5000,lookaside=http://10.0.2.2:5001/signatures/";
    let args = ["seal", "pod.yaml", "--registry", guest, "--resolve-via", &here];
    args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
}

fn good(owner: &Owner, registry: &Fake, more: &[&str]) -> String {
    let args = seal(registry, more);
    owner.good(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn refused(owner: &Owner, registry: &Fake, more: &[&str]) -> String {
    let args = seal(registry, more);
    owner.refused(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn opened(owner: &Owner) -> SealedSpec {
    let objects: Vec<Value> = serde_saphyr::from_multiple(&owner.read("pod-sealed.yaml")).unwrap();
    let document = SealedDocument::parse(objects[0]["data"]["sealed-spec.jwe"].as_str().unwrap()).unwrap();
    let file: Value = serde_json::from_str(&owner.read("pod-sealed.key.json")).unwrap();
    document.open(&SpecKey::from_base64url(file["key"].as_str().unwrap()).unwrap()).unwrap()
}

fn policy(list: &Value) -> String {
    json!({"default": [{"type": "reject"}], "transports": {"docker": {"registry.example:5000": list}}})
        .to_string()
}

#[test]
fn a_tag_stays_under_a_policy_that_asks_for_signatures() {
    let (owner, registry) = owner();
    let signed = json!([{"type": "sigstoreSigned", "keyPath": "key.pub", "signedIdentity": {"type": "matchRepository"}}]);
    owner.write("policy.json", &policy(&signed));
    let said = good(&owner, &registry, &["--image-policy", "policy.json", "--by-tag", "prices"]);
    assert!(said.contains("prices: registry.example:5000/busybox:v1 as its tag is signed"), "{said}");

    let spec = opened(&owner);
    assert_eq!(spec.images["prices"].digest, None);
    assert_eq!(spec.images["prices"].reference, "registry.example:5000/busybox:v1");
    assert!(spec.images["billing"].digest.is_some());
    assert_eq!(spec.registries[0].lookaside.as_deref(), Some("http://10.0.2.2:5001/signatures"));
    // The guest has no key files.
    let sealed = spec.image_policy.unwrap();
    assert!(!sealed.to_string().contains("key.pub"), "{sealed}");
    let policy = image_policy::Policy::from_value(sealed).unwrap();
    assert!(policy.key_files().is_empty());

    // With every image by tag, nobody is asked.
    let before = registry.requests().len();
    let all =
        ["--image-policy", "policy.json", "--by-tag", "prices", "--by-tag", "api", "--by-tag", "billing"];
    good(&owner, &registry, &all);
    assert_eq!(registry.requests().len(), before);
}

#[test]
fn tags_that_cant_stay() {
    let (owner, registry) = owner();
    let signed = json!([{"type": "sigstoreSigned", "keyPath": "key.pub"}]);
    let by_tag = ["--image-policy", "policy.json", "--by-tag", "prices"];
    for (list, part) in [
        (json!([{"type": "insecureAcceptAnything"}]), "unsigned"),
        (json!([{"type": "reject"}]), "rejects"),
        (json!([signed[0], {"type": "reject"}]), "rejects"),
        (json!([]), "at least one"),
        (json!([{"type": "sigstoreSigned", "keyPath": "missing.pub"}]), "missing.pub"),
        (json!([{"type": "sigstoreSigned", "keyPath": "key.pem"}]), "PEM"),
        (json!([{"type": "sigstoreSigned", "fulcio": {}}]), "\"fulcio\" isn't supported"),
        (json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "key.pub"}]), "keyring"),
    ] {
        owner.write("policy.json", &policy(&list));
        let error = refused(&owner, &registry, &by_tag);
        assert!(error.contains(part), "{list}: {error}");
    }
    owner.write("policy.json", &policy(&signed));
    let other = policy(&signed).replace("registry.example:5000", "registry.example:5001");
    owner.write("other.json", &other);
    owner.write(
        "twice.json",
        &policy(&signed).replace("{\"default\"", "{\"default\":[{\"type\":\"reject\"}],\"default\""),
    );
    for (more, part) in [
        (&["--by-tag", "prices"][..], "--image-policy"),
        (&["--image-policy", "policy.json"], "--by-tag"),
        (&["--image-policy", "missing.json", "--by-tag", "prices"], "missing.json"),
        (&["--image-policy", "pod.yaml", "--by-tag", "prices"], "pod.yaml"),
        (&["--image-policy", "other.json", "--by-tag", "prices"], "rejects"),
        (&["--image-policy", "twice.json", "--by-tag", "prices"], "there twice"),
        (&["--image-policy", "policy.json", "--by-tag", "prizes"], "no such container"),
    ] {
        let error = refused(&owner, &registry, more);
        assert!(error.contains(part), "{more:?}: {error}");
    }
    let pinned = format!("busybox:v1@sha256:{}", "00".repeat(32));
    owner.write("pod.yaml", &example_pod("registry.example:5000").replace("busybox:v1", &pinned));
    assert!(refused(&owner, &registry, &by_tag).contains("by digest"));
    assert!(!owner.path("pod-sealed.yaml").exists());
}
