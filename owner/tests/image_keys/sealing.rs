//! `sealpod seal` finds the keys of encrypted images, `push` hands them to the broker first.

use protocols::broker::RegistrationRequest;
use protocols::owner::{OwnerPublicKey, Registration};
use serde_json::Value;

use super::support::{Fake, Owner, reply};
use super::{layout, resources, world};

const URI: &str = "kbs:///acme/image-key/web";

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  containers:
  - {name: web, image: 'registry.example:5000/secret:v1'}
  - {name: plain, image: 'registry.example:5000/plain:v1'}
";

/// A registry with the encrypted image and the plain one.
fn registry(owner: &Owner) -> Fake {
    let secret = layout::manifest_bytes(&owner.path("secret"));
    let plain = layout::manifest_bytes(&owner.path("plain"));
    Fake::start(None, move |seen| {
        let manifest = match seen.line.as_str() {
            "GET /v2/secret/manifests/v1" => &secret,
            "GET /v2/plain/manifests/v1" => &plain,
            _ => return reply(404, "{}"),
        };
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        (200, vec![("content-type", media_type)], manifest.clone())
    })
}

fn seal(owner: &Owner, registry: &Fake, more: &[&str]) -> Vec<String> {
    owner.write("pod.yaml", POD);
    let here = format!("registry.example:5000=http://127.0.0.1:{}", registry.port);
    let guest = "registry.example:5000=http://10.0.2.2:5000";
    let args = ["seal", "pod.yaml", "--registry", guest, "--resolve-via", &here];
    args.iter().chain(more).map(|&arg| arg.to_owned()).collect()
}

fn encrypted(owner: &Owner, recipient: &[&str]) -> Fake {
    layout::write(&owner.path("plain"));
    owner.good(&[&["image", "encrypt", "oci:plain:v1", "oci:secret:v1"], recipient].concat());
    registry(owner)
}

fn image_keys(owner: &Owner) -> Value {
    let file: Value = serde_json::from_str(&owner.read("pod-sealed.key.json")).unwrap();
    file["registration"]["image_keys"].clone()
}

#[test]
fn keys_at_the_broker_are_found_and_pushed_first() {
    let (owner, broker) = world();
    owner.good(&["image", "key", "new", "web"]);
    let registry = encrypted(&owner, &["-r", URI]);
    let args = seal(&owner, &registry, &[]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let said = owner.good(&args);
    assert!(said.contains(URI), "{said}");
    assert_eq!(image_keys(&owner), serde_json::json!([URI]));

    owner.good(&["push", "pod-sealed.key.json"]);
    let lines: Vec<_> = broker.requests().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines, ["POST /sealpod/v1/resources", "POST /sealpod/v1/registrations"]);
    assert_eq!(resources(&owner, &broker)[0].0.uri, URI);
    let public: OwnerPublicKey = owner.read("id/owner.pub").trim().parse().unwrap();
    let request: RegistrationRequest = serde_json::from_slice(&broker.requests()[1].body).unwrap();
    assert_eq!(public.verify::<Registration>(&request.registration).unwrap().image_keys, [URI]);

    // A machine without the key: the broker has it, or refuses the registration.
    std::fs::remove_file(owner.path("id/image-keys/web")).unwrap();
    owner.good(&["push", "pod-sealed.key.json"]);
    assert_eq!(resources(&owner, &broker).len(), 1);
}

#[test]
fn an_index_is_looked_through() {
    let (owner, _broker) = world();
    owner.good(&["image", "key", "new", "web"]);
    drop(encrypted(&owner, &["-r", URI]));
    let secret = layout::manifest_bytes(&owner.path("secret"));
    let plain = layout::manifest_bytes(&owner.path("plain"));
    let digest = protocols::name::sha256(&secret);
    let entry = |architecture: &str, digest: &str| {
        serde_json::json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1, "digest": digest,
            "platform": { "os": "linux", "architecture": architecture } })
    };
    // The other platform's manifest isn't there: it is none of the guest's.
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry("arm64", &format!("sha256:{}", "00".repeat(32))), entry("amd64", &digest)] });
    let by_digest = format!("GET /v2/secret/manifests/{digest}");
    let registry = Fake::start(None, move |seen| match seen.line.as_str() {
        "GET /v2/secret/manifests/v1" => reply(200, index.to_string()),
        "GET /v2/plain/manifests/v1" => reply(200, plain.clone()),
        line if line == by_digest => reply(200, secret.clone()),
        _ => reply(404, "{}"),
    });
    let args = seal(&owner, &registry, &[]);
    owner.good(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(image_keys(&owner), serde_json::json!([URI]));
}

#[test]
fn private_keys_are_named() {
    let (owner, _broker) = world();
    let key = rcgen::KeyPair::generate().unwrap();
    owner.write("key.pem", &key.serialize_pem());
    owner.write("public.pem", &key.public_key_pem());
    owner.good(&["image", "key", "import", "web", "key.pem"]);
    let registry = encrypted(&owner, &["-r", "jwe:public.pem"]);
    let refused = |more: &[&str]| {
        let args = seal(&owner, &registry, more);
        owner.refused(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let error = refused(&[]);
    assert!(error.contains("container 'web'") && error.contains("--image-key"), "{error}");
    let given = format!("web={URI}");
    let plain = format!("plain={URI}");
    assert!(refused(&["--image-key", &given, "--image-key", &plain]).contains("isn't encrypted"));
    assert!(refused(&["--image-key", "web=kbs:///bank/image-key/web"]).contains("another owner's"));
    assert!(refused(&["--image-key", "db=kbs:///acme/image-key/web"]).contains("no container 'db'"));
    assert!(!owner.path("pod-sealed.yaml").exists());
    let args = seal(&owner, &registry, &["--image-key", &given]);
    owner.good(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(image_keys(&owner), serde_json::json!([URI]));
}

#[test]
fn a_key_of_another_owner_is_refused() {
    let (owner, _broker) = world();
    std::fs::write(owner.path("kek"), [7; 32]).unwrap();
    let registry = encrypted(&owner, &["-r", "kbs:///bank/image-key/web", "--kek", "kek"]);
    let args = seal(&owner, &registry, &[]);
    let error = owner.refused(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(error.contains("another owner's repository") && error.contains("recipients add"), "{error}");
}
