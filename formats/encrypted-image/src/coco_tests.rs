//! Annotations of both versions, and that each refusal is about the one thing that is wrong.

use serde_json::json;

use super::*;

const URI: &str = "kbs:///default/key/web";

fn private() -> PrivateOptions {
    PrivateOptions::from_parts(Zeroizing::new([1; 32]), [2; 16], [3; 32])
}

fn key() -> BrokerKey {
    BrokerKey::new(URI, Zeroizing::new([7; 32])).unwrap()
}

fn wrapped(json: &Value) -> WrappedKey {
    WrappedKey { scheme: Scheme::Provider(ATTESTATION_AGENT.to_owned()), blob: json.to_string().into_bytes() }
}

fn version_2() -> Value {
    serde_json::from_slice(&key().wrap(&private()).unwrap()).unwrap()
}

fn version_1(wrap_type: &str) -> Value {
    let mut value = version_2();
    for name in ["version", "provider", "provider_settings", "annotations"] {
        value.as_object_mut().unwrap().remove(name);
    }
    if wrap_type == "A256CTR" {
        let mut bytes = private().to_json();
        Keystream::new(&[7; 32], &[9; 16]).apply(&mut bytes);
        value["wrapped_data"] = json!(encoding::encode(&bytes));
        value["iv"] = json!(encoding::encode(&[9; 16]));
        value["wrap_type"] = json!(wrap_type);
    }
    value
}

/// The same ciphertext under the cipher that AES-GCM is made of: no tag, and the counter that GCM starts at.
fn relabelled() -> Value {
    let mut value = version_2();
    let member = |name: &str| encoding::decode(value[name].as_str().unwrap()).unwrap().to_vec();
    let (mut data, mut iv) = (member("wrapped_data"), member("iv"));
    data.truncate(data.len() - 16);
    iv.extend_from_slice(&[0, 0, 0, 2]);
    value["wrapped_data"] = json!(encoding::encode(&data));
    value["iv"] = json!(encoding::encode(&iv));
    value["wrap_type"] = json!("A256CTR");
    value
}

fn refused(change: impl FnOnce(&mut Value)) -> PacketError {
    let mut value = version_2();
    change(&mut value);
    Packet::from_json(value.to_string().as_bytes()).unwrap_err()
}

#[test]
fn both_versions_and_ciphers_open() {
    for json in [version_2(), version_1("A256GCM"), version_1("A256CTR")] {
        let opened = key().reading_ctr().unwrap(&wrapped(&json)).unwrap();
        assert_eq!((opened.key(), opened.nonce(), opened.digest()), (&[1; 32], &[2; 16], &[3; 32]), "{json}");
    }
}

#[test]
fn a_packet_without_a_tag_is_opened_by_those_only_who_ask_for_it() {
    for json in [relabelled(), version_1("A256CTR")] {
        let error = key().unwrap(&wrapped(&json)).unwrap_err();
        assert!(matches!(error, UnwrapError::Unsupported(_)), "{error}");
        assert_eq!(
            error.to_string(),
            "wrap_type A256CTR, which authenticates nothing (wrap the layer's key again, with A256GCM), is not supported"
        );
        // Nothing else is wrong with it.
        assert_eq!(key().reading_ctr().unwrap(&wrapped(&json)).unwrap().key(), &[1; 32]);
    }
}

#[test]
fn what_is_written_is_version_2() {
    let value = version_2();
    assert_eq!(value["version"], "0.1.0");
    assert_eq!(value["provider"], "kbs");
    assert_eq!(value["kid"], URI);
    assert_eq!(value["wrap_type"], "A256GCM");
    assert_eq!((value["provider_settings"].clone(), value["annotations"].clone()), (json!({}), json!({})));
    assert_ne!(value["iv"], version_2()["iv"], "a nonce came twice");
}

#[test]
fn schemes() {
    assert_eq!(key().scheme(), Scheme::Provider("sealpod".to_owned()));
    assert_eq!(key().for_attestation_agent().scheme(), Scheme::Provider("attestation-agent".to_owned()));
    for (scheme, opens) in [("sealpod", true), ("attestation-agent", true), ("other", false)] {
        assert_eq!(key().opens(&Scheme::Provider(scheme.to_owned())), opens);
    }
    assert!(!key().opens(&Scheme::Jwe));
}

#[test]
fn another_key_is_not_a_recipient() {
    let other = BrokerKey::new(URI, Zeroizing::new([8; 32])).unwrap();
    assert!(matches!(other.unwrap(&wrapped(&version_2())), Err(UnwrapError::NotRecipient)));
    let other = other.reading_ctr();
    assert!(matches!(other.unwrap(&wrapped(&version_1("A256CTR"))), Err(UnwrapError::NotRecipient)));
}

/// What the cipher lets through, and that what it doesn't is refused in one way: why a key has to be told to read it.
#[test]
fn changed_bytes_without_a_tag_open_as_others_or_are_refused_alike() {
    let json = version_1("A256CTR");
    let bytes = encoding::decode(json["wrapped_data"].as_str().unwrap()).unwrap();
    let mut forged = 0;
    for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << bit;
        let mut json = json.clone();
        json["wrapped_data"] = json!(encoding::encode(&changed));
        match key().reading_ctr().unwrap(&wrapped(&json)) {
            // Another base64 digit than before, and so another key, nonce or digest.
            Ok(opened) => {
                assert!(bit < 7, "{at}: a byte that isn't ASCII");
                let parts = (opened.key(), opened.nonce(), opened.digest());
                assert_ne!(parts, (&[1; 32], &[2; 16], &[3; 32]), "{at} {bit}");
                forged += 1;
            }
            Err(error) => assert!(matches!(error, UnwrapError::NotRecipient), "{at} {bit}: {error}"),
        }
    }
    assert!(forged > 0, "a change goes unseen");
}

#[test]
fn another_resource_is_not_tried() {
    let other = BrokerKey::new("kbs:///default/key/other", Zeroizing::new([7; 32])).unwrap();
    assert!(matches!(other.unwrap(&wrapped(&version_2())), Err(UnwrapError::NotRecipient)));
}

#[test]
fn the_host_in_a_kid_chooses_nothing() {
    let mut value = version_2();
    value["kid"] = json!("kbs://evil.example:8080/default/key/web");
    assert_eq!(Packet::from_json(value.to_string().as_bytes()).unwrap().resource(), URI);
    assert!(key().unwrap(&wrapped(&value)).is_ok());
}

#[test]
fn changed_data_tag_or_iv_is_refused() {
    for member in ["wrapped_data", "iv"] {
        let mut value = version_2();
        let mut bytes = encoding::decode(value[member].as_str().unwrap()).unwrap();
        for at in [0, bytes.len() - 1] {
            bytes[at] ^= 1;
            value[member] = json!(encoding::encode(&bytes));
            assert!(
                matches!(key().unwrap(&wrapped(&value)), Err(UnwrapError::NotRecipient)),
                "{member} {at}"
            );
        }
    }
    let mut value = version_2();
    value["wrapped_data"] = json!(encoding::encode(&[0; 15]));
    assert!(matches!(key().unwrap(&wrapped(&value)), Err(UnwrapError::Malformed(_))));
}

#[test]
fn an_empty_payload_is_refused() {
    // What guest-components wraps when a recipient is added.
    let mut tag = Zeroizing::new(Vec::new());
    let made = Aes256Gcm::new(&[7; 32].into())
        .encrypt_inout_detached(&Nonce::<Aes256Gcm>::from([9; 12]), &[], tag.as_mut_slice().into())
        .unwrap();
    let mut value = version_2();
    value["wrapped_data"] = json!(encoding::encode(&made));
    value["iv"] = json!(encoding::encode(&[9; 12]));
    assert!(matches!(key().unwrap(&wrapped(&value)), Err(UnwrapError::Options(_))));
}

#[test]
fn refusals_of_the_packet() {
    assert_eq!(refused(|value| value["version"] = json!("0.2.0")), PacketError::Version("0.2.0".to_owned()));
    assert_eq!(
        refused(|value| value["provider"] = json!("aliyun")),
        PacketError::Provider("aliyun".to_owned())
    );
    assert_eq!(
        refused(|value| value["wrap_type"] = json!("A128GCM")),
        PacketError::WrapType("A128GCM".to_owned())
    );
    for name in ["iv", "wrap_type"] {
        let missing = refused(|value| drop(value.as_object_mut().unwrap().remove(name)));
        assert_eq!(missing, PacketError::Member(name));
    }
    for name in ["iv", "wrapped_data"] {
        for text in ["", "AAA", "AAAA\n"] {
            assert_eq!(refused(|value| value[name] = json!(text)), PacketError::Member(name));
        }
    }
    for len in [1, 11, 13, 16] {
        let iv = encoding::encode(&vec![0; len]);
        assert_eq!(refused(|value| value["iv"] = json!(iv)), PacketError::IvLength(len));
    }
    assert_eq!(refused(|value| value["wrap_type"] = json!("A256CTR")), PacketError::IvLength(12));
    assert!(matches!(refused(|value| value["x"] = json!(1)), PacketError::Json(..)));
    let long = vec![b' '; MAX_PACKET + 1];
    assert_eq!(Packet::from_json(&long), Err(PacketError::TooLong(long.len())));
}

#[test]
fn only_uris_of_resources_are_kids() {
    for kid in [
        "",
        "default/key/web",
        "kbs:///default/key",
        "kbs:///default/key/web/more",
        "kbs:///default//web",
        "kbs:///../key/web",
        "kbs:///default/key/we%62",
        "kbs:///default/key/web?a=b",
        "https:///default/key/web",
        "kbs:///default/key/.web",
        &format!("kbs:///default/key/{}", "w".repeat(MAX_URI)),
    ] {
        assert_eq!(refused(|value| value["kid"] = json!(kid)), PacketError::Kid(shown(kid)));
        assert!(BrokerKey::new(kid, Zeroizing::new([7; 32])).is_none(), "{kid}");
    }
}

#[test]
fn nothing_prints_the_key() {
    assert_eq!(format!("{:?}", key()), "BrokerKey(kbs:///default/key/web)");
}
