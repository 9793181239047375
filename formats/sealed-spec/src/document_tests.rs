//! One text per document, one key per document: everything else is refused.

use aes_gcm::aead::AeadInOut;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;
use crate::secret::Secret;
use crate::spec::ImageRef;

fn spec() -> SealedSpec {
    let pod = serde_json::from_value(serde_json::json!({
        "containers": [{ "name": "web", "image": "registry.example/web:1", "env": [{ "name": "TOKEN", "value": "hunter2" }] }],
    }))
    .unwrap();
    let mut spec = SealedSpec::new(pod);
    spec.images.insert(
        "web".into(),
        ImageRef::pinned("registry.example/web:1", format!("sha256:{}", "ab".repeat(32))),
    );
    spec
}

fn fields() -> HeaderFields {
    HeaderFields {
        key_id: "kbs:///acme/sealed-spec/shop.web.r3.00c0ffee".parse().unwrap(),
        namespace: "shop".into(),
        workload: Workload { kind: WorkloadKind::Deployment, name: "web".into() },
    }
}

const HEADER: &str = r#"{"alg":"dir","enc":"A256GCM","typ":"sealpod-spec+json","kid":"kbs:///acme/sealed-spec/shop.web.r3.00c0ffee","namespace":"shop","workload":{"kind":"Deployment","name":"web"},"lineage":"shop.web","revision":3}"#;

fn key() -> SpecKey {
    SpecKey::from_bytes(&[7; 32]).unwrap()
}

fn plaintext() -> Vec<u8> {
    let mut json = serde_json::to_vec(&spec()).unwrap();
    json.resize(json.len().next_multiple_of(PADDING_STEP), b' ');
    json
}

/// A document that is right in every way except for what its caller chose.
fn forge(header: &str, plaintext: &[u8]) -> String {
    let protected = URL_SAFE_NO_PAD.encode(header);
    let mut body = plaintext.to_vec();
    let nonce = [9u8; NONCE_LEN];
    let tag = cipher(&key())
        .encrypt_inout_detached(
            &Nonce::<Aes256Gcm>::from(nonce),
            protected.as_bytes(),
            body.as_mut_slice().into(),
        )
        .unwrap();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{protected}..{}.{}.{}", part(&nonce), part(&body), part(&tag))
}

fn refusal(text: &str) -> String {
    open(text, &key()).unwrap_err().to_string()
}

#[test]
fn seals_and_opens() {
    let document = seal(&spec(), &fields(), &key()).unwrap();
    let again = SealedDocument::parse(document.as_str()).unwrap();
    assert_eq!(again.digest(), document.digest());
    assert_eq!(again.header(), document.header());
    assert_eq!((again.header().revision(), again.header().lineage().as_str()), (3, "shop.web"));
    assert!(again.open(&key()).unwrap() == spec());
    assert!(!document.as_str().contains("hunter2"));
    assert!(!format!("{:?}", spec()).contains("hunter2"));
}

#[test]
fn the_layout_is_pinned() {
    // The bytes of version 1: a change here is a new version.
    let document = seal_with_nonce(&spec(), &fields(), &key(), [9; NONCE_LEN]).unwrap();
    assert_eq!(document.as_str(), forge(HEADER, &plaintext()));
}

#[test]
fn nonces_differ_and_length_says_little() {
    let one = seal(&spec(), &fields(), &key()).unwrap();
    let two = seal(&spec(), &fields(), &key()).unwrap();
    assert_ne!(one.as_str(), two.as_str());
    let mut longer = spec();
    longer.pod.containers[0].env[0].value = Secret::new("a rather longer secret");
    let longer = seal(&longer, &fields(), &key()).unwrap();
    assert_eq!(longer.as_str().len(), one.as_str().len());
}

#[test]
fn another_key_is_refused() {
    let document = seal(&spec(), &fields(), &key()).unwrap();
    let other = SpecKey::from_bytes(&[8; 32]).unwrap();
    assert!(matches!(document.open(&other), Err(DocumentError::WrongKey)));
}

#[test]
fn other_spellings_are_refused() {
    let good = forge(HEADER, &plaintext());
    assert!(open(&good, &key()).is_ok());
    let end = good.len();
    for (bad, offset) in [
        (format!("{good}\n"), end),
        (format!(" {good}"), 0),
        (format!("{good}="), end),
        (good.replacen('.', ".\n", 1), good.find('.').unwrap() + 1),
        (good.replacen("..", ".é.", 1), good.find('.').unwrap() + 1),
    ] {
        assert!(
            matches!(SealedDocument::parse(&bad), Err(DocumentError::Character(at)) if at == offset),
            "{offset}"
        );
    }
    // 16 bytes in 22 characters leave four bits that must be zero.
    let last = good.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let twin = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    let bad = format!("{}{twin}", &good[..end - 1]);
    assert!(matches!(SealedDocument::parse(&bad), Err(DocumentError::Base64("tag"))));
}

#[test]
fn wrong_shapes_are_refused() {
    let good = forge(HEADER, &plaintext());
    for bad in [
        String::new(),
        "....".into(),
        good.replacen("..", ".", 1),
        good.replacen("..", ".AAAA.", 1),
        format!("{good}."),
    ] {
        assert!(SealedDocument::parse(&bad).is_err(), "{}", bad.len());
    }
    assert!(matches!(SealedDocument::parse(&good.replacen("..", ".AAAA.", 1)), Err(DocumentError::Shape)));
    assert!(matches!(SealedDocument::parse(&format!("{good}.")), Err(DocumentError::Shape)));
}

#[test]
fn wrong_lengths_are_refused() {
    let good = forge(HEADER, &plaintext());
    let parts: Vec<&str> = good.split('.').collect();
    let with = |index: usize, bytes: &[u8]| {
        let text = URL_SAFE_NO_PAD.encode(bytes);
        let mut parts = parts.clone();
        parts[index] = &text;
        parts.join(".")
    };
    assert!(matches!(SealedDocument::parse(&with(2, &[0; 11])), Err(DocumentError::Length("nonce"))));
    assert!(matches!(SealedDocument::parse(&with(2, &[0; 16])), Err(DocumentError::Length("nonce"))));
    assert!(matches!(SealedDocument::parse(&with(4, &[0; 12])), Err(DocumentError::Length("tag"))));
    assert!(matches!(SealedDocument::parse(&with(3, &[])), Err(DocumentError::Length("ciphertext"))));
    assert!(matches!(SealedDocument::parse(&with(3, &[0; 1023])), Err(DocumentError::Length("ciphertext"))));
    assert!(matches!(SealedDocument::parse(&"A".repeat(MAX_DOCUMENT + 1)), Err(DocumentError::TooLong(_))));
}

#[test]
fn foreign_headers_are_refused() {
    for (from, to) in [
        (r#""dir""#, r#""A256KW""#),
        (r#""dir""#, r#""none""#),
        ("A256GCM", "A128GCM"),
        ("A256GCM", "A256CBC-HS512"),
        ("sealpod-spec+json", "JWT"),
        (r#""typ""#, r#""zip":"DEF","typ""#),
        (r#""typ""#, r#""crit":["x"],"typ""#),
        (r#""typ""#, r#""jwk":{},"typ""#),
        (r#""enc":"A256GCM","#, ""),
        (r#""revision":3"#, r#""revision":"3""#),
        (r#""revision":3"#, r#""revision":-3"#),
        (r#""kind":"Deployment""#, r#""kind":"ReplicationController""#),
        ("kbs:///acme/sealed-spec", "kbs://host/acme/sealed-spec"),
        (r#""lineage":"shop.web""#, r#""lineage":"Shop""#),
        (r#""alg":"dir","#, r#""alg":"dir","alg":"dir","#),
    ] {
        let text = forge(&HEADER.replacen(from, to, 1), &plaintext());
        assert!(matches!(SealedDocument::parse(&text), Err(DocumentError::Header(_))), "{from} -> {to}");
    }
    for (from, to) in [
        (r#","typ""#, r#", "typ""#),
        (r#""shop""#, r#""\u0073hop""#),
        (r#""alg":"dir","enc":"A256GCM""#, r#""enc":"A256GCM","alg":"dir""#),
    ] {
        let text = forge(&HEADER.replacen(from, to, 1), &plaintext());
        assert!(matches!(SealedDocument::parse(&text), Err(DocumentError::HeaderSpelling)), "{from} -> {to}");
    }
    for (from, to) in
        [(r#""revision":3"#, r#""revision":4"#), (r#""lineage":"shop.web""#, r#""lineage":"shop.db""#)]
    {
        let text = forge(&HEADER.replacen(from, to, 1), &plaintext());
        assert!(matches!(SealedDocument::parse(&text), Err(DocumentError::HeaderKeyId)), "{from} -> {to}");
    }
    for (from, to) in
        [(r#""namespace":"shop""#, r#""namespace":"a/b""#), (r#""name":"web""#, r#""name":"../x""#)]
    {
        let text = forge(&HEADER.replacen(from, to, 1), &plaintext());
        assert!(matches!(SealedDocument::parse(&text), Err(DocumentError::HeaderName(_))), "{from} -> {to}");
    }
    let long = HEADER.replacen("\"web\"", &format!("\"{}\"", "w".repeat(MAX_HEADER)), 1);
    assert!(matches!(
        SealedDocument::parse(&forge(&long, &plaintext())),
        Err(DocumentError::Length("header"))
    ));
}

#[test]
fn the_whole_header_is_authenticated() {
    let good = forge(HEADER, &plaintext());
    for (from, to) in [
        (r#""namespace":"shop""#, r#""namespace":"bank""#),
        (r#""name":"web""#, r#""name":"wed""#),
        ("Deployment", "DaemonSet"),
        ("00c0ffee", "00c0ffef"),
        ("///acme/", "///evil/"),
    ] {
        let protected = URL_SAFE_NO_PAD.encode(HEADER.replacen(from, to, 1));
        let swapped = format!("{protected}{}", &good[good.find('.').unwrap()..]);
        assert!(SealedDocument::parse(&swapped).is_ok(), "{from}");
        assert!(matches!(open(&swapped, &key()), Err(DocumentError::WrongKey)), "{from}");
    }
}

#[test]
fn bad_plaintexts_are_refused() {
    let good = plaintext();
    assert!(matches!(open(&forge(HEADER, &[b' '; PADDING_STEP]), &key()), Err(DocumentError::Padding)));
    let mut more = good.clone();
    more.resize(good.len() + PADDING_STEP, b' ');
    assert!(matches!(open(&forge(HEADER, &more), &key()), Err(DocumentError::Padding)));
    let mut zeros = good.clone();
    *zeros.last_mut().unwrap() = 0;
    assert!(matches!(open(&forge(HEADER, &zeros), &key()), Err(DocumentError::Spec(_))));

    let edit = |from: &str, to: &str| {
        let mut json = String::from_utf8(good.clone()).unwrap().trim_end().replacen(from, to, 1).into_bytes();
        json.resize(json.len().next_multiple_of(PADDING_STEP), b' ');
        forge(HEADER, &json)
    };
    assert!(refusal(&edit("\"version\":1", "\"version\":2")).contains("version 2 is not supported"));
    assert!(
        refusal(&edit("\"version\":1", "\"version\":1,\"more\":true"))
            .contains("not a version 1 specification")
    );
    assert!(refusal(&edit("{\"version\"", "{} {\"version\"")).contains("not a version 1 specification"));
    // An error never repeats what it read.
    let leak = refusal(&edit("\"value\":\"hunter2\"", "\"value\":[\"hunter2\"]"));
    assert!(leak.contains("pod.containers[0].env[0].value") && !leak.contains("hunter2"), "{leak}");
}

#[test]
fn an_invalid_specification_is_not_sealed() {
    let mut bad = spec();
    bad.images.clear();
    assert!(matches!(seal(&bad, &fields(), &key()), Err(DocumentError::Spec(SpecError::ImageMissing(_)))));
    let mut huge = spec();
    huge.pod.containers[0].env[0].value = Secret::new("x".repeat(800 * 1024));
    assert!(matches!(seal(&huge, &fields(), &key()), Err(DocumentError::TooLong(_))));
    let mut nameless = fields();
    nameless.namespace = "A".into();
    assert!(matches!(seal(&spec(), &nameless, &key()), Err(DocumentError::HeaderName("namespace"))));
}

#[test]
fn pod_names_follow_the_workload() {
    let workload = |kind| Workload { kind, name: "web".into() };
    for (kind, name, good) in [
        (WorkloadKind::Pod, "web", true),
        (WorkloadKind::Pod, "web-1", false),
        (WorkloadKind::StatefulSet, "web-0", true),
        (WorkloadKind::StatefulSet, "web-12", true),
        (WorkloadKind::StatefulSet, "web-01", false),
        (WorkloadKind::StatefulSet, "web", false),
        (WorkloadKind::StatefulSet, "web-x", false),
        (WorkloadKind::Deployment, "web-5f6d-abcde", true),
        (WorkloadKind::Deployment, "web", false),
        (WorkloadKind::Deployment, "webs-5f6d", false),
        (WorkloadKind::Job, "web-x9", true),
        (WorkloadKind::CronJob, "web-/..", false),
    ] {
        assert_eq!(workload(kind).admits_pod_name(name), good, "{kind} {name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_text_survives_sealing(values in proptest::collection::vec("[^\0]{0,400}", 0..6), revision in 1u64..) {
        let mut spec = spec();
        spec.pod.containers[0].args = values.clone();
        let mut fields = fields();
        fields.key_id = KeyId::generate(fields.key_id.repository(), fields.key_id.lineage(), revision).unwrap();
        let key = SpecKey::generate().unwrap();
        let document = seal(&spec, &fields, &key).unwrap();
        let again = SealedDocument::parse(document.as_str()).unwrap();
        prop_assert_eq!(again.header().revision(), revision);
        prop_assert!(again.open(&key).unwrap() == spec);
    }

    #[test]
    fn any_changed_byte_is_noticed(at in any::<proptest::sample::Index>(), change in 1u8..) {
        let document = seal(&spec(), &fields(), &key()).unwrap();
        let mut bytes = document.as_str().as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            prop_assert!(open(text, &key()).is_err());
            prop_assert_ne!(SpecDigest::of(text.as_bytes()), document.digest());
        }
    }

    #[test]
    fn what_parses_is_canonical(text in "[A-Za-z0-9_.-]{0,300}") {
        if let Ok(document) = SealedDocument::parse(&text) {
            prop_assert_eq!(document.as_str(), text);
        }
    }
}
