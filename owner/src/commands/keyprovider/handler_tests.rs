//! Requests as ocicrypt and the confidential containers' libraries write them, and hostile ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

const URI: &str = "kbs:///acme/image-key/web";

struct World {
    _directory: tempfile::TempDir,
    provider: KeyProvider,
}

/// A provider with the key [`URI`].
fn world(name: &str) -> World {
    let directory = tempfile::tempdir().unwrap();
    let identity: IdentityDir = directory.path().join("home").to_str().unwrap().parse().unwrap();
    let store = KeyStore::at(directory.path().join("image-keys"), "acme".parse().unwrap());
    store.create(&store.uri(URI).unwrap()).unwrap();
    let provider = KeyProvider {
        directory: identity,
        store,
        name: name.into(),
        create: false,
        making: Mutex::default(),
    };
    World { _directory: directory, provider }
}

fn options() -> Zeroizing<Vec<u8>> {
    PrivateOptions::from_parts(Zeroizing::new([1; 32]), [2; 16], [3; 32]).to_json()
}

fn base64(bytes: &[u8]) -> Value {
    STANDARD.encode(bytes).into()
}

fn wrap_request(parameters: &Value, options: &Value) -> Vec<u8> {
    let ec = json!({ "Parameters": parameters, "DecryptConfig": { "Parameters": null } });
    let keywrapparams = json!({ "ec": ec, "optsdata": options });
    let keyunwrapparams = json!({ "dc": null, "annotation": null });
    json!({ "op": "keywrap", "keywrapparams": keywrapparams, "keyunwrapparams": keyunwrapparams })
        .to_string()
        .into_bytes()
}

fn unwrap_request(parameters: &Value, annotation: &Value) -> Vec<u8> {
    let keyunwrapparams = json!({ "dc": { "Parameters": parameters }, "annotation": annotation });
    let keywrapparams = json!({ "ec": null, "optsdata": null });
    json!({ "op": "keyunwrap", "keywrapparams": keywrapparams, "keyunwrapparams": keyunwrapparams })
        .to_string()
        .into_bytes()
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::from_value(value.clone()).unwrap()
}

impl World {
    fn wrap(&self, parameters: &Value, options: &Value) -> Result<Vec<u8>, String> {
        let reply = self.provider.request(Some(Operation::Wrap), &wrap_request(parameters, options))?;
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        // An array of numbers: what Go's and Rust's readers both take.
        Ok(bytes(&reply["keywrapresults"]["annotation"]))
    }

    fn unwrap(&self, parameters: &Value, annotation: &Value) -> Result<Vec<u8>, String> {
        let reply =
            self.provider.request(Some(Operation::Unwrap), &unwrap_request(parameters, annotation))?;
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        Ok(bytes(&reply["keyunwrapresults"]["optsdata"]))
    }
}

fn named() -> Value {
    json!({ "sealpod": [base64(URI.as_bytes())] })
}

#[test]
fn what_is_wrapped_is_unwrapped_in_both_spellings() {
    let world = world("sealpod");
    let options = options();
    for payload in [base64(&options), json!(options.to_vec())] {
        let wrapped = world.wrap(&named(), &payload).unwrap();
        let packet: Value = serde_json::from_slice(&wrapped).unwrap();
        assert_eq!((&packet["kid"], &packet["wrap_type"]), (&json!(URI), &json!("A256GCM")));
        assert_eq!((&packet["version"], &packet["provider"]), (&json!("0.1.0"), &json!("kbs")));
        for annotation in [base64(&wrapped), json!(wrapped)] {
            for parameters in [named(), json!({}), json!({ "sealpod": [base64(b"Enabled")] }), Value::Null] {
                assert_eq!(world.unwrap(&parameters, &annotation).unwrap(), options.as_slice());
            }
        }
    }
}

#[test]
fn only_its_own_parameters_count() {
    let world = world("attestation-agent");
    let other = json!({ "sealpod": [base64(b"kbs:///acme/image-key/other")], "privkeys": [base64(b"PEM")],
        "privkeys-passwords": [null], "attestation-agent": [base64(URI.as_bytes())] });
    world.wrap(&other, &base64(&options())).unwrap();
    // What is somebody else's names no key here.
    assert!(world.wrap(&named(), &base64(&options())).unwrap_err().contains("no key is named"));
}

#[test]
fn parameters_that_are_not_understood_are_refused() {
    let world = world("sealpod");
    let wrap = |values: &[&[u8]]| {
        let values: Vec<_> = values.iter().map(|value| base64(value)).collect();
        world.wrap(&json!({ "sealpod": values }), &base64(&options())).unwrap_err()
    };
    for (values, part) in [
        (vec![], "no key is named"),
        (vec![&b"Enabled"[..]], "no key is named"),
        (vec![&b"web"[..]], "is not kbs:///"),
        (vec![&b"keyid=kbs:///acme/image-key/web::algorithm=A256GCM"[..]], "is not kbs:///"),
        (vec![&b"kbs:///acme/image-key/web::x"[..]], "three segments"),
        (vec![&b"\xff"[..]], "is not kbs:///"),
        (vec![&b"kbs:///bank/image-key/web"[..]], "another owner's"),
        (vec![&b"kbs:///acme/secret/web"[..]], "is not kbs:///acme/image-key/TAG"),
        (vec![&b"kbs:///acme/image-key/other"[..]], "sealpod image key new"),
        (vec![URI.as_bytes(), URI.as_bytes()], "2 keys are named"),
    ] {
        let error = wrap(&values);
        assert!(error.contains(part), "{values:?}: {error}");
    }
}

#[test]
fn payloads_that_are_no_private_options_are_refused() {
    let world = world("sealpod");
    for payload in [&b""[..], b"{}", b"null", &[0; 32], br#"{"symkey":"","digest":"","cipheroptions":{}}"#] {
        assert!(world.wrap(&named(), &base64(payload)).is_err(), "{payload:?}");
    }
    assert!(world.wrap(&named(), &Value::Null).unwrap_err().contains("optsdata"));
    assert!(world.unwrap(&named(), &base64(b"")).is_err());
    assert!(world.unwrap(&named(), &Value::Null).unwrap_err().contains("annotation"));
}

#[test]
fn annotations_of_others_are_refused() {
    let world = world("sealpod");
    let wrapped = world.wrap(&named(), &base64(&options())).unwrap();
    let changed = |member: &str, value: Value| {
        let mut packet: Value = serde_json::from_slice(&wrapped).unwrap();
        packet[member] = value;
        base64(packet.to_string().as_bytes())
    };
    for (annotation, part) in [
        (base64(b"not a packet"), "not one of this provider"),
        (changed("kid", json!("kbs:///bank/image-key/web")), "another owner's"),
        (changed("kid", json!("kbs:///acme/image-key/other")), "is not in"),
        (changed("provider", json!("aliyun")), "not one of this provider"),
        (changed("iv", base64(&[0; 12])), "not wrapped for this key"),
    ] {
        let error = world.unwrap(&json!({}), &annotation).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let other = json!({ "sealpod": [base64(b"kbs:///acme/image-key/other")] });
    assert!(world.unwrap(&other, &base64(&wrapped)).unwrap_err().contains("is encrypted for"));
}

#[test]
fn requests_that_are_none_are_refused() {
    let world = world("sealpod");
    let provider = &world.provider;
    let wrap = wrap_request(&named(), &base64(&options()));
    assert!(provider.request(None, &wrap).is_ok());
    assert!(provider.request(Some(Operation::Unwrap), &wrap).unwrap_err().contains("the other of"));
    let long = vec![b' '; encrypted_image::keyprovider::MAX_MESSAGE + 1];
    for bad in [&b""[..], b"{}", b"[]", br#"{"op":"keydestroy"}"#, br#"{"op":"keywrap"}"#, &long] {
        assert!(provider.request(None, bad).is_err());
    }
}

#[test]
fn errors_do_not_hold_what_was_sent() {
    let world = world("sealpod");
    let secret = "c2VjcmV0LXN5bWtleQ==";
    for request in [
        format!(
            r#"{{"op":"keywrap","keywrapparams":{{"ec":{{"Parameters":{{"sealpod":["{secret}"]}}}},"optsdata":"{secret}"}}}}"#
        ),
        format!(r#"{{"op":"{secret}","optsdata":{secret}}}"#),
    ] {
        let error = world.provider.request(None, request.as_bytes()).unwrap_err();
        assert!(!error.contains("secret-symkey") && !error.contains("c2VjcmV0"), "{error}");
    }
}
