//! The injected secret: what is in it, and that it is gone afterwards whatever it was.

use std::fs;

use protocols::refusal::Code;
use protocols::sev::verify_connection_mac;
use serde_json::json;

use super::*;

const KEY: [u8; 32] = [0x42; 32];
const BINDING: Binding<'static> = Binding { report_data: &[7; 64], sealed_spec: &[2; 32] };

fn hex(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

fn connection() -> Value {
    json!({
        "version": 1,
        "init_data": hex("01"),
        "sealed_spec": hex("02"),
        "key": { "connection": { "id": "ab".repeat(16), "key": STANDARD.encode(KEY) } },
    })
}

fn bundle() -> Value {
    json!({
        "version": 1,
        "init_data": hex("01"),
        "sealed_spec": hex("02"),
        "key": { "bundle": { "key": STANDARD.encode(KEY) } },
    })
}

/// A directory of entries, and what is left of them.
fn take(entries: &[(&str, &[u8])]) -> (Result<Option<SevSecret>, TeeError>, Vec<String>) {
    let place = tempfile::tempdir().unwrap();
    for (name, content) in entries {
        fs::write(place.path().join(name), content).unwrap();
    }
    let taken = SevSecret::take(place.path());
    let mut left: Vec<String> = fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    (taken, left)
}

fn taken(secret: &Value) -> SevSecret {
    let (taken, left) = take(&[(SECRET_GUID, secret.to_string().as_bytes())]);
    assert!(left.is_empty());
    taken.unwrap().unwrap()
}

fn refused(content: &[u8]) -> LaunchSecretError {
    let (taken, left) = take(&[(SECRET_GUID, content)]);
    assert!(left.is_empty(), "what is refused is wiped too");
    match taken {
        Err(TeeError::LaunchSecret(error)) => error,
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn a_connection_proves_itself_by_its_key() {
    let secret = taken(&connection());
    assert_eq!((secret.kind(), secret.init_data_digest().unwrap()), (TeeKind::Sev, [1; 32]));
    assert_eq!((secret.sealed_spec(), secret.spec_key()), (Some(&[2; 32]), None));
    let evidence: ConnectionEvidence = serde_json::from_value(secret.evidence(&BINDING).unwrap()).unwrap();
    assert_eq!(evidence.connection, "ab".repeat(16));
    assert!(verify_connection_mac(&KEY, &[7; 64], &[2; 32], &evidence.mac));
    assert!(!verify_connection_mac(&KEY, &[8; 64], &[2; 32], &evidence.mac));
}

#[test]
fn a_connections_key_speaks_for_its_sealed_spec_only() {
    let other = Binding { sealed_spec: &[3; 32], ..BINDING };
    let error = taken(&connection()).evidence(&other).unwrap_err();
    assert!(matches!(error, TeeError::LaunchSecret(LaunchSecretError::OtherSpec)));
}

#[test]
fn a_bundle_is_the_key_and_no_evidence() {
    let secret = taken(&bundle());
    assert_eq!(secret.spec_key(), Some(SpecKey::from_bytes(&KEY).unwrap()));
    let error = secret.evidence(&BINDING).unwrap_err();
    assert!(matches!(error, TeeError::LaunchSecret(LaunchSecretError::Bundle)));
    assert_eq!(error.refusal().code, Code::LaunchSecret);
}

#[test]
fn other_entries_are_neither_read_nor_wiped() {
    let text = connection().to_string();
    let other = "1ee27366-0c87-43a6-af48-28543eaf7cb0";
    let (secret, left) = take(&[(SECRET_GUID, text.as_bytes()), (other, b"x")]);
    assert!(secret.unwrap().is_some());
    assert_eq!(left, [other]);
    let (secret, left) = take(&[(other, text.as_bytes())]);
    assert!(secret.unwrap().is_none());
    assert_eq!(left, [other]);
    assert!(SevSecret::take(Path::new("/does/not/exist")).unwrap().is_none());
}

#[test]
fn two_candidates_are_both_wiped_and_none_is_used() {
    let text = connection().to_string();
    let (secret, left) =
        take(&[(SECRET_GUID, text.as_bytes()), (&SECRET_GUID.to_uppercase(), text.as_bytes())]);
    assert!(matches!(secret, Err(TeeError::LaunchSecret(LaunchSecretError::Several(2)))));
    assert!(left.is_empty());
}

#[test]
fn an_entry_that_cannot_be_read_or_wiped_is_not_used() {
    let place = tempfile::tempdir().unwrap();
    // Neither is possible for a directory.
    fs::create_dir(place.path().join(SECRET_GUID)).unwrap();
    let secret = SevSecret::take(place.path());
    assert!(matches!(secret, Err(TeeError::LaunchSecret(LaunchSecretError::Wipe(_)))));
}

#[test]
fn more_entries_than_there_can_be() {
    let names: Vec<String> = (0..65).map(|number| format!("{number}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert!(matches!(take(&entries).0, Err(TeeError::LaunchSecret(LaunchSecretError::Entries))));
}

#[test]
fn what_is_no_launch_secret() {
    for bad in ["", "{}", "[]", "\0", "{\"version\":1}", "nonsense"] {
        assert!(matches!(refused(bad.as_bytes()), LaunchSecretError::Json { .. }), "{bad}");
    }
    let good = connection().to_string();
    assert!(
        matches!(refused(format!("{good}x").as_bytes()), LaunchSecretError::Json { .. }),
        "more after it"
    );
    let twice = good.replacen('{', "{\"version\":1,", 1);
    assert!(matches!(refused(twice.as_bytes()), LaunchSecretError::Json { .. }), "a member twice");
    let unknown = good.replacen('{', "{\"policy\":1,", 1);
    assert!(matches!(refused(unknown.as_bytes()), LaunchSecretError::Json { .. }), "a member more");

    let mut long = good.into_bytes();
    long.resize(MAX_SECRET, b' ');
    assert!(take(&[(SECRET_GUID, &long)]).0.unwrap().is_some());
    long.push(b' ');
    assert!(matches!(refused(&long), LaunchSecretError::Long));
}

#[test]
fn members_of_another_form() {
    let with = |pointer: &str, value: Value| {
        let mut secret = connection();
        *secret.pointer_mut(pointer).unwrap() = value;
        refused(secret.to_string().as_bytes())
    };
    assert!(matches!(with("/version", json!(2)), LaunchSecretError::Version(2)));
    for (pointer, field, values) in [
        ("/init_data", "initdata digest", ["", "sha256:", "sha256:AB"]),
        ("/sealed_spec", "sealed spec digest", ["x", "sha384:00", "0101"]),
        ("/key/connection/id", "connection id", ["", "AB", "../../etc/passwd"]),
        ("/key/connection/key", "connection key", ["", "QUJD", "!"]),
    ] {
        for value in values {
            let error = with(pointer, json!(value));
            assert!(matches!(error, LaunchSecretError::Field(name) if name == field), "{pointer} {value}");
        }
    }
    let upper = with("/key/connection/id", json!("AB".repeat(16)));
    assert!(matches!(upper, LaunchSecretError::Field("connection id")));
    for key in [STANDARD.encode([1; 31]), STANDARD.encode([1; 33])] {
        assert!(matches!(with("/key/connection/key", json!(key)), LaunchSecretError::Field(_)));
        let mut short = bundle();
        short["key"]["bundle"]["key"] = json!(key);
        assert!(matches!(refused(short.to_string().as_bytes()), LaunchSecretError::Field("bundle key")));
    }
}

#[test]
fn nothing_of_a_secret_is_in_what_is_said_about_it() {
    let key = STANDARD.encode(KEY);
    for text in [
        connection().to_string().replace("\"version\":1", &format!("\"version\":{key:?}")),
        connection().to_string().replace("\"id\"", &format!("{key:?}")),
        connection().to_string().replace(&key, &format!("{key}=")),
    ] {
        let line = TeeError::from(refused(text.as_bytes())).refusal().to_string();
        assert!(!line.contains(&key[..8]), "{line}");
    }
}
